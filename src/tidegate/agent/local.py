"""The agent's socket on the device: verbs for people and applications, one JSON line each way.

Who may use it is the socket's file mode and group. A verb never skips a signature; the most that it can do is to wait, to stop waiting, to
go back to a confirmed image, or, where the configuration allows that, to install a newer signed release without the server's leave.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH101, PTH103, PTH108, PTH120

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tidegate.agent.events import (
    ApplyAsked,
    ConfirmAsked,
    HoldAsked,
    ReleaseAsked,
    RevertAsked,
)
from tidegate.agent.runner import Runner
from tidegate.agent.state import (
    Activating,
    Confirming,
    Idle,
    Reverting,
    Staged,
    Testing,
)
from tidegate.agent.status import describe
from tidegate.agent.trial import can_go_back
from tidegate.core.errors import DeviceError, RequestError, TidegateError, TransferError

_LINE_MAX: Final = 64 << 10
#: A client that sends nothing is let go after this, in seconds.
_PATIENCE_S: Final = 2.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One verb with what it needs."""

    verb: str
    reason: str = ""
    until_at: int = 0
    bundle: str = ""


class LocalServer:
    """Listens on the socket; `serve_one` handles one client.

    Args:
        path: of the socket; an old one is replaced.
        mode: its file mode.
        group: its group; None = this process' own.
        runner: whose agent it speaks for.

    Raises:
        DeviceError: `install.write`: the socket cannot be made.
    """

    def __init__(self, path: str, mode: int, group: str | None, runner: Runner) -> None:
        self._path = path
        self._runner = runner
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            _remove(path)
            before = os.umask(0o777 & ~mode)
            try:
                self.socket.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, mode)
            if group is not None:
                _give_to(path, group)
            self.socket.listen(8)
        except OSError as error:
            self.socket.close()
            raise DeviceError("install.write", f"{path}: {error.strerror or error}") from error

    def serve_one(self) -> None:
        """Take one client, answer its one request. A client that misbehaves costs a moment and nothing else."""
        client, _ = self.socket.accept()
        with client, contextlib.suppress(OSError):
            client.settimeout(_PATIENCE_S)
            line = _read_line(client)
            client.sendall(msgspec.json.encode(self._answer(line)) + b"\n")

    def close(self) -> None:
        """Remove the socket."""
        self.socket.close()
        _remove(self._path)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=Request)
            verb = VERBS.get(request.verb)
            if verb is None:
                raise RequestError("request.invalid", f"no verb {request.verb[:40]!r}")
            return {"ok": True, **verb(self._runner, request)}
        except msgspec.DecodeError as error:
            return {"ok": False, "code": "request.invalid", "detail": str(error)[:200]}
        except TidegateError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}


def ask(path: str | os.PathLike[str], request: Request, timeout_s: float = 10.0) -> dict[str, Any]:
    """Ask the running agent.

    Raises:
        TransferError: `link.unreachable`: no agent listens there.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(os.fspath(path))
            client.sendall(msgspec.json.encode(request) + b"\n")
            found: dict[str, Any] = msgspec.json.decode(_read_line(client))
            return found
    except (OSError, msgspec.DecodeError) as error:
        raise TransferError(
            "link.unreachable",
            f"no agent answers on {path}: {error}",
            hint="start it: tidegate-agent run, or the service of that name",
        ) from error


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


# --- verbs ------------------------------------------------------------------------------------------------------------

Verb = Callable[[Runner, Request], dict[str, Any]]


def _status(runner: Runner, _request: Request) -> dict[str, Any]:
    return {"status": describe(runner)}


def _check(runner: Runner, _request: Request) -> dict[str, Any]:
    runner.check_now()
    return {"said": "Polling now."}


def _hold(runner: Runner, request: Request) -> dict[str, Any]:
    now = runner.now()
    latest = now + runner.settings.hold_max_s
    until = request.until_at or latest
    if until <= now:
        raise RequestError("request.invalid", "the hold would end in the past")
    reason = request.reason or "held on the device"
    runner.feed(HoldAsked(now=now, reason=reason[:200], until_at=until))
    return {"said": "On hold. Downloads go on, nothing activates.", "until_at": until}


def _release(runner: Runner, _request: Request) -> dict[str, Any]:
    runner.feed(ReleaseAsked(now=runner.now()))
    return {"said": "Hold ended."}


def _apply(runner: Runner, request: Request) -> dict[str, Any]:
    if request.bundle:
        return _open(runner, request.bundle)
    if not isinstance(runner.state.phase, Staged):
        runner.check_now()
        return {"said": "Nothing is staged. Polling now."}
    runner.feed(ApplyAsked(now=runner.now()))
    return {"said": "Skipping the window. A permit is asked for now."}


def _open(runner: Runner, path: str) -> dict[str, Any]:
    if not runner.settings.offline_bundles:
        detail = 'this device takes nothing by hand: [offline] bundles = "deny"'
        raise RequestError("request.forbidden", detail)
    if isinstance(runner.state.phase, Activating | Testing | Confirming | Reverting):
        raise RequestError("request.conflict", "another image is on trial")
    runner.open(path)
    return {"said": "Looking at what was brought."}


def _bundle(runner: Runner, _request: Request) -> dict[str, Any]:
    return {"bundle": msgspec.to_builtins(runner.stick.word)}


def _confirm(runner: Runner, _request: Request) -> dict[str, Any]:
    if not isinstance(runner.state.phase, Testing):
        raise RequestError("request.conflict", "nothing is on trial")
    runner.feed(ConfirmAsked(now=runner.now()))
    return {"said": "Accepted; confirmed when the warm-up is over."}


def _revert(runner: Runner, request: Request) -> dict[str, Any]:
    if isinstance(runner.state.phase, Idle) and not can_go_back(runner.state):
        detail = "the other slot holds no confirmed image that the floor allows"
        raise RequestError("request.conflict", detail)
    reason = request.reason or "reverted on the device"
    runner.feed(RevertAsked(now=runner.now(), reason=reason[:200]))
    return {"said": "Going back. This image is not tried again here unless the server says so."}


VERBS: Final[dict[str, Verb]] = {
    "status": _status,
    "check": _check,
    "hold": _hold,
    "release": _release,
    "apply-now": _apply,
    "bundle": _bundle,
    "confirm": _confirm,
    "revert": _revert,
}
