"""A crowd of devices on the loopback interface: real tokens, signed reports, permits asked for over and over. Cheap, so that thousands fit beside the servers.

A device polls; where there may be something, it asks what; with an image in its slot it asks for leave, hands back the leave that it got, as one whose user
said "later" does, and asks anew. So a rollout always has somebody to let go, however often it is halted.
"""

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tidegate.core import codec, keys
from tidegate.core.hardware import Hardware
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    EVENT_TYPE,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    DeviceState,
    EventBody,
    EventItem,
    EventsRequest,
    PermitAnswer,
    PermitBody,
    PermitRequest,
    PollAnswer,
    SlotState,
)
from tidegate.server.store.shared import LEASE_S
from tidegate.server.store.shared_files import AGAIN_S

#: How often a refused device asks for leave again before it asks what it should do.
_STUBBORN: Final = 3
#: So long after a stopped process goes on may it, or who waited for it, still say that it is busy: a lease, and a turn.
THAW_S: Final = LEASE_S + AGAIN_S


@dataclass
class Watch:
    """What the crowd as a whole has seen."""

    #: When the halt that is in force was acknowledged, on the monotonic clock; None while nothing is halted.
    quiet_since: float | None = None
    stopping: bool = False
    polls: int = 0
    grants: int = 0
    refusals: int = 0
    offers: int = 0
    #: Questions that were sent while a halt was in force, and how many of them were answered with leave, or with an image to install.
    asked_in_quiet: int = 0
    granted_in_quiet: int = 0
    offered_in_quiet: int = 0
    #: Answers other than 200, by status; 0 = the connection broke. `broken`: those that came while every process went on.
    broken: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    #: A process is stopped; what waited for it is answered for so long after it goes on, on the monotonic clock.
    frozen: bool = False
    thawed_until: float = 0.0

    def thaw(self) -> None:
        """Say that the stopped process goes on."""
        self.frozen, self.thawed_until = False, time.monotonic() + THAW_S


class Line:
    """One connection at a time to any of several servers; another one when it breaks."""

    def __init__(self, ports: Sequence[int], token: str, chance: random.Random) -> None:
        """Call any of `ports`."""
        self._ports = ports
        self._head = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
        self._chance = chance
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body; status 0 when the connection broke."""
        try:
            if self._open is None:
                port = self._chance.choice(self._ports)
                self._open = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = self._open
            head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer[9:12])
            length = 0
            for line in answer.split(b"\r\n"):
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            found = status, await reader.readexactly(length)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""
        if self._chance.random() < 0.02:
            self.close()  # a balancer in front would send the next one elsewhere
        return found

    def close(self) -> None:
        """Hang up."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


class Device:
    """One device. It holds the image from the beginning: what is proved here is who gets leave."""

    def __init__(
        self, name: str, token: str, ports: Sequence[int], watch: Watch, *, pause_s: float
    ) -> None:
        """Make it; `pause_s`: between two of its questions, on average."""
        self.name = name
        self.key = device_key(name)
        self.watch = watch
        self._chance = random.Random(name)
        self._line = Line(ports, token, self._chance)
        self._pause_s = pause_s
        self._seq = 0
        self._order: AssignmentBody | None = None
        self._refused = 0

    async def live(self) -> None:
        """Go on until the crowd is told to stop."""
        await asyncio.sleep(self._chance.random() * self._pause_s)
        while not self.watch.stopping:
            await self._once()
            await asyncio.sleep(self._pause_s * (0.5 + self._chance.random()))
        self._line.close()

    async def _once(self) -> None:
        if self._order is None:
            self._order = await self._ask_for_work()
            self._refused = 0
            return
        if await self._ask_for_leave(self._order):
            return
        self._refused += 1
        if self._refused >= _STUBBORN:
            self._order = None

    async def _ask_for_work(self) -> AssignmentBody | None:
        watch = self.watch
        watch.polls += 1
        status, found = await self._line.ask("GET", "/d/v1/poll")
        if not self._good(status) or not msgspec.json.decode(found, type=PollAnswer).work:
            return None
        slots = {"A": SlotState(state="confirmed"), "B": SlotState(state="staged")}
        state = DeviceState(
            hardware=Hardware("gw1", 1),
            channel="stable",
            agent="1.0.0",
            boot_id="b",
            running="A",
            slots=slots,
        )
        request = AssignmentRequest(nonce=os.urandom(16).hex(), state=state)
        asked = time.monotonic()
        status, found = await self._line.ask("POST", "/d/v1/assignment", codec.encode(request))
        if not self._good(status):
            return None
        answer = msgspec.json.decode(found, type=AssignmentAnswer)
        body = codec.decode_document(keys.peek_payload(answer.envelope), AssignmentBody)
        if body.action != "install":
            return None
        watch.offers += 1
        if watch.quiet_since is not None and asked > watch.quiet_since:
            watch.offered_in_quiet += 1
        return body

    async def _ask_for_leave(self, order: AssignmentBody) -> bool:
        assert order.target is not None
        assert order.update is not None
        watch = self.watch
        request = PermitRequest(
            nonce=os.urandom(16).hex(),
            update=order.update,
            attempt=order.attempt,
            slot_sha256=order.target.sha256,
            release_counter=order.target.release_counter,
        )
        asked = time.monotonic()
        in_quiet = watch.quiet_since is not None
        watch.asked_in_quiet += in_quiet
        status, found = await self._line.ask("POST", "/d/v1/permit", codec.encode(request))
        if not self._good(status):
            return False
        answer = msgspec.json.decode(found, type=PermitAnswer)
        if answer.envelope is None:
            watch.refusals += 1
            return False
        watch.grants += 1
        if watch.quiet_since is not None and asked > watch.quiet_since:
            watch.granted_in_quiet += 1
        permit = codec.decode_document(keys.peek_payload(answer.envelope), PermitBody)
        await self._give_back(order, permit)
        return True

    async def _give_back(self, order: AssignmentBody, permit: PermitBody) -> None:
        self._seq += 1
        body = EventBody(
            device_id=self.name,
            seq=self._seq,
            at=permit.issued,
            kind="permit_returned",
            boot_id="b",
            update=order.update,
            attempt=order.attempt,
            nonce=permit.nonce,
        )
        item = EventItem(envelope=keys.sign_document(body, EVENT_TYPE, self.key))
        request = codec.encode(EventsRequest(events=(item,)))
        while not self.watch.stopping:  # at least once: the rollout's room depends on it
            status, _ = await self._line.ask("POST", "/d/v1/events", request)
            if status == 200:
                return
            self._good(status)
            await asyncio.sleep(0.2)

    def _good(self, status: int) -> bool:
        if status == 200:
            return True
        watch = self.watch
        watch.broken += not watch.frozen and time.monotonic() > watch.thawed_until
        watch.codes[status] = watch.codes.get(status, 0) + 1
        return False


def device_key(name: str) -> Signer:
    """Return the key of a device of the crowd."""
    return Signer.from_seed(hashlib.sha256(name.encode()).digest())
