"""One rollout: is it bad, how far is it, what limits speed, what would be lost if it turned bad now."""

from typing import Any, Final

import msgspec

from tidegate.core.amounts import format_share
from tidegate.core.authority import Mandate
from tidegate.core.protocol import DeliveryPolicy
from tidegate.core.release import ReleaseTarget
from tidegate.rollout import cohort, engine, explain, terms
from tidegate.rollout import tally as evidence_sums
from tidegate.rollout.model import Evidence, Finding, Rollout, Tally
from tidegate.server import why
from tidegate.server.outcomes import AFTER
from tidegate.server.planning import model_of
from tidegate.server.store import Connection
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.queries import evidence as weighed
from tidegate.server.web.queries import sums
from tidegate.server.web.queries.rollouts import (
    AudienceOf,
    evidence_of,
    halt_stands,
    present_ring,
    state_text,
    waits_for_a_person,
)
from tidegate.server.web.reader import Account
from tidegate.server.web.views import (
    Ask,
    BecauseRow,
    Chart,
    EvidenceView,
    Fact,
    Halted,
    Mark,
    OwedRow,
    Pair,
    RingRow,
    RolloutPage,
    Series,
    Target,
    TimelineRow,
    Undecided,
    VariantRow,
)
from tidegate.server.web.words import Tone
from tidegate.server.why import NO_BOUNDS, Bounds

Row = dict[str, Any]
LOG: Final = 40
#: Decisions that are looked through for what opened when.
STORY: Final = 200
#: Decisions that are marked in the chart, the newest.
_MARKS: Final = 6
_MARKED: Final = {"isolate": "--iso", "halt": "--bad", "readmit": "--text-3", "resume": "--text-3"}
OWED: Final = 10
_POINTS: Final = 150
_MOST_POINTS: Final = 599
#: Icon and colour of each decision in the log.
DECISIONS: Final[dict[str, tuple[str, Tone]]] = {
    "activate": ("go", "go"),
    "advance": ("ok", "ok"),
    "complete": ("ok", "ok"),
    "approve": ("person", "ok"),
    "start": ("go", "go"),
    "resume": ("go", "go"),
    "create": ("file", ""),
    "ask": ("person", ""),
    "decline": ("person", ""),
    "edit": ("file", ""),
    "pause": ("pause", ""),
    "cancel": ("wait", ""),
    "halt": ("halt", "bad"),
    "isolate": ("iso", "iso"),
    "readmit": ("ok", "ok"),
    "fallback": ("revert", "bad"),
}


def page(
    conn: Connection,
    name: str,
    account: Account,
    audience_of: AudienceOf,
    now: int,
    bounds: Bounds = NO_BOUNDS,
) -> RolloutPage | None:
    """Return one rollout as `account` sees its requests, or None; `bounds`: what the server bounds for all rollouts."""
    row = rows.rollout(conn, name)
    if row is None:
        return None
    model = model_of(row)
    found = evidence_of(conn, row, model, audience_of)
    tally = evidence_sums.total(found)
    because = sums.findings(row["because"])
    stopped = halt_stands(conn, row)
    parent, children = rows.parent_and_children(conn, row)
    owed = rows.owed(conn, int(row["id"]), AFTER, OWED)
    isolated = sums.isolated_count(found.tallies, model.isolated)
    known = weighed.view(conn, row, model, found)
    log = rows.plan_log(conn, int(row["id"]), STORY)
    return RolloutPage(
        now=now,
        name=name,
        title=sums.title(row),
        state=str(row["state"]),
        state_text=state_text(row, stopped=stopped),
        stopped=stopped,
        kind=str(row["kind"]),
        release=str(row["release"]),
        release_counter=int(row["release_counter"]),
        generation=model.generation,
        created_at=int(row["created_at"]),
        created_by=str(row["created_by"]),
        started_at=model.started_at,
        parent=parent,
        children=children,
        audience=str(row["audience"]),
        asks=tuple(_ask(one, account) for one in rows.requests(conn, int(row["id"]))),
        halted=_halted(conn, row),
        undecided=_undecided(conn, row),
        facts=_facts(row, tally, because, known, now, stopped=stopped),
        rings=_rings(model, found, now),
        total=sums.ring_row("All", "", "", tally, isolated),
        because=_because(_stopped_by(conn, row, log) or because, known),
        variants=_variants(found, model),
        reasons=sums.reason_rows(tally.reasons),
        log=tuple(log_row(one) for one in log[:LOG]),
        chart=_chart(conn, row, tally, _let_in(model, found, log), log, now),
        owed=tuple(_owed(one) for one in owed),
        owed_total=tally.pending,
        staged_inert=sums.staged(tally),
        isolated=model.isolated,
        fallbacks=_fallbacks(conn, row, now),
        next_step=_next_step(model, found),
        next_ring=_next_ring(model),
        mandate=_mandate(row, now),
        weighs=weighed.weighs(model),
        evidence=known,
        terms=_terms(row, model),
        limits=why.limits(conn, row, bounds, now) if row["state"] == "active" else (),
        held=model.policy.prefetch and row["state"] == "active" and row["released_at"] is None,
    )


def _because(found: tuple[Finding, ...], known: EvidenceView | None) -> tuple[BecauseRow, ...]:
    """Return what the gates saw; what is proved by now has its own place on the page where evidence is weighed."""
    told = [
        one
        for one in found
        if known is None or one.gate != sums.EVIDENCE or not one.passed or one.observed is not None
    ]
    return sums.because_rows(told)


def _terms(row: Row, model: Rollout) -> tuple[Pair, ...]:
    delivery = msgspec.convert(row["delivery"], type=DeliveryPolicy)
    return tuple(Pair(one.name, one.text) for one in terms.terms_of(model.policy, delivery))


def _mandate(row: Row, now: int) -> tuple[str, ...]:
    if not row["mandate"] or row["kind"] != "install":
        return ()
    return explain.staging(msgspec.json.decode(row["mandate"], type=Mandate), now)


def _stopped_by(conn: Connection, row: Row, log: list[Row]) -> tuple[Finding, ...]:
    """Return what the gates saw when they halted it; later plans only say that it stands still."""
    if not halt_stands(conn, row) or row["halted_by"] != sums.PLANNER:
        return ()
    for one in log:
        if one["action"] == "halt":
            return sums.findings(one["because"])
    return ()


def _ask(row: Row, account: Account) -> Ask:
    detail = ", ".join(
        str(row["detail"][key]) for key in ("ring", "variant") if row["detail"].get(key)
    )
    devices = row["detail"].get("devices")
    reach = f" Reaches {words.plural(int(devices), 'device')}." if isinstance(devices, int) else ""
    wider = "; ".join(row["detail"].get("wider", ()))
    reach += f" Wider: {wider}." if wider else ""
    said = f"\N{LEFT DOUBLE QUOTATION MARK}{row['reason']}\N{RIGHT DOUBLE QUOTATION MARK}"
    return Ask(
        id=str(row["id"]),
        title=f"{row['action']} {detail}".strip(),
        text=f"{said if row['reason'] else ''}{reach}".strip(),
        asked_by=str(row["asked_by"]),
        asked_at=int(row["asked_at"]),
        expires_at=int(row["expires_at"]),
        own=row["asked_by"] == account.name,
    )


def _halted(conn: Connection, row: Row) -> Halted | None:
    if row["state"] != "halted" or row["halted_at"] is None:
        return None
    incident = rows.incident_of(conn, int(row["id"]), "halt")
    return Halted(
        int(row["halted_at"]), str(row["halted_by"] or ""), str(row["halt_reason"] or ""), incident
    )


def _undecided(conn: Connection, row: Row) -> Undecided | None:
    if not waits_for_a_person(row):
        return None
    return Undecided(str(row["because"][0]["text"]), rows.incident_of(conn, int(row["id"]), "held"))


def _facts(
    row: Row,
    tally: Tally,
    because: tuple[Finding, ...],
    known: EvidenceView | None,
    now: int,
    *,
    stopped: bool,
) -> tuple[Fact, ...]:
    bad = _is_it_bad(row, tally, because, stopped=stopped)
    return (
        bad if known is None else _by_odds(bad, known, stopped=stopped),
        _how_far(tally),
        _what_limits(row, because, known, now),
        _if_it_turned(row, tally, known),
    )


def _by_odds(plain: Fact, known: EvidenceView, *, stopped: bool) -> Fact:
    """Answer by the odds, where they are known and it was not another gate, or a person, that stopped it."""
    against = known.odds
    if stopped and known.verdict == "go":
        return plain
    marks = f"Permits stop at {against.stop_text}, halt at {words.odds(against.halts_at)}."
    say = f"No. {marks}"
    if stopped:
        say = plain.say
    elif known.verdict == "isolate":
        say = f"A part of the fleet was isolated for it. {marks}"
    elif against.tone:
        say = f"Not proved, but it wants eyes. {marks}"
    return Fact(
        plain.question,
        against.text[:1].upper() + against.text[1:],
        "against it",
        say,
        tone="bad" if stopped else known.tone,
        odds=against,
    )


def _is_it_bad(row: Row, tally: Tally, because: tuple[Finding, ...], *, stopped: bool) -> Fact:
    question = "Is it bad?"
    bad = next((one for one in because if not one.passed and one.gate in sums.STOPPING), None)
    shares = (("bad", tally.harmed), ("wait", max(0, tally.attempts - tally.harmed)))
    big = words.percent(tally.harmed, tally.attempts) if tally.attempts else "\N{EN DASH}"
    small = f"of {words.number(tally.attempts)} harmed"
    if stopped:
        by_gate = row["halted_by"] == sums.PLANNER
        say = f"Yes. {row['halt_reason']}" if by_gate else "It was halted by a person."
        if by_gate and not tally.harmed:
            # What stopped it is no share of harmed devices: a headline of 0 % would deny it.
            big, small = "Yes", f"none of {words.number(tally.attempts)} reverted"
            say = str(row["halt_reason"])
        return Fact(question, big, small, words.plain(say, 300), shares, "bad")  # type: ignore[arg-type]
    if not tally.attempts:
        return Fact(question, big, "", "Not known: no device has acted on it yet.")
    guard = next((one for one in because if one.gate == "failure_rate" and not one.variant), None)
    limit = guard.limit if guard is not None else None
    rest = f" Halts above {words.percent(limit, 1)}." if isinstance(limit, float) else ""
    say = words.plain(bad.text, 160) if bad is not None else f"No.{rest}"
    tone: Tone = "warn" if bad is not None else ""
    return Fact(question, big, small, say, shares, tone)  # type: ignore[arg-type]


def _how_far(tally: Tally) -> Fact:
    rest = max(0, tally.audience - tally.confirmed - tally.pending)
    return Fact(
        "How far is it?",
        words.number(tally.confirmed),
        f"confirmed of {words.number(tally.audience)}",
        f"{words.percent(tally.confirmed, tally.audience)} of its audience.",
        (("ok", tally.confirmed), ("go", tally.pending), ("wait", rest)),
    )


def _what_limits(
    row: Row, because: tuple[Finding, ...], known: EvidenceView | None, now: int
) -> Fact:
    question = "What limits speed now?"
    state = str(row["state"])
    if state != "active":
        word = words.state(state).word
        say = sums.because_line(row) or "Nothing moves in this state."
        return Fact(question, word, "", words.plain(say, 160))
    waiting = [one for one in because if not one.passed]
    # The finding of the ring itself only names the gates that hold it.
    waits = next((one for one in waiting if one.gate != "ring"), waiting[0] if waiting else None)
    if known is not None and not (waits is not None and _is_the_ring(known)):
        return _by_permits(question, known)
    if waits is None:
        room = row["room"]
        say = "Devices that come and ask; permits are not bounded."
        if room is not None:
            say = f"Room for {words.plural(int(room), 'permit')} more now."
        return Fact(question, "devices asking", "", say)
    opens = f" Opens {words.when(waits.opens_at, now)}." if waits.opens_at else ""
    small = f"ring {waits.ring}" if waits.ring else ""
    return Fact(
        question,
        waits.gate.replace("_", " "),
        small,
        f"{words.plain(waits.text, 140)}.{opens}".replace("..", "."),
    )


def _is_the_ring(known: EvidenceView) -> bool:
    """Say whether the open step is what bounds speed now: then its gates are the answer, and not the evidence."""
    return bool(known.limits) and known.limits[0].ring


def _by_permits(question: str, known: EvidenceView) -> Fact:
    """Say how many more may go, and the lowest of what bounds it."""
    lowest = known.limits[0] if known.limits else None
    say = f"Limit: {known.limit_text}." if known.limit_text else ""
    if lowest is not None and lowest.room < known.room:
        say = f"{lowest.name}: {words.number(lowest.room)} {lowest.note}.".replace(" .", ".")
    small = "permit more now" if known.room == 1 else "permits more now"
    return Fact(question, words.number(known.room), small, words.plain(say, 200))


def _if_it_turned(row: Row, tally: Tally, known: EvidenceView | None) -> Fact:
    inert = sums.staged(tally)
    if known is not None and row["state"] in {"active", "paused", "completed"} and tally.exposed:
        say = f"At most, of {words.number(known.exposed)} exposed."
        if inert:
            say += f" {words.number(inert)} hold it staged, inert."
        small = "device lost" if known.at_worst == 1 else "devices lost"
        about = f"\N{ALMOST EQUAL TO} {words.number(known.at_worst)}" if known.at_worst else "0"
        return Fact("If it turned bad now", about, small, say)
    if row["state"] == "halted":
        say = f"{words.plural(inert, 'device')} hold it staged; they stay inert." if inert else ""
        return Fact("Past the point of no return", words.number(tally.pending), "", say)
    say = "Nothing is staged beyond them."
    if inert:
        say = f"{words.number(inert)} more hold it or load it; without a permit it stays inert."
    small = "exposed, outcome open"
    return Fact("If it turned bad now", words.number(tally.pending), small, say)


def _rings(model: Rollout, found: Evidence, now: int) -> tuple[RingRow, ...]:
    out = []
    for index, (spec, progress) in enumerate(zip(model.policy.rings, model.rings, strict=True)):
        tallies = {key: one for key, one in found.tallies.items() if key[0] == spec.name}
        share = cohort.share_of(model, index)
        step = ""
        if len(spec.shares) > 1 and progress.step >= 0:
            step = f"step {progress.step + 1} of {len(spec.shares)}: {format_share(share)}"
        since = f"since {words.when(progress.opened_at, now)}" if progress.opened_at else ""
        row = sums.ring_row(
            spec.name,
            progress.state,
            since,
            evidence_sums.merge(tallies.values()),
            sums.isolated_count(tallies, model.isolated),
            open_bp=share,
            step_text=step,
        )
        out.append(row)
    return tuple(out)


def _variants(found: Evidence, model: Rollout) -> tuple[VariantRow, ...]:
    names = {*evidence_sums.variants_of(found), *model.isolated}
    by_variant = {name: evidence_sums.total(found, variants={name}) for name in names}
    return sums.variant_rows(by_variant, model.isolated)


def log_row(one: Row) -> TimelineRow:
    """Return one decision about a rollout."""
    icon, tone = DECISIONS.get(str(one["action"]), ("wait", ""))
    verb = str(one["action"]).replace("_", " ").capitalize()
    text = str(one["text"]) or verb
    said = text if text.lower().startswith(verb.lower()) else f"{verb}: {text}"
    return TimelineRow(
        int(one["at"]), icon, tone, said, by=sums.by(str(one["actor"]), int(one["generation"]))
    )


def _owed(row: Row) -> OwedRow:
    return OwedRow(str(row["device"]), str(row["variant"]), str(row["state"]), int(row["state_at"]))


def _let_in(model: Rollout, found: Evidence, log: list[Row]) -> list[tuple[int, int]]:
    """Return when how many devices had been let in by rings and steps, oldest first; nothing where the log does not tell all of it."""
    audience = {
        spec.name: evidence_sums.total(found, rings={spec.name}).audience
        for spec in model.policy.rings
    }
    steps = dict.fromkeys(audience, -1)
    let_in: list[tuple[int, int]] = []
    for one in reversed(log):
        opened = [item for item in sums.findings(one["because"]) if engine.opens(item)]
        for item in opened:
            if item.ring in steps:
                steps[item.ring] += 1
        if opened:
            let_in.append((int(one["at"]), _reach(model, audience, steps)))
    present = {
        spec.name: progress.step
        for spec, progress in zip(model.policy.rings, model.rings, strict=True)
        if progress.state != "skipped"
    }
    return let_in if all(steps[name] == step for name, step in present.items()) else []


def _reach(model: Rollout, audience: dict[str, int], steps: dict[str, int]) -> int:
    whole = 0
    for spec in model.policy.rings:
        step = steps[spec.name]
        if step >= 0:
            share = spec.shares[min(step, len(spec.shares) - 1)]
            whole += audience[spec.name] * share // 10_000
    return whole


def _chart(
    conn: Connection,
    row: Row,
    tally: Tally,
    let_in: list[tuple[int, int]],
    log: list[Row],
    now: int,
) -> Chart | None:
    start = int(row["started_at"] or 0)
    if not start or not tally.exposed:
        return None
    end = max(int(row["ended_at"] or row["halted_at"] or now), start + 60)
    step = max(1, (end - start) // _POINTS)
    buckets = dict(rows.exposure(conn, int(row["id"]), start, step))
    last = min(max([*buckets, (end - start) // step]), _MOST_POINTS)
    total, y = 0, []
    for n in range(last + 1):
        total += buckets.get(n, 0)
        y.append(float(max(1, total)))
    if len(y) < 2:  # one step only: nothing to draw
        return None
    x = tuple(start + n * step for n in range(last + 1))
    end_text = f"{words.number(total)} activated"
    series = [Series("activated", "--v0", tuple(y), end_text, width=2.5)]
    finding = f"{end_text} since {words.when(start, now)}"
    allowed = _allowed(x, y, let_in)
    if allowed:
        said = f"{words.number(int(allowed[-1]))} let in"
        series.insert(0, Series("let in", "--text-3", allowed, said, dash=True, step=True))
        finding += f", of {said} by rings and steps"
    log_scale = max(total, *allowed, 0) >= 1000
    return Chart("lines", x, tuple(series), f"{finding}.", _marks(log, x), log=log_scale)


def _allowed(
    x: tuple[int, ...], activated: list[float], let_in: list[tuple[int, int]]
) -> tuple[float, ...]:
    """Return the devices let in at each time; never fewer than have activated, for devices leave a ring and take their permits along."""
    if not let_in:
        return ()
    found, known, at = [], 0, 0
    for n, moment in enumerate(x):
        while at < len(let_in) and let_in[at][0] <= moment:
            known, at = let_in[at][1], at + 1
        found.append(float(max(1, known, activated[n])))
    return tuple(found)


def _marks(log: list[Row], x: tuple[int, ...]) -> tuple[Mark, ...]:
    """Return what is marked in the chart: stops and what took them back, the newest."""
    marked = [one for one in log if one["action"] in _MARKED and x[0] <= int(one["at"]) <= x[-1]]
    return tuple(
        Mark(int(one["at"]), str(one["action"]), _MARKED[str(one["action"])])
        for one in reversed(marked[:_MARKS])
    )


def _fallbacks(conn: Connection, row: Row, now: int) -> tuple[Target, ...]:
    """Return the releases that the running release itself allows its devices to be ordered back to."""
    counters: set[int] = set()
    for artifact in rows.artifacts(conn, int(row["release_id"])):
        target = msgspec.convert(artifact["target"], type=ReleaseTarget)
        counters |= {one.counter for one in target.fallback_to if one.expires > now}
    found = []
    for counter in sorted(counters, reverse=True):
        release = rows.release_by_counter(conn, str(row["product"]), counter)
        if release is not None:
            found.append(Target(str(release["name"]), counter, str(release["version"])))
    return tuple(found)


def _next_step(model: Rollout, found: Evidence) -> str:
    """Say what would open next, and about how many devices that adds."""
    index = present_ring(model)
    if model.state != "active" or index is None:
        return ""
    spec, progress = model.policy.rings[index], model.rings[index]
    audience = evidence_sums.total(found, rings={spec.name}).audience
    now_bp = cohort.share_of(model, index)
    if progress.step + 1 < len(spec.shares):
        then = spec.shares[progress.step + 1]
        more = audience * (then - now_bp) // 10_000
        return f"Ring {spec.name} from {format_share(now_bp)} to {format_share(then)}: about {words.plural(more, 'device')} more."
    if index + 1 < len(model.policy.rings):
        after = model.policy.rings[index + 1]
        whole = evidence_sums.total(found, rings={after.name}).audience
        more = whole * after.shares[0] // 10_000
        return f"Ring {after.name} at {format_share(after.shares[0])}: about {words.plural(more, 'device')} more."
    return f"Ring {spec.name} passes without waiting for its gates."


def _next_ring(model: Rollout) -> str:
    index = present_ring(model)
    return "" if index is None else model.policy.rings[index].name
