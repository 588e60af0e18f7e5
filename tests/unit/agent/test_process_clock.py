"""A real agent process whose clock is wrong: at 1970, ten years ahead, and turned back in the middle of an update."""

import os
import time
from pathlib import Path

import pytest
from tests.unit.agent.test_process import board, make_plane, until_told

YEAR = 365 * 86_400
#: What every Python of the board reads first: its wall clock shows what a file says, in seconds from the right time.
WRONG = """
import time
_right = time.time
def _wrong():
    with open({path!r}) as file:
        return max(0.0, _right() + float(file.read() or 0))
time.time = _wrong
"""


def _wrong(monkeypatch: pytest.MonkeyPatch, folder: Path, skew_s: float) -> Path:
    told = folder / "skew"
    told.write_text(str(skew_s))
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(WRONG.format(path=str(told)))
    found = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{folder / 'python'}:{found}")
    return told


@pytest.mark.parametrize("skew_s", [-100 * YEAR, 10 * YEAR], ids=["1970", "+10 years"])
def test_a_real_process_with_a_wrong_clock_updates_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    plane = make_plane()
    _wrong(monkeypatch, tmp_path, skew_s)
    with board(plane, tmp_path) as made:
        until_told(plane, made)
        assert plane.outcomes() == [("confirmed", None)]
    # What it says of the time shows that its clock was wrong indeed.
    skews = [one.at - plane.clock.wall() for one in plane.events.values()]
    assert max(skews) < -YEAR if skew_s < 0 else min(skews) > YEAR
    assert "/d/v1/time" in plane.requests
    told = {one.reason for one in plane.events.values() if one.kind == "security"}
    assert "clock.untrusted" in told or skew_s < 0


def test_a_real_process_whose_clock_is_turned_back_in_the_middle_updates_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = make_plane()
    told = _wrong(monkeypatch, tmp_path, YEAR)
    with board(plane, tmp_path) as made:
        end = time.monotonic() + 30
        while not any("/blobs/" in one for one in plane.requests) and time.monotonic() < end:
            made.tend()
            time.sleep(0.01)
        told.write_text(str(-30 * YEAR))
        until_told(plane, made)
        assert plane.outcomes() == [("confirmed", None)]
    years = {(one.at - int(plane.clock.wall())) // YEAR for one in plane.events.values()}
    assert len(years) > 1
