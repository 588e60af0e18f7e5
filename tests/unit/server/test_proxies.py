"""An address is believed from a trusted proxy alone, and no further than that."""

from typing import Any

import pytest

from tidegate.core.errors import ConfigError
from tidegate.server.config import load
from tidegate.server.proxies import Proxies

TRUSTED = Proxies(("10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"))


def seen(peer: str, *forwarded: str, proto: str = "") -> tuple[str, str]:
    headers = [(b"x-forwarded-for", one.encode("latin-1")) for one in forwarded]
    if proto:
        headers.append((b"x-forwarded-proto", proto.encode()))
    scope: dict[str, Any] = {"client": (peer, 1), "headers": headers, "scheme": "http"}
    TRUSTED.look_through(scope)
    return scope["client"][0], scope["scheme"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5", "198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["203.0.113.5, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8::1", ["[2001:db9::5]"], "2001:db9::5"),
        ("127.0.0.1", ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, junk"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, junk, 10.0.0.3"], "10.0.0.3"),
        ("127.0.0.1", ["\xff\xfe, , ,"], "127.0.0.1"),
        ("127.0.0.1", [",".join(["10.0.0.1"] * 5000)], "10.0.0.1"),
        ("no address", ["198.51.100.1"], "no address"),
    ],
)
def test_the_newest_address_that_is_no_proxy_counts(
    peer: str, forwarded: list[str], address: str
) -> None:
    assert seen(peer, *forwarded)[0] == address


def test_the_scheme_comes_from_the_proxy_too() -> None:
    assert seen("127.0.0.1", "198.51.100.1", proto="https")[1] == "https"
    assert seen("127.0.0.1", "198.51.100.1", proto="javascript")[1] == "http"
    assert seen("192.0.2.1", "198.51.100.1", proto="https")[1] == "http"


def test_without_trusted_proxies_nobody_is() -> None:
    assert not Proxies(())
    assert not Proxies(()).trust("127.0.0.1")


def test_a_setting_that_is_no_network_is_said() -> None:
    found = load(environ={"TIDEGATE_HTTP_TRUSTED_PROXIES": "127.0.0.1,10.0.0.0/8"})
    assert found.trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8")
    with pytest.raises(ConfigError) as caught:
        load(environ={"TIDEGATE_HTTP_TRUSTED_PROXIES": "nginx"})
    assert caught.value.code == "config.invalid"
