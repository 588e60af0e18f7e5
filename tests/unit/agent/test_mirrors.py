"""Which mirrors are asked, in what order, and for how long a bad one is left alone; and a whole device over several of them."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from tests.crash import releases
from tests.crash.lab import Answer, Order, Plane, make_device
from tests.crash.releases import BLOCK, make_release

from tidegate.agent.jobs import Struck
from tidegate.agent.net.mirrors import PAUSE_FIRST_S, PAUSE_MAX_S, Mirrors
from tidegate.agent.ports import Response
from tidegate.agent.settings import Settings
from tidegate.core.errors import TransferError
from tidegate.core.hardware import Hardware
from tidegate.core.release import ReleaseTarget

OWN = "http://cache.site:8080/ota"
FIRST = "https://one.example/gw1"
SECOND = "https://two.example"


def release(*mirrors: str) -> ReleaseTarget:
    return msgspec.structs.replace(make_release(2).target.release, mirrors=mirrors)


def settings(**more: Any) -> Settings:
    return Settings(device_id="d", product="gw1", hardware=Hardware("gw1", 3), **more)


def struck(mirror: str, reason: str = "download.refused", wish_s: int = 0) -> Struck:
    return Struck(mirror=mirror, reason=reason, detail="x", retry_after_s=wish_s)


def test_the_sites_own_come_first_then_the_signed_ones_in_their_order() -> None:
    mirrors = Mirrors()
    found = mirrors.order(settings(mirrors=(OWN, SECOND)), release(FIRST, SECOND), 0)
    assert found == (OWN, SECOND, FIRST)
    strict = settings(mirrors=(OWN,), release_mirrors=False)
    assert mirrors.order(strict, release(FIRST, SECOND), 0) == (OWN,)


def test_a_mirror_that_failed_is_left_alone_longer_each_time_and_then_asked_again() -> None:
    mirrors, mono = Mirrors(), 0.0
    own, named = settings(), release(FIRST, SECOND)
    pauses = []
    for _ in range(9):
        assert mirrors.order(own, named, mono) == (FIRST, SECOND)
        mirrors.struck(struck(FIRST), mono)
        assert mirrors.order(own, named, mono) == (SECOND,)
        began = mono
        while FIRST not in mirrors.order(own, named, mono):
            mono += 10
        pauses.append(mono - began)
    assert pauses[:3] == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S]
    assert pauses[-1] == PAUSE_MAX_S
    mirrors.order(own, named, mono)
    mirrors.served()
    mirrors.struck(struck(FIRST), mono)
    assert mirrors.order(settings(), release(FIRST), mono + PAUSE_FIRST_S) == (FIRST,)


@pytest.mark.parametrize(
    ("given", "pause_s"),
    [
        (struck(FIRST, "download.hash"), PAUSE_MAX_S),
        (struck(FIRST, wish_s=900), 900),
        (struck(FIRST, wish_s=5), PAUSE_FIRST_S),
    ],
)
def test_a_liar_waits_longest_and_a_busy_one_as_long_as_it_asks(
    given: Struck, pause_s: int
) -> None:
    mirrors = Mirrors()
    mirrors.order(settings(), release(FIRST), 0)
    mirrors.struck(given, 0)
    # One that failed is not among those that served in the end.
    mirrors.served()
    assert mirrors.order(settings(), release(FIRST), pause_s - 1) == ()
    assert mirrors.order(settings(), release(FIRST), pause_s) == (FIRST,)
    assert list(mirrors.told(pause_s - 1)) == [FIRST]
    assert mirrors.told(pause_s) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        "ftp://x/y",
        "http://",
        "http://user@host/x",
        "http://host/x?y=1",
        "http://host/x#y",
        "http://host/a b",
        "http://host\nx: y/",
        "//host/x",
    ],
)
def test_an_address_that_is_none_is_not_signed(wrong: str) -> None:
    plain = msgspec.to_builtins(release())
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**plain, "mirrors": [wrong]}, type=ReleaseTarget)
    good = msgspec.convert({**plain, "mirrors": [OWN, FIRST]}, type=ReleaseTarget)
    assert good.mirrors == (OWN, FIRST)


# --- a whole device ---------------------------------------------------------------------------------------------------


class Mirror:
    """A server of payloads that does as it is told; `asked` are the first bytes that were wanted."""

    def __init__(self, plane: Plane, does: Callable[[Response], Response]) -> None:
        self.plane, self.does = plane, does
        self.asked: list[int] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        headers = headers or {}
        assert (method, body) == ("GET", None)
        assert set(headers) <= {"accept-encoding", "range"}
        wanted = headers.get("range", "bytes=0-")
        self.asked.append(int(wanted.removeprefix("bytes=").partition("-")[0]))
        return self.does(self.plane._blob(path.rpartition("/")[2], headers))


class Part(Answer):
    """An answer that ends after so many bytes, or whose bytes are wrong from there on."""

    def __init__(self, whole: Response, good: int, *, lies: bool) -> None:
        body = b"".join(iter(lambda: whole.read(1 << 20), b""))
        if lies:
            body = body[:good] + bytes(len(body) - good)
        told = dict(whole.headers)
        super().__init__(whole.status, body if lies else body[:good], told)
        self.headers["etag"] = '"the mirror\'s own"'


def away(_whole: Response) -> Response:
    raise TransferError("download.timeout", "nobody there")


def test_a_release_is_fetched_over_its_signed_mirrors_in_order_and_on_by_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        releases, "make_image", lambda counter: Random(counter).randbytes(40 * BLOCK)
    )
    names = ["http://liar.example", "http://short.example/a", "http://away.example", "http://good.example"]  # fmt: skip
    device = make_device(1, make_release(2, mirrors=tuple(names)))
    plane = device.plane
    quarter = plane.releases[1].target.length // 4
    mirrors = {
        names[0]: Mirror(plane, lambda whole: Part(whole, quarter, lies=True)),
        names[1]: Mirror(plane, lambda whole: Part(whole, quarter, lies=False)),
        names[2]: Mirror(plane, away),
        names[3]: Mirror(plane, lambda whole: whole),
    }
    origins = {"/".join(name.split("/")[:3]): one for name, one in mirrors.items()}
    device.connect = origins.__getitem__
    plane.order = Order("install", plane.releases[1], "u-1")
    for _ in device.run(7200):
        if plane.outcomes():
            break
    assert plane.outcomes() == [("confirmed", None)]
    asked = [one.asked for one in mirrors.values()]
    # One after the other, each from where the one before gave good bytes; the server gave none.
    assert [len(one) for one in asked] == [1, 1, 1, 1]
    firsts = [one[0] for one in asked]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0 < firsts[1] < firsts[2] == firsts[3]
    assert not any(path.startswith("/d/v1/blobs/") for path in plane.requests)
    # Wrong bytes are told, by the name of whoever gave them.
    noticed = [one for one in plane.events.values() if one.kind == "security"]
    assert [(one.reason, names[0] in one.detail) for one in noticed] == [("download.hash", True)]
