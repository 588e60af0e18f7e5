"""The daily MAC keys of device sessions: their salts in the database, made when first needed and deleted when nothing of their day can be alive any more."""

from collections.abc import Callable
from typing import Final

from tidegate.server.store import Connection, changes, identity_rows
from tidegate.server.tokens import DAY_S, Tokens

SALT_BYTES: Final = 32


def load(conn: Connection, tokens: Tokens) -> None:
    """Put what the database holds into the ring."""
    tokens.take_salts(identity_rows.salts(conn))


def turn(
    conn: Connection, tokens: Tokens, now: int, lifetime_s: int, randomness: Callable[[int], bytes]
) -> None:
    """Make today's key if there is none, and delete those whose tokens have all expired. Cheap on every other call of a day.

    Args:
        conn: of a unit of work on the writer.
        tokens: whose ring it is.
        now: unix seconds.
        lifetime_s: the longest that a token lives.
        randomness: source of unpredictable bytes.
    """
    if tokens.has_key(now):
        return
    day = tokens.agreed(now) // DAY_S
    identity_rows.add_salt(conn, day, randomness(SALT_BYTES))
    identity_rows.drop_salts(conn, day - lifetime_s // DAY_S - 1)
    load(conn, tokens)
    changes.notify(conn, "salt", str(day))
