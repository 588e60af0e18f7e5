"""What people and applications on the device may ask of the running agent: one function a verb.

A verb never skips a signature; the most that it can do is to wait, to stop waiting, to go back to a confirmed image, or, where the configuration allows that,
to install a newer signed release without the server's leave. Light: durations and rates were read by the command line.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tidegate.agent.events import (
    ApplyAsked,
    ConfirmAsked,
    DeferAsked,
    HoldAsked,
    ReleaseAsked,
    RevertAsked,
)
from tidegate.agent.flow import Throttle
from tidegate.agent.runner import Runner
from tidegate.agent.state import (
    Activating,
    Confirming,
    Downloading,
    Idle,
    Installing,
    Reverting,
    Staged,
    Testing,
)
from tidegate.agent.status import describe
from tidegate.agent.trial import can_go_back
from tidegate.core.errors import RequestError

_TEXT_MAX: Final = 200


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One verb with what it needs.

    Attributes:
        for_s: how long, in seconds; 0 = without an end of its own.
        rate: bytes a second, 0 = no limit; -1 = as configured.
        keep: also after a restart of the agent.
        name: of an inhibitor that was left.
        word: `yes`, `no` or `auto`.
        detached: leave the inhibitor behind for `for_s`, do not hold it with this connection.
    """

    verb: str
    reason: str = ""
    until_at: int = 0
    bundle: str = ""
    for_s: int = 0
    rate: int = -1
    keep: bool = False
    who: str = ""
    name: str = ""
    word: str = "auto"
    detached: bool = False


Verb = Callable[[Runner, Request], dict[str, Any]]


def _status(runner: Runner, _request: Request) -> dict[str, Any]:
    return {"status": describe(runner)}


def _check(runner: Runner, _request: Request) -> dict[str, Any]:
    runner.check_now()
    return {"said": "Polling now."}


def _hold(runner: Runner, request: Request) -> dict[str, Any]:
    now = runner.now()
    latest = now + runner.settings.hold_max_s
    until = request.until_at or (now + request.for_s if request.for_s else latest)
    if until <= now:
        raise RequestError("request.invalid", "the hold would end in the past")
    if until > latest:
        limit = runner.settings.hold_max_s
        raise RequestError("request.invalid", f"longer than [activate] defer_max, {limit} s")
    reason = request.reason or "held on the device"
    runner.feed(HoldAsked(now=now, reason=reason[:_TEXT_MAX], until_at=until))
    return {"said": "On hold. Downloads go on, nothing activates.", "until_at": until}


def _release(runner: Runner, _request: Request) -> dict[str, Any]:
    runner.feed(ReleaseAsked(now=runner.now()))
    return {"said": "Hold ended."}


def _defer(runner: Runner, request: Request) -> dict[str, Any]:
    if not isinstance(runner.state.phase, Downloading | Installing | Staged):
        raise RequestError("request.conflict", "no update is under way that could be put off")
    now, limit = runner.now(), runner.settings.hold_max_s
    runner.feed(DeferAsked(now=now, until_at=now + request.for_s, limit_s=limit))
    defer = runner.state.defer
    until = 0 if defer is None else defer.until_at
    if until <= now:
        spent = request.for_s > 0
        if spent:
            raise RequestError(
                "request.conflict", f"put off for all of [activate] defer_max ({limit} s) already"
            )
        return {"said": "Not put off any more.", "until_at": 0}
    cut = " That is as long as [activate] defer_max allows." if until < now + request.for_s else ""
    return {"said": f"Put off.{cut}", "until_at": until}


def _apply(runner: Runner, request: Request) -> dict[str, Any]:
    if request.bundle:
        return _open(runner, request.bundle)
    if not isinstance(runner.state.phase, Staged):
        runner.check_now()
        return {"said": "Nothing is staged. Polling now."}
    runner.feed(ApplyAsked(now=runner.now()))
    waits = "; ".join(one.detail or one.code for one in runner.because())
    if waits:
        return {"said": f"Skipping window and deferral. Still waits: {waits}."}
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
    runner.feed(RevertAsked(now=runner.now(), reason=reason[:_TEXT_MAX]))
    return {"said": "Going back. This image is not tried again here unless the server says so."}


def _throttle(runner: Runner, request: Request) -> dict[str, Any]:
    if request.rate < 0:
        runner.flow.throttle(None)
        return {"said": "As configured.", "rate": runner.flow.rate(None)}
    until = runner.now() + request.for_s if request.for_s else 0
    runner.flow.throttle(Throttle(rate=request.rate, until_at=until, keep=request.keep))
    limit = f"{request.rate} bytes/s at most" if request.rate else "No limit of this device's own"
    more = "" if request.keep else ", until the agent restarts"
    return {"said": f"{limit}{more}.", "rate": request.rate, "until_at": until}


def _metered(runner: Runner, request: Request) -> dict[str, Any]:
    match request.word:
        case "yes" | "no" | "auto" as word:
            runner.flow.metered(word)
        case other:
            raise RequestError("request.invalid", f"{other[:20]!r}: yes, no or auto")
    rule = runner.settings.metered
    said = "metered" if runner.flow.is_metered() else "not metered"
    return {"said": f'The link is {said}; [download] metered = "{rule}".'}


def _inhibit(runner: Runner, request: Request) -> dict[str, Any]:
    """Take an inhibitor; the server of the socket lets it go when the connection ends. Once the boot flag is set there is no "not now" any more."""
    if not request.reason:
        raise RequestError("request.invalid", "an inhibitor says why")
    phase = runner.state.phase
    if isinstance(phase, Activating) and (phase.armed or phase.begun):
        raise RequestError("request.conflict", "too late: the device is about to restart")
    inhibitors, who = runner.lookout.inhibitors, request.who or "somebody"
    if not request.detached:
        name = inhibitors.hold(who, request.reason, request.for_s)
        return {"said": "Held as long as this connection is open.", "name": name}
    if not 0 < request.for_s <= runner.settings.hold_max_s:
        limit = runner.settings.hold_max_s
        raise RequestError(
            "request.invalid", f"what is left behind ends by itself: 1 s to {limit} s (defer_max)"
        )
    name = inhibitors.leave(who, request.reason, request.for_s)
    return {"said": f"Left behind: {name}.", "name": name}


def _uninhibit(runner: Runner, request: Request) -> dict[str, Any]:
    runner.lookout.inhibitors.end(request.name)
    return {"said": "Taken away."}


VERBS: Final[dict[str, Verb]] = {
    "status": _status,
    "check": _check,
    "hold": _hold,
    "release": _release,
    "defer": _defer,
    "apply-now": _apply,
    "bundle": _bundle,
    "confirm": _confirm,
    "revert": _revert,
    "throttle": _throttle,
    "metered": _metered,
    "inhibit": _inhibit,
    "uninhibit": _uninhibit,
}
