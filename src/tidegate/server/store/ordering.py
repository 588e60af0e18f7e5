"""The order of a list: by one column in which no two of its rows are alike, up or down, behind a place.

So a page goes on where the one before ended, whatever came meanwhile.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select

from tidegate.server.store.raw import is_postgres

Row = dict[str, Any]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order, and where its page begins.

    Attributes:
        by: the column.
        down: from the greatest to the smallest.
        after: what the last row of the page before has in it; None = this is the first page.
    """

    by: str
    down: bool
    after: int | str | None = None

    def of(self, asked: "Select[Any]", column: ColumnElement[Any], limit: int) -> "Select[Any]":
        """Return the statement with this order, from its place on, for at most `limit` rows."""
        if self.after is not None:
            asked = asked.where(column < self.after if self.down else column > self.after)
        return asked.order_by(column.desc() if self.down else column).limit(limit)

    def behind(self, value: int | str) -> "Order":
        """Return the order of the page that begins behind a row with `value`."""
        return msgspec.structs.replace(self, after=value)

    def cut(self, rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], "Order | None"]:
        """Cut a page out of `limit + 1` rows; return it and the order of the next one, None where it is the last."""
        more = self.behind(rows[limit - 1][self.by]) if len(rows) > limit else None
        return rows[:limit], more


def by_code_point(conn: Connection, column: ColumnElement[str]) -> ColumnElement[str]:
    """Return a column of texts that is ordered and compared as Python does it, whatever locale a PostgreSQL database was made with."""
    return column.collate("C") if is_postgres(conn) else column


#: The order in which rows are added, the newest first.
NEWEST: Final = Order(by="id", down=True)
#: The same, the oldest first.
OLDEST: Final = Order(by="id", down=False)
