"""The operators' log: one row an act, each bound to the one before it by a hash, all of them leaves of one tree whose heads are signed.

A row, its hash and the nodes that it completes are written in the transaction of the act, so that there is never one without the others. Every so often the
audit key signs a head; whoever keeps one, devices too, can be shown that the log still begins with what it covered. What the hashes are is decided in
`core.audit`; who is told of heads, in `server.witnesses`.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit import entry as entries
from tidegate.core.audit import tree
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.audit.entry import AuditRow
from tidegate.core.errors import RequestError
from tidegate.core.keys import Signer
from tidegate.server.store import Connection, changes, origin
from tidegate.server.store import audit_rows as rows

#: A head is signed when the newest one is so old (seconds) and there is something new, or so many rows behind.
CHECKPOINT_S: Final = 300
CHECKPOINT_ROWS: Final = 1_000
#: The name of every tenant's log: their keys differ, and agents expect this one.
ORIGIN: Final = notes.origin_of("default")
_PAGE: Final = 500
_log = logging.getLogger("tidegate.audit")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the log holds, as far as the server's own database can say.

    Attributes:
        ok: chain and tree agree with every row, and the newest checkpoint with the tree.
        rows: rows that were followed.
        head: hash of the last of them.
        broken_at: the first row that does not follow from the one before it, is not the leaf that it was, or is gone.
        covered: rows that the newest checkpoint covers.
    """

    ok: bool
    rows: int
    head: str
    broken_at: int | None = None
    covered: int = 0


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signed head: `root` (hex) is that of the first `size` rows; `note` is what was signed, with its signature."""

    size: int
    root: str
    at: int
    note: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Digests (hex) that show one row, or one older head, to be in the log of `size` rows with this `root`."""

    size: int
    root: str
    hashes: tuple[str, ...]


def record(
    conn: Connection,
    now: int,
    actor: str,
    action: str,
    thing: str,
    detail: dict[str, Any] | None = None,
    *,
    plan: str = "",
    before: object = None,
    after: object = None,
) -> str:
    """Append an act in the transaction that performs it; return the row's hash. The request behind the work is noted by itself.

    Args:
        conn: the writer's connection.
        now: unix seconds.
        actor: who did it.
        action: noun and verb, `rollout.halt`.
        thing: what it was done to.
        detail: plain JSON, integers and text only.
        plan: SHA-256 (hex) of the plan that was asked for, approved or applied.
        before: what was changed, as it was: plain JSON or a Struct, whose digest is noted; None = nothing to compare.
        after: the same as it is now.
    """
    size, last = _caught_up(conn)
    came = origin.of(conn)
    entry = entries.seal(
        AuditRow(
            seq=size + 1,
            at=now,
            actor=actor[:128],
            action=action[:64],
            object=thing[:200],
            detail=detail or {},
            plan=plan,
            request=came.request,
            ip=came.ip,
            before="" if before is None else entries.digest(before),
            after="" if after is None else entries.digest(after),
            hash="",
        ),
        last,
    )
    rows.add(conn, entry)
    _plant(conn, size, entries.leaf(entries.canon(entry)))
    rows.set_head(conn, entry.seq, entry.hash)
    return entry.hash


def _caught_up(conn: Connection) -> tuple[int, str]:
    """Return size and last hash of the log, with what an older server wrote beside this one taken into the tree."""
    size, last = rows.head(conn)
    if rows.newest_seq(conn) <= size:
        return size, last
    rows.drop_nodes(conn, size)  # there are some only where somebody changed the head by hand
    for entry in rows.entries(conn, after=size):
        while size + 1 < entry.seq:
            _plant(conn, size, entries.MISSING)
            size += 1
        _plant(conn, size, entries.leaf(entries.canon(entry)))
        size, last = entry.seq, entry.hash
    rows.set_head(conn, size, last)
    return size, last


def _plant(conn: Connection, size: int, leaf: bytes) -> None:
    """Add a leaf: its own node, and those that it completes.

    Nodes that somebody took out keep nobody from acting: a halt has to go through. The heads that follow belong to another log than those that were signed, and
    should.
    """
    beside: dict[tuple[int, int], bytes] = {}
    if size % 2:
        beside = rows.nodes(conn, tree.places(lambda at: list(tree.grown(size, leaf, at))))

    def at(level: int, number: int) -> bytes:
        if (level, number) not in beside:
            _log.error("node %d/%d of the log's tree is gone", level, number)
        return beside.get((level, number), entries.MISSING)

    rows.add_nodes(conn, list(tree.grown(size, leaf, at)))


def _reading(conn: Connection, ask: Callable[[tree.NodeAt], Any]) -> Any:
    """Do `ask` with the nodes that it wants, read at once.

    Raises:
        RequestError: `audit.mismatch`: nodes are gone from the database.
    """
    found = rows.nodes(conn, tree.places(ask))

    def at(level: int, number: int) -> bytes:
        digest = found.get((level, number))
        if digest is None:
            raise RequestError("audit.mismatch", f"node {level}/{number} of the log's tree is gone")
        return digest

    return ask(at)


def root_at(conn: Connection, size: int) -> bytes:
    """Return the head of the first `size` rows."""
    found: bytes = _reading(conn, lambda at: tree.root(size, at))
    return found


# --- checkpoints ------------------------------------------------------------------------------------------------------


def newest_checkpoint(conn: Connection) -> Signed | None:
    """Return the newest signed head, None before the first."""
    row = rows.checkpoint(conn)
    return None if row is None else _signed(row)


def checkpoints(conn: Connection, *, after: int = 0, limit: int = 500) -> list[Signed]:
    """Return signed heads in order, those of more than `after` rows."""
    return [_signed(row) for row in rows.checkpoints(conn, after=after, limit=limit)]


def _signed(row: dict[str, Any]) -> Signed:
    return Signed(**{name: row[name] for name in Signed.__struct_fields__})


def is_due(conn: Connection, now: int) -> bool:
    """Say whether a head is to be signed: five minutes after the last one if there is anything new, or a thousand rows."""
    size = max(rows.head(conn)[0], rows.newest_seq(conn))
    newest = newest_checkpoint(conn)
    if newest is None:
        return size > 0
    new = size - newest.size
    # a clock that was set back must not put heads off for long
    return new >= CHECKPOINT_ROWS or (new > 0 and abs(now - newest.at) >= CHECKPOINT_S)


def make_checkpoint(conn: Connection, signer: Signer, now: int) -> Signed | None:
    """Sign the head of the log as it stands, keep it, and have it written to the server's own log once it is durable. None where nothing is new.

    A head is not signed over another one that was signed before: where the database no longer holds what that covered, it says so in the server's log and
    signs all the same, since silence would help whoever changed it; devices and `tidegate audit verify` find the fork.
    """
    size, _ = _caught_up(conn)
    newest = newest_checkpoint(conn)
    if newest is not None and newest.size >= size:
        return None
    try:
        root = root_at(conn, size)
        if newest is not None and root_at(conn, newest.size).hex() != newest.root:
            _log.error("the log does not go on from its checkpoint of %d rows", newest.size)
    except RequestError as error:
        _log.error("no checkpoint can be made: %s", error.detail)
        return None
    head = Checkpoint(origin=ORIGIN, size=size, root=root)
    made = Signed(size=size, root=root.hex(), at=now, note=notes.sign(head, signer))
    rows.add_checkpoint(conn, size=size, root=made.root, note=made.note, at=now)
    changes.after_commit(conn, lambda: _log.info("%s", notes.log_line(made.note)))
    return made


# --- proofs -----------------------------------------------------------------------------------------------------------


def consistency(conn: Connection, old: int, new: int) -> Proof:
    """Return the proof that the log of `old` rows is the beginning of that of `new` rows.

    Raises:
        RequestError: `request.invalid`: there is no such pair.
    """
    size = _size_for(conn, new)
    if not 0 < old <= size:
        raise RequestError("request.invalid", f"from: 1 to {size}")
    hashes, root = _reading(conn, lambda at: (tree.consistency(old, size, at), tree.root(size, at)))
    return _proof(size, root, hashes)


def inclusion(conn: Connection, seq: int, size: int) -> Proof:
    """Return the proof that row `seq` is in the log of `size` rows.

    Raises:
        RequestError: `request.invalid`: there is no such row in it.
    """
    size = _size_for(conn, size)
    if not 0 < seq <= size:
        raise RequestError("request.invalid", f"row: 1 to {size}")
    hashes, root = _reading(
        conn, lambda at: (tree.inclusion(seq - 1, size, at), tree.root(size, at))
    )
    return _proof(size, root, hashes)


def _size_for(conn: Connection, size: int) -> int:
    """Return a size that was asked for; 0 stands for that of the newest checkpoint, which is what a proof is held against."""
    held = rows.head(conn)[0]
    newest = newest_checkpoint(conn)
    wanted = size or (newest.size if newest else held)
    if not 0 < wanted <= held:
        raise RequestError("request.invalid", f"size: 1 to {held}")
    return wanted


def _proof(size: int, root: bytes, hashes: tuple[bytes, ...]) -> Proof:
    return Proof(size=size, root=root.hex(), hashes=tuple(one.hex() for one in hashes))


# --- reading ----------------------------------------------------------------------------------------------------------


def newest(conn: Connection, *, before: int = 0, limit: int = 50, **like: Any) -> list[AuditRow]:
    """Return acts, newest first, those before number `before` (0 = from the newest); `like` as in `audit_rows.entries`."""
    return list(rows.entries(conn, before=before, newest_first=True, limit=limit, **like))


def export(conn: Connection, *, after: int = 0, limit: int = 10_000, **like: Any) -> list[AuditRow]:
    """Return acts in order, those behind number `after`; `like` as for `newest`."""
    return list(rows.entries(conn, after=after, limit=limit, **like))


def verify(conn: Connection) -> Verdict:
    """Hold every row in the database against chain and tree, and the tree against the newest checkpoint. Reads the whole log, a page at a time."""
    return _Following(conn).verdict()


class _Following:
    """One pass over the log in the database."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._signed = newest_checkpoint(conn)
        self._frontier = tree.Frontier()
        self._before, self._rows = entries.ORIGIN, 0

    def verdict(self) -> Verdict:
        """Follow everything."""
        after = 0
        while page := export(self._conn, after=after, limit=_PAGE):
            kept = rows.nodes(self._conn, [(0, entry.seq - 1) for entry in page])
            if not all(self._follows(entry, kept) for entry in page):
                return self._broken(self._rows + 1)
            after = page[-1].seq
        count, covered = self._rows, self._signed.size if self._signed else 0
        if count < max(rows.head(self._conn)[0], covered):
            return self._broken(count + 1)
        try:
            whole = self._signed is None or root_at(self._conn, covered).hex() == self._signed.root
        except RequestError:
            whole = False
        if not whole:
            return self._broken(covered)
        return Verdict(ok=True, rows=count, head=self._before, covered=covered)

    def _follows(self, entry: AuditRow, kept: dict[tuple[int, int], bytes]) -> bool:
        body = entries.canon(entry)
        leaf, number = entries.leaf(body), self._rows
        if (
            entry.seq != number + 1
            or entry.hash != entries.link(self._before, body)
            or kept.get((0, number), leaf) != leaf
        ):
            return False
        self._frontier.add(leaf)
        signed = self._signed
        if signed and signed.size == number + 1 and signed.root != self._frontier.head().hex():
            return False
        self._before, self._rows = entry.hash, number + 1
        return True

    def _broken(self, at: int) -> Verdict:
        return Verdict(ok=False, rows=self._rows, head=self._before, broken_at=at)
