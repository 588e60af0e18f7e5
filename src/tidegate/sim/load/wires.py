"""Many kept connections from one thread: each carries one request at a time, and turns begin when their time has come, whether the server keeps up or not.

How long an answer took is counted from the moment at which it was due: a server that stalls is not excused by a client that waits for it ("coordinated
omission", Gil Tene, *How NOT to Measure Latency*).
"""

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
    """One connection, and the turn that it carries; none is open before the first, nor after the server ended one that carried none."""

    sock: socket.socket | None = None
    fresh: bool = True  # nothing was answered over this connection yet
    buffer: bytearray = field(default_factory=bytearray)
    turn: Turn = ()
    step: int = 0
    due: float = 0.0

    def answer(self, piece: bytes) -> Answer | None:
        """Take what has come; return the answer once it is whole."""
        self.buffer += piece
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        status = int(head[9:12])
        made = Answer(self.step, status, time.monotonic() - self.due, bytes(head), bytes(body))
        length = 0 if status == 304 else int(made.header("content-length") or 0)
        return made if len(body) >= length else None


class Wires:
    """Connections to one server on this machine. Each is opened when it is first wanted, and again after the server ended it for want of use, as a device does.

    Attributes:
        most_open: how many were open at a time.
        opened: how often one was opened.
    """

    def __init__(self, port: int, count: int) -> None:
        """Prepare `count` of them."""
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._wires = [_Wire() for _ in range(count)]
        self._open = self.most_open = self.opened = 0

    def __len__(self) -> int:
        return len(self._wires)

    def close(self) -> None:
        """Close them all. Safe to repeat."""
        for wire in self._wires:
            if wire.sock is not None:
                self._drop(wire, wire.sock)
        self._selector.close()

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
                self._ask(wire)
                begun += 1
            rest_s = start + begun / per_s - now if free and begun < total else _LOOK_S
            for wire, answer in self._answers(max(0.0, min(rest_s, _LOOK_S))):
                heard = time.monotonic()
                note(answer)
                wire.step += 1
                if wire.step < len(wire.turn):
                    wire.due = heard
                    self._ask(wire)
                else:
                    wire.turn = ()
                    free.append(wire)
            if time.monotonic() - heard > _SILENT_S:
                raise TransferError("download.timeout", f"no answer for {_SILENT_S:.0f} s")
        return time.monotonic() - start

    def hold(self, asks: Sequence[bytes]) -> None:
        """Send one request on each of the first connections, and do not wait for the answers."""
        now = time.monotonic()
        for wire, request in zip(self._wires, asks, strict=False):
            wire.turn, wire.step, wire.due = (request,), 0, now
            self._ask(wire)

    def gather(self, count: int, since: float, limit_s: float) -> list[float]:
        """Wait for `count` answers to what was held; return when each came, in seconds after `since` (monotonic)."""
        found: list[float] = []
        end = time.monotonic() + limit_s
        while len(found) < count and time.monotonic() < end:
            found += [time.monotonic() - since for _ in self._answers(_LOOK_S)]
        return found

    def _ask(self, wire: _Wire) -> None:
        """Send the request of a wire's step; anew over a fresh connection where the server has just ended this one."""
        wire.buffer.clear()
        request = wire.turn[wire.step]
        if wire.sock is not None:
            try:
                wire.sock.sendall(request)
            except (BrokenPipeError, ConnectionResetError):
                self._drop(wire, wire.sock)
            else:
                return
        self._connect(wire).sendall(request)

    def _connect(self, wire: _Wire) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=_SILENT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.sock, wire.fresh = sock, True
        self._selector.register(sock, selectors.EVENT_READ, wire)
        self.opened += 1
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        return sock

    def _drop(self, wire: _Wire, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()
        wire.sock = None
        self._open -= 1

    def _answers(self, wait_s: float) -> Iterator[tuple[_Wire, Answer]]:
        for key, _ in self._selector.select(wait_s):
            wire: _Wire = key.data
            sock = wire.sock
            if sock is None:
                continue
            piece = _read(sock)
            if piece:
                answer = wire.answer(piece)
                if answer is not None:
                    wire.fresh = False
                    yield wire, answer
                continue
            self._drop(wire, sock)
            if wire.turn and (wire.buffer or wire.fresh):
                raise TransferError("download.truncated", "the server closed a connection")
            if wire.turn:
                self._ask(wire)  # it closed an idle connection while the request was on its way


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_READ)
    except ConnectionResetError:
        return b""
