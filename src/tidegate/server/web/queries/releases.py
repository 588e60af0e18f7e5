"""Releases: where each runs, what it is made of, what devices check, who signed."""

from typing import Any

import msgspec

from tidegate.core.hardware import HardwareRange, variant
from tidegate.core.release import ReleaseTarget
from tidegate.server import advisories
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.store import Connection
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.queries import contracts, rollouts, supply
from tidegate.server.web.queries.rollouts import AudienceOf
from tidegate.server.web.views import (
    ArtifactRow,
    Pair,
    ReleasePage,
    ReleaseRow,
    ReleasesPage,
    RunsRow,
    SignerRow,
    TimelineRow,
)

Row = dict[str, Any]


def listing(conn: Connection, now: int, sight: Sight = SEES_ALL) -> ReleasesPage:
    """Return the newest releases of those in `sight`."""
    runs = {
        (str(row["product"]), int(row["counter"])): int(row["devices"])
        for row in rows.firmware(conn)
    }
    found = [row for row in rows.releases(conn, 100) if sight.sees_release(str(row["product"]))]
    return ReleasesPage(
        now,
        tuple(_row(row, runs) for row in found),
        rows.release_count(conn) if sight.whole else len(found),
        rows.root_version(conn),
    )


def _row(row: Row, runs: dict[tuple[str, int], int]) -> ReleaseRow:
    return ReleaseRow(
        name=str(row["name"]),
        product=str(row["product"]),
        version=str(row["version"]),
        counter=int(row["counter"]),
        channels=tuple(row["channels"]),
        state=str(row["state"]),
        devices=runs.get((str(row["product"]), int(row["counter"])), 0),
        published_at=int(row["published_at"]),
        published_by=str(row["published_by"]),
    )


def page(conn: Connection, name: str, audience_of: AudienceOf, now: int) -> ReleasePage | None:
    """Return one release, or None."""
    row = rows.release(conn, name)
    if row is None:
        return None
    product, counter = str(row["product"]), int(row["counter"])
    artifacts = rows.artifacts(conn, int(row["id"]))
    targets = [msgspec.convert(one["target"], type=ReleaseTarget) for one in artifacts]
    used = rows.rollouts(conn, 0, 20, int(row["id"]))
    isolated = {name: one for one in used for name in one["isolated"]}
    runs = rows.firmware_variants(conn, product, counter)
    fleet = dict(rows.variants(conn, product))
    return ReleasePage(
        now=now,
        name=name,
        title=f"{product} {row['version']}",
        product=product,
        version=str(row["version"]),
        counter=counter,
        security_version=int(row["security_version"]),
        state=str(row["state"]),
        channels=tuple(row["channels"]),
        published_at=int(row["published_at"]),
        published_by=str(row["published_by"]),
        recalled_at=int(row["recalled_at"] or 0),
        recall_reason=str(row["recall_reason"] or ""),
        devices=sum(runs.values()),
        fleet=sum(fleet.values()),
        known=tuple(_known(conn, one, variant) for variant, one in sorted(isolated.items())),
        runs=_runs(conn, row, targets, runs, fleet, frozenset(isolated)),
        artifacts=tuple(_artifact(row, one) for row, one in zip(artifacts, targets, strict=True)),
        compatible=_compatible(conn, product, targets, now),
        contract=contracts.rows(targets[0].health) if targets else (),
        signers=tuple(_signer(one, product) for one in row["signers"]),
        rollouts=tuple(rollouts.listed(conn, one, audience_of) for one in used),
        attachments=supply.attachment_rows(conn, int(row["id"])),
        advisories=tuple(advisories.of_release(conn, int(row["id"]))),
    )


def _known(conn: Connection, row: Row, name: str) -> TimelineRow:
    incident = rows.incident_of(conn, int(row["id"]), "isolation")
    href = f"/incidents/{incident}" if incident else ""
    text = f"Known issue: {name} is isolated in {row['name']}"
    return TimelineRow(
        int(row["started_at"] or 0), "iso", "iso", text,
        detail="No device of this variant is offered it.", code=incident, href=href,
    )  # fmt: skip


def _runs(
    conn: Connection,
    row: Row,
    targets: list[ReleaseTarget],
    runs: dict[str, int],
    fleet: dict[str, int],
    isolated: frozenset[str],
) -> tuple[RunsRow, ...]:
    harmed = rows.harmed_by_release(conn, int(row["id"]))
    ranges = [one for target in targets for one in target.hardware]
    return tuple(
        RunsRow(
            variant=name,
            state="isolated" if name in isolated else "yes" if _covers(ranges, name) else "no",
            runs=runs.get(name, 0),
            of=total,
            reverted=harmed.get((name, "reverted"), 0),
            lost=harmed.get((name, "lost"), 0),
        )
        for name, total in sorted(fleet.items())
    )


def _covers(ranges: list[HardwareRange], name: str) -> bool:
    model, _, rev = name.rpartition("-r")
    if not rev.isdigit():
        return False
    number = int(rev)
    return (
        any(
            one.model == model
            and one.rev_min <= number <= one.rev_max
            and number not in one.exclude_revs
            for one in ranges
        )
        and variant(model, number) == name
    )


def _artifact(row: Row, target: ReleaseTarget) -> ArtifactRow:
    kind = target.format.replace("_", " ")
    return ArtifactRow(
        target.component, _hardware(target), kind, int(row["length"]), str(row["sha256"])
    )


def _hardware(target: ReleaseTarget) -> str:
    parts = []
    for one in target.hardware:
        text = one.model
        if (one.rev_min, one.rev_max) != (0, 65535):
            same = one.rev_min == one.rev_max
            top = " and later" if one.rev_max == 65535 else f" to {one.rev_max}"
            text += f" rev {one.rev_min}{'' if same else top}"
        if one.exclude_revs:
            text += f", not rev {', '.join(map(str, one.exclude_revs))}"
        parts.append(text)
    return "; ".join(parts)


def _compatible(
    conn: Connection, product: str, targets: list[ReleaseTarget], now: int
) -> tuple[Pair, ...]:
    pairs = [Pair("Hardware", "; ".join(dict.fromkeys(_hardware(one) for one in targets)))]
    first = targets[0] if targets else None
    if first is None:
        return tuple(pairs)
    for low, high in first.from_counters:
        pairs.append(Pair("From", f"counter {low} to {high}"))
    if first.min_agent:
        pairs.append(Pair("Agent", f"{first.min_agent} or newer"))
    for back in first.fallback_to:
        release = rows.release_by_counter(conn, product, back.counter)
        name = str(release["version"]) if release else f"counter {back.counter}"
        over = back.expires <= now
        note = f"until {words.when(back.expires, now)}" if not over else "no longer"
        pairs.append(Pair("May go back to", name, note))
    if first.notes:
        pairs.append(Pair("Notes", first.notes))
    if first.source:
        pairs.append(Pair("Source", first.source, mono=True))
    if first.mirrors:
        pairs.append(Pair("Mirrors", ", ".join(first.mirrors), mono=True))
    return tuple(pairs)


def _signer(one: Any, product: str) -> SignerRow:
    if isinstance(one, dict):
        keyid = str(one.get("keyid", ""))
        return SignerRow(
            str(one.get("name") or keyid[:12]), keyid, str(one.get("role", f"product/{product}"))
        )
    return SignerRow(str(one)[:12], str(one), f"product/{product}")
