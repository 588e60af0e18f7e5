"""The operators' log over REST: its rows, its signed heads, and proofs that one head goes on from another."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from litestar import Controller, get
from litestar.params import QueryParameter
from litestar.response import Stream

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.entry import AuditRow
from tidegate.core.codec import INTEGER_MAX
from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.api import sorting
from tidegate.server.api.desk import ABOUT, ANSWER, PERMISSION, REFUSALS, WHOLE, Desk, DeskDep
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.wire import AuditCheckpoint, AuditCheckpoints, AuditRows
from tidegate.server.audit import Proof, Verdict
from tidegate.server.store import Connection

Word = Annotated[str, QueryParameter(max_length=200)]
Number = Annotated[int, QueryParameter(ge=0, le=INTEGER_MAX)]
From = Annotated[int, QueryParameter(name="from", ge=1, le=INTEGER_MAX)]
Thing = Annotated[str, QueryParameter(name="object", max_length=200)]
_LINES: Final = 500


class AuditRoutes(Controller):
    """What operators did, and what vouches for it."""

    path = "/audit"
    tags = ("audit",)
    opt = {PERMISSION: "audit.read", ABOUT: WHOLE}  # noqa: RUF012 - the framework reads a class attribute

    @get(["/", "/entries"], opt={SORT: sorting.ENTRIES}, sync_to_thread=True)
    def entries(
        self,
        desk: DeskDep,
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
        actor: Word = "",
        action: Word = "",
        thing: Thing = "",
        since: Number = 0,
        until: Number = 0,
    ) -> AuditRows:
        """List what operators did, newest first. `action` takes a whole act, or all acts on a kind of thing: `rollout.`; times are unix seconds."""
        order = sorting.ENTRIES.order(sort, cursor)
        like: dict[str, Any] = {
            "actor": actor,
            "action": action,
            "thing": thing,
            "since": since,
            "until": until,
        }
        place = int(order.after or 0)

        def work(conn: Connection) -> list[AuditRow]:
            if order.down:
                return audit.newest(conn, before=place, limit=limit + 1, **like)
            return audit.export(conn, after=place, limit=limit + 1, **like)

        found = desk.read(work)
        more = order.behind(found[limit - 1].seq) if len(found) > limit else None
        return AuditRows(items=found[:limit], next=sorting.ENTRIES.cursor(sort, more))

    @get("/export", opt={ANSWER: ("application/x-ndjson",)}, sync_to_thread=True)
    def export(self, desk: DeskDep, after: Number = 0) -> Stream:
        """Return the log from its first row on, or behind row `after`, as JSON lines. `tidegate audit verify` takes it."""
        return Stream(_lines(desk, after), media_type="application/x-ndjson")

    @get("/verify", sync_to_thread=True)
    def verify(self, desk: DeskDep) -> Verdict:
        """Hold every row against chain, tree and newest checkpoint, as far as the server's own database can say."""
        return desk.read(audit.verify)

    @get("/checkpoint", opt={REFUSALS: (404,)}, sync_to_thread=True)
    def checkpoint(self, desk: DeskDep) -> AuditCheckpoint:
        """Return the newest signed head of the log, with the key that signed it.

        Raises:
            RequestError: `request.not_found`: nothing was signed yet.
        """
        found = desk.read(audit.newest_checkpoint)
        if found is None:
            raise RequestError("request.not_found", "no checkpoint was signed yet")
        key = notes.verifier_of(audit.ORIGIN, desk.services.keys.audit.public)
        return AuditCheckpoint(
            size=found.size, root=found.root, at=found.at, note=found.note, verifier=key.text
        )

    @get("/checkpoints", sync_to_thread=True)
    def checkpoints(
        self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 100
    ) -> AuditCheckpoints:
        """List every signed head, oldest first; a page that is full has a `next`."""
        after = position_of(cursor)
        found = desk.read(lambda conn: audit.checkpoints(conn, after=after, limit=limit))
        more = found[-1].size if len(found) == limit else 0
        return AuditCheckpoints(items=found, next=cursor_of(more))

    @get("/proofs/consistency", sync_to_thread=True)
    def consistency(self, desk: DeskDep, old: From, to: Number = 0) -> Proof:
        """Prove that the log of `from` rows is the beginning of that of `to` rows (0 = the newest checkpoint): RFC 6962, section 2.1.2."""
        return desk.read(lambda conn: audit.consistency(conn, old, to))

    @get("/proofs/inclusion", sync_to_thread=True)
    def inclusion(self, desk: DeskDep, row: Number, size: Number = 0) -> Proof:
        """Prove that a row is in the log of `size` rows (0 = the newest checkpoint): RFC 6962, section 2.1.1."""
        return desk.read(lambda conn: audit.inclusion(conn, row, size))


def _lines(desk: Desk, after: int) -> Iterator[bytes]:
    """Yield the log in pieces; each page is read by itself, so that a slow reader holds nothing."""

    def page() -> list[AuditRow]:
        return desk.read(lambda conn: audit.export(conn, after=after, limit=_LINES))

    while found := page():
        yield b"".join(msgspec.json.encode(one) + b"\n" for one in found)
        after = found[-1].seq
