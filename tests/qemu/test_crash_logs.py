"""The crash enumeration, over logs that are recorded now: by the agent and the kernel that are here, where `make test` has those that are checked in."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.blocklog.judge import judge
from tests.crash.blocklog.record import record
from tests.crash.blocklog.rigs import JOURNAL, RIGS, STORAGE, Rig

#: Without those two, whose calls are many and whose way to the disk is that of `file`.
CHOSEN = tuple(one for one in RIGS if one not in (JOURNAL, STORAGE))


@pytest.fixture(scope="module")
def logs(accelerator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record them, in one machine."""
    folder = tmp_path_factory.mktemp("logs")
    names = tuple(one.name for one in CHOSEN)
    assert record(names, folder) == names
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rig", CHOSEN, ids=lambda rig: rig.name)
def test_a_recording_of_now_is_judged_as_the_one_checked_in(
    logs: Path, scratch: Path, rig: Rig
) -> None:
    verdicts = judge(rig, scratch, logs)
    lost = sum(one.lost + one.undone for one in verdicts)
    told = [f"{one.call}: {say}" for one in verdicts for say in one.says]
    assert (lost > 0) == rig.lost, (
        f"{rig.name}: {lost} states of the disk are neither old nor new: {told}"
    )
    if not rig.lost and rig.calls:
        assert [one.first for one in verdicts] == [one.first for one in rig.calls]
