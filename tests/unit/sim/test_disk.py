"""The simulated disk leaves after a cut what a real one leaves."""

from random import Random

import pytest

from tidegate.agent.ports import PowerCut, Storage
from tidegate.core.errors import DeviceError
from tidegate.sim.disk import PAGE, MemorySlot, MemoryStorage, Power, SlotMedium
from tidegate.sim.faults import Cut, DiskFaults


def _power() -> Power:
    return Power(Random(1))


def _slot(power: Power, faults: DiskFaults | None = None) -> tuple[SlotMedium, MemorySlot]:
    medium = SlotMedium(8 * PAGE)
    return medium, MemorySlot("B", medium, power, faults or DiskFaults())


def test_a_cut_before_a_write_leaves_the_old_file() -> None:
    power = _power()
    storage: Storage = MemoryStorage(power, DiskFaults())
    storage.write("journal.0", b"old")
    power.arm(Cut(1, "before"))
    with pytest.raises(PowerCut):
        storage.write("journal.0", b"new")
    power.restore()
    assert storage.read("journal.0") == b"old"


def test_a_cut_after_a_write_leaves_the_new_file() -> None:
    power = _power()
    storage = MemoryStorage(power, DiskFaults())
    power.arm(Cut(1, "after"))
    with pytest.raises(PowerCut):
        storage.write("journal.0", b"new")
    power.restore()
    assert storage.read("journal.0") == b"new"


def test_a_torn_write_leaves_either_and_never_a_mixture() -> None:
    seen = set()
    for seed in range(20):
        power = Power(Random(seed))
        storage = MemoryStorage(power, DiskFaults())
        storage.write("journal.0", b"old")
        power.arm(Cut(1, "torn"))
        with pytest.raises(PowerCut):
            storage.write("journal.0", b"new")
        power.restore()
        seen.add(storage.read("journal.0"))
    assert seen == {b"old", b"new"}


def test_nothing_works_without_power() -> None:
    power = _power()
    storage = MemoryStorage(power, DiskFaults())
    power.arm(Cut(1))
    with pytest.raises(PowerCut):
        storage.write("journal.0", b"new")
    for act in (lambda: storage.read("journal.0"), storage.names, storage.free_bytes):
        with pytest.raises(PowerCut):
            act()


def test_a_second_cut_counts_from_the_restart() -> None:
    power = _power()
    storage = MemoryStorage(power, DiskFaults())
    power.arm(Cut(2, "after"), Cut(2, "after"))
    storage.write("a", b"1")
    with pytest.raises(PowerCut):
        storage.write("b", b"2")
    power.restore()
    storage.write("c", b"3")
    with pytest.raises(PowerCut):
        storage.write("d", b"4")
    power.restore()
    storage.write("e", b"5")
    assert storage.names() == ["a", "b", "c", "d", "e"]
    assert len(power.cut_at) == 2


def test_what_was_flushed_survives_and_what_was_not_may_be_lost_or_torn() -> None:
    fates = set()
    for seed in range(30):
        power = Power(Random(seed))
        medium, slot = _slot(power)
        slot.write_at(0, b"\x01" * PAGE)
        slot.flush()
        slot.write_at(PAGE, b"\x02" * PAGE)
        medium.lose(power.random)
        assert slot.read_at(0, PAGE) == b"\x01" * PAGE
        page = slot.read_at(PAGE, PAGE)
        fates.add((page.count(b"\x02"), page.count(b"\x00")))
    assert fates == {(PAGE, 0), (0, PAGE), (PAGE // 2, PAGE // 2)}


def test_reads_see_what_was_written_before_the_flush() -> None:
    _, slot = _slot(_power())
    slot.write_at(100, b"hello")
    slot.write_at(PAGE - 2, b"edge")
    assert slot.read_at(98, 9) == b"\0\0hello\0\0"
    assert slot.read_at(PAGE - 2, 4) == b"edge"


def test_faults_have_the_codes_of_the_port() -> None:
    power = _power()
    faults = DiskFaults(bad_blocks=frozenset({PAGE + 7}))
    _, slot = _slot(power, faults)
    slot.write_at(0, bytes(PAGE))
    with pytest.raises(DeviceError) as bad:
        slot.write_at(PAGE, bytes(PAGE))
    assert bad.value.code == "install.write"
    faults.full = True
    with pytest.raises(DeviceError) as full:
        MemoryStorage(power, faults).write("journal.0", b"x")
    assert full.value.code == "install.space"
    faults.full, faults.read_only = False, True
    with pytest.raises(DeviceError) as read_only:
        MemoryStorage(power, faults).write("journal.0", b"x")
    assert read_only.value.code == "install.write"


def test_equal_pages_are_kept_once() -> None:
    first, second = SlotMedium(2 * PAGE), SlotMedium(2 * PAGE)
    first.load(b"\x07" * PAGE + b"\x08" * PAGE)
    second.load(bytes(bytearray(b"\x07" * PAGE + b"\x08" * PAGE)))
    assert all(a is b for a, b in zip(first.pages, second.pages, strict=True))
