"""The list of rollouts, and what lists elsewhere show of one."""

from collections.abc import Callable
from typing import Any, Final

from tidegate.core.amounts import format_share
from tidegate.rollout import cohort
from tidegate.rollout import tally as evidence_sums
from tidegate.rollout.gates.evidence import HELD
from tidegate.rollout.model import (
    ALL_BP,
    Evidence,
    Rollout,
    Tally,
)
from tidegate.server import scopes
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.planning import model_of
from tidegate.server.store import Connection, hot
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.queries import odds, sums
from tidegate.server.web.queries.sums import Audience
from tidegate.server.web.views import RolloutRow, RolloutsPage

Row = dict[str, Any]
#: Counts the devices of a rollout's rings by (ring, variant).
AudienceOf = Callable[[Connection, Rollout, str], Audience]
PAGE: Final = 50
_OPEN: Final = frozenset({"open", "soaking"})
_AFTER_HALT: Final = frozenset({"halted", "falling_back", "completed", "cancelled"})
#: States in which odds are shown in a list: it moves, or it stands still because of them.
_WEIGHED: Final = frozenset({"active", "paused", "halted"})
_TURNS: Final = frozenset({"halt", "resume"})
_THEN: Final = {
    "falling_back": ", falling back",
    "completed": ", fallen back",
    "cancelled": ", cancelled",
}
_LOG: Final = 40


def evidence_of(conn: Connection, row: Row, model: Rollout, audience_of: AudienceOf) -> Evidence:
    """Return the counted outcomes of a rollout; pages need no errors per device-hour, which cost a count over the fleet.

    Devices that went back have left a fallback's audience; they are counted in again.
    """
    counted: dict[tuple[str, str], dict[str, int]] = {}
    reasons: dict[tuple[str, str], dict[str, int]] = {}
    for ring, variant, name, value in hot.tallies(conn, int(row["id"])):
        key = (ring, variant)
        if name.startswith("reason:"):
            reasons.setdefault(key, {})[name[7:]] = value
        else:
            counted.setdefault(key, {})[name] = value
    for key, count in audience_of(conn, model, str(row["product"])).items():
        values = counted.setdefault(key, {})
        values["audience"] = count
    if row["kind"] == "fallback":
        for values in counted.values():
            values["audience"] = values.get("audience", 0) + values.get("confirmed", 0)
    return Evidence(
        tallies={
            key: Tally(**values, reasons=reasons.get(key, {})) for key, values in counted.items()
        }
    )


def present_ring(model: Rollout) -> int | None:
    """Return the index of the ring that is open and has not passed, or None."""
    for index, progress in enumerate(model.rings):
        if progress.state in _OPEN:
            return index
    return None


def where_text(row: Row) -> str:
    """Say where a rollout stands: its open ring and step."""
    model = model_of(row)
    index = present_ring(model)
    if index is None:
        done = sum(progress.state in {"passed", "skipped"} for progress in model.rings)
        every = len(model.rings)
        return "all rings" if done == every else f"{done} of {every} rings passed"
    spec = model.policy.rings[index]
    share = cohort.share_of(model, index)
    ring = f"ring {spec.name}"
    return (
        ring if share == ALL_BP and len(spec.shares) == 1 else f"{ring}, {format_share(share)} open"
    )


def halt_stands(conn: Connection, row: Row) -> bool:
    """Say whether it was halted and never resumed: what was then fallen back or cancelled was bad, whatever its state says now."""
    if row["halted_at"] is None or row["state"] not in _AFTER_HALT:
        return False
    if row["state"] in {"halted", "falling_back"}:
        return True
    log = rows.plan_log(conn, int(row["id"]), _LOG)
    return next((one["action"] != "resume" for one in log if one["action"] in _TURNS), True)


def state_text(row: Row, *, stopped: bool) -> str:
    """Say how a rollout stands: who halted it and what became of it then, or its state and open ring."""
    state = str(row["state"])
    word = words.state(state).word
    if stopped:
        who = "by gate" if row["halted_by"] == sums.PLANNER else f"by {row['halted_by']}"
        return f"Halted {who}{_THEN.get(state, '')}"
    if waits_for_a_person(row):
        return f"{word}, a person decides"
    return f"{word}, {where_text(row)}" if state in {"active", "paused"} else word


def waits_for_a_person(row: Row) -> bool:
    """Say whether evidence neither stops a rollout nor lets it go on."""
    return bool(row["because"]) and row["because"][0]["gate"] == HELD


def listed(conn: Connection, row: Row, audience_of: AudienceOf) -> RolloutRow:
    """Return a rollout for a list."""
    model = model_of(row)
    found = evidence_of(conn, row, model, audience_of)
    tally = evidence_sums.total(found)
    isolated = sums.isolated_count(found.tallies, model.isolated)
    began = row["ended_at"] or row["halted_at"] or row["started_at"] or row["created_at"]
    sub = where_text(row)
    if row["kind"] == "fallback":
        sub = f"back to {row['release_version']}; {sub}"
    stopped = halt_stands(conn, row)
    return RolloutRow(
        name=str(row["name"]),
        title=sums.title(row),
        sub=sub,
        state="halted" if stopped else str(row["state"]),
        state_text=state_text(row, stopped=stopped) if stopped else "",
        odds=odds.odds_of(conn, int(row["id"])) if row["state"] in _WEIGHED else None,
        shares=sums.shares(tally, isolated),
        audience=tally.audience,
        confirmed=tally.confirmed,
        failed=sums.failed(tally),
        reverted=tally.reverted,
        lost=tally.lost,
        because=sums.because_line(row),
        at=int(began),
        active=row["state"] not in {"completed", "cancelled", "superseded", "draft"},
    )


def page(
    conn: Connection, audience_of: AudienceOf, cursor: str, now: int, sight: Sight = SEES_ALL
) -> RolloutsPage:
    """Return one page of the list, of what is in `sight`; `cursor` is untrusted."""
    before = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 12 else 0
    found = rows.rollouts(conn, before, PAGE + 1)
    more = str(found[PAGE - 1]["id"]) if len(found) > PAGE else ""
    seen = [row for row in found[:PAGE] if scopes.sees_rollout(conn, sight, str(row["name"]))]
    listing = tuple(listed(conn, row, audience_of) for row in seen)
    total = rows.rollout_count(conn) if sight.whole else len(listing)
    return RolloutsPage(now, listing, total, more)
