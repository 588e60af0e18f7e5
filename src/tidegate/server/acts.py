"""What the acts on a rollout have in common: looking it up, changing it by compare-and-set, writing it down, answering."""

from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.model import Finding
from tidegate.server import audit, planning
from tidegate.server.store import Connection, changes
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]


class PastReturn(msgspec.Struct, frozen=True, kw_only=True):
    """A device that cannot be stopped any more: it was given leave to activate."""

    device: str
    state: str


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What a halt or isolation found: `inert` devices hold it unactivated, `past_count` are beyond the point of no return, `confirmed` run it.

    `past` names the first 10,000 of those; `GET /rollouts/{name}/updates` lists all. Of an isolation, `kept_out`: how many devices of the fleet it keeps
    out at present (None = too many to be asked at once), and `doubt`: what is odd about that, if it is nobody.
    """

    at: int
    by: str
    incident: str
    inert: int
    past: tuple[PastReturn, ...]
    confirmed: int
    past_count: int = 0
    kept_out: int | None = None
    doubt: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an act on the rollout `name`.

    `already`: nothing was to be done. `request`: a second person has to approve it first. `warnings`: what speaks against it as it stands now, and did not
    before the act.
    """

    name: str
    verb: str
    state: str
    generation: int
    text: str
    already: bool = False
    request: int | None = None
    reach: int | None = None
    stopped: Stopped | None = None
    warnings: tuple[str, ...] = ()


class ChangedError(RequestError):
    """It is not what whoever changes it has seen: `If-Match` names another state. The API answers with 412."""


def row_of(conn: Connection, name: str) -> Row:
    """Return a rollout's row.

    Raises:
        RequestError: `request.not_found`, with the nearest name.
    """
    found = rows.rollout(conn, name)
    if found is None:
        near = did_you_mean(name, rows.rollout_names(conn))
        raise RequestError("request.not_found", f'no rollout "{name[:64]}"{near}')
    return found


def release_of(conn: Connection, name: str) -> Row:
    """Return a release's row.

    Raises:
        RequestError: `request.not_found`, with the nearest name.
    """
    found = rows.release(conn, name)
    if found is None:
        near = did_you_mean(name, rows.release_names(conn))
        raise RequestError("request.not_found", f'no release "{name[:64]}"{near}')
    return found


#: Acts whose entry is written with what follows from them: `planning.stopped` and `isolated`, the planner's as well, and `fallbacks`; and what a request
#: makes of its rollout, which is told with the request (`approvals`).
_RECORDED: Final = frozenset({"halt", "isolate", "fallback", "ask", "decline"})


def change(
    conn: Connection, row: Row, values: Row, by: str, action: str, text: str, now: int
) -> Row:
    """Change a rollout by compare-and-set, write it into its story and into the log, and return the new row."""
    generation = int(row["generation"])
    if not rows.change_rollout(conn, int(row["id"]), generation, values):
        raise RequestError("request.conflict", f"{row['name']} changed meanwhile; look again")
    because = values.get("because", [])
    planning.log(conn, row, generation + 1, by, action, text or action, because, now)
    if action not in _RECORDED:
        detail = {"reason": text, "generation": generation + 1}
        audit.record(
            conn, now, by, f"rollout.{action}", str(row["name"]), detail,
            before={key: row.get(key) for key in values}, after=values,
        )  # fmt: skip
    changes.bump(conn, "rollout", str(row["name"]), now)
    return row_of(conn, str(row["name"]))


def waits(
    text: str, *, gate: str = "state", variant: str = "", opens_at: int | None = None
) -> Finding:
    """Return a finding that says why a rollout stands still."""
    return Finding(gate=gate, passed=False, text=text, variant=variant, opens_at=opens_at)


def with_reason(text: str, reason: str) -> str:
    """Return a sentence with its reason behind it, where there is one."""
    return f"{text}: {reason.strip()}" if reason.strip() else text


def outcome(
    row: Row,
    verb: str,
    text: str,
    *,
    already: bool = False,
    request: int | None = None,
    reach: int | None = None,
    stopped: Stopped | None = None,
) -> Outcome:
    """Say what became of an act on a rollout (its row, as it stands afterwards)."""
    return Outcome(
        name=str(row["name"]),
        verb=verb,
        state=str(row["state"]),
        generation=int(row["generation"]),
        text=text,
        already=already,
        request=request,
        reach=reach,
        stopped=stopped,
    )
