"""What looks like a secret does not go home with a log; what does not stays readable."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.scrub import HIDDEN, scrub

SECRET = "hunter2-Zx9"


@pytest.mark.parametrize(
    "line",
    [
        f"password={SECRET}",
        f"db_password: '{SECRET} with blanks'",
        f'"api_key": "{SECRET}"',
        f"WIFI_PSK={SECRET}",
        f"clientSecret={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"curl --token {SECRET} http://x",
        f"https://user:{SECRET}@example.org/x",
        f"GET /b/1?sig={SECRET}&x=1",
        f"session_id={SECRET};",
        f"Cookie: {SECRET}",
        f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_a_secret_is_hidden(line: str) -> None:
    found = scrub(f"before\n{line}\n")
    assert SECRET not in found
    assert HIDDEN in found
    assert found.startswith("before\n")


@pytest.mark.parametrize(
    "line",
    [
        "pinctrl-bcm2835 fe200000.gpio: probe of it failed",
        "systemd[1]: app.service: Main process exited, code=exited, status=1/FAILURE",
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "tokenizer: 3 words passed: all",
        "eth0: link up, 100Mbps",
    ],
)
def test_what_a_person_needs_stays(line: str) -> None:
    assert scrub(line) == line


@given(st.text(max_size=300))
def test_nothing_but_text_is_left(text: str) -> None:
    found = scrub(text)
    assert all(one in "\n\t" or ord(one) >= 32 for one in found)
    assert "\x1b" not in found


@pytest.mark.parametrize(
    "piece",
    [
        "a.", "a-", "-", "--" + "a" * 40, ".token", "x-psk-", "cookie-", "password.", "eyJaaaaaaaaa-", "eyJaaaaaaaa.",
        "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "authorization ", "bearer ", "token='", "a://", "a://b@", "&sig=",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    """Cost per byte stays what it was at an eighth of the length: a log of half a megabyte once held a whole server up for minutes."""
    short, long = (_cost_s((piece * size)[:size]) for size in (16 << 10, 128 << 10))
    assert long < max(0.5, 24 * short)


def _cost_s(text: str) -> float:
    began = time.process_time()
    scrub(text)
    return time.process_time() - began
