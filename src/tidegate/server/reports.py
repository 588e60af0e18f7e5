"""An incident's report, put together from what the database knows at this moment; the words are `rollout.incident`'s."""

import html
from typing import Any, Final

from tidegate.core import codec
from tidegate.core.errors import RequestError
from tidegate.rollout import incident as story
from tidegate.rollout.incident import DeviceOutcome, Entry
from tidegate.rollout.model import IncidentReport
from tidegate.server import incidents, planning, telemetry
from tidegate.server.store import Connection, admin_log
from tidegate.server.store import admin_incidents as rows
from tidegate.server.store import admin_rollouts as rollout_rows

Row = dict[str, Any]
#: Most devices that a report looks at one by one; the counts are of all.
DEVICES_MAX: Final = 2_000
#: Most single device outcomes in a timeline: the first of them tell how it began.
_OUTCOMES_SHOWN: Final = 20
_EXPOSED: Final = frozenset(
    {"permitted", "rebooting", "verifying", "confirmed", "reverted", "failed", "lost"}
)
FORMATS: Final = {"json": "application/json", "md": "text/markdown", "html": "text/html"}


def build(conn: Connection, name: str) -> IncidentReport:
    """Return the report of an incident as it stands now.

    Raises:
        RequestError: `request.not_found`.
    """
    found = incidents.row_of(conn, name)
    row = rollout_rows.rollout_by_id(conn, int(found["rollout_id"]))
    if row is None:
        raise RequestError("request.not_found", f"the rollout of {name}")
    return story.report(
        name=name,
        kind=found["kind"],
        rollout=planning.model_of(row),
        release=str(row["release"]),
        opened_at=int(found["opened_at"]),
        opened_by=str(found["opened_by"]),
        because=incidents.findings_of(found),
        evidence=telemetry.evidence(conn, int(row["id"])),
        devices=_devices(conn, row, str(found["subject"])),
        entries=_entries(conn, found, row),
        summary=str(found["summary"]),
        subject=str(found["subject"]),
    )


def export(conn: Connection, name: str, form: str) -> tuple[str, bytes]:
    """Return (media type, bytes) of a report as `json`, `md` or `html`.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    kind = FORMATS.get(form)
    if kind is None:
        raise RequestError("request.invalid", f"format: {', '.join(FORMATS)}")
    report = build(conn, name)
    if form == "json":
        return kind, codec.encode(report)
    text = story.to_markdown(report)
    if form == "md":
        return kind, text.encode()
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>'
        f"{html.escape(name)}</title><body><pre>{html.escape(text)}</pre></body></html>\n"
    )
    return kind, page.encode()


def _devices(conn: Connection, row: Row, variant: str) -> list[DeviceOutcome]:
    found = rollout_rows.updates_in(
        conn, int(row["id"]), _EXPOSED, variant=variant, limit=DEVICES_MAX
    )
    return [
        DeviceOutcome(
            device=str(one["device"]),
            variant=str(one["variant"]),
            ring=str(one["ring"]),
            state=str(one["state"]),
            reason=str(one["reason"] or ""),
            at=int(one["state_at"]),
            attributes={"from": int(one["from_counter"])},
        )
        for one in found
        if one["permitted_at"] is not None or str(one["reason"] or "").startswith("install.")
    ]


def _entries(conn: Connection, found: Row, row: Row) -> list[Entry]:
    entries = [
        Entry(at=int(one["at"]), who=str(one["actor"]), text=f"{one['action']}: {one['text']}")
        for one in admin_log.plan_log(conn, int(row["id"]))
    ]
    for child in rollout_rows.children(conn, int(row["id"])):
        entries += [
            Entry(at=int(one["at"]), who=str(one["actor"]), text=f"{child['name']}: {one['text']}")
            for one in admin_log.plan_log(conn, int(child["id"]))
        ]
    bad = rows.outcomes(conn, int(row["id"]))
    shown = bad[:_OUTCOMES_SHOWN]
    entries += [
        Entry(
            at=int(one["state_at"]),
            who="device",
            text=f"{one['device']} {one['state']}"
            + (f": {one['reason']}" if one["reason"] else ""),
        )
        for one in shown
    ]
    if len(bad) > len(shown):
        rest = len(bad) - len(shown)
        entries.append(
            Entry(at=int(bad[-1]["state_at"]), who="device", text=f"and {rest:,} more devices")
        )
    for one in rows.notes(conn, int(found["id"])):
        kind = str(one["kind"])
        entries.append(
            Entry(
                at=int(one["at"]),
                who=str(one["by"]),
                text=str(one["text"]),
                kind="action" if kind == "action" else "note" if kind == "note" else "event",
            )
        )
    return entries
