"""What a person can do about an incident on its page: one verb a form, by the same functions as the API's."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from tidegate.core.errors import RequestError
from tidegate.server import acts, followups, incidents, publication
from tidegate.server.auth import Actor
from tidegate.server.publication import Texts
from tidegate.server.store import Connection

Fields = Mapping[str, str]
Act = Callable[[Connection, str, Fields, Actor, int], str]


def open_incident(conn: Connection, fields: Fields, actor: Actor, now: int) -> str:
    """Open an incident by hand and return its name."""
    rollout = fields.get("rollout", "").strip()
    return incidents.open_by_hand(
        conn,
        summary=fields.get("summary", ""),
        rollout=acts.row_of(conn, rollout) if rollout else None,
        subject=fields.get("variant", ""),
        severity=fields.get("severity", ""),
        owner=fields.get("owner", ""),
        actor=actor,
        now=now,
    )


def _note(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    incidents.note(
        conn,
        name,
        fields.get("kind", "note"),
        fields.get("text", ""),
        actor,
        now,
        means=fields.get("means", ""),
        kept=fields.get("kept", ""),
    )
    return "Written down."


def _edit(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    found = incidents.edit(
        conn, name, actor, now, severity=fields.get("severity"), owner=fields.get("owner")
    )
    return f"{name}: {found.severity}, led by {found.owner or 'nobody'}."


def _followup(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    due = _day(fields.get("due", ""))
    number = followups.add(
        conn, name, fields.get("text", ""), fields.get("owner", ""), due, actor, now,
        about=fields.get("about", ""),
    )  # fmt: skip
    return f"Follow-up {number} is written down."


def _followup_edit(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    number = _number(name, fields)
    due = _day(fields.get("due", "")) or None
    followups.edit(conn, name, number, actor, now, owner=fields.get("owner", ""), due_at=due)
    return f"Follow-up {number} is changed."


def _done(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    number = _number(name, fields)
    followups.done(conn, name, number, actor, now)
    return f"Follow-up {number} is done."


def _number(name: str, fields: Fields) -> int:
    number = fields.get("number", "")
    if not number.isascii() or not number.isdigit() or len(number) > 6:
        raise RequestError("request.not_found", f"{name} has no follow-up {number[:20]}")
    return int(number)


def _move(verb: str, said: str) -> Act:
    def act(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
        incidents.move(conn, name, verb, actor, fields.get("reason", ""), now)
        return f"{name} is {said}."

    return act


def _publish(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    texts = Texts(**{field: fields.get(field, "") for field in Texts.__struct_fields__})
    publication.publish(conn, name, texts, actor, now)
    return f"{name} is published."


def _update(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    publication.add_update(conn, name, fields.get("text", ""), actor, now)
    return "The status page has one line more."


def _unpublish(conn: Connection, name: str, fields: Fields, actor: Actor, now: int) -> str:
    publication.withdraw(conn, name, actor, fields.get("reason", ""), now)
    return f"{name} is not on the status page any more."


VERBS: Final[Mapping[str, Act]] = {
    "note": _note,
    "edit": _edit,
    "followup": _followup,
    "followup-edit": _followup_edit,
    "done": _done,
    "mitigate": _move("mitigate", "mitigated"),
    "reopen": _move("reopen", "open again"),
    "close": _move("close", "closed"),
    "publish": _publish,
    "update": _update,
    "unpublish": _unpublish,
}


def _day(text: str) -> int:
    """Return the end of a day (`2026-12-24`, UTC) in unix seconds; 0 for no text.

    Raises:
        RequestError: `request.invalid`.
    """
    if not text.strip():
        return 0
    try:
        day = dt.datetime.strptime(text.strip(), "%Y-%m-%d").replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise RequestError("request.invalid", "due: a day such as 2026-12-24") from error
    return int(day.timestamp()) + 86_399
