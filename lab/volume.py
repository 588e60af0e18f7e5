"""A disk with a write cache that forgets: what was not flushed when the power went is lost in part, by chance, or torn.

Killing QEMU alone only ever shows prefixes of what the guest wrote, since the host keeps every write that was made. This is the disk itself, an NBD server
of which QEMU is the client: writes reach the file at once, and what they replaced is remembered until the guest flushes. `cut` puts back a random part of
that, in whole sectors of 512 bytes. The protocol is that of the NBD project's `doc/proto.md`: fixed newstyle, `GO`, simple replies.
"""

import contextlib
import os
import random
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECTOR: Final = 512
_MAGIC: Final = 0x4E42444D41474943  # NBDMAGIC
_OPTION: Final = 0x49484156454F5054  # IHAVEOPT
_OPTION_REPLY: Final = 0x3E889045565A9
_REQUEST: Final = 0x25609513
_REPLY: Final = 0x67446698
_FIXED, _NO_ZEROES = 1, 2
_GO, _INFO, _ABORT = 7, 6, 2
_ACK, _TOLD, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_EXPORT: Final = 0
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA_FLAG: Final = 1
#: HAS_FLAGS, SEND_FLUSH, SEND_FUA.
_ABILITIES: Final = 1 | 4 | 8


@dataclass(frozen=True)
class _Write:
    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True)
class Loss:
    """What a power cut took.

    Attributes:
        unflushed: writes that no flush had made durable.
        lost: those of which nothing is left.
        torn: those of which a part is left.
    """

    unflushed: int
    lost: int
    torn: int


@dataclass(frozen=True)
class _Trap:
    ranges: tuple[tuple[int, int], ...]
    reads: bool
    sprung: threading.Event

    def holds(self, offset: int, length: int) -> bool:
        return any(offset < at + size and offset + length > at for at, size in self.ranges)


class _TrappedError(Exception):
    """The write or read that was waited for has come."""


class Volume:
    """Serves one disk image over a Unix socket, for one machine after another.

    Args:
        image: the file; as long as the disk.
        socket_path: where QEMU connects to; short, as Unix wants it.
    """

    def __init__(self, image: Path, socket_path: Path) -> None:
        self.image = image
        self.socket_path = socket_path
        self._file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._unflushed: list[_Write] = []
        self._lock = threading.Lock()
        self._trap: _Trap | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        socket_path.unlink(missing_ok=True)
        self._listener.bind(str(socket_path))
        self._listener.listen(1)
        self._idle = threading.Event()
        self._idle.set()
        threading.Thread(target=self._accept, name="volume", daemon=True).start()

    def trap(self, *ranges: tuple[int, int], reads: bool = False) -> threading.Event:
        """Wait for the next write into one of these ranges, each its start and its length: it reaches the disk's cache, and the disk never answers again.

        The event tells when that is; then take the power away. No ranges: wait for nothing any more. `reads`: wait for a read instead.
        """
        trap = _Trap(ranges, reads, threading.Event())
        with self._lock:
            self._trap = trap
        return trap.sprung

    def cut(self, chance: random.Random, *, all_lost: bool = False) -> Loss:
        """Be the disk whose power went, its machine being dead: keep a random part of what was not flushed. Returns what was lost.

        One time in three everything is lost; one time in three the first writes are kept, the next one is torn and the rest lost; else each write for
        itself is kept, lost or torn. `all_lost`: everything is lost this time.
        """
        self.settle()
        with self._lock:
            self._trap = None
            writes, self._unflushed = self._unflushed, []
            for one in reversed(writes):
                os.pwrite(self._file, one.old, one.offset)
            manner = "nothing" if all_lost else chance.choice(("nothing", "prefix", "any"))
            limit = chance.randint(0, len(writes))
            lost = torn = 0
            for number, one in enumerate(writes):
                if manner == "nothing" or (manner == "prefix" and number > limit):
                    fate = "lost"
                elif manner == "prefix":
                    fate = "torn" if number == limit else "kept"
                else:
                    fate = chance.choice(("kept", "lost", "torn"))
                kept = one.new
                if fate == "torn":
                    kept = _part(one.new, chance)
                    torn += 1
                elif fate == "lost":
                    kept = b""
                    lost += 1
                if kept:
                    os.pwrite(self._file, kept, one.offset)
            return Loss(len(writes), lost, torn)

    def settle(self, timeout_s: float = 20.0) -> None:
        """Wait until the last machine's connection has ended, and with it every write that it sent."""
        if not self._idle.wait(timeout_s):
            raise RuntimeError("a machine is still connected to the volume")

    def close(self) -> None:
        """Serve nobody any more; the image stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.socket_path.unlink(missing_ok=True)
        self._idle.wait(5)
        os.close(self._file)

    # --- the server -------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._idle.clear()
            try:
                with client:
                    try:
                        self._serve(client)
                    except _TrappedError:
                        while client.recv(65536):
                            pass
            except (OSError, EOFError):
                pass  # the machine was killed
            finally:
                self._idle.set()

    def _serve(self, client: socket.socket) -> None:
        client.sendall(struct.pack(">QQH", _MAGIC, _OPTION, _FIXED | _NO_ZEROES))
        _take(client, 4)
        if not self._negotiate(client):
            return
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", _take(client, 28))
            if magic != _REQUEST or kind == _DISCONNECT:
                return
            body = b""
            if kind == _WRITE:
                self._write(offset, _take(client, length), durable=bool(flags & _FUA_FLAG))
            elif kind == _READ:
                self._asked(offset, length)
                body = os.pread(self._file, length, offset)
            elif kind == _FLUSH:
                self._flush()
            client.sendall(struct.pack(">IIQ", _REPLY, 0, handle) + body)

    def _negotiate(self, client: socket.socket) -> bool:
        while True:
            _, option, length = struct.unpack(">QII", _take(client, 16))
            _take(client, length)
            if option in (_GO, _INFO):
                _answer(client, option, _TOLD, struct.pack(">HQH", _EXPORT, self._size, _ABILITIES))
                _answer(client, option, _ACK)
                if option == _GO:
                    return True
            elif option == _ABORT:
                _answer(client, option, _ACK)
                return False
            else:
                _answer(client, option, _UNSUPPORTED)

    def _write(self, offset: int, new: bytes, *, durable: bool) -> None:
        with self._lock:
            trap = self._trap
            sprung = trap is not None and not trap.reads and trap.holds(offset, len(new))
            if sprung or not durable:
                self._unflushed.append(_Write(offset, os.pread(self._file, len(new), offset), new))
            os.pwrite(self._file, new, offset)
        if trap is not None and sprung:
            trap.sprung.set()
            raise _TrappedError

    def _asked(self, offset: int, length: int) -> None:
        with self._lock:
            trap = self._trap
        if trap is not None and trap.reads and trap.holds(offset, length):
            trap.sprung.set()
            raise _TrappedError

    def _flush(self) -> None:
        with self._lock:
            self._unflushed.clear()


def _part(new: bytes, chance: random.Random) -> bytes:
    """Return the front of a write, up to a sector's border."""
    return new[: chance.randrange(0, max(1, len(new) // SECTOR)) * SECTOR]


def _take(client: socket.socket, length: int) -> bytes:
    pieces = bytearray(length)
    view, done = memoryview(pieces), 0
    while done < length:
        count = client.recv_into(view[done:])
        if count == 0:
            raise EOFError
        done += count
    return bytes(pieces)


def _answer(client: socket.socket, option: int, kind: int, body: bytes = b"") -> None:
    client.sendall(struct.pack(">QIII", _OPTION_REPLY, option, kind, len(body)) + body)
