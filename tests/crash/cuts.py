"""Every pair of power cuts of a story, on the simulated board, without running each pair from its beginning.

One run shows what the disk would hold had the power gone away before, in the middle of, or after each durable operation. Each of these is a beginning of its
own: the device is restarted from it, runs to the end, and shows in turn what a second cut would leave. Beginnings that are the same for the device and for
the server are run once. *The same*: `key` says what counts. Instants, names of boots, nonces, keys and absolute numbers do not; a test holds
that against running each one.

A cut in the middle of a small file or of the boot loader's record leaves the old one or the new one, which are the states before and after it. What was
written to a slot and not flushed may all be there, all be lost, or each page by a seeded draw.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final
from unittest.mock import patch

from tests.crash.lab import Device
from tests.crash.releases import make_image

from tidegate.agent.journal import COPIES, unseal
from tidegate.sim.board import SimBootloader
from tidegate.sim.disk import PAGE, MemorySlot, MemoryStorage, SlotMedium

#: What says when, by which boot, or how often, and not what is to be done next.
_PASSING: Final = frozenset(
    {
        "at", "staged_at", "nonce_mono", "nonce_boot", "boot_id", "began_mono", "passing_mono", "errors_base",
        "until_mono", "bytes", "stored_bytes", "resumes", "next_seq", "reserved_seq", "seq", "noticed", "online",
        "detail", "log", "metrics",
    }
)  # fmt: skip
#: Files whose bytes are drawn at random.
_DRAWN: Final = frozenset({"device.key", "fingerprint", "session"})
_CLOCK: Final = ("skew_s", "vouched", "settable", "_ahead", "_last", "_booted_at")
_BOARD: Final = ("dead", "_image", "_boot_id", "_log", "_bitten", "_errors", "_counted_at")


@dataclass(frozen=True)
class Beginning:
    """A device without power: what is durable on it, what its server knows, and what time it is."""

    files: dict[str, bytes]
    slots: dict[str, SlotMedium]
    loader: Any
    running: str
    board: dict[str, Any]
    history: Any
    clock: dict[str, Any]
    at: float
    plane: dict[str, Any]
    way: tuple[str, ...] = ()


def beginning(device: Device) -> Beginning:
    """Note how a device stands at this instant."""
    board = device.board
    assert not board.components, "components have a test of their own"
    history = board.history
    plane = {name: _copied(value) for name, value in vars(device.plane).items()}
    return Beginning(
        files=dict(board.storage.files),
        slots={name: _medium(one) for name, one in board.media.items()},
        loader=board.loader.kept,
        running=board.loader.running,
        board={name: getattr(board, name) for name in _BOARD},
        history=replace(history, trials=[replace(one) for one in history.trials], trail=[]),
        clock={name: getattr(device.clock, name) for name in _CLOCK},
        at=device.plane.clock.at(),
        plane=plane | {"requests": []},
    )


def begin(device: Device, found: Beginning) -> None:
    """Make a device stand as noted, without power."""
    board = device.board
    device.runner = None
    board.storage.files = dict(found.files)
    for name, medium in found.slots.items():
        kept = board.media[name]
        kept.pages, kept.pending, kept.writes = list(medium.pages), {}, kept.writes + 1
    board.loader.kept, board.loader.running = found.loader, found.running
    for name, value in found.board.items():
        setattr(board, name, value)
    board.history = replace(found.history, trials=[replace(one) for one in found.history.trials])
    board.wants_reboot = False
    for name, value in found.clock.items():
        setattr(device.clock, name, value)
    device.plane.clock._at = found.at
    vars(device.plane).update({name: _copied(value) for name, value in found.plane.items()})
    # No nonce and no key is ever drawn twice.
    board.random.seed(" / ".join(found.way))


def _copied(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, dict | list | set) else value


def _medium(medium: SlotMedium) -> SlotMedium:
    made = SlotMedium(PAGE)
    made.size, made.pages, made.pending = medium.size, list(medium.pages), dict(medium.pending)
    return made


def _fates(found: Beginning) -> Iterator[tuple[str, Beginning]]:
    """Decide what becomes of bytes that were written to a slot and not flushed."""
    if not any(one.pending for one in found.slots.values()):
        yield "", found
        return
    for fate in ("kept", "lost", "drawn"):
        slots = {name: _medium(one) for name, one in found.slots.items()}
        for medium in slots.values():
            if fate == "kept":
                medium.settle()
            elif fate == "lost":
                medium.pending.clear()
            else:
                medium.lose(Random(" / ".join(found.way)))
        yield f", unflushed {fate}", replace(found, slots=slots)


# --- what is the same -------------------------------------------------------------------------------------------------


def key(found: Beginning) -> str:
    """Return the digest of everything that decides what this device and its server do next."""
    plane = found.plane
    opened = [unseal(found.files.get(name, b"")) for name in COPIES]
    copies = [one for one in opened if one is not None]
    journal = json.loads(max(copies)[1]) if copies else None
    known = plane["events"]
    parts = [
        _lasting(journal, plane["permits"]),
        [one["seq"] in known for one in (journal or {}).get("outbox", ())],
        {name: _content(name, body) for name, body in found.files.items() if name not in COPIES},
        {
            name: [_page(n, page) for n, page in enumerate(one.pages)]
            for name, one in found.slots.items()
        },
        repr(found.loader),
        found.running,
        [(one.kind, one.reason) for _, one in sorted(known.items()) if one.kind != "heartbeat"],
        plane["order"] is None,
        plane["device_key"] is None,
        [
            plane[name]
            for name in (
                "halted",
                "down",
                "short_bodies",
                "gate_epoch",
                "epoch",
                "version",
                "floor",
            )
        ],
        len(plane["permits"]),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _lasting(value: Any, permits: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            name: one in permits if name == "nonce" and one else _lasting(one, permits)
            for name, one in value.items()
            if name not in _PASSING
        }
    return [_lasting(one, permits) for one in value] if isinstance(value, list) else value


def _content(name: str, body: bytes) -> Any:
    if name in _DRAWN:
        return len(body)
    opened = unseal(body)
    if opened is None:
        return hashlib.sha256(body).hexdigest()
    return _lasting(json.loads(opened[1]), {})


#: Which images have this page at this place: what else stands there is overwritten, or found out, all the same.
_PAGES: Final[dict[tuple[int, bytes], str]] = {}


def _page(number: int, page: bytes) -> str:
    if not _PAGES:
        for counter in (1, 2, 3):
            image = make_image(counter)
            image += bytes(-len(image) % PAGE)
            for at in range(0, len(image), PAGE):
                place = at // PAGE, image[at : at + PAGE]
                _PAGES[place] = _PAGES.get(place, "") + str(counter)
    return _PAGES.get((number, page), "-")


# --- cuts -------------------------------------------------------------------------------------------------------------


@contextmanager
def watched(device: Device, seen: Callable[[Beginning], None]) -> Iterator[None]:
    """Call `seen` with what a cut at every durable operation would leave, while the device goes on as if nothing were."""

    number = 0

    def leave(mode: str, name: str, change: Callable[[Beginning], None] | None = None) -> None:
        found = replace(beginning(device), way=(f"{mode} {number} {name}",))
        if change is not None:
            change(found)
        for fate, settled in _fates(found):
            seen(replace(settled, way=(found.way[0] + fate,)))

    def around(kind: type, method: str) -> Any:
        original = getattr(kind, method)

        def watching(it: Any, *arguments: Any) -> Any:
            nonlocal number
            number += 1
            name = f"{kind.__name__}.{method} {str(arguments[0])[:40] if arguments else ''}"
            leave("before", name)
            if method == "write_at":
                offset, data = arguments
                leave("torn", name, lambda found: _put(found, it, offset, data))
            made = original(it, *arguments)
            leave("after", name)
            return made

        return patch.object(kind, method, watching)

    with ExitStack() as stack:
        for kind, method in (
            (MemoryStorage, "write"),
            (MemoryStorage, "delete"),
            (MemorySlot, "write_at"),
            (MemorySlot, "flush"),
            (SimBootloader, "_keep"),
        ):
            stack.enter_context(around(kind, method))
        yield


def _put(found: Beginning, slot: MemorySlot, offset: int, data: bytes) -> None:
    half = MemorySlot(slot._name, found.slots[slot._name], slot._power, slot._faults)
    half._put(offset, data[: len(data) // 2])


@dataclass
class Tried:
    """What an enumeration did.

    Attributes:
        states: beginnings that were run to their end.
        singles, pairs: cuts, and pairs of cuts, that lead to them.
        wrong: what went wrong, with the way to it.
        endings: by key of a beginning, how it ended; more than one means that `key` leaves something out.
    """

    states: int = 0
    singles: int = 0
    pairs: int = 0
    wrong: list[str] = field(default_factory=list)
    endings: dict[str, set[str]] = field(default_factory=dict)


def every_pair(
    prepare: Callable[[], Device],
    run: Callable[[Device], list[str]],
    *,
    merge: bool = True,
) -> Tried:
    """Try every single cut and every pair of cuts.

    Args:
        prepare: makes the device, at the beginning of the story.
        run: runs it to the end of the story, and says what is wrong then.
        merge: run beginnings of one key once; False = run each, to prove the key.
    """
    tried = Tried()
    device = prepare()
    ends: set[str] = set()

    def go(found: Beginning | None, *, watch: bool) -> list[Beginning]:
        left: list[Beginning] = []
        if found is not None:
            begin(device, found)
        way = () if found is None else found.way
        try:
            if watch:
                with watched(device, left.append):
                    wrong = run(device)
            else:
                wrong = run(device)
        except AssertionError as error:
            wrong = [f"stopped: {error}"]
        tried.states += 1
        tried.wrong += [f"{' / '.join(way)}: {one}" for one in wrong]
        if found is not None:
            tried.endings.setdefault(key(found), set()).add(_ending(device))
        return [replace(one, way=(*way, *one.way)) for one in left]

    firsts = go(None, watch=True)
    tried.singles = len(firsts)
    groups: dict[str, list[Beginning]] = {}
    for number, first in enumerate(firsts):
        groups.setdefault(key(first) if merge else str(number), []).append(first)
    for group in groups.values():
        seconds = go(group[0], watch=True)
        tried.pairs += len(group) * len(seconds)
        for second in seconds:
            same = key(second)
            if merge and (same in ends or same in groups):
                continue
            ends.add(same)
            go(second, watch=False)
    return tried


def _ending(device: Device) -> str:
    """What counts of an end: what runs, what boots next, and what was told."""
    told = sorted(device.plane.outcomes(), key=str)
    return f"{device.runs} {device.board.loader.kept} {told} {len(device.plane.permits)}"
