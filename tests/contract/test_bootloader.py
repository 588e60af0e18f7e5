"""What every boot loader must hold, run over every back end that is shipped. Each has its rig in `loaders/NAME.py`: `rig(folder) -> Rig`."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.rig import SLOTS, Rig

from tidegate.agent import bootloaders
from tidegate.agent.ports import CountingBootloader, TellingBootloader
from tidegate.core.errors import ConfigError, DeviceError

FOLDER = Path(__file__).with_name("loaders")
NAMES = sorted(one.stem for one in FOLDER.glob("[a-z]*.py"))


def test_every_boot_loader_that_is_shipped_is_tested() -> None:
    assert {one.partition("-")[0] for one in NAMES} == set(bootloaders.names())


@pytest.fixture(params=NAMES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    """Stand up one back end; `uboot-bootcount.py` is another rig of `uboot`."""
    module = importlib.import_module(f"tests.contract.loaders.{request.param}")
    made = module.rig(tmp_path)
    assert isinstance(made, Rig)
    return made


@pytest.mark.parametrize("name", bootloaders.names())
def test_the_module_says_what_it_is(name: str) -> None:
    module = __import__(f"tidegate.agent.bootloaders.{name}", fromlist=["create"])
    assert module.__doc__
    assert callable(module.create)


def test_a_fresh_board_boots_its_primary(rig: Rig) -> None:
    loader = rig.loader("A")
    assert (loader.current(), loader.primary(), rig.boot()) == ("A", "A", "A")
    assert (loader.state("A"), loader.tries_left("B")) == ("good", 0)


def test_reading_changes_nothing(rig: Rig) -> None:
    loader = rig.loader("A")
    loader.arm_trial("B", 2)
    granted = min(2, rig.tries_max)
    for _ in range(5):
        loader.current()
        loader.primary()
        loader.state("B")
        assert loader.tries_left("B") == granted


@pytest.mark.parametrize("tries", [1, 3, 15])
def test_a_trial_is_booted_as_often_as_it_may_be_and_then_the_primary(rig: Rig, tries: int) -> None:
    rig.loader("A").arm_trial("B", tries)
    granted = min(tries, rig.tries_max)
    assert [rig.boot() for _ in range(granted + 2)] == ["B"] * granted + ["A", "A"]
    after = rig.loader("A")
    assert after.primary() == "A"
    assert after.tries_left("B") == 0
    assert after.state("B") in ("trial", "bad")


def test_a_committed_slot_is_booted_for_good(rig: Rig) -> None:
    rig.loader("A").arm_trial("B", 3)
    rig.boot()
    rig.loader("B").commit("B")
    # Some loaders count a committed slot as well: the agent commits it again after each healthy boot.
    assert [rig.boot() for _ in range(3)] == ["B"] * 3
    for _ in range(20):
        rig.loader("B").commit("B")
        assert rig.boot() == "B"
    assert rig.loader("B").state("B") == "good"


def test_a_loader_that_counts_a_confirmed_slot_says_so_until_it_is_committed_again(
    rig: Rig,
) -> None:
    rig.loader("A").arm_trial("B", 3)
    rig.boot()
    loader = rig.loader("B")
    if not isinstance(loader, CountingBootloader):
        pytest.skip("this one leaves a confirmed slot alone")
    assert not loader.counted_down(), "on trial, the tries are the server's to give"
    loader.commit("B")
    assert not loader.counted_down()
    rig.boot()
    if loader.counted_down():
        loader.commit("B")
        assert not loader.counted_down()
    assert loader.primary() == "B"


def test_what_a_loader_tells_of_its_record_changes_when_a_try_is_spent(rig: Rig) -> None:
    loader = rig.loader("A")
    if not isinstance(loader, TellingBootloader):
        pytest.skip("this one has nothing to tell")
    loader.arm_trial("B", 3)
    before = loader.told()
    rig.boot()
    after = loader.told()
    assert 0 < len(after) <= 400
    assert "\n" not in after
    # A flag that the firmware itself keeps leaves the record as it was.
    assert (after == before) == (rig.name == "rpi_tryboot")


def test_a_slot_marked_bad_is_not_booted_until_it_is_armed_again(rig: Rig) -> None:
    loader = rig.loader("A")
    loader.arm_trial("B", 3)
    loader.mark_bad("B")
    assert [rig.boot() for _ in range(3)] == ["A"] * 3
    assert loader.state("B") == "bad"
    loader.arm_trial("B", 1)
    assert loader.state("B") == "trial"
    assert rig.boot() == "B"


def test_marking_the_primary_bad_makes_the_other_one_primary(rig: Rig) -> None:
    loader = rig.loader("A")
    loader.mark_bad("A")
    assert (loader.primary(), rig.boot()) == ("B", "B")


def test_every_change_may_be_repeated(rig: Rig) -> None:
    loader = rig.loader("A")
    changes: tuple[Callable[[], None], ...] = (
        lambda: loader.arm_trial("B", 3),
        lambda: loader.mark_bad("B"),
        lambda: loader.commit("B"),
    )
    for change in changes:
        change()
        once = [(loader.state(one), loader.tries_left(one)) for one in SLOTS]
        change()
        assert [(loader.state(one), loader.tries_left(one)) for one in SLOTS] == once


def test_current_is_what_was_booted_not_what_comes_next(rig: Rig) -> None:
    rig.loader("A").commit("B")
    assert rig.loader("A").current() == "A"


def test_a_damaged_record_is_an_error_and_never_a_default(rig: Rig) -> None:
    loader = rig.loader("A")
    loader.arm_trial("B", 3)
    rig.damage()
    asks: tuple[Callable[[], object], ...] = (
        loader.primary,
        lambda: loader.state("B"),
        lambda: loader.commit("B"),
    )
    for ask in asks:
        with pytest.raises(DeviceError) as caught:
            ask()
        assert caught.value.code == "activate.bootloader"


def test_a_name_that_is_no_back_end_is_refused() -> None:
    for wrong in ("os.path", "..", "nothing", "file.py", ""):
        with pytest.raises(ConfigError):
            bootloaders.load(wrong, {})
