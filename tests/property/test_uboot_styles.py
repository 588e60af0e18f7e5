"""Any course of changes and starts on a U-Boot board, in either style, goes as on the plainest boot loader there is (`agent.boot.file_record`)."""

import importlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.rig import SLOTS, Rig

from tidegate.agent.boot import file_record as boot_file
from tidegate.agent.boot.file_record import BootRecord
from tidegate.agent.ports import CountingBootloader

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "arm", "commit", "bad"]),
        st.sampled_from(SLOTS),
        st.integers(1, 15),
    ),
    max_size=25,
)


def _other(slot: str) -> str:
    return "B" if slot == "A" else "A"


def _kept(record: BootRecord, slot: str) -> BootRecord:
    """Commit; a trial of the other one ends with that, and what was never confirmed is nothing to fall back on."""
    if record.trial == _other(slot):
        record = boot_file.marked_bad(record, _other(slot))
    return boot_file.committed(record, slot)


def _may(record: BootRecord, what: str, slot: str) -> bool:
    """Say whether an agent does that: it arms what it does not run from, and gives up no slot without another."""
    spared = _other(slot) not in record.bad
    return {"arm": slot != record.primary and spared, "bad": spared}.get(what, True)


@pytest.mark.parametrize("style", ["uboot-order", "uboot-bootcount", "uboot-single"])
@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_it_goes_as_on_the_plainest_loader(style: str, steps: list[tuple[str, str, int]]) -> None:
    module = importlib.import_module(f"tests.contract.loaders.{style}")
    with tempfile.TemporaryDirectory() as folder:
        rig = module.rig(Path(folder))
        assert isinstance(rig, Rig)
        record, running = BootRecord(slots=SLOTS, primary="A"), "A"
        for what, slot, tries in steps:
            if not _may(record, what, slot):
                continue
            loader = rig.loader(running)
            match what:
                case "arm":
                    loader.arm_trial(slot, tries)
                    record = boot_file.armed(record, slot, tries)
                case "commit":
                    loader.commit(slot)
                    record = _kept(record, slot)
                case "bad":
                    loader.mark_bad(slot)
                    record = boot_file.marked_bad(record, slot)
                case _:
                    running, record = boot_file.decide(record)
                    assert rig.boot() == running
                    loader = rig.loader(running)
                    # What the agent does after a healthy start.
                    if isinstance(loader, CountingBootloader) and loader.counted_down():
                        loader.commit(running)
                        record = _kept(record, running)
            held = {one: (loader.state(one), loader.tries_left(one)) for one in SLOTS}
            wanted = {
                one: (boot_file.mark(record, one), record.tries if record.trial == one else 0)
                for one in SLOTS
            }
            assert (loader.primary(), held) == (record.primary, wanted)
