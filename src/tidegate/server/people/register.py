"""What accounts, sessions and tokens share: the store, the source of randomness, argon2, and what a stored row makes of an actor."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tidegate.core.errors import RequestError
from tidegate.server.actors import Actor, Grant, held, read_grant
from tidegate.server.people.limits import Limits
from tidegate.server.store import Connection, Store
from tidegate.server.store import admin_accounts as rows

Row = dict[str, Any]
PASSWORD_MIN: Final = 10
PASSWORD_MAX: Final = 256


def digest(token: str) -> str:
    """Return what is stored of a secret token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Register:
    """Accounts over a store. Safe to call from any thread; argon2 runs on at most two threads at once."""

    def __init__(
        self,
        store: Store,
        *,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
        hasher: PasswordHasher | None = None,
        limits: Limits | None = None,
        secret: bytes = b"",
    ) -> None:
        """Take a store.

        Args:
            store: of the server.
            token_bytes: the source of randomness.
            hasher: sets argon2's costs (the default is for people, tests take a cheap one).
            limits: of this server.
            secret: of the server; second factors are derived from it.
        """
        self._store = store
        self._random = token_bytes
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=32 * 1024, parallelism=1)
        self._pool = threading.BoundedSemaphore(2)
        self._limits = limits or Limits()
        self._secret = secret or token_bytes(32)

    def secret_text(self) -> str:
        """Return a fresh secret of 256 bits as text."""
        return self._random(32).hex()

    def _hash(self, password: str) -> str:
        with self._pool:
            return self._hasher.hash(password)

    def _verify(self, hashed: str, password: str) -> bool:
        if len(password) > PASSWORD_MAX:
            return False
        try:
            with self._pool:
                return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False


def grants_of(row: Row) -> tuple[Grant, ...]:
    """Return what an account or token holds by its row; what this server does not understand gives nothing."""
    found = []
    for text in row["grants"] or ():
        try:
            found.append(read_grant(str(text)))
        except RequestError:
            continue
    return tuple(found)


def held_by(row: Row) -> tuple[Grant, ...]:
    """Return what an account or token holds, by its role or its grants."""
    return held(str(row["role"]), grants_of(row))


def written(grants: Iterable[Grant]) -> list[str]:
    """Return grants as they are stored."""
    return [str(one) for one in grants]


def actor_of(conn: Connection, account: Row) -> Actor:
    """Return whom an account's row makes act."""
    name = str(account["name"])
    person = str(account["person"]) or name
    return Actor(
        name=name,
        role=str(account["role"]),
        grants=grants_of(account),
        aliases=tuple(one for one in rows.names_of_person(conn, person) if one != name),
    )


def enabled(conn: Connection) -> list[Actor]:
    """Return everybody with an account that is not disabled."""
    return [actor_of(conn, row) for row in rows.accounts(conn) if row["disabled_at"] is None]


def account_row(conn: Connection, name: str) -> Row:
    """Return an account's row.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.account(conn, name)
    if found is None:
        raise RequestError("request.not_found", f"no account {name[:64]}")
    return found


def check_password(password: str) -> str:
    """Return a password that is long enough.

    Raises:
        RequestError: `request.invalid`.
    """
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise RequestError(
            "request.invalid", f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters"
        )
    return password


def check_name(name: str) -> None:
    """Insist on a name that cannot be taken for something else.

    Raises:
        RequestError: `request.invalid`.
    """
    plain = name.replace(".", "").replace("-", "").replace("_", "").replace("@", "")
    if not (1 <= len(name) <= 64 and name[0].isalnum() and plain.isalnum() and name.isascii()):
        raise RequestError("request.invalid", "a name is 1 to 64 letters, digits and . _ - @")
