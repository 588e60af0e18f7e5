"""Whatever is asked of a boot loader, in whatever order, and however often the board is switched on: it starts, and what was marked bad stays off."""

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.rig import SLOTS, Rig

from tidegate.core.errors import DeviceError

#: Those whose loader's side runs in this process: fast enough for hundreds of boards.
NAMES = ("efi", "file", "grub", "rpi_tryboot", "systemd_boot", "uboot-order")


@dataclass
class Step:
    """One thing that happens."""

    kind: str
    slot: str = "A"
    tries: int = 1


STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(("arm", "commit", "bad", "start", "start")),
        slot=st.sampled_from(SLOTS),
        tries=st.integers(-1, 20),
    ),
    max_size=12,
)


def does(rig: Rig, current: str, step: Step) -> None:
    """Make one call from the system that runs."""
    loader = rig.loader(current)
    calls: dict[str, Callable[[], None]] = {
        "arm": lambda: loader.arm_trial(step.slot, step.tries),
        "commit": lambda: loader.commit(step.slot),
        "bad": lambda: loader.mark_bad(step.slot),
    }
    calls[step.kind]()


def says(rig: Rig, current: str) -> list[object]:
    """Return all that a back end tells."""
    loader = rig.loader(current)
    marks = [(loader.state(one), loader.tries_left(one)) for one in SLOTS]
    return [loader.primary(), *marks]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(steps=STEPS)
def test_a_board_always_starts_and_never_what_is_bad(name: str, steps: list[Step]) -> None:
    module = importlib.import_module(f"tests.contract.loaders.{name}")
    with tempfile.TemporaryDirectory() as folder:
        rig = module.rig(Path(folder))
        current = "A"
        for step in steps:
            before = says(rig, current)
            if step.kind == "start":
                loader = rig.loader(current)
                bad = [one for one in SLOTS if loader.state(one) == "bad"]
                waiting = [one for one in SLOTS if loader.tries_left(one)]
                primary = loader.primary()
                current = rig.boot()
                assert current not in bad or current == primary
                if waiting:
                    assert current == waiting[0], "what is on trial goes first"
                continue
            try:
                does(rig, current, step)
            except DeviceError:
                assert says(rig, current) == before, "a refusal changes nothing"
                continue
            once = says(rig, current)
            does(rig, current, step)
            assert says(rig, current) == once, "each change may be repeated"
            loader = rig.loader(current)
            if step.kind == "commit":
                assert (loader.primary(), loader.state(step.slot)) == (step.slot, "good")
            elif step.kind == "bad":
                assert loader.primary() != step.slot
                assert loader.tries_left(step.slot) == 0
            else:
                assert loader.tries_left(step.slot) == min(max(1, step.tries), rig.tries_max)
                other = "B" if step.slot == "A" else "A"
                # `file` may be told to try its primary: then that is also what it goes back to.
                assert name == "file" or loader.primary() == other or loader.state(other) == "bad"
