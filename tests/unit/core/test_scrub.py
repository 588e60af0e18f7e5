"""What looks like a secret does not go home with a log; what does not stays readable."""

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
