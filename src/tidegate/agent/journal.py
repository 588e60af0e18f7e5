"""The journal: the agent's state, durable, in two copies of which the newer whole one wins.

Each write replaces the *older* copy, so that a write torn by the power, or a medium that returns garbage, costs one step at most; what one step back means is
the machine's business (every state it may fall back to is one from which `Started` finds the way). A third file, `counters`, is written only when what guards
against downgrades changes: it is what is left when both copies are gone.

A copy is one line of ASCII (format, generation, SHA-256 of the rest) and the state as JSON. Unknown fields are skipped, so that an older agent, back after a
revert, can read a newer one's journal.
"""

import hashlib
from typing import Final

import msgspec

from tidegate.agent.ports import Storage
from tidegate.agent.state import (
    Idle,
    Order,
    Refusal,
    SlotRecord,
    State,
    durable,
)
from tidegate.core.protocol import GrantUse
from tidegate.core.release import Running

COPIES: Final = ("journal.0", "journal.1")
COUNTERS: Final = "counters"
_MAGIC: Final = b"tidegate-journal"
#: Digits of a generation; more is damage, and Python refuses to read very long numbers.
_DIGITS_MAX: Final = 18


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What must not go back even when the journal is lost."""

    floor: int
    order: Order
    slots: dict[str, SlotRecord]
    refused: tuple[Refusal, ...] = ()
    fallback_last: dict[str, GrantUse] = {}
    resume_min: dict[str, int] = {}
    halted: tuple[str, ...] = ()
    components: dict[str, SlotRecord] = {}


class Journal:
    """Reads and writes the state.

    Args:
        storage: small durable files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._generation = 0
        self._next = 0
        self._counters: bytes | None = None

    def read(self) -> tuple[State | None, bool]:
        """Return the state, and whether something was damaged.

        Returns:
            (None, False) on a device that never had one. (state, True) with nothing but the counters when both copies were lost.
        """
        found: list[tuple[int, int, State]] = []
        present = 0
        for index, name in enumerate(COPIES):
            body = self._storage.read(name)
            if body is None:
                continue
            present += 1
            opened = unseal(body)
            state = None if opened is None else _decode(opened[1])
            if opened is not None and state is not None:
                found.append((opened[0], index, state))
        if found:
            self._generation, newest, state = max(found, key=lambda one: one[0])
            self._next = 1 - newest
            return state, False
        counters = self._read_counters()
        if counters is None:
            return None, present > 0
        return _remains(counters), True

    def write(self, state: State) -> None:
        """Make the state durable. After return a power cut cannot take it away; a cut before leaves the state before."""
        kept = durable(state)
        generation = self._generation + 1
        if self._generation:
            self._write_counters(kept)
        self._storage.write(COPIES[self._next], seal(generation, msgspec.json.encode(kept)))
        self._generation = generation
        self._next = 1 - self._next
        # Counters without any copy are what is left of a lost journal: on a new device, whose power went away here, nothing was lost.
        self._write_counters(kept)

    def _write_counters(self, state: State) -> None:
        slots = {name: _bare(record) for name, record in state.slots.items()}
        kept = Counters(
            floor=state.floor,
            order=state.order,
            slots=slots,
            refused=state.refused,
            fallback_last=state.fallback_last,
            resume_min=state.resume_min,
            halted=state.halted,
            components=state.components,
        )
        body = msgspec.json.encode(kept)
        if body == self._counters:
            return
        self._storage.write(COUNTERS, seal(0, body))
        self._counters = body

    def _read_counters(self) -> Counters | None:
        body = self._storage.read(COUNTERS)
        opened = None if body is None else unseal(body)
        if opened is None:
            return None
        try:
            return msgspec.json.decode(opened[1], type=Counters)
        except msgspec.DecodeError:
            return None


def fresh(
    slots: tuple[str, str], current: str, running: Running, *, damaged: bool = False
) -> State:
    """Return the state of a device that never ran an agent, or lost all that it knew (`damaged`): the factory's image runs, the other slot is empty."""
    factory = SlotRecord(
        state="confirmed",
        release_counter=running.release_counter,
        security_version=running.security_version,
        version=running.version,
        sha256=running.sha256,
    )
    records = {name: factory if name == current else SlotRecord() for name in slots}
    return State(slots=records, current=current, damaged=damaged)


def onto(made: State, left: State) -> State:
    """Put what is left of a lost journal onto a fresh state."""
    return msgspec.structs.replace(
        left, slots=made.slots if not left.slots else left.slots, phase=Idle()
    )


def seal(generation: int, body: bytes) -> bytes:
    """Put the line with format, generation and checksum before a body."""
    digest = hashlib.sha256(b"%d\n" % generation + body).hexdigest()
    return b"%s 1 %d %s\n" % (_MAGIC, generation, digest.encode()) + body


def unseal(sealed: bytes) -> tuple[int, bytes] | None:
    """Return (generation, body) of what `seal` made, or None when it is not whole."""
    line, newline, body = sealed.partition(b"\n")
    words = line.split(b" ")
    if not newline or len(words) != 4 or words[:2] != [_MAGIC, b"1"]:
        return None
    if not words[2].isdigit() or len(words[2]) > _DIGITS_MAX:
        return None
    generation = int(words[2])
    if words[2] != b"%d" % generation:
        return None
    digest = hashlib.sha256(b"%d\n" % generation + body).hexdigest()
    return (generation, body) if digest.encode() == words[3] else None


def _decode(body: bytes) -> State | None:
    try:
        return msgspec.json.decode(body, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _bare(record: SlotRecord) -> SlotRecord:
    # Without the order of an update under way: only what was confirmed counts once the rest is lost.
    return record if record.state == "confirmed" else SlotRecord()


def _remains(counters: Counters) -> State:
    return State(
        slots=counters.slots,
        floor=counters.floor,
        order=counters.order,
        refused=counters.refused,
        fallback_last=counters.fallback_last,
        resume_min=counters.resume_min,
        halted=counters.halted,
        components=counters.components,
        damaged=True,
    )
