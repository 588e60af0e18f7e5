"""Why a rollout stands where it stands, and why a device is (not) updating: as sentences, for the web and the command line alike."""

import datetime as dt
from typing import Final

import msgspec

from tidegate.core.amounts import format_duration, format_share
from tidegate.core.authority import Mandate
from tidegate.core.bucket import BUCKETS
from tidegate.core.mandate import Bar
from tidegate.core.reasons import REASONS
from tidegate.rollout.gates.evidence import HELD
from tidegate.rollout.model import Finding, RingProgress, Rollout

#: Not heard for so long: "offline" is why nothing happens.
_OFFLINE_S: Final = 86_400
_ENROLLED: Final = {
    "accepted": "it is accepted",
    "pending": "it asks to enrol, and nobody has accepted it yet",
}
_WHEN_RESTING: Final = {
    "draft": "is a draft",
    "awaiting_approval": "waits for another person's approval",
    "scheduled": "waits for its time",
    "paused": "is paused by a person",
    "halted": "is halted",
    "falling_back": "is halted, and its devices are brought back",
    "completed": "is completed",
    "cancelled": "is cancelled",
    "superseded": "is superseded by a newer release",
}


def explain(
    rollout: Rollout,
    because: tuple[Finding, ...],
    *,
    now: int,
    ring: str = "",
    room: int | None = None,
    decided_at: int = 0,
    position: int = 0,
    mandate: Mandate | None = None,
    limits: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Return the lines of `rollout explain`.

    Args:
        rollout: as it stands.
        because: findings of the last plan.
        now: unix seconds.
        ring: explain this ring; empty = the rollout.
        room: permits that may be given now; None = no bound.
        decided_at: when the last plan was made; 0 = unknown.
        position: of the evidence in the event log.
        mandate: what the release's signers allow; None = they left its staging to the rings.
        limits: what else keeps devices waiting, a sentence each: caps, the budget of bytes, a hold on what was fetched ahead.
    """
    lines = [f"{_headline(rollout, ring)}, because", ""]
    if rollout.state == "active":
        lines += [*_active(rollout, because, ring, room, now), *(f"     {one}" for one in limits)]
    else:
        lines += [f"  {_line(finding, now)}" for finding in because]
    if mandate is not None:
        lines += ["", "Signed schedule (mandate), which devices hold the server to:"]
        lines += [f"  {one}" for one in staging(mandate, now)]
    if rollout.isolated:
        lines += ["", f"Isolated: {', '.join(rollout.isolated)}; the rest goes on without."]
    if rollout.state == "halted":
        lines += ["", *_ways_out(rollout.name)]
    elif because and because[0].gate == HELD:
        lines += ["", *decide(rollout.name)]
    return (*lines, *_footer(rollout, because, now, decided_at, position))


def staging(mandate: Mandate, now: int) -> tuple[str, ...]:
    """Say what a release's signers allow, a line a step: `10 % from 2026-11-26 08:00 UTC, in 23 h`."""
    lines = []
    for one in mandate.steps:
        word = "since" if one.not_before <= now else "from"
        lines.append(f"{format_share(one.bucket_max)} {word} {_clock(one.not_before, now)}")
    if mandate.steps[-1].bucket_max < BUCKETS:
        lines.append("nobody else, until the signers widen it")
    return tuple(lines)


def _headline(rollout: Rollout, ring: str) -> str:
    if not ring:
        return f"{rollout.name} {_WHEN_RESTING.get(rollout.state, 'is active')}"
    progress = _progress(rollout, ring)
    return f"{ring} is {progress.state}" if progress else f"{rollout.name} has no ring {ring}"


def _progress(rollout: Rollout, ring: str) -> RingProgress | None:
    pairs = zip(rollout.policy.rings, rollout.rings, strict=False)
    return next((progress for spec, progress in pairs if spec.name == ring), None)


def _active(
    rollout: Rollout, because: tuple[Finding, ...], ring: str, room: int | None, now: int
) -> list[str]:
    """Number the reasons: what is missing, what was judged, then what comes after."""
    present = next((f.ring for f in because if f.gate == "ring" and not f.passed), "")
    lines: list[str] = []
    number = 0
    for finding in because:
        if finding.gate == "ring":
            number += 1
            lines.append(f" {number} {_line(finding, now)}")
        else:
            lines.append(f"     {_line(finding, now)}")
    if ring and present and ring != present:
        spec = next(spec for spec in rollout.policy.rings if spec.name == ring)
        opens = f"{ring} opens when every ring before it has passed"
        if len(spec.shares) > 1:
            opens = f"then {ring} opens at {format_share(spec.shares[0])}"
        lines.append(f" {number + 1} {opens}")
    if room is not None:
        lines.append(f"     permits: room for {room:,} more now")
    return lines


def _line(finding: Finding, now: int) -> str:
    said = finding.text
    if finding.opens_at is not None and not finding.passed:
        said += f"  (opens {_clock(finding.opens_at, now)})"
    return said


def _ways_out(name: str) -> list[str]:
    return [
        "Nothing goes on by itself. A person may",
        f"  tidegate rollout fallback {name} --to RELEASE --dry-run   bring its devices back",
        f"  tidegate release recall {name} --reason TEXT              never again",
        f"  tidegate rollout resume {name}                            go on (what its gates",
        "      stopped stops again, unless its limits were changed: tidegate rollout edit)",
    ]


def decide(name: str) -> list[str]:
    """Say what a person may do about a rollout that evidence neither stops nor lets go on."""
    return [
        "A person decides. Look at the devices that have not come back, then",
        f"  tidegate rollout halt {name} --reason TEXT                stop it; a way back can be ordered then",
        f"  tidegate rollout resume {name} --reason TEXT              after that: the odds begin anew, and the next few try",
    ]


def _footer(
    rollout: Rollout, because: tuple[Finding, ...], now: int, decided_at: int, position: int
) -> list[str]:
    lines = [""]
    if decided_at:
        lines.append(
            f"Decided at {_stamp(decided_at)} UTC, generation {rollout.generation:,}, "
            f"replayable from event {position:,}."
        )
    due = [
        one for one in because if one.opens_at is not None and not one.passed and one.opens_at > now
    ]
    ring = next((one for one in due if one.gate in {"ring", "completion"}), None)
    if rollout.state == "active" and ring is not None and ring.opens_at is not None:
        what = f"ring {ring.ring} may pass" if ring.ring else "the rollout completes"
        lines.append(
            f"If nothing changes, the next change is at {_clock(ring.opens_at, now)} ({what})."
        )
    return lines if len(lines) > 1 else []


#: Why a device refuses an image of which it said no more than that (`DeviceFacts.refused`).
LEFT: Final = "left"


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one device and the rollout that would serve it. Empty or 0 = none.

    `share_bp` is how far its ring is open, `place` its own place in the order (0..9999); `refusal` the `compat.*` reason for which it must refuse;
    `refused` why it refuses this very image; `mandate` why the signed
    schedule keeps it out still; `waiting` the device's own word on what it waits for (a dotted code); `window` the text of the window in
    force, `opens_at` when that opens next; `again` whether and when it is tried once more; `egress` says that the budget of bytes is spent, `capped` that
    as many as may be of its site or group are on their way.
    """

    device: str
    device_state: str = "accepted"
    last_seen: int = 0
    runs: str = ""
    rollout: str = ""
    release: str = ""
    up_to_date: bool = False
    rollout_state: str = ""
    rollout_because: str = ""
    refusal: str = ""
    refused: str = ""
    mandate: Bar | None = None
    ring: str = ""
    ring_state: str = ""
    share_bp: int = 0
    place: int = 0
    #: Until when its ring holds the last of the order back (unix seconds).
    held_back_until: int = 0
    variant: str = ""
    isolated: bool = False
    #: The variant, or the query behind `where`, that keeps it out.
    kept_out: str = ""
    #: Of a snapshot rollout that does not mean it: when its audience was fixed (unix seconds), and whether the device joined later.
    fixed_at: int = 0
    joined_later: bool = False
    held_by: str = ""
    update_state: str = ""
    update_reason: str = ""
    inhibitors: tuple[str, ...] = ()
    waiting: str = ""
    window: str = ""
    #: Empty = only the device knows it, and so when the window opens.
    zone: str = ""
    opens_at: int = 0
    room: int | None = None
    again: str = ""
    #: The rollout fetches ahead: everybody downloads, and activation was, or was not yet, let go.
    prefetch: bool = False
    let_go: bool = False
    #: The device's owner says when it activates.
    by_owner: bool = False
    #: No permit is left for devices like it until more is proved.
    unproven: str = ""
    egress: str = ""
    capped: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on a device's way to an update. The first that is not ok is the verdict."""

    ok: bool
    code: str
    text: str


_ENDED: Final = frozenset(
    {"confirmed", "declined", "failed", "reverted", "lost", "cancelled", "superseded"}
)
_UNDERWAY: Final = frozenset({"permitted", "rebooting", "verifying"})
_OPEN_RINGS: Final = frozenset({"open", "soaking", "passed", "skipped"})


def why(facts: DeviceFacts, now: int) -> tuple[Check, ...]:
    """Return the checks in the order in which a device passes them, up to where it makes sense to go on.

    A device that was admitted is not asked again whose turn it is; one whose update has ended, or that has nothing coming, has only that to say.
    """
    checks = [_accepted(facts), _heard(facts, now), _offered(facts)]
    if not facts.rollout or facts.up_to_date:
        return tuple(checks)
    if facts.update_state in _ENDED:
        return (*checks, _ended(facts))
    checks += [_suits(facts), _not_refused(facts), _rollout_on(facts), _not_isolated(facts)]
    if not facts.update_state:
        fetches = facts.prefetch and facts.ring
        checks += [] if fetches else [_ring_open(facts), _its_turn(facts, now)]
        checks += [] if facts.mandate is None else [_by_mandate(facts.mandate, now)]
    checks += [_not_held(facts)]
    checks += [] if facts.update_state or not facts.egress else [_within_budget(facts)]
    if facts.update_state in _UNDERWAY:
        return (*checks, Check(ok=True, code="update", text=f"the update is {facts.update_state}"))
    if facts.prefetch:
        checks += [
            _let_go(facts),
            *([_ring_open(facts), _its_turn(facts, now)] if facts.let_go else []),
        ]
    checks += [_not_inhibited(facts), _window_open(facts, now)]
    checks += [_owner_decides(facts)] if facts.by_owner else []
    nothing_comes = not facts.update_state and not all(check.ok for check in checks)
    if nothing_comes and not facts.waiting:
        return tuple(checks)
    return (*checks, _permitted(facts), _own_word(facts))


def verdict(facts: DeviceFacts, now: int) -> str:
    """Return one sentence: the first check that is not passed, or how far the update is."""
    open_one = next((check for check in why(facts, now) if not check.ok), None)
    if open_one is not None:
        return f"{facts.device} is not updating, because {open_one.text}"
    if facts.up_to_date or not facts.rollout:
        return f"{facts.device} has nothing to do: {_offered(facts).text}"
    state = facts.update_state or "about to be offered it"
    return f"{facts.device} is updating to {facts.release}: {state}"


def _accepted(facts: DeviceFacts) -> Check:
    ok = facts.device_state == "accepted"
    text = _ENROLLED.get(facts.device_state, f"it is {facts.device_state}")
    return Check(ok=ok, code="device.accepted" if ok else f"device.{facts.device_state}", text=text)


def _heard(facts: DeviceFacts, now: int) -> Check:
    if not facts.last_seen:
        return Check(ok=False, code="device.seen", text="it was never heard")
    ago = now - facts.last_seen
    ok = ago < _OFFLINE_S
    text = f"{'seen' if ok else 'it is offline: last heard'} {format_duration(ago)} ago"
    return Check(ok=ok, code="device.seen", text=text)


def _offered(facts: DeviceFacts) -> Check:
    if facts.up_to_date:
        return Check(
            ok=True,
            code="release",
            text=f"it runs {facts.runs or facts.release}, and no rollout offers it anything newer",
        )
    if not facts.rollout:
        return Check(ok=True, code="release", text="no rollout has anything for it")
    return Check(
        ok=True,
        code="release",
        text=f"{facts.release} is meant for it (it runs {facts.runs or 'nothing known'})",
    )


def _ended(facts: DeviceFacts) -> Check:
    words = REASONS.get(facts.update_reason, "")
    said = (
        f": {facts.update_reason}" + (f", {words}" if words else "") if facts.update_reason else ""
    )
    ok = facts.update_state == "confirmed"
    return Check(
        ok=ok,
        code="update",
        text=f"its update to {facts.release} ended: {facts.update_state}{said}"
        + (f"; {facts.again}" if facts.again else ""),
    )


def _suits(facts: DeviceFacts) -> Check:
    if not facts.refusal:
        return Check(ok=True, code="compat", text="hardware, channel, counter and floor suit")
    words = REASONS.get(facts.refusal, "")
    return Check(
        ok=False,
        code=facts.refusal,
        text=f"it must refuse {facts.release}: {words} ({facts.refusal})",
    )


def _not_refused(facts: DeviceFacts) -> Check:
    if not facts.refused:
        return Check(ok=True, code="refused", text="it has not refused this image before")
    text = f"it refuses {facts.release} since it failed here: {facts.refused}"
    if facts.refused == LEFT:
        text = (
            f"it refuses {facts.release}: it left this image before, by itself or ordered back; "
            "a rollout with delivery.retry_refused brings it again"
        )
    return Check(ok=False, code="refused", text=text)


def _rollout_on(facts: DeviceFacts) -> Check:
    ok = facts.rollout_state in {"active", "completed"}
    if ok:
        return Check(
            ok=True, code="rollout", text=f"rollout {facts.rollout} is {facts.rollout_state}"
        )
    said = _WHEN_RESTING.get(facts.rollout_state, f"is {facts.rollout_state}")
    detail = f": {facts.rollout_because}" if facts.rollout_because else ""
    return Check(
        ok=False,
        code=f"rollout.{facts.rollout_state}",
        text=f"rollout {facts.rollout} {said}{detail}",
    )


def _not_isolated(facts: DeviceFacts) -> Check:
    if not facts.isolated:
        return Check(
            ok=True,
            code="isolated",
            text=f"its variant {facts.variant} is not isolated".replace("  ", " "),
        )
    return Check(
        ok=False,
        code="isolated",
        text=f"{_isolated(facts)} isolated in {facts.rollout}",
    )


def _isolated(facts: DeviceFacts) -> str:
    if facts.kept_out in {"", facts.variant}:
        return f"its variant {facts.variant} is"
    return f"devices {facts.kept_out} are"


def _ring_open(facts: DeviceFacts) -> Check:
    if not facts.ring and facts.fixed_at:
        when = f"of {_stamp(facts.fixed_at)} UTC that says whom {facts.rollout} means"
        had = "it joined after the snapshot" if facts.joined_later else "it was not in the snapshot"
        return Check(ok=False, code="ring.snapshot", text=f"{had} {when}")
    if not facts.ring:
        return Check(ok=False, code="ring", text=f"it is in no ring of {facts.rollout}")
    ok = facts.ring_state in _OPEN_RINGS
    text = f"it is in ring {facts.ring}, which is {facts.ring_state}"
    return Check(ok=ok, code=f"ring.{facts.ring_state}", text=text)


def _its_turn(facts: DeviceFacts, now: int) -> Check:
    place = f"it is at {facts.place / 100:.1f} % in this rollout's order"
    ok = facts.place < facts.share_bp
    if not ok and facts.held_back_until:
        when = _clock(facts.held_back_until, now)
        text = f"{place}, and held back until {when}: updated devices are compared with it"
        return Check(ok=False, code="holdback", text=text)
    text = f"{place}, and {format_share(facts.share_bp)} is open"
    return Check(
        ok=ok,
        code="step",
        text=text if ok else f"{place}: only {format_share(facts.share_bp)} is open yet",
    )


def _by_mandate(bar: Bar, now: int) -> Check:
    text = (
        f"the release's signers let {format_share(bar.share)} of the devices have it now, "
        f"and it stands at {bar.place / 100:.1f} % in their order: "
    )
    turn = "it has no turn" if bar.opens_at is None else f"its turn is {_clock(bar.opens_at, now)}"
    return Check(ok=False, code=bar.reason, text=text + turn)


def _not_held(facts: DeviceFacts) -> Check:
    if not facts.held_by:
        return Check(ok=True, code="hold", text="nobody holds it")
    by = "on the device itself" if facts.held_by == "device" else f"by {facts.held_by}"
    return Check(ok=False, code="user.held", text=f"it is held {by}")


def _not_inhibited(facts: DeviceFacts) -> Check:
    if not facts.inhibitors:
        return Check(ok=True, code="inhibitor", text='nothing on it says "not now"')
    text = f'the device itself says "not now": {", ".join(facts.inhibitors)}'
    return Check(ok=False, code="activate.inhibited", text=text)


def _window_open(facts: DeviceFacts, now: int) -> Check:
    if not facts.window:
        return Check(ok=True, code="window", text="it may download and activate at any time")
    if not facts.zone:
        text = f"it activates in its window {facts.window}, by its own clock"
        return Check(ok=True, code="window", text=text)
    window = f"{facts.window} {facts.zone}"
    if facts.opens_at <= now:
        return Check(ok=True, code="window", text=f"its window {window} is open")
    text = f"it waits for its window {window}, which opens {_clock(facts.opens_at, now)}"
    return Check(ok=False, code="window", text=text)


def _let_go(facts: DeviceFacts) -> Check:
    if facts.let_go:
        return Check(ok=True, code="prefetch", text="what was fetched ahead may be activated")
    text = "it is fetched ahead, and activation is held until a person lets it go"
    # It only waits for that once it has it.
    return Check(ok=facts.update_state != "staged", code="prefetch", text=text)


def _owner_decides(facts: DeviceFacts) -> Check:
    text = "its owner decides when it activates (tidegate-agent apply-now)"
    return Check(ok=facts.update_state != "staged", code="offered", text=text)


def _within_budget(facts: DeviceFacts) -> Check:
    return Check(ok=False, code="egress", text=facts.egress)


def _permitted(facts: DeviceFacts) -> Check:
    if facts.update_state != "staged":
        text = "a permit is asked for just before the reboot"
        return Check(ok=True, code="permit", text=text)
    if facts.capped:
        return Check(ok=False, code="activate.no_permit", text=facts.capped)
    if facts.unproven:
        return Check(ok=False, code="activate.no_permit", text=facts.unproven)
    ok = facts.room is None or facts.room > 0
    detail = f" ({facts.rollout_because})" if facts.rollout_because else ""
    text = "there is room for its permit" if ok else f"no more permits are given just now{detail}"
    return Check(ok=ok, code="permit" if ok else "activate.no_permit", text=text)


def _own_word(facts: DeviceFacts) -> Check:
    if not facts.waiting:
        state = facts.update_state or "about to be offered"
        return Check(ok=True, code="update", text=f"the update is {state}")
    words = REASONS.get(facts.waiting, facts.waiting)
    return Check(ok=False, code=facts.waiting, text=f"the device says that it waits: {words}")


def _clock(at: int, now: int) -> str:
    when = dt.datetime.fromtimestamp(at, dt.UTC)
    same_day = when.date() == dt.datetime.fromtimestamp(now, dt.UTC).date()
    shown = when.strftime("%H:%M UTC" if same_day else "%Y-%m-%d %H:%M UTC")
    return f"{shown}, in {format_duration(at - now)}" if at > now else shown


def _stamp(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
