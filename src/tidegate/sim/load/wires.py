"""Many kept connections from one thread: each carries one request at a time, and turns begin when their time has come, whether the server keeps up or not.

How long an answer took is counted from the moment at which it was due: a server that stalls is not excused by a client that waits for it ("coordinated
omission", Gil Tene, *How NOT to Measure Latency*).
"""

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.errors import TransferError

_READ: Final = 65_536
_SILENT_S: Final = 60.0
#: How long nothing is done at most, in seconds.
_LOOK_S: Final = 0.05

#: A device's turn: what it asks, one after the other.
Turn = Sequence[bytes]


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        step: which request of its turn it answers.
        took_s: from when the request was due.
        head: its status line and header lines, without the last empty one.
    """

    step: int
    status: int
    took_s: float
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, or ""."""
        wanted = name.lower().encode()
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == wanted:
                return value.strip().decode("latin-1")
        return ""


@dataclass(slots=True, eq=False)
class _Wire:
    """One connection, and the turn that it carries."""

    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    turn: Turn = ()
    step: int = 0
    due: float = 0.0

    def ask(self) -> None:
        self.buffer.clear()
        self.sock.sendall(self.turn[self.step])

    def answer(self) -> Answer | None:
        """Read what has come; return the answer once it is whole."""
        piece = self.sock.recv(_READ)
        if not piece:
            raise TransferError("download.truncated", "the server closed a connection")
        self.buffer += piece
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        status = int(head[9:12])
        made = Answer(self.step, status, time.monotonic() - self.due, bytes(head), bytes(body))
        length = 0 if status == 304 else int(made.header("content-length") or 0)
        return made if len(body) >= length else None


class Wires:
    """Connections to one server on this machine."""

    def __init__(self, port: int, count: int) -> None:
        """Open `count` of them.

        Raises:
            OSError: they cannot be opened.
        """
        self._selector = selectors.DefaultSelector()
        self._wires: list[_Wire] = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=_SILENT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._wires.append(_Wire(sock))
            self._selector.register(sock, selectors.EVENT_READ, self._wires[-1])

    def __len__(self) -> int:
        return len(self._wires)

    def close(self) -> None:
        """Close them all. Safe to repeat."""
        with contextlib.suppress(Exception):
            self._selector.close()
        for wire in self._wires:
            wire.sock.close()

    def play(
        self,
        turn: Callable[[int], Turn],
        *,
        per_s: float,
        seconds: float,
        note: Callable[[Answer], None],
    ) -> float:
        """Begin `per_s` turns a second for so many seconds, each on a connection that is free, and wait for the last answers.

        Args:
            turn: makes the turn with this number, from 0 on.
            per_s: how many begin in a second, evenly.
            seconds: for how long.
            note: hears of every answer.

        Returns:
            How long it took until the last answer, in seconds.

        Raises:
            TransferError: `download.*`: the server closed a connection, or fell silent.
        """
        free, total, begun = deque(self._wires), int(per_s * seconds), 0
        start = heard = time.monotonic()
        while begun < total or len(free) < len(self._wires):
            now = time.monotonic()
            while free and begun < total and start + begun / per_s <= now:
                wire = free.popleft()
                wire.turn, wire.step, wire.due = turn(begun), 0, start + begun / per_s
                wire.ask()
                begun += 1
            rest_s = start + begun / per_s - now if free and begun < total else _LOOK_S
            for wire, answer in self._answers(max(0.0, min(rest_s, _LOOK_S))):
                heard = time.monotonic()
                note(answer)
                wire.step += 1
                if wire.step < len(wire.turn):
                    wire.due = heard
                    wire.ask()
                else:
                    free.append(wire)
            if time.monotonic() - heard > _SILENT_S:
                raise TransferError("download.timeout", f"no answer for {_SILENT_S:.0f} s")
        return time.monotonic() - start

    def hold(self, asks: Sequence[bytes]) -> None:
        """Send one request on each of the first connections, and do not wait for the answers."""
        now = time.monotonic()
        for wire, request in zip(self._wires, asks, strict=False):
            wire.turn, wire.step, wire.due = (request,), 0, now
            wire.ask()

    def gather(self, count: int, since: float, limit_s: float) -> list[float]:
        """Wait for `count` answers to what was held; return when each came, in seconds after `since` (monotonic)."""
        found: list[float] = []
        end = time.monotonic() + limit_s
        while len(found) < count and time.monotonic() < end:
            found += [time.monotonic() - since for _ in self._answers(_LOOK_S)]
        return found

    def _answers(self, wait_s: float) -> Iterator[tuple[_Wire, Answer]]:
        for key, _ in self._selector.select(wait_s):
            wire: _Wire = key.data
            answer = wire.answer()
            if answer is not None:
                yield wire, answer
