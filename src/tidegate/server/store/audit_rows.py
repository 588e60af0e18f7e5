"""Statements about the operators' log. What a row's hashes are is decided in `server.audit`."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, delete, func, insert, or_, select, update

from tidegate.core.audit.entry import AuditRow
from tidegate.server.store import audit_tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
#: Fields of an entry that have another name in the database.
_COLUMNS: Final = {
    "plan": "plan_sha256",
    "request": "request_id",
    "before": "before_sha256",
    "after": "after_sha256",
}
#: Rows that are read at a time where many are.
_PAGE: Final = 500
#: Nodes that are asked for at once.
_NODES: Final = 200


def head(conn: Connection) -> tuple[int, str]:
    """Return how many rows the tree holds, and the hash of the last of them; (0, "") before the first."""
    row = conn.execute(
        select(t.audit_head.c.size, t.audit_head.c.hash).where(
            t.audit_head.c.tenant == tenant_of(conn)
        )
    ).first()
    return (int(row.size), str(row.hash)) if row else (0, "")


def set_head(conn: Connection, size: int, hash_: str) -> None:
    """Note how far the tree reaches now."""
    values = {"size": size, "hash": hash_}
    changed = conn.execute(
        update(t.audit_head).where(t.audit_head.c.tenant == tenant_of(conn)).values(**values)
    )
    if changed.rowcount == 0:
        conn.execute(insert(t.audit_head).values(**values))


def newest_seq(conn: Connection) -> int:
    """Return the number of the newest row, 0 when there is none."""
    return int(conn.execute(select(func.max(t.audit.c.seq))).scalar() or 0)


def add(conn: Connection, entry: AuditRow) -> None:
    """Append a row, complete with its hash."""
    values = {_COLUMNS.get(name, name): getattr(entry, name) for name in AuditRow.__struct_fields__}
    conn.execute(insert(t.audit).values(**values))


def add_nodes(conn: Connection, nodes: Iterable[tuple[int, int, bytes]]) -> None:
    """Keep roots of complete subtrees: (level, number, digest)."""
    conn.execute(
        insert(t.audit_node),
        [{"level": level, "number": number, "hash": digest} for level, number, digest in nodes],
    )


def drop_nodes(conn: Connection, size: int) -> None:
    """Drop every node that reaches beyond the first `size` rows."""
    c = t.audit_node.c
    top = conn.execute(select(func.max(c.level))).scalar()
    for level in range(0 if top is None else int(top) + 1):
        conn.execute(delete(t.audit_node).where(c.level == level, c.number >= size >> level))


def nodes(conn: Connection, wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Return those of the nodes that there are, by (level, number)."""
    c = t.audit_node.c
    found: dict[tuple[int, int], bytes] = {}
    places = list(wanted)
    for start in range(0, len(places), _NODES):
        part = places[start : start + _NODES]
        where = or_(*(and_(c.level == level, c.number == number) for level, number in part))
        for row in conn.execute(select(c.level, c.number, c.hash).where(where)):
            found[int(row.level), int(row.number)] = bytes(row.hash)
    return found


def entries(
    conn: Connection,
    *,
    after: int = 0,
    before: int = 0,
    newest_first: bool = False,
    limit: int | None = None,
    actor: str = "",
    action: str = "",
    thing: str = "",
    since: int = 0,
    until: int = 0,
) -> Iterator[AuditRow]:
    """Yield rows in order of their numbers, a page at a time.

    Args:
        conn: any connection; a snapshot where the whole is to be of one moment.
        after: numbers above this one alone; 0 = all.
        before: numbers below this one alone; 0 = all.
        newest_first: the other way round.
        limit: so many, None = all.
        actor: exactly this one.
        action: exactly this one, or all of a noun: `rollout.`.
        thing: exactly this one.
        since: not before then, unix seconds; 0 = open.
        until: not after then, unix seconds; 0 = open.
    """
    c = t.audit.c
    asked = select(t.audit)
    for wanted, value in (
        (c.actor == actor, actor),
        (c.object == thing, thing),
        (c.at >= since, since),
        (c.at <= until, until),
    ):
        if value:
            asked = asked.where(wanted)
    if action:
        noun = action.endswith(".")
        asked = asked.where(
            and_(c.action >= action, c.action < action[:-1] + "/") if noun else c.action == action
        )
    left = limit
    while left is None or left > 0:
        page = _PAGE if left is None else min(left, _PAGE)
        rows = conn.execute(_between(asked, after, before, newest_first, page)).mappings().all()
        for row in rows:
            yield _entry(row)
        if len(rows) < page:
            return
        left = None if left is None else left - len(rows)
        if newest_first:
            before = int(rows[-1]["seq"])
        else:
            after = int(rows[-1]["seq"])


def _between(
    asked: "Select[Any]", after: int, before: int, newest_first: bool, page: int
) -> "Select[Any]":
    seq = t.audit.c.seq
    if after:
        asked = asked.where(seq > after)
    if before:
        asked = asked.where(seq < before)
    return asked.order_by(seq.desc() if newest_first else seq).limit(page)


def _entry(row: Any) -> AuditRow:
    return AuditRow(**{name: row[_COLUMNS.get(name, name)] for name in AuditRow.__struct_fields__})


def add_checkpoint(conn: Connection, *, size: int, root: str, note: str, at: int) -> None:
    """Keep a signed head."""
    conn.execute(insert(t.audit_checkpoint).values(size=size, root=root, note=note, at=at))


def checkpoint(conn: Connection, size: int | None = None) -> Row | None:
    """Return the signed head of so many rows, or the newest one; None where there is none."""
    c = t.audit_checkpoint.c
    asked = select(t.audit_checkpoint)
    asked = asked.order_by(c.size.desc()).limit(1) if size is None else asked.where(c.size == size)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def checkpoints(conn: Connection, *, after: int = 0, limit: int = 500) -> list[Row]:
    """Return signed heads in order, those of more than `after` rows."""
    c = t.audit_checkpoint.c
    asked = select(t.audit_checkpoint).where(c.size > after).order_by(c.size).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]
