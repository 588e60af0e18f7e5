"""The journal loses one step at most, and what guards against downgrades never."""

import hashlib

import msgspec
import pytest

from tidegate.agent.files import StateDirectory
from tidegate.agent.journal import COPIES, COUNTERS, Journal, fresh, seal, unseal
from tidegate.agent.ports import Storage
from tidegate.agent.state import (
    Order,
    Refusal,
    SlotRecord,
    State,
)
from tidegate.core.release import Running


@pytest.fixture
def storage(tmp_path: object) -> Storage:
    return StateDirectory(f"{tmp_path}/state")


def state(floor: int) -> State:
    slots = {"A": SlotRecord(state="confirmed", release_counter=7), "B": SlotRecord()}
    return State(slots=slots, floor=floor, order=Order(epoch=1, seq=floor), next_seq=5)


def test_what_was_written_last_is_read(storage: Storage) -> None:
    journal = Journal(storage)
    for floor in range(5):
        journal.write(state(floor))
    assert Journal(storage).read()[0] == msgspec.structs.replace(state(4))
    assert Journal(storage).read()[1] is False


def test_writing_goes_on_in_the_older_copy_after_a_restart(storage: Storage) -> None:
    Journal(storage).write(state(1))
    for floor in range(2, 9):
        journal = Journal(storage)
        journal.read()
        journal.write(state(floor))
        found, _ = Journal(storage).read()
        assert found is not None
        assert found.floor == floor


@pytest.mark.parametrize("damage", [b"", b"\0" * 400, b"tidegate-journal 1 99 00\n{}"])
def test_a_damaged_newer_copy_costs_one_step(storage: Storage, damage: bytes) -> None:
    journal = Journal(storage)
    journal.write(state(1))
    journal.write(state(2))
    storage.write(COPIES[1], damage)
    found, damaged = Journal(storage).read()
    assert found is not None
    assert (found.floor, damaged) == (1, False)


def test_with_both_copies_gone_counters_slots_and_refusals_are_left(storage: Storage) -> None:
    refused = (Refusal(sha256="a" * 64, reason="health.service", at=1),)
    Journal(storage).write(msgspec.structs.replace(state(3), refused=refused))
    for name in COPIES:
        storage.write(name, b"gone")
    found, damaged = Journal(storage).read()
    assert damaged
    assert found is not None
    assert (found.floor, found.order, found.refused) == (3, Order(epoch=1, seq=3), refused)
    assert found.slots["A"].release_counter == 7
    assert found.damaged


def test_with_everything_gone_the_damage_is_known(storage: Storage) -> None:
    Journal(storage).write(state(3))
    for name in (*COPIES, COUNTERS):
        storage.write(name, b"gone")
    assert Journal(storage).read() == (None, True)


def test_a_device_that_never_had_one_is_not_damaged(storage: Storage) -> None:
    assert Journal(storage).read() == (None, False)
    made = fresh(("A", "B"), "B", Running(release_counter=4))
    assert (made.slots["B"].state, made.slots["A"].state) == ("confirmed", "empty")


def test_a_seal_breaks_with_any_byte() -> None:
    sealed = seal(3, b"body")
    assert unseal(sealed) == (3, b"body")
    for at in range(len(sealed)):
        assert unseal(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]) is None
        assert unseal(sealed[:at]) is None


@pytest.mark.parametrize("number", [b"03", b"9" * 5000, b"+3", b"", b"\xb2"])
def test_a_generation_that_was_never_written_is_damage(number: bytes) -> None:
    digest = hashlib.sha256(b"3\n{}").hexdigest().encode()
    assert unseal(b"tidegate-journal 1 3 " + digest + b"\n{}") == (3, b"{}")
    assert unseal(b"tidegate-journal 1 " + number + b" " + digest + b"\n{}") is None
