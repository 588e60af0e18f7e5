"""How a rollout's gate opens: who is there, what was normal before, and what has happened already.

The strata are divided once, by the devices that are there then: weights that followed the evidence would be worth nothing. Baselines come from the newest
earlier rollouts of the product that ended well; without any they are assumed, and that is said. A rollout that was under way before (an older server, or a
policy that had no such guard) opens with what is known of its updates, told as if it happened now: what failed counts, and ages begin anew.
"""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core.hardware import HardwareRange
from tidegate.rollout.evidence.baseline import Baseline, Past, from_history
from tidegate.rollout.evidence.habits import PERSONAL_S
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, MILLION, Harm
from tidegate.rollout.evidence.strata import CLASS, OTHER, REGION, VARIANT, Profile, Scheme, divide
from tidegate.rollout.evidence.watch import Watch
from tidegate.rollout.model import Rollout
from tidegate.server import fixed, reckoning
from tidegate.server.gatekeeper import happenings, history, rooms
from tidegate.server.gatekeeper.kept import decision_of, parts_of
from tidegate.server.gatekeeper.muster import Muster, Standing, Wanted, standing
from tidegate.server.snapshot import Fleet, targets_of
from tidegate.server.store import Connection, gate_rows, hot
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: Who was not heard for so long is met when it is heard again: nobody compares with devices that are switched off.
_LONGEST_S: Final = max(PERSONAL_S.values())
#: Devices of one site share their fate, and count as one, where there are more sites than this; with fewer, a bad release could hide behind that.
_SITES: Final = 5
#: Earlier rollouts that say what is normal.
_EARLIER: Final = 10
#: Fewer permits of a class than this say nothing of its silence, and fewer answers nothing of how long they take.
_ENOUGH: Final = 50
#: Of a hundred devices that confirm, so many have answered by then; and the margin on that.
_ANSWERED: Final = 0.98
_MARGIN: Final = 1.5
_QUARTER_S: Final = 900
#: Classes whose devices may be gone, as usual, before they have answered.
_AWAY: Final = frozenset({"daily", "weekly", "monthly", OTHER})
#: A device has restarted and begun to look at itself after so long; from then on its release's health contract bounds when it confirms or goes back.
_RESTART_S: Final = 1_800
#: Outcomes, before a permit or after, that are no evidence until the gate is told.
_OPEN: Final = ("permitted", "rebooting", "verifying")
_ENDED: Final = ("confirmed", "failed", "reverted", "lost", *_OPEN)


class Opened(NamedTuple):
    """A gate that nobody has asked yet. `crowded`: sites of so many devices that they do not count as one place."""

    roster: Roster
    harm: Harm
    baseline: Baseline
    crowded: frozenset[str]


def wanted(conn: Connection, row: Row, model: Rollout, attributes: tuple[str, ...]) -> Wanted:
    """Return what a device must be for a rollout.

    Args:
        conn: any connection.
        row: of the rollout.
        model: the same as the planner sees it.
        attributes: of devices' own, by which strata are made (`[gate] attributes`).
    """
    ranges: tuple[HardwareRange, ...] = ()
    for one in rows.artifacts(conn, int(row["release_id"])):
        ranges += reckoning.ranges_of(one["target"])
    parent = rows.rollout_by_id(conn, int(row["parent_id"])) if row["parent_id"] else None
    back = parent is not None and row["kind"] == "fallback"
    return Wanted(
        rollout=model,
        product=str(row["product"]),
        ranges=ranges,
        counter=int(row["release_counter"]),
        parent_counter=int(parent["release_counter"]) if back and parent is not None else None,
        attributes=attributes,
        fixed=fixed.load(conn, row["fixed"]) if row["fixed"] else None,
    )


def open_gate(
    conn: Connection,
    fleet: Fleet,
    row: Row,
    asked: Wanted,
    harm: Harm,
    now: int,
    *,
    poll_s: int,
) -> Opened:
    """Return a gate for a rollout as its devices stand now; writes nothing.

    Args:
        conn: any connection; reads what earlier rollouts came to.
        fleet: in memory.
        row: of the rollout.
        asked: whom it is for.
        harm: what is tolerated, from its policy.
        now: unix seconds.
        poll_s: how often a device that is connected asks, in seconds.
    """
    there = dict(Muster(fleet, asked))
    for one, found in _begun(conn, fleet, row, asked):
        there.setdefault(one, found)
    names = (VARIANT, REGION, CLASS, rooms.FROM, *asked.attributes)
    census: Counter[Profile] = Counter(
        tuple(one.values[name] for name in names) for one in there.values()
    )
    sites = Counter(one.site for one in there.values() if one.site)
    crowded = frozenset(name for name, count in sites.items() if count * _SITES > len(there))
    earlier = gate_rows.earlier(conn, str(row["tenant"]), asked.product, int(row["id"]), _EARLIER)
    classes = {one.values[CLASS] for one in there.values()} & _AWAY
    # Whoever is called back restarts as it did on the way there, and its download comes before its permit either way.
    parent = [int(row["parent_id"])] if row["kind"] == "fallback" else []
    alike = [*parent, *earlier]
    harm = _patient(conn, alike, int(row["release_id"]), asked.rollout, harm, classes)
    # Two polls, so that one that is lost on the way is no silence.
    again_s = min(DAY_S, max(harm.again_s, _quarters(2 * poll_s)))
    harm = msgspec.structs.replace(harm, again_s=again_s)
    baseline = _baseline(conn, earlier, harm)
    before = history.book_before(conn, str(row["tenant"]), asked.product, int(row["id"]))
    past = history.hazards(before, len(there))
    roster = Roster(Watch(divide(census, names, harm.strata), harm, baseline, now, past))
    heard = gate_rows.heard_since(conn, str(row["tenant"]), asked.product, now - _LONGEST_S)
    for one, at in heard:
        known = there.get(one)
        if known is not None and at > now - PERSONAL_S[known.values[CLASS]]:
            site = "" if known.site in crowded else known.site
            roster.meet(str(one), known.values, now, site)
    if before is not None:
        roster.inherit(before.roster)
    return Opened(roster, harm, baseline, crowded)


def begin_anew(conn: Connection, rollout_id: int, entry: str = "") -> bool:
    """Have a rollout's gate begin anew at even odds, because a person judged what was known; say whether it does.

    Args:
        conn: the writer's connection.
        rollout_id: of the rollout.
        entry: that is let in again; one that the book does not know as a part changes nothing. Empty = the rollout goes on after its evidence halted or
            held it.
    """
    told = gate_rows.told(conn, rollout_id)
    if told is None or not told.decision:
        return False
    scheme = msgspec.json.decode(told.scheme, type=Scheme)
    decided = decision_of(told.decision)
    stopped = decided.verdict != "go" or decided.held is not None
    anew = entry in parts_of(scheme) if entry else stopped
    if anew:
        gate_rows.begin_anew(conn, rollout_id)
    return anew


def backlog(
    conn: Connection, rollout_id: int, now: int, *, again: bool
) -> list[tuple[int, int, str]]:
    """Return (time, device row, what) of everything that happened in a rollout before its gate opened, told as of now; permits first.

    Args:
        conn: any connection.
        rollout_id: of the rollout.
        now: unix seconds.
        again: what has ended was judged already; only open permits are told.
    """
    told: list[tuple[int, int, str]] = []
    for update in hot.updates_in(conn, rollout_id, _OPEN if again else _ENDED):
        told += [(now, update.device_row, what) for what in happenings.standing(update)]
    return sorted(told, key=lambda one: one[2] != "permit")


def _begun(conn: Connection, fleet: Fleet, row: Row, asked: Wanted) -> list[tuple[int, Standing]]:
    """Return those who have begun already: they belong to it whatever they run by now."""
    return [
        (update.device_row, standing(fleet.facts(update.device_row), asked.attributes))
        for update in hot.updates_in(conn, int(row["id"]), _ENDED)
        if happenings.standing(update) and 0 < update.device_row < len(fleet.ids)
    ]


def _baseline(conn: Connection, earlier: list[int], harm: Harm) -> Baseline:
    """Return what was normal, of rollouts given the newest first."""
    past: list[Past] = []
    ends: dict[str, tuple[int, int]] = {}
    waits = {harm.report_s, *(harm.answer_s(name) for name, _ in harm.away_s)}
    for rollout_id in reversed(earlier):
        past.append(_failures(conn, rollout_id))
        for wait_s in sorted(waits):
            for connectivity, permits, late in gate_rows.ends(
                conn, rollout_id, wait_s + harm.again_s + harm.tick_s
            ):
                name = rooms.class_of(connectivity)
                if harm.answer_s(name) == wait_s:
                    before = ends.get(name, (0, 0))
                    ends[name] = (before[0] + permits, before[1] + late)
    silence = {
        name: min(MILLION // 2, (late + 1) * MILLION // (permits + 2))
        for name, (permits, late) in ends.items()
        if permits >= _ENOUGH
    }
    return from_history(past, silence)


def _failures(conn: Connection, rollout_id: int) -> Past:
    """Return (failures, first attempts) of a rollout by variant; those whom a query kept out stand under it."""
    counted: dict[str, Counter[str]] = {}
    for _, variant, name, value in hot.tallies(conn, rollout_id):
        counted.setdefault(variant, Counter())[name] += value
    return {
        variant: (
            one["reverted"] + one["failed_after"] + one["install"],
            one["exposed"] + one["install"],
        )
        for variant, one in counted.items()
        if one["exposed"] + one["install"] > 0
    }


def _patient(
    conn: Connection,
    earlier: list[int],
    release_id: int,
    model: Rollout,
    harm: Harm,
    classes: AbstractSet[str],
) -> Harm:
    """Wait as long for an answer as devices of this product take, at most until the policy calls them lost; never less than the settings say.

    Without a history, as long as the release's own health contract may take: a device that is still looking at itself is not silent; and of a class that is not
    always there (`classes`: those of them that this rollout has), until it would be missed anyway.
    """
    answers: dict[str, list[int]] = {}
    for rollout_id in earlier:
        for connectivity, seconds in gate_rows.answers_s(conn, rollout_id):
            name = rooms.class_of(connectivity)
            answers.setdefault(name if name in _AWAY else "", []).append(seconds)
    bounds = [one[3].health.timeout_s for one in targets_of(conn, release_id)]
    usual_s = _learned(answers.get("", ())) or max(bounds, default=0) + _RESTART_S
    away = {
        name: _quarters(_learned(answers.get(name, ())) or PERSONAL_S[name]) for name in classes
    }
    if away:
        # Classes too rare to be told apart stand there as `other`.
        away[OTHER] = max(away.values())
    deadlines = model.policy.deadlines
    most_s = max(HOUR_S, deadlines.return_s + deadlines.confirm_s)
    report_s = max(harm.report_s, min(_quarters(usual_s), most_s))
    return msgspec.structs.replace(harm, report_s=report_s, away_s=tuple(sorted(away.items())))


def _learned(answers: Sequence[int]) -> float:
    """Return how long answers that took so long are to be waited for; 0 = too few to say."""
    if len(answers) < _ENOUGH:
        return 0
    return sorted(answers)[min(len(answers) - 1, int(_ANSWERED * len(answers)))] * _MARGIN


def _quarters(seconds: float) -> int:
    """Return a time in whole quarters of an hour, rounded up."""
    return -int(-seconds // _QUARTER_S) * _QUARTER_S
