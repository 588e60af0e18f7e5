"""A mandate on the command line: written, read before it is signed, checked, widened and ended, with nothing but files."""

from pathlib import Path

import pytest
from tests.unit.cli.test_trust import here, ok, trust  # noqa: F401 - a fixture

from tidegate.cli import run

Captured = pytest.CaptureFixture[str]
RELEASE = """product = "gw1"
version = "1.0.0"
counter = 1
channels = ["stable"]
[hardware]
model = "gw1"
[[component]]
image = "image"
"""


def sign_by_both(bundle: str) -> None:
    for name in ("rita", "sam"):
        ok("release", "sign", bundle, "--key", f"{name}.key", "--version", "1.0.0")


def test_a_mandate_is_shown_wherever_it_is_signed_and_can_be_widened(
    here: Path,  # noqa: F811 - the fixture's name
    capsys: Captured,
) -> None:
    trust(here)
    (here / "image").write_bytes(b"an image" * 1000)
    (here / "release.toml").write_text(RELEASE)
    steps = "1%@2026-11-25T08:00Z,10%@+1d,100%@+3d"
    ok("release", "build", "--first", "--fast", "--mandate", steps)
    assert "1 % from 2026-11-25 08:00 UTC" in capsys.readouterr().err
    ok("release", "sign", "gw1-1.0.0.bundle", "--key", "rita.key", "--version", "1.0.0")
    assert "10 % from 2026-11-26 08:00 UTC" in capsys.readouterr().err
    sign_by_both("gw1-1.0.0.bundle")
    targets = ["--targets", "targets.1.json"]
    ok("release", "check", "gw1-1.0.0.bundle", *targets, "--first")
    assert "100 % from 2026-11-28 08:00 UTC" in capsys.readouterr().out
    before = ["--previous", "gw1-1.0.0.bundle"]
    ok("release", "restage", "gw1-1.0.0", "--mandate", "100%@2026-11-26T08:00Z", *before)
    wider = "gw1-1.0.0-mandate-2.bundle"
    sign_by_both(wider)
    capsys.readouterr()
    ok("release", "check", wider, *targets, *before)
    assert "100 % from 2026-11-26 08:00 UTC" in capsys.readouterr().out
    ok("release", "restage", "gw1-1.0.0", "--end", *before)
    assert "rings alone decide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restage", "gw1-1.0.0"], "--mandate STEPS or --end"),
        (["restage", "gw1-1.0.0", "--end", "--mandate", "1%@+1d"], "--mandate STEPS or --end"),
        (["restage", "gw1-9.9.9", "--end"], "not published with a mandate"),
        (["restage", "gw1-1.0.0", "--end"], "not published with a mandate"),
        (["build", "--first", "--fast", "--mandate", "10%@+1d,1%@+2d"], "not more than before it"),
        (["build", "--first", "--fast", "--mandate", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    here: Path,  # noqa: F811 - the fixture's name
    capsys: Captured,
    arguments: list[str],
    words: str,
) -> None:
    (here / "image").write_bytes(b"an image" * 1000)
    (here / "release.toml").write_text(RELEASE)
    ok("release", "build", "--first", "--fast")
    more = ["--previous", "gw1-1.0.0.bundle"] if arguments[0] == "restage" else []
    capsys.readouterr()
    assert run(["release", *arguments, *more]) != 0
    assert words in capsys.readouterr().err
