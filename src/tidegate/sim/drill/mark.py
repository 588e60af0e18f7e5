"""One device under attack: the real agent's worker, with its own trust store, its own rules and its own key, on a simulated board and clock.

It is asked one question at a time: what would you do with this? Its answer is the worker's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import msgspec

from tidegate import __version__
from tidegate.agent.events import Assigned, Deferred, Ordered, Refresh, Refused
from tidegate.agent.jobs import Reply, Task
from tidegate.agent.settings import Settings
from tidegate.agent.state import Order, SlotRecord, State
from tidegate.agent.trust.enrol import keys_of
from tidegate.agent.trust.orders import Orders
from tidegate.agent.trust.store import TrustStore
from tidegate.core.errors import TidegateError
from tidegate.core.hardware import Hardware
from tidegate.core.keys import device_key_sha256
from tidegate.core.metadata import file_name
from tidegate.core.release import ReleaseTarget
from tidegate.sim.board import Catalogue, SimBoard
from tidegate.sim.clock import DeviceClock, VirtualTimeline
from tidegate.sim.disk import MemoryStorage
from tidegate.sim.drill.estate import Kind, Slot
from tidegate.sim.faults import Truth

_SLOT: Final = 4096


class Answering(Protocol):
    """A server as one device sees it: an answer to one request."""

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body."""
        ...


@dataclass
class Answer:
    """An HTTP answer in memory."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def read(self, count: int) -> bytes:
        """Return the next bytes."""
        piece, self.body = self.body[:count], self.body[count:]
        return piece

    def close(self) -> None:
        """Nothing to give back."""


@dataclass
class Line:
    """`agent.ports.Transport` to whoever is the server at the moment."""

    server: Answering

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Ask, and have the answer at once."""
        status, found = self.server.answer(path, body or b"")
        return Answer(status, found, {"content-length": str(len(found))})


@dataclass(frozen=True)
class World:
    """`agent.ports.World` of the device."""

    clock: DeviceClock
    storage: MemoryStorage
    board: SimBoard
    transport: Line


@dataclass(frozen=True)
class Verdict:
    """What the device makes of an order: `obeyed`, `deferred` (a mandate), `idle`, or `refused` with the reason."""

    what: str
    reason: str = ""
    detail: str = ""


class Mark:
    """A device of one kind that has seen the honest repository as it is."""

    def __init__(
        self,
        device_id: str,
        kind: Kind,
        *,
        anchor: bytes,
        known: Mapping[str, ReleaseTarget],
        honest: Answering,
        now: int,
        seed: int,
    ) -> None:
        """Switch it on, and let it learn what an honest server has published.

        Raises:
            TidegateError: it does not believe the honest server: something is wrong before any attack.
        """
        self.id, self.kind = device_id, kind
        clock = DeviceClock(VirtualTimeline(now), Random(seed))  # noqa: S311 - simulated randomness
        board = SimBoard(
            variant=f"{kind.model}-r{kind.rev}",
            clock=clock,
            random=Random(seed),  # noqa: S311 - the same
            catalogue=Catalogue(),
            truth=Truth(),
            slot_size=_SLOT,
        )
        self._world = World(clock, board.storage, board, Line(honest))
        self.settings = Settings(
            device_id=device_id,
            product=kind.product,
            hardware=Hardware(kind.model, kind.rev),
            channel=kind.channel,
            agent=kind.agent or __version__,
            anchor=anchor,
        )
        public = keys_of(self._world, self.settings).present(make=True).public
        self.key_sha256 = device_key_sha256(public.keytype, public.public)
        self.state = State(
            slots={"A": _record(kind.running, known), "B": _record(kind.other, known)},
            floor=kind.floor,
            current="A",
            boot_id="drill",
        )
        self._order = Order()
        self._learn(anchor, now)
        self._kept = {name: board.storage.read(name) or b"" for name in board.storage.names()}

    def _learn(self, anchor: bytes, now: int) -> None:
        store = TrustStore(
            self._world.storage, self._world.transport, anchor, now, clock=self._world.clock
        )
        store.refresh_root()
        store.refresh(self.kind.product)

    def forget(self) -> None:
        """Be as before the last order: each attack meets a device that no other has touched."""
        for name in self._world.storage.names():
            if name not in self._kept:
                self._world.storage.delete(name)
        for name, body in self._kept.items():
            self._world.storage.write(name, body)

    def holds(self, role: str) -> bytes | None:
        """Return the document of a role that it believes and keeps; None where it has none."""
        clock = self._world.clock
        store = TrustStore(
            self._world.storage,
            self._world.transport,
            self.settings.anchor,
            int(clock.now()),
            clock=clock,
        )
        return dict(store.documents()).get(file_name(role, None))

    def remember(self) -> None:
        """Go on from here: what it believes and obeyed now is what it knows from now on."""
        storage = self._world.storage
        self._kept = {name: storage.read(name) or b"" for name in storage.names()}
        self.state = msgspec.structs.replace(self.state, order=self._order)

    def asks(self, server: Answering) -> Verdict:
        """Ask a server what to do, and tell what comes of it."""
        self._world.transport.server = server
        task = Task(job=Refresh(), state=self.state, token="drill")  # noqa: S106 - no secret
        try:
            replies = Orders(self._world, self.settings).refresh(task)
        except TidegateError as error:
            return Verdict("refused", error.code, error.detail)
        return self._verdict(replies[-1])

    def _verdict(self, reply: Reply) -> Verdict:
        if isinstance(reply, Assigned | Ordered | Deferred):
            self._order = reply.order
        if isinstance(reply, Assigned):
            return Verdict("obeyed")
        if isinstance(reply, Deferred):
            return Verdict("deferred", reply.reason, reply.detail)
        if isinstance(reply, Refused):
            return Verdict("refused", reply.reason, reply.detail)
        return Verdict("idle")


def _record(slot: Slot, known: Mapping[str, ReleaseTarget]) -> SlotRecord:
    state = (
        slot.state if slot.state in {"empty", "confirmed", "staged", "trying", "bad"} else "empty"
    )
    return SlotRecord(
        state=state,  # type: ignore[arg-type]  # one of the words
        release_counter=slot.counter,
        security_version=slot.security_version,
        version=slot.version,
        sha256=slot.sha256,
        release=known.get(slot.sha256 or ""),
    )
