"""The agent's socket on the device: verbs for people and applications (`agent.verbs`), one JSON line each way.

Who may use it is the socket's file mode and group. One thread serves everybody between two ticks of the agent, and while it waits for its server, so nobody is
waited for: a client has a moment to say its line, and a connection that holds an inhibitor costs a file descriptor until it ends.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH101, PTH103, PTH108, PTH120

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tidegate.agent.runner import Runner
from tidegate.agent.verbs import VERBS, Request
from tidegate.core.errors import DeviceError, RequestError, TidegateError, TransferError

_LINE_MAX: Final = 64 << 10
#: A client that has not said its line by then is let go, in seconds.
PATIENCE_S: Final = 2.0
#: Connections at once; root's are not counted for its share, so that a flood of an application's does not lock people out.
CLIENTS_MAX: Final = 96
CLIENTS_OF_ONE_MAX: Final = 32

__all__ = ["LocalServer", "Request", "ask", "connect"]


class _Client:
    """One connection: says its line, then is answered and let go, or holds an inhibitor."""

    def __init__(self, own: socket.socket, user: int, until: float) -> None:
        self.socket = own
        self.user = user
        self.until = until
        self.buffer = b""
        self.holds = ""


class LocalServer:
    """Listens on the socket; `watched` says what to wait for, `serve` does what can be done without waiting.

    Args:
        path: of the socket; an old one is replaced.
        mode: its file mode.
        group: its group; None = this process' own.
        runner: whose agent it speaks for.
        monotonic: seconds.

    Raises:
        DeviceError: `install.write`: the socket cannot be made.
    """

    def __init__(
        self,
        path: str,
        mode: int,
        group: str | None,
        runner: Runner,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._runner = runner
        self._monotonic = monotonic
        self._clients: list[_Client] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            _remove(path)
            before = os.umask(0o777 & ~mode)
            try:
                self._listener.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, mode)
            if group is not None:
                _give_to(path, group)
            self._listener.listen(64)
            self._listener.setblocking(False)
        except OSError as error:
            self._listener.close()
            raise DeviceError("install.write", f"{path}: {error.strerror or error}") from error

    @property
    def watched(self) -> list[socket.socket]:
        """Return the sockets whose reading side to wait for."""
        return [self._listener, *(one.socket for one in self._clients)]

    @property
    def patience_s(self) -> float:
        """Return after how many seconds to call `serve` at the latest; inf = when something comes."""
        talking = [one.until for one in self._clients if not one.holds]
        return max(0.0, min(talking) - self._monotonic()) if talking else float("inf")

    def serve(self, ready: "set[socket.socket]") -> None:
        """Take what came, answer whoever has said his line, let go who took too long. Never waits."""
        for client in list(self._clients):
            if client.socket in ready:
                with contextlib.suppress(BlockingIOError):
                    self._hear(client)
        now = self._monotonic()
        for client in list(self._clients):
            if not client.holds and client.until <= now:
                self._let_go(client)
        if self._listener in ready:
            self._take()

    def close(self) -> None:
        """Let everybody go and remove the socket."""
        for client in list(self._clients):
            self._let_go(client)
        self._listener.close()
        _remove(self._path)

    def _take(self) -> None:
        for _ in range(CLIENTS_MAX):
            try:
                own, _ = self._listener.accept()
            except OSError:
                return
            own.setblocking(False)
            client = _Client(own, _user(own), self._monotonic() + PATIENCE_S)
            mine = sum(one.user == client.user for one in self._clients)
            full = len(self._clients) >= CLIENTS_MAX or (client.user and mine >= CLIENTS_OF_ONE_MAX)
            self._clients.append(client)
            if full:
                self._answer(client, _problem(RequestError("request.rate_limited", "too many connections to the agent")))  # fmt: skip
                self._let_go(client)
                continue
            with contextlib.suppress(BlockingIOError):
                self._hear(client)

    def _hear(self, client: _Client) -> None:
        try:
            piece = client.socket.recv(_LINE_MAX)
        except BlockingIOError:
            raise
        except OSError:
            piece = b""
        if client.holds:
            # What it says now means nothing; that it goes ends its inhibitor.
            if not piece:
                self._let_go(client)
            return
        client.buffer += piece
        if piece and b"\n" not in client.buffer and len(client.buffer) < _LINE_MAX:
            return
        line, _, _ = client.buffer.partition(b"\n")
        client.buffer = b""
        found, request = self._done(line)
        stays = found["ok"] and request is not None and request.verb == "inhibit"
        if stays and request is not None and not request.detached:
            client.holds = str(found["name"])
        if not self._answer(client, found) or not client.holds:
            self._let_go(client)

    def _done(self, line: bytes) -> tuple[dict[str, Any], Request | None]:
        """Do what a line (untrusted) asks for."""
        try:
            request = msgspec.json.decode(line, type=Request)
            verb = VERBS.get(request.verb)
            if verb is None:
                raise RequestError("request.invalid", f"no verb {request.verb[:40]!r}")
            return {"ok": True, **verb(self._runner, request)}, request
        except msgspec.DecodeError as error:
            return _problem(RequestError("request.invalid", str(error)[:200])), None
        except TidegateError as error:
            return _problem(error), None

    def _answer(self, client: _Client, found: dict[str, Any]) -> bool:
        """Send an answer; say whether all of it went out. A status is far smaller than what a socket takes at once."""
        body = msgspec.json.encode(found) + b"\n"
        try:
            return client.socket.send(body) == len(body)
        except OSError:
            return False

    def _let_go(self, client: _Client) -> None:
        if client.holds:
            self._runner.lookout.inhibitors.drop(client.holds)
        self._clients.remove(client)
        client.socket.close()


def ask(path: str | os.PathLike[str], request: Request, timeout_s: float = 10.0) -> dict[str, Any]:
    """Ask the running agent.

    Raises:
        TransferError: `link.unreachable`: no agent listens there.
    """
    found, client = connect(path, request, timeout_s)
    client.close()
    return found


def connect(
    path: str | os.PathLike[str], request: Request, timeout_s: float = 10.0
) -> tuple[dict[str, Any], socket.socket]:
    """Ask the running agent; return its answer and the connection, which the caller closes.

    Raises:
        TransferError: `link.unreachable`: no agent listens there.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(timeout_s)
        _reach(client, os.fspath(path), time.monotonic() + timeout_s)
        client.sendall(msgspec.json.encode(request) + b"\n")
        found: dict[str, Any] = msgspec.json.decode(_read_line(client))
    except (OSError, msgspec.DecodeError) as error:
        client.close()
        raise TransferError(
            "link.unreachable",
            f"no agent answers on {path}: {error}",
            hint="start it: tidegate-agent run, or the service of that name",
        ) from error
    return found, client


def _reach(client: socket.socket, path: str, until: float) -> None:
    """Connect; a queue that is full for a moment is no reason to give up."""
    while True:
        try:
            client.connect(path)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _problem(error: TidegateError) -> dict[str, Any]:
    return {"ok": False, "code": error.code, "detail": error.detail}


def _user(own: socket.socket) -> int:
    """Return the user id at the other end (`SO_PEERCRED`: pid, uid, gid)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _give_to(path: str, group: str) -> None:
    import grp

    with contextlib.suppress(LookupError, PermissionError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)


def _read_line(client: socket.socket) -> bytes:
    buffer = b""
    while b"\n" not in buffer and len(buffer) < _LINE_MAX * 16:
        piece = client.recv(_LINE_MAX)
        if not piece:
            break
        buffer += piece
    return buffer.partition(b"\n")[0]
