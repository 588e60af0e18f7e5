"""What `tidegate-agent status` says: what runs, what is under way, what it waits for and why, what comes next."""

from typing import Any, Final

import msgspec

from tidegate.agent.checkup.contract import HealthPolicy, in_force
from tidegate.agent.enrolment import FINGERPRINT_NAME, NEXT_FINGERPRINT_NAME
from tidegate.agent.runner import Runner
from tidegate.agent.state import (
    Idle,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Testing,
    Update,
)

SCHEMA: Final = "tidegate.agent.status/1"
#: What comes after each phase, in the words of a person.
_THEN: Final = {
    "idle": "poll again",
    "downloading": "read the slot back, then wait for leave to activate",
    "installing": "wait for leave to activate",
    "staged": "ask for a permit, reboot, check health",
    "activating": "reboot into the new slot",
    "testing": "confirm when every check passed for the whole warm-up, else go back",
    "confirming": "tell the boot loader, then the server",
    "reverting": "boot the other slot, then tell the server why",
}


def describe(runner: Runner) -> dict[str, Any]:
    """Return the status as plain data, schema `tidegate.agent.status/1`."""
    state, settings = runner.state, runner.settings
    running = state.slots.get(state.current, SlotRecord())
    because = [{"code": one.code, "detail": one.detail} for one in runner.because()]
    return {
        "schema": SCHEMA,
        "device": settings.device_id,
        "product": settings.product,
        "model": settings.hardware.model,
        "revision": settings.hardware.rev,
        "channel": settings.channel,
        "agent": settings.agent,
        "running": {
            "release": _name(running, settings.product),
            "release_counter": running.release_counter,
            "sha256": running.sha256,
            "slot": state.current,
            "confirmed": running.state == "confirmed",
        },
        "slots": {name: _slot(one) for name, one in state.slots.items()},
        "components": {name: _slot(one) for name, one in sorted(_beside(runner).items())},
        "update": _update(state, because, settings.health),
        "because": because,
        "then": _THEN[_phase(state)],
        "security_floor": state.floor,
        "holds": [] if state.hold is None else [_hold(state)],
        "deferred_until_at": _deferred(state),
        "inhibitors": list(runner.lookout.inhibitors.now()),
        "link": _link(runner),
        "refuses": [{"sha256": one.sha256, "reason": one.reason} for one in state.refused],
        "owed": len(state.outbox),
        "damaged": state.damaged,
        "audit": _witness(state),
        "last_contact_at": runner.contact_at,
        "next_poll_s": round(runner.next_poll_s),
        "enrolled": runner.enrolled,
        "fingerprint": _fingerprint(runner, FINGERPRINT_NAME),
        "fingerprint_next": _fingerprint(runner, NEXT_FINGERPRINT_NAME),
        "problem": runner.problem,
    }


def _witness(state: State) -> dict[str, Any] | None:
    """Return the heads of the operators' log that this device holds, as `tidegate audit verify` takes them."""
    seen = state.witness
    if seen is None:
        return None
    return {"note": seen.note, "fork": seen.fork, "fork_at": seen.fork_at}


def _fingerprint(runner: Runner, name: str) -> str:
    """Return a digest that the worker wrote down, or "" where there is none."""
    found = (runner.ports.storage.read(name) or b"").decode("ascii", "replace")
    return found if len(found) == 64 and set(found) <= set("0123456789abcdef") else ""


def lines(found: dict[str, Any]) -> list[str]:
    """Return the status for people, ASCII only. Loads the list of words, which the loop never does."""
    from tidegate.core.words import key_words

    running, update = found["running"], found["update"]
    kept = "confirmed" if running["confirmed"] else "on trial"
    waits = "; ".join(f"{one['detail'] or one['code']}" for one in found["because"])
    under_way = "none"
    if update is not None:
        where = f"in slot {update['slot']}" if update["slot"] else "beside the slots"
        under_way = f"{update['release']}, {update['state']} {where}"
    said = [
        f"{found['device']}   {found['model']} revision {found['revision']}   agent {found['agent']}",
        (
            f"Runs      {running['release']} (counter {running['release_counter']}), "
            f"slot {running['slot']}, {kept}"
        ),
        *(f"Beside    {name}: {_beside_told(one)}" for name, one in found["components"].items()),
        f"Update    {under_way}",
        f"Waiting   {waits or 'for nothing'}",
        f"Then      {found['then']}",
        f"Server    {found['enrolled'] or 'not enrolled'}, next poll in {found['next_poll_s']} s"
        + (f" ({found['problem']})" if found["problem"] else ""),
        (
            f"Holds     {_listed(found['holds'], 'reason')}      "
            f"Inhibitors  {', '.join(found['inhibitors']) or 'none'}"
        ),
        f"Refuses   {_listed(found['refuses'], 'reason')}",
        f"Link      {_said_of(found['link'])}",
    ]
    if update is not None and "health" in update:
        said.append(f"Health    {_told(update['health'])}")
    if found["fingerprint"]:
        said.append(f"Key       {key_words(found['fingerprint'])}   {found['fingerprint']}")
    if found["fingerprint_next"]:
        waits = found["fingerprint_next"]
        said.append(f"New key   {key_words(waits)}   {waits}, waits for the server")
    if (found.get("audit") or {}).get("fork"):
        said.append("Audit     the server showed two histories of its log: status --json has both")
    return [line.encode("ascii", "replace").decode() for line in said]


def _said_of(link: dict[str, Any]) -> str:
    words = [f"{link['rate']} bytes/s at most" if link["rate"] else "no limit"]
    if link["throttle"] is not None:
        words.append("set by hand")
    if link["metered"]:
        words.append("metered")
    words += [f"mirror {address} left out ({why})" for address, why in link["mirrors"].items()]
    return ", ".join(words)


def _phase(state: State) -> str:
    return type(state.phase).__name__.lower()


def _name(record: SlotRecord, product: str) -> str:
    if record.release is not None:
        return record.release.name
    return f"{product}-{record.version}" if record.version else "factory image"


def _beside(runner: Runner) -> dict[str, SlotRecord]:
    """Return what is known of the components beside the slots, those that were never updated among them."""
    return {one: SlotRecord() for one in runner.settings.beside} | runner.state.components


def _beside_told(one: dict[str, Any]) -> str:
    if not one["release_counter"]:
        return "never updated"
    return f"{one['version']} (counter {one['release_counter']}), {one['state']}"


def _slot(record: SlotRecord) -> dict[str, Any]:
    return {
        "state": record.state,
        "release_counter": record.release_counter,
        "version": record.version,
        "sha256": record.sha256,
    }


def _update(
    state: State, because: list[dict[str, str]], policy: HealthPolicy
) -> dict[str, Any] | None:
    phase = state.phase
    update: Update | None = None if isinstance(phase, Idle) else phase.update
    if update is None:
        return None
    found: dict[str, Any] = {
        "id": update.update,
        "attempt": update.attempt,
        "action": update.action,
        "release": update.release.name,
        "release_counter": update.release.release_counter,
        "state": _phase(state),
        "slot": update.slot,
        "because": because,
    }
    progress = getattr(phase, "progress", None)
    if progress is not None:
        found["stored_bytes"] = progress.stored_bytes
        found["length"] = update.release.full.length
    if isinstance(phase, Reverting):
        found["reason"] = phase.reason
    if isinstance(phase, Testing):
        found["health"] = _health(phase, policy)
    if isinstance(phase, Staged):
        found["staged_at"] = phase.staged_at
    return found


def _told(health: dict[str, Any]) -> str:
    checks = health["checks"]
    wrong = [f"{one['name']}: {one['detail']}" for one in checks if not one["ok"]]
    passed = f"{len(checks) - len(wrong)} of {len(checks)} checks pass"
    insisted = [f"{name} is not optional, and stays" for name in health["not_left_out"]]
    return "; ".join([passed, *wrong[:3], *insisted])


def _health(phase: Testing, policy: HealthPolicy) -> dict[str, Any]:
    """Say how the trial goes: each check's last word and who asked for it, and what of the device's policy had a say in that."""
    asked = in_force(phase.update.release.health, policy)
    checks = [
        {
            "name": one.name,
            "ok": one.ok,
            "detail": one.detail,
            "reason": None if one.reason is msgspec.UNSET else one.reason,
            "by": "release" if one.by is msgspec.UNSET else one.by,
        }
        for one in phase.last
    ]
    return {
        "checks": checks,
        "passing": phase.passing_mono is not None,
        "warm_up_s": asked.contract.warmup_s,
        "flaps": phase.flaps,
        "errors": max(0, phase.errors - phase.errors_base),
        "left_out": list(asked.dropped),
        "not_left_out": list(asked.kept),
    }


def _deferred(state: State) -> int:
    """Return until when the present update is put off (unix seconds); 0 = it is not."""
    phase, defer = state.phase, state.defer
    update = None if isinstance(phase, Idle) else phase.update
    if defer is None or update is None or defer.sha256 != update.release.digest:
        return 0
    return defer.until_at


def _link(runner: Runner) -> dict[str, Any]:
    """Say how bytes may come: the rate that counts now (bytes a second, 0 = no limit), who set it, whether the link is metered, and bad mirrors."""
    phase, throttle = runner.state.phase, runner.flow.wishes.throttle
    update = None if isinstance(phase, Idle) else phase.update
    return {
        "rate": runner.flow.rate(update),
        "throttle": None
        if throttle is None
        else {"rate": throttle.rate, "until_at": throttle.until_at, "kept": throttle.keep},
        "metered": runner.flow.is_metered(),
        "mirrors": runner.flow.mirrors.told(runner.ports.clock.monotonic()),
    }


def _hold(state: State) -> dict[str, Any]:
    assert state.hold is not None  # noqa: S101 - asked by the caller; for the type checker
    return {"reason": state.hold.reason, "until_at": state.hold.until_at}


def _listed(found: list[dict[str, Any]], key: str) -> str:
    return ", ".join(str(one[key]) for one in found) or "none"
