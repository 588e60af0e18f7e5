"""Every state that a disk may be left in while the agent writes, from block logs of the shipped code under a real kernel: old or new, never anything else.

`tests/crash/blocklog` says how; the logs lie in `tests/crash/logs` and are recorded anew by `tools/record-crash-logs`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.blocklog.judge import Verdict, judge
from tests.crash.blocklog.readers import READERS
from tests.crash.blocklog.record import COMMAND, LOGS, digest, manifest
from tests.crash.blocklog.rigs import RIGS, Rig
from tests.crash.tally import TALLY

# A loaded machine takes several times as long as a quiet one.
pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

SOUND = tuple(one for one in RIGS if not one.lost)
CONTROL = tuple(one for one in RIGS if one.lost)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: e2fsck waits for the disk otherwise, some thousand times."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield Path(folder)


def _judge(rig: Rig, folder: Path) -> list[Verdict]:
    for program, package in READERS[rig.reader].programs:
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            pytest.skip(f"tier: no {program}; install the Debian package {package}")
    return judge(rig, folder)


@pytest.mark.parametrize("rig", SOUND, ids=lambda rig: rig.name)
def test_every_state_of_the_disk_is_the_old_one_or_the_new_one(rig: Rig, scratch: Path) -> None:
    verdicts = _judge(rig, scratch)
    assert [one.call for one in verdicts] == manifest()[rig.name]["calls"]
    assert [f"{one.call}: {say}" for one in verdicts for say in one.says] == []
    assert [one.call for one in verdicts if one.lost or one.undone or not one.kept] == []
    if rig.calls:
        assert [(one.call, one.first) for one in verdicts] == [(c.name, c.first) for c in rig.calls]
    # The log holds more than calls that change nothing.
    assert sum(one.new for one in verdicts) >= len(verdicts) / 2
    TALLY.judged(rig.name, verdicts)


@pytest.mark.parametrize("rig", CONTROL, ids=lambda rig: rig.name)
def test_what_is_known_to_lose_states_is_seen_to_lose_them(rig: Rig, scratch: Path) -> None:
    verdicts = _judge(rig, scratch)
    assert len(verdicts) == len(rig.calls)
    assert sum(one.lost + one.undone for one in verdicts) > 0
    assert any(one.says for one in verdicts)


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.name)
def test_the_log_is_of_the_code_that_is_here(rig: Rig) -> None:
    told = manifest().get(rig.name, {}).get("sources")
    assert told == digest(rig), (
        f"{', '.join(rig.sources)} changed since the log was recorded: run {COMMAND}"
    )


def test_nothing_but_logs_of_rigs_is_checked_in_and_all_is_small() -> None:
    wanted = {f"{rig.name}.{kind}.xz" for rig in RIGS for kind in ("img", "log")}
    found = {one.name: one.stat().st_size for one in LOGS.iterdir()}
    assert set(found) == wanted | {"manifest.json"}
    assert sum(found.values()) < 400_000
