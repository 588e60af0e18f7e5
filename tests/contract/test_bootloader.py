"""What every boot loader must hold, run over every back end that is shipped."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.agent import boot_file, bootloaders
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader
from tidegate.core.errors import ConfigError, DeviceError

SLOTS = ("A", "B")


class Rig:
    """One back end with its loader's own side: what a board does at power-on."""

    def __init__(self, settings: BootSettings, boot: Callable[[], str], damage: Callable[[], None]):
        self.settings = settings
        self.boot = boot
        self.damage = damage

    def loader(self, name: str, current: str) -> Bootloader:
        return bootloaders.load(name, {**self.settings, "current": current})


def _file(folder: Path) -> Rig:
    path = folder / "boot.json"

    def boot() -> str:
        record = boot_file.BootRecord(slots=SLOTS, primary="A")
        if path.exists():
            record = boot_file.decode(path.read_bytes())
        slot, after = boot_file.decide(record)
        path.write_bytes(boot_file.encode(after))
        return slot

    def damage() -> None:
        path.write_bytes(path.read_bytes()[:-9] if path.exists() else b"{")

    return Rig({"path": str(path), "slots": SLOTS}, boot, damage)


#: How to stand up each back end. A new one without a rig fails the first test.
RIGS: dict[str, Callable[[Path], Rig]] = {"file": _file}


def test_every_boot_loader_that_is_shipped_is_tested() -> None:
    assert sorted(RIGS) == bootloaders.names()


@pytest.fixture(params=sorted(RIGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(name: str, tmp_path: Path) -> Rig:
    return RIGS[name](tmp_path)


def test_the_module_says_what_it_is(name: str) -> None:
    module = __import__(f"tidegate.agent.bootloaders.{name}", fromlist=["create"])
    assert module.__doc__
    assert callable(module.create)


def test_a_fresh_board_boots_its_primary(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
    assert (loader.current(), loader.primary(), rig.boot()) == ("A", "A", "A")
    assert (loader.state("A"), loader.tries_left("B")) == ("good", 0)


def test_reading_changes_nothing(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
    loader.arm_trial("B", 2)
    for _ in range(5):
        loader.current()
        loader.primary()
        loader.state("B")
        assert loader.tries_left("B") == 2


@pytest.mark.parametrize("tries", [1, 3, 15])
def test_a_trial_is_booted_as_often_as_it_may_be_and_then_the_primary(
    name: str, rig: Rig, tries: int
) -> None:
    rig.loader(name, "A").arm_trial("B", tries)
    assert [rig.boot() for _ in range(tries + 2)] == ["B"] * tries + ["A", "A"]
    after = rig.loader(name, "A")
    assert after.primary() == "A"
    assert after.tries_left("B") == 0
    assert after.state("B") in ("trial", "bad")


def test_a_committed_slot_is_booted_for_good(name: str, rig: Rig) -> None:
    rig.loader(name, "A").arm_trial("B", 3)
    rig.boot()
    rig.loader(name, "B").commit("B")
    assert [rig.boot() for _ in range(20)] == ["B"] * 20
    assert rig.loader(name, "B").state("B") == "good"


def test_a_slot_marked_bad_is_not_booted_until_it_is_armed_again(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
    loader.arm_trial("B", 3)
    loader.mark_bad("B")
    assert [rig.boot() for _ in range(3)] == ["A"] * 3
    assert loader.state("B") == "bad"
    loader.arm_trial("B", 1)
    assert loader.state("B") == "trial"
    assert rig.boot() == "B"


def test_marking_the_primary_bad_makes_the_other_one_primary(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
    loader.mark_bad("A")
    assert (loader.primary(), rig.boot()) == ("B", "B")


def test_every_change_may_be_repeated(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
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


def test_current_is_what_was_booted_not_what_comes_next(name: str, rig: Rig) -> None:
    rig.loader(name, "A").commit("B")
    assert rig.loader(name, "A").current() == "A"


def test_a_damaged_record_is_an_error_and_never_a_default(name: str, rig: Rig) -> None:
    loader = rig.loader(name, "A")
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


def test_each_change_is_one_atomic_replacement(
    name: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = rig.loader(name, "A")
    loader.arm_trial("B", 3)
    before = (loader.state("B"), loader.tries_left("B"), loader.primary())
    real = os.rename
    renames = []

    def cut(source: str, target: str) -> None:
        renames.append(target)
        raise OSError(5, "the power went away")

    changes: tuple[Callable[[], None], ...] = (
        lambda: loader.commit("B"),
        lambda: loader.mark_bad("B"),
    )
    for change in changes:
        monkeypatch.setattr(os, "rename", cut)
        with pytest.raises(DeviceError):
            change()
        monkeypatch.setattr(os, "rename", real)
        assert (loader.state("B"), loader.tries_left("B"), loader.primary()) == before
    assert len(renames) == 2


def test_a_name_that_is_no_back_end_is_refused() -> None:
    for wrong in ("os.path", "..", "nothing", "file.py", ""):
        with pytest.raises(ConfigError):
            bootloaders.load(wrong, {})
