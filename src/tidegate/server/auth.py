"""Who is asking, and what they may do: accounts, logins, one-time tickets, API tokens.

Roles and what they may do are in `server.actors`. Secrets are random and only their SHA-256 is stored; passwords are argon2id.
"""

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import APPROVING_ROLES, ROLES, Actor
from tidegate.server.passwords import made_of_words
from tidegate.server.store import Connection, Store
from tidegate.server.store import admin_accounts as rows

__all__ = [
    "APPROVING_ROLES",
    "COOKIE",
    "PASSWORD_MAX",
    "PASSWORD_MIN",
    "ROLES",
    "SESSION_S",
    "TICKET_S",
    "TOKEN_PREFIX",
    "TRIES_MAX",
    "TRIES_WINDOW_S",
    "USE_NOTED_S",
    "AccountFacts",
    "Actor",
    "Auth",
    "TokenFacts",
    "digest",
]

SESSION_S: Final = 12 * 3600
TICKET_S: Final = 3600
COOKIE: Final = "tidegate_session"
TOKEN_PREFIX: Final = "tg_"  # noqa: S105 - how tokens begin, no secret
_SESSION_PREFIX: Final = "s_"
_TICKET_PREFIX: Final = "t_"
PASSWORD_MIN: Final = 10
PASSWORD_MAX: Final = 256
#: Failed sign-ins of one name or address in a window before it has to wait.
TRIES_MAX: Final = 10
TRIES_WINDOW_S: Final = 300
#: The last use of a token is written down this often at most, in seconds.
USE_NOTED_S: Final = 3600
_REMEMBERED_MAX: Final = 10_000


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An account, as the API gives it."""

    name: str
    role: str
    created_at: int
    disabled_at: int | None


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An API token without its secret."""

    id: int
    name: str
    role: str
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


def digest(token: str) -> str:
    """Return what is stored of a secret token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Auth:
    """Accounts and their sessions over a store. Safe to call from any thread; argon2 runs on at most two threads at once."""

    def __init__(
        self,
        store: Store,
        *,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
        hasher: PasswordHasher | None = None,
        session_s: int = SESSION_S,
    ) -> None:
        """Take a store; `hasher` sets argon2's costs (the default is for people, tests take a cheap one)."""
        self._store = store
        self._random = token_bytes
        self._hasher = hasher or PasswordHasher(time_cost=2, memory_cost=32 * 1024, parallelism=1)
        self._pool = threading.BoundedSemaphore(2)
        self._session_s = session_s
        self._failed: OrderedDict[str, list[int]] = OrderedDict()
        self._guard = threading.Lock()
        # Verifying against something costs the same when the name is unknown.
        self._nobody = self._hash("nobody has this password")

    # --- signing in ----------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str, now: int) -> str | None:
        """Return a new session token, or None when name and password (both untrusted) do not match.

        Raises:
            RequestError: `request.rate_limited`: too many failures of this name or address.
        """
        sources = (f"name:{name[:64]}", f"address:{address[:64]}")
        self._throttle(sources, now)
        found = self._store.read(lambda conn: rows.account(conn, name[:64]))
        fits = self._verify(str(found["password_hash"]) if found else self._nobody, password)
        if found is None or not fits or found["disabled_at"] is not None:
            self._note_failure(sources, now)
            return None
        return self._open_session(int(found["id"]), str(found["name"]), now, "account.sign_in")

    def sign_in_link_ticket(self, name: str, now: int, *, by: str = "") -> str:
        """Make a one-time sign-in ticket for an account, good for an hour.

        Raises:
            RequestError: `request.not_found`.
        """
        ticket = _TICKET_PREFIX + self._random(24).hex()

        def work(conn: Connection) -> None:
            found = _account(conn, name)
            rows.drop_stale_logins(conn, now)
            rows.add_login(
                conn,
                {
                    "token_sha256": digest(ticket),
                    "account_id": found["id"],
                    "created_at": now,
                    "expires_at": now + TICKET_S,
                },
            )
            audit.record(conn, now, by or name, "account.ticket", name)

        self._store.write(work).result()
        return ticket

    def redeem(self, ticket: str, now: int) -> str | None:
        """Exchange a one-time ticket (untrusted) for a session token; None when it is not good, or no longer."""
        if not ticket.startswith(_TICKET_PREFIX):
            return None

        def work(conn: Connection) -> tuple[int, str] | None:
            found = rows.login(conn, digest(ticket))
            if found is None or not rows.drop_login(conn, digest(ticket)):
                return None
            if found["expires_at"] <= now or found["disabled_at"] is not None:
                return None
            return int(found["account_id"]), str(found["name"])

        good = self._store.write(work).result()
        return self._open_session(*good, now, "account.redeem") if good else None

    def sign_out(self, session: str, now: int) -> None:
        """End a session; nothing happens when there is none."""
        self._store.write(lambda conn: rows.drop_login(conn, digest(session))).result()

    def actor_of_session(self, session: str, now: int) -> Actor | None:
        """Return who a session token (untrusted) belongs to, or None."""
        if not session.startswith(_SESSION_PREFIX):
            return None
        found = self._store.read(lambda conn: rows.login(conn, digest(session)))
        if found is None or found["expires_at"] <= now or found["disabled_at"] is not None:
            return None
        return Actor(name=str(found["name"]), role=str(found["role"]))

    def actor_of_token(self, token: str, now: int) -> Actor | None:
        """Return who an API token (untrusted) acts for, or None."""
        if not token.startswith(TOKEN_PREFIX):
            return None

        def work(conn: Connection) -> Actor | None:
            found = rows.token(conn, digest(token))
            if found is None or found["revoked_at"] is not None:
                return None
            if found["expires_at"] is not None and found["expires_at"] <= now:
                return None
            owner = str(found["created_by"])
            account = rows.account(conn, owner)
            if account is not None and account["disabled_at"] is not None:
                return None
            self._note_use(found, now)
            name = f"token:{found['name']}"
            return Actor(name=name, role=str(found["role"]), kind="token", owner=owner)

        return self._store.read(work)

    def _note_use(self, found: dict[str, Any], now: int) -> None:
        """Note that a token is in use, about once an hour; nobody waits for it."""
        if now - (found["last_used_at"] or 0) < USE_NOTED_S:
            return
        token_id = int(found["id"])
        self._store.write(lambda conn: rows.change_token(conn, token_id, {"last_used_at": now}))

    def authenticate(
        self, headers: Mapping[str, str], cookies: Mapping[str, str], now: int
    ) -> Actor:
        """Return who asks, by bearer token or session cookie (both untrusted).

        Raises:
            RequestError: `request.unauthenticated`.
        """
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        by_token = scheme.lower() == "bearer"
        session = cookies.get(COOKIE, "")
        actor = (
            self.actor_of_token(credential.strip(), now)
            if by_token
            else self.actor_of_session(session, now)
        )
        if actor is None:
            raise RequestError("request.unauthenticated", "no valid token or session was sent")
        return actor

    # --- accounts ------------------------------------------------------------------------------------------------

    def first_account(self, now: int, name: str = "admin") -> str | None:
        """Make the first account on a fresh store and return its password, which is shown once; None when there are accounts already."""
        if self._store.read(rows.account_count):
            return None
        password = made_of_words(self._random)
        hashed = self._hash(password)

        def work(conn: Connection) -> bool:
            if rows.account_count(conn):
                return False
            rows.add_account(
                conn, {"name": name, "password_hash": hashed, "role": "admin", "created_at": now}
            )
            audit.record(conn, now, "tidegate", "account.create", name, {"role": "admin"})
            return True

        return password if self._store.write(work).result() else None

    def create_account(
        self, name: str, role: str, password: str | None, actor: Actor, now: int
    ) -> str:
        """Make an account and return its password (made of words when none is given).

        Raises:
            RequestError: `request.invalid`, `request.conflict`.
        """
        _check_name(name)
        _check_role(role)
        chosen = made_of_words(self._random) if password is None else _checked(password)
        hashed = self._hash(chosen)

        def work(conn: Connection) -> None:
            if rows.account(conn, name) is not None:
                raise RequestError("request.conflict", f"there is an account {name} already")
            rows.add_account(
                conn, {"name": name, "password_hash": hashed, "role": role, "created_at": now}
            )
            audit.record(conn, now, actor.name, "account.create", name, {"role": role})

        self._store.write(work).result()
        return chosen

    def edit_account(
        self,
        name: str,
        actor: Actor,
        now: int,
        *,
        role: str | None = None,
        disabled: bool | None = None,
    ) -> AccountFacts:
        """Change an account's role, disable or enable it. Its sessions end.

        Raises:
            RequestError: `request.not_found`, `request.invalid`; `request.conflict`: nobody would be admin any more.
        """
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = _check_role(role)
        if disabled is not None:
            values["disabled_at"] = now if disabled else None
        if not values:
            raise RequestError("request.invalid", "say what is to change: role or disabled")

        def work(conn: Connection) -> AccountFacts:
            found = _account(conn, name)
            rows.change_account(conn, name, values)
            if not rows.people_with(conn, frozenset({"admin"})):
                raise RequestError("request.conflict", f"{name} is the last admin")
            rows.drop_logins_of(conn, int(found["id"]))
            detail = {"role": role or str(found["role"]), "disabled": int(bool(disabled))}
            before = {key: found[key] for key in values}
            audit.record(
                conn, now, actor.name, "account.edit", name, detail, before=before, after=values
            )
            return _account_facts(_account(conn, name))

        return self._store.write(work).result()

    def reset_password(self, name: str, actor: str, now: int, password: str | None = None) -> str:
        """Give an account a new password and end its sessions; return the password.

        Raises:
            RequestError: `request.not_found`, `request.invalid`.
        """
        chosen = made_of_words(self._random) if password is None else _checked(password)
        hashed = self._hash(chosen)

        def work(conn: Connection) -> None:
            found = _account(conn, name)
            rows.change_account(conn, name, {"password_hash": hashed})
            rows.drop_logins_of(conn, int(found["id"]))
            audit.record(conn, now, actor, "account.password", name)

        self._store.write(work).result()
        return chosen

    def accounts(self) -> list[AccountFacts]:
        """Return every account."""
        return [_account_facts(row) for row in self._store.read(rows.accounts)]

    # --- tokens --------------------------------------------------------------------------------------------------

    def create_token(
        self, name: str, role: str, actor: Actor, now: int, *, expires_at: int | None = None
    ) -> tuple[TokenFacts, str]:
        """Make an API token; its text is returned once and never stored.

        Raises:
            RequestError: `request.invalid`, `request.conflict`; `request.forbidden`: the role is more than the maker's own.
        """
        _check_name(name)
        if not ROLES[_check_role(role)] <= actor.may:
            raise RequestError("request.forbidden", f"{role} may more than {actor.role}")
        secret = TOKEN_PREFIX + self._random(32).hex()

        def work(conn: Connection) -> TokenFacts:
            if rows.live_token_named(conn, name) is not None:
                raise RequestError("request.conflict", f"there is a token {name} already")
            row = {
                "name": name,
                "token_sha256": digest(secret),
                "role": role,
                "created_at": now,
                "created_by": actor.owner or actor.name,
                "expires_at": expires_at,
            }
            rows.add_token(conn, row)
            audit.record(conn, now, actor.name, "token.create", name, {"role": role})
            made = rows.token(conn, digest(secret))
            assert made is not None  # noqa: S101 - it was added two lines above
            return _token_facts(made)

        return self._store.write(work).result(), secret

    def revoke_token(self, name: str, actor: Actor, now: int) -> None:
        """End an API token.

        Raises:
            RequestError: `request.not_found`.
        """

        def work(conn: Connection) -> None:
            found = rows.live_token_named(conn, name)
            if found is None:
                raise RequestError("request.not_found", f"no token {name}")
            rows.change_token(conn, int(found["id"]), {"revoked_at": now})
            audit.record(conn, now, actor.name, "token.revoke", name)

        self._store.write(work).result()

    def tokens(self) -> list[TokenFacts]:
        """Return every API token without its secret."""
        return [_token_facts(row) for row in self._store.read(rows.tokens)]

    def local_token(self, now: int, known: str = "") -> str:
        """Return a token with all rights for whoever may read the data directory: `known` when it is still good, else a new one.

        It acts for the first account, so that its owner cannot be their own second person.
        """
        if known and self.actor_of_token(known, now) is not None:
            return known
        secret = TOKEN_PREFIX + self._random(32).hex()

        def work(conn: Connection) -> None:
            old = rows.live_token_named(conn, "local")
            if old is not None:
                rows.change_token(conn, int(old["id"]), {"revoked_at": now})
            admins = rows.people_with(conn, frozenset({"admin"}))
            row = {
                "name": "local",
                "token_sha256": digest(secret),
                "role": "admin",
                "created_at": now,
                "created_by": admins[0] if admins else "admin",
            }
            rows.add_token(conn, row)
            audit.record(conn, now, "tidegate", "token.create", "local", {"role": "admin"})

        self._store.write(work).result()
        return secret

    # --- inside --------------------------------------------------------------------------------------------------

    def _open_session(self, account_id: int, name: str, now: int, action: str) -> str:
        session = _SESSION_PREFIX + self._random(32).hex()

        def work(conn: Connection) -> None:
            rows.drop_stale_logins(conn, now)
            rows.add_login(
                conn,
                {
                    "token_sha256": digest(session),
                    "account_id": account_id,
                    "created_at": now,
                    "expires_at": now + self._session_s,
                },
            )
            audit.record(conn, now, name, action, name)

        self._store.write(work).result()
        return session

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

    def _throttle(self, sources: tuple[str, ...], now: int) -> None:
        with self._guard:
            for source in sources:
                recent = [at for at in self._failed.get(source, ()) if at > now - TRIES_WINDOW_S]
                if len(recent) >= TRIES_MAX:
                    raise RequestError(
                        "request.rate_limited", "too many failed sign-ins; wait five minutes"
                    )

    def _note_failure(self, sources: tuple[str, ...], now: int) -> None:
        with self._guard:
            for source in sources:
                recent = [at for at in self._failed.pop(source, ()) if at > now - TRIES_WINDOW_S]
                self._failed[source] = [*recent, now]
            while len(self._failed) > _REMEMBERED_MAX:
                self._failed.popitem(last=False)


def _checked(password: str) -> str:
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise RequestError(
            "request.invalid", f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters"
        )
    return password


def _check_name(name: str) -> None:
    plain = name.replace(".", "").replace("-", "").replace("_", "").replace("@", "")
    if not (1 <= len(name) <= 64 and name[0].isalnum() and plain.isalnum() and name.isascii()):
        raise RequestError("request.invalid", "a name is 1 to 64 letters, digits and . _ - @")


def _check_role(role: str) -> str:
    if role not in ROLES:
        raise RequestError("request.invalid", f"no role {role[:32]!r}; known: {', '.join(ROLES)}")
    return role


def _account(conn: Connection, name: str) -> dict[str, Any]:
    found = rows.account(conn, name)
    if found is None:
        raise RequestError("request.not_found", f"no account {name[:64]}")
    return found


def _account_facts(row: dict[str, Any]) -> AccountFacts:
    return AccountFacts(**{name: row[name] for name in AccountFacts.__struct_fields__})


def _token_facts(row: dict[str, Any]) -> TokenFacts:
    return TokenFacts(**{name: row[name] for name in TokenFacts.__struct_fields__})
