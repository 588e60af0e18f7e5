"""Give the operators' log a tree, signed heads, and more about each act.

Rows that are there keep the hashes that they have, right or wrong, and become the tree's first leaves: hashes made anew would hide what was changed before.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from tidegate.core.audit.entry import MISSING, AuditRow, canon, leaf
from tidegate.core.audit.tree import grown

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_PAGE = 500


def upgrade() -> None:
    """Add tables, and columns to `audit`; take what is there into the tree."""
    for name in ("plan_sha256", "request_id", "ip", "before_sha256", "after_sha256"):
        op.add_column(
            "audit", sa.Column(name, sa.String(length=64), server_default="", nullable=False)
        )
    op.create_table(
        "audit_node",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name=op.f("pk_audit_node")),
    )
    op.create_table(
        "audit_head",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.String(length=64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoint")),
    )
    _plant(op.get_bind())


def _plant(conn: sa.Connection) -> None:
    node = sa.table(
        "audit_node", sa.column("level"), sa.column("number"), sa.column("hash", sa.LargeBinary)
    )
    # only the right edge is looked at again: it is held here, by (level, number)
    edge: dict[tuple[int, int], bytes] = {}
    size, last = 0, ""
    made: list[dict[str, Any]] = []
    for seq, digest, hash_ in _leaves(conn):
        for level, number, found in grown(seq - 1, digest, lambda at, of: edge[at, of]):
            edge[level, number] = found
            edge.pop((level - 1, number * 2), None)
            edge.pop((level - 1, number * 2 + 1), None)
            made.append({"level": level, "number": number, "hash": found})
        size, last = seq, hash_
        if len(made) >= _PAGE:
            conn.execute(sa.insert(node), made)
            made = []
    if made:
        conn.execute(sa.insert(node), made)
    if size:
        head = sa.table("audit_head", *(sa.column(one) for one in ("tenant", "size", "hash")))
        conn.execute(sa.insert(head).values(tenant="default", size=size, hash=last))


def _leaves(conn: sa.Connection) -> Iterator[tuple[int, bytes, str]]:
    """Yield (number, leaf, hash of the row) without a gap: what is missing is said to be."""
    expected = 1
    for entry in _rows(conn):
        for seq in range(expected, entry.seq):
            yield seq, MISSING, ""
        yield entry.seq, leaf(canon(entry)), entry.hash
        expected = entry.seq + 1


def _rows(conn: sa.Connection) -> Iterator[AuditRow]:
    names = ("seq", "at", "actor", "action", "object", "hash")
    table = sa.table("audit", *(sa.column(one) for one in names), sa.column("detail", sa.JSON))
    after = 0
    while True:
        asked = sa.select(table).where(table.c.seq > after).order_by(table.c.seq).limit(_PAGE)
        page = conn.execute(asked).mappings().all()
        for row in page:
            yield AuditRow(**row)
        if len(page) < _PAGE:
            return
        after = int(page[-1]["seq"])
