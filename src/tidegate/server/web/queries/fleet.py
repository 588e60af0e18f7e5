"""The fleet overview and the top bar, from stored counters."""

from collections.abc import Sequence
from typing import Any, Final

from tidegate.core.calendar import days
from tidegate.core.reasons import family
from tidegate.server import audit, incidents, scopes
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.calendar import calendar, one_signer
from tidegate.server.store import Connection
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.charts import Kind
from tidegate.server.web.queries import rollouts, sums
from tidegate.server.web.queries.devices import Seen
from tidegate.server.web.queries.rollouts import AudienceOf
from tidegate.server.web.views import (
    Chart,
    Counts,
    Expiring,
    FleetPage,
    InboxRow,
    Mark,
    OutcomeRow,
    Series,
    TimelineRow,
    VersionRow,
)

Row = dict[str, Any]
DAY_S: Final = 86_400
#: What lapses within this time is shown on every page.
BANNER_S: Final = 30 * DAY_S
CHART_S: Final = 60 * DAY_S
POINTS: Final = 300
LAYERS: Final = 4
_SECURITY_ROWS: Final = 8
#: Rollouts that are listed, and those that are looked through for what somebody sees of them.
_LOOKED_AT: Final = 20
_LOOKED_THROUGH: Final = 200
#: Words of one device about one reason within so many seconds are about one thing.
_SAME_S: Final = 60
_RAMP: Final[tuple[Kind, ...]] = ("v0", "v1", "v2", "v3", "v4")
_TOKENS: Final = ("--v0", "--v1", "--v2", "--v3", "--v4")
_SPARK_DAYS: Final = 7
_OUTCOMES: Final[tuple[tuple[str, str, str, Kind], ...]] = (
    ("end:confirmed", "confirmed", "Confirmed", "ok"),
    ("end:failed", "not_activated", "Failed", "text3"),
    ("end:reverted", "reverted", "Reverted by the device", "bad"),
    ("end:lost", "lost", "Lost, silent past the deadline", "lost"),
    ("end:declined", "declined", "Declined on site", "text3"),
)


def counts(conn: Connection, single_operator: bool, now: int, sight: Sight = SEES_ALL) -> Counts:
    """Return the top bar, and what every page warns of. Who sees a part of the fleet is told of the rollouts and incidents in it, and of nothing else."""
    running = tuple(
        (str(row["name"]), rollouts.where_text(row))
        for row in rows.running(conn)
        if scopes.sees_rollout(conn, sight, str(row["name"]))
    )
    if not sight.whole:
        unclosed, _ = incidents.listed(conn, unclosed=True)
        seen = [one for one in unclosed if scopes.sees_incident(conn, sight, one.name)]
        return Counts(
            running=running, pending=0, incidents=len(seen), single_operator=single_operator
        )
    head = audit.newest_checkpoint(conn)
    return Counts(
        running=running,
        audit_size=head.size if head else 0,
        audit_at=head.at if head else 0,
        pending=rows.pending_count(conn),
        incidents=rows.open_incident_count(conn),
        single_operator=single_operator,
        expiring=tuple(
            Expiring(
                what=f"{one.role} {one.version}",
                expires_at=one.expires_at,
                days=days(one.expires_in_s),
                over=one.level == "expired",
                urgent=one.level != "soon",
                fix=one.fix,
            )
            for one in calendar(conn, now)
            if one.level == "late" or (one.level != "ok" and one.expires_in_s < BANNER_S)
        ),
        one_signer=one_signer(conn),
    )


def fleet(
    conn: Connection, audience_of: AudienceOf, seen: Seen, now: int, sight: Sight = SEES_ALL
) -> FleetPage:
    """Return the fleet, or what is in `sight` of it; `seen` counts devices heard of within a day. What is counted is counted by product."""
    of = None if sight.whole else sight.products
    most = _LOOKED_AT if sight.whole else _LOOKED_THROUGH
    versions = rows.firmware(conn, of)
    looked_at = _seen_rollouts(conn, rows.rollouts_looked_at(conn, most), sight)[:_LOOKED_AT]
    newest = _seen_rollouts(conn, rows.rollouts(conn, 0, 1 if sight.whole else most), sight)
    today = now // DAY_S
    daily = rows.daily(conn, today - _SPARK_DAYS + 1, of)
    variants = {name for one in of or ("",) for name, _ in rows.variants(conn, one)}
    return FleetPage(
        now=now,
        devices=sum(int(row["devices"]) for row in versions),
        seen_24h=seen(conn, now, of),
        variants=len(variants) if of != frozenset() else 0,
        chart=_chart(conn, versions, now, sight),
        versions=_versions(conn, versions, now, of),
        inbox=_inbox(conn, looked_at, now, sight),
        rollouts=tuple(rollouts.listed(conn, row, audience_of) for row in looked_at),
        rollouts_total=rows.rollout_count(conn) if sight.whole else 0,
        last_rollout=str(newest[0]["name"]) if newest else "",
        outcomes=_outcomes(daily, today),
        refused=sums.reason_rows(_reasons(daily, today))[:8],
        security=_security(conn, now, of),
        products=() if sight.whole else tuple(sorted(sight.products)),
        groups=() if sight.whole else tuple(sorted(sight.groups)),
    )


def _seen_rollouts(conn: Connection, found: Sequence[Row], sight: Sight) -> list[Row]:
    return [row for row in found if scopes.sees_rollout(conn, sight, str(row["name"]))]


def label(row: Row, several: bool) -> str:
    """Name a version; with its product where there are several."""
    version = str(row["version"]) or (
        "factory image" if not row["counter"] else str(row["counter"])
    )
    return f"{row['product']} {version}" if several else version


def _several(versions: Sequence[Row]) -> bool:
    return len({row["product"] for row in versions}) > 1


def _chart(conn: Connection, versions: Sequence[Row], now: int, sight: Sight) -> Chart:
    times = rows.sample_times(conn, now - CHART_S)
    if len(times) > POINTS:
        last = len(times) - 1
        times = sorted({times[n * last // (POINTS - 1)] for n in range(POINTS)})
    of = None if sight.whole else sight.products
    found = rows.samples(conn, times, of) if len(times) > 1 else []
    several = _several([*versions, *found])
    shares: dict[tuple[int, str], dict[int, int]] = {}
    totals = dict.fromkeys(times, 0)
    for row in found:
        key = (int(row["counter"]), label(row, several))
        at = shares.setdefault(key, {})
        at[int(row["at"])] = at.get(int(row["at"]), 0) + int(row["devices"])
        totals[int(row["at"])] += int(row["devices"])
    newest_first = sorted(shares, reverse=True)
    layers = [(name, [shares[(counter, name)]]) for counter, name in newest_first[:LAYERS]]
    if len(newest_first) > LAYERS:
        layers.append(("older", [shares[key] for key in newest_first[LAYERS:]]))
    series = tuple(
        Series(name, _TOKENS[n], _percentages(times, totals, parts))
        for n, (name, parts) in enumerate(layers)
    )
    said = ", ".join(f"{one.label} {one.y[-1]:.1f} percent" for one in series)
    return Chart(
        "stack",
        tuple(times),
        series,
        f"Share of the fleet by firmware. Now: {said}." if said else "No samples yet.",
        _marks(conn, times, sight),
        unit="%",
    )


def _percentages(
    times: Sequence[int], totals: dict[int, int], parts: Sequence[dict[int, int]]
) -> tuple[float, ...]:
    return tuple(
        round(100 * sum(part.get(at, 0) for part in parts) / totals[at], 2) if totals[at] else 0.0
        for at in times
    )


def _marks(conn: Connection, times: Sequence[int], sight: Sight) -> tuple[Mark, ...]:
    if len(times) < 2:
        return ()
    marks = []
    for row in _seen_rollouts(conn, rows.rollout_marks(conn, times[0]), sight):
        started, halted = row["started_at"], row["halted_at"]
        if started and started >= times[0] and row["kind"] == "install":
            marks.append(Mark(int(started), str(row["name"]), "--text-3"))
        if halted and halted >= times[0]:
            marks.append(Mark(int(halted), f"{row['release_version']} halted", "--bad"))
    return tuple(sorted(marks, key=lambda mark: mark.x)[-8:])


def _versions(
    conn: Connection, versions: Sequence[Row], now: int, of: rows.Products
) -> tuple[VersionRow, ...]:
    times = rows.sample_times(conn, now - 7 * DAY_S)
    before: dict[tuple[str, int], int] = {}
    if times:
        for row in rows.samples(conn, times[:1], of):
            before[(str(row["product"]), int(row["counter"]))] = int(row["devices"])
    several = _several(versions)
    found = []
    for n, row in enumerate(versions[:12]):
        key = (str(row["product"]), int(row["counter"]))
        note, href, color = _note(conn, row, _RAMP[min(n, LAYERS)])
        change = int(row["devices"]) - before.get(key, 0) if times else 0
        found.append(
            VersionRow(label(row, several), color, int(row["devices"]), change, note, href)
        )
    return tuple(found)


def _note(conn: Connection, row: Row, color: Kind) -> tuple[str, str, Kind]:
    release = rows.release_by_counter(conn, str(row["product"]), int(row["counter"]))
    if release is None:
        return "published nowhere here", "", color
    href = f"/releases/{release['name']}"
    if release["state"] == "recalled":
        return "recalled", href, "bad"
    newest = rows.rollouts(conn, 0, 1, int(release["id"]))
    if newest and newest[0]["kind"] == "install":
        at = newest[0]
        return f"rollout {words.state(at['state']).word.lower()}", f"/rollouts/{at['name']}", color
    return ", ".join(release["channels"]), href, color


def _inbox(
    conn: Connection, looked_at: Sequence[Row], now: int, sight: Sight
) -> tuple[InboxRow, ...]:
    of = None if sight.whole else sight.products
    found = [_halted(row) for row in looked_at if row["state"] == "halted"]
    found += [
        InboxRow(
            "person",
            "",
            f"Approve: {ask['action']} {ask['rollout']}",
            f"/rollouts/{ask['rollout']}",
            f"Asked by {ask['asked_by']}. Lapses in {words.duration(ask['expires_at'] - now)}.",
            int(ask["asked_at"]),
        )
        for ask in rows.requests(conn)
        if scopes.sees_rollout(conn, sight, str(ask["rollout"]))
    ]
    told = {row["id"] for row in looked_at if row["state"] == "halted"}
    found += _incidents(conn, told, sight)
    pending = rows.pending_count(conn) if sight.whole else 0
    if pending:
        text = "None of them showed a claim token. Accept or reject them."
        title = f"{words.plural(pending, 'device')} {'asks' if pending == 1 else 'ask'} to enrol"
        found.append(InboxRow("chip", "", title, "/devices#pending", text, now))
    for device in rows.quarantined(conn, 5, of):
        text = "Two devices sign with one key. It gets no assignments and no permits; give the right one a new key."
        href = f"/devices/{device['id']}"
        found.append(
            InboxRow("shield", "bad", str(device["id"]), href, text, int(device["last_seen"]))
        )
    return tuple(found)


def _halted(row: Row) -> InboxRow:
    who = "by gate" if row["halted_by"] == sums.PLANNER else f"by {row['halted_by']}"
    text = f"{words.sentence(sums.because_line(row))} Decide: fall back, resume or cancel."
    name, at = str(row["name"]), int(row["halted_at"] or 0)
    return InboxRow("halt", "bad", f"{name} halted {who}", f"/rollouts/{name}", text, at)


def _incidents(conn: Connection, told: set[int], sight: Sight) -> list[InboxRow]:
    """Return open incidents; a halt whose rollout is in the list already is not told twice."""
    open_ones = [
        row
        for row in rows.incidents(conn, 20)
        if row["state"] == "open"
        and not (row["kind"] == "halt" and row["rollout_id"] in told)
        and scopes.sees_incident(conn, sight, str(row["name"]))
    ]
    actions = rows.action_counts(conn, [int(row["id"]) for row in open_ones])
    icons = {"isolation": ("iso", "iso"), "fallback": ("revert", "bad"), "held": ("warn", "bad")}
    found = []
    for row in open_ones:
        icon, tone = icons.get(str(row["kind"]), ("warn", "warn"))
        lacks = "" if actions.get(int(row["id"])) else " No corrective action yet."
        name = str(row["name"])
        found.append(
            InboxRow(
                icon,
                tone,  # type: ignore[arg-type]  # from the closed list above
                f"{name}: {row['subject'] or row['rollout'] or row['kind']}",
                f"/incidents/{name}",
                f"{words.sentence(row['summary'])}{lacks}",
                int(row["opened_at"]),
            )
        )
    return found


def _outcomes(daily: Sequence[Row], today: int) -> tuple[OutcomeRow, ...]:
    value = {(int(row["day"]), str(row["name"])): int(row["value"]) for row in daily}
    days = range(today - _SPARK_DAYS + 1, today + 1)
    return tuple(
        OutcomeRow(
            state,
            text,
            value.get((today, name), 0),
            value.get((today - 1, name), 0),
            kind,
            tuple(value.get((day, name), 0) for day in days),
        )
        for name, state, text, kind in _OUTCOMES
    )


def _reasons(daily: Sequence[Row], today: int) -> dict[str, int]:
    return {
        str(row["name"])[7:]: int(row["value"])
        for row in daily
        if row["day"] == today and str(row["name"]).startswith("reason:")
    }


def _security(conn: Connection, now: int, of: rows.Products) -> tuple[TimelineRow, ...]:
    found: list[TimelineRow] = []
    told: dict[tuple[str, str], int] = {}
    for row in rows.security_events(conn, now - 7 * DAY_S, 3 * _SECURITY_ROWS, of):
        code, at = str(row["reason"]), int(row["received_at"])
        # A refused order is told twice, as what ended the update and as what was noticed.
        if told.get((str(row["device"]), code), at + _SAME_S) < at + _SAME_S:
            continue
        told[str(row["device"]), code] = at
        noticed = family(code) == "security"
        verb = "reports" if noticed else "refused it"
        found.append(
            TimelineRow(
                int(row["received_at"]),
                "warn" if noticed else "shield",
                "warn" if noticed else "",
                f"{row['device']} {verb}: {words.reason(code)}.",
                code=code,
                href=f"/devices/{row['device']}",
            )
        )
    return tuple(found[:_SECURITY_ROWS])
