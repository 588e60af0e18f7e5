"""What is left to do after an incident: who does it until when, and, as one kind of it, who decides whether the release is recalled.

Whatever changes here is written into the incident as an event, so that it stands in its timeline and among its decisions.
"""

from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.incident.wording import day
from tidegate.server import audit, incidents
from tidegate.server.auth import Actor
from tidegate.server.store import Connection
from tidegate.server.store import admin_incidents as rows

Row = dict[str, Any]
FOLLOWUPS_MAX: Final = 100
#: What a follow-up may be about, beside anything at all.
ABOUT: Final = ("", "recall")


class FollowUpFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do. `due_at` 0 = no date; `number` counts from 1 in each incident; `about` recall: to decide whether the release is recalled."""

    number: int
    text: str
    owner: str
    due_at: int
    created_at: int
    created_by: str
    done_at: int | None
    done_by: str | None
    about: str = ""


def listed(conn: Connection, name: str) -> list[FollowUpFacts]:
    """Return what is left to do, and what was done.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.followups(conn, int(incidents.row_of(conn, name)["id"]))
    fields = FollowUpFacts.__struct_fields__
    return [FollowUpFacts(**{field: one[field] for field in fields}) for one in found]


def add(
    conn: Connection,
    name: str,
    text: str,
    owner: str,
    due_at: int,
    actor: Actor,
    now: int,
    *,
    about: str = "",
) -> int:
    """Write down what is left to do, and return its number.

    Args:
        conn: the writer's connection.
        name: of the incident.
        text: what; untrusted.
        owner: who does it; untrusted. Empty = whoever writes it down.
        due_at: until when, unix seconds; 0 = no date.
        actor: who writes it down.
        now: unix seconds.
        about: `recall`: to decide whether the release is recalled; a recall then settles it. Untrusted.

    Raises:
        RequestError: `request.not_found`, `request.invalid`; `request.conflict`: there are too many.
    """
    found = incidents.row_of(conn, name)
    if about not in ABOUT:
        raise RequestError("request.invalid", "a follow-up is about recall, or about nothing named")
    if about and not found["release"]:
        raise RequestError(
            "request.invalid", f"{name} is about no release: there is none to recall"
        )
    if about and not text.strip():
        text = f"decide whether {found['release']} is recalled"
    said = incidents.worded(text, "a follow-up", 1_000)
    if len(rows.followups(conn, int(found["id"]))) >= FOLLOWUPS_MAX:
        raise RequestError("request.conflict", f"{name} has {FOLLOWUPS_MAX} follow-ups already")
    row = {
        "text": said,
        "owner": owner.strip()[: incidents.OWNER_MAX] or actor.name,
        "due_at": due_at,
        "created_at": now,
        "created_by": actor.name,
        "about": about,
    }
    number = rows.add_followup(conn, int(found["id"]), row)
    audit.record(conn, now, actor.name, "incident.follow_up", name, {"number": number})
    text = f"follow-up {number}, {_who_until(row)}: {said}"
    incidents.write_event(conn, name, text, actor.name, now)
    return number


def edit(
    conn: Connection,
    name: str,
    number: int,
    actor: Actor,
    now: int,
    *,
    owner: str | None = None,
    due_at: int | None = None,
) -> None:
    """Give a follow-up that is not done another owner or date; None leaves it, and so does an owner without a name. Safe to repeat.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: it is done.
    """
    found = incidents.row_of(conn, name)
    held = _follow_up(conn, found, number)
    if held["done_at"]:
        raise RequestError("request.conflict", f"follow-up {number} of {name} is done already")
    wanted = {
        "owner": (owner or "").strip()[: incidents.OWNER_MAX] or held["owner"],
        "due_at": due_at,
    }
    values = {
        key: value for key, value in wanted.items() if value is not None and held[key] != value
    }
    if not values:
        return
    rows.change_followup(conn, int(found["id"]), number, values)
    text = f"follow-up {number}, {_who_until({**held, **values})} (was {_who_until(held)}): {held['text']}"
    incidents.write_event(conn, name, text, actor.name, now)
    before = {key: held[key] for key in values}
    audit.record(
        conn, now, actor.name, "incident.edit_follow_up", name, {"number": number},
        before=before, after=values,
    )  # fmt: skip


def done(conn: Connection, name: str, number: int, actor: Actor, now: int) -> None:
    """Note that a follow-up was done. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    found = incidents.row_of(conn, name)
    _settle(conn, found, _follow_up(conn, found, number), actor.name, now)


def _follow_up(conn: Connection, found: Row, number: int) -> Row:
    for one in rows.followups(conn, int(found["id"])):
        if one["number"] == number:
            return one
    raise RequestError("request.not_found", f"{found['name']} has no follow-up {number}")


def _settle(conn: Connection, found: Row, one: Row, by: str, now: int) -> None:
    number = int(one["number"])
    if rows.settle_followup(conn, int(found["id"]), number, by, now):
        audit.record(conn, now, by, "incident.followed_up", str(found["name"]), {"number": number})
        text = f"follow-up {number} is done: {one['text']}"
        incidents.write_event(conn, str(found["name"]), text, by, now)


def _who_until(one: Row) -> str:
    return f"{one['owner']}, {'by ' + day(one['due_at']) if one['due_at'] else 'no date'}"


def recalled(
    conn: Connection, release_id: int, release: str, reason: str, by: str, now: int
) -> None:
    """Write into every incident about a release, closed ones too, that it was recalled; whoever was to decide on that has nothing left to do."""
    for found in rows.of_release(conn, release_id):
        text = f"recalled {release}: {reason.strip()}"
        incidents.write_event(conn, str(found["name"]), text, by, now)
        for one in rows.followups(conn, int(found["id"])):
            if one["about"] == "recall" and not one["done_at"]:
                _settle(conn, found, one, by, now)
