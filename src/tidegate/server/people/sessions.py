"""Signing in and out: passwords, one-time links, and the sessions that follow. Where a session came from is kept, so that its owner knows it again.

Guessing is slowed down by name and address together, and by address alone over many names. A name alone is never shut: whoever
knows names could otherwise keep a whole site out. In exchange each name has a number of tries from all addresses together, after
which only those addresses may try from which somebody of that name got in before. All of it holds over all processes
(`server.tries`), and a network of IPv6 is one address, since whoever has one has all of its addresses.
"""

from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit, tries
from tidegate.server.actors import GRANTED, Actor, asks_for_proof
from tidegate.server.limits import prefix
from tidegate.server.people.consent import Consents, Spend, free
from tidegate.server.people.register import (
    account_row,
    actor_of,
    check_password,
    digest,
    held_by,
)
from tidegate.server.store import Connection
from tidegate.server.store import admin_accounts as rows
from tidegate.server.tries import Bound, Tries

TICKET_S: Final = 3600
#: How long a second factor is waited for, in seconds.
HALF_S: Final = 300
SESSION_PREFIX: Final = "s_"
TICKET_PREFIX: Final = "t_"
#: Begins the token of somebody whose password fits and whose second factor is still asked for.
HALF_PREFIX: Final = "p_"
#: Failed sign-ins of one name from one address, or of one address over all names, at once and in a window, before it has to wait.
TRIES_MAX: Final = 10
TRIES_OF_ADDRESS: Final = 50
#: Failed sign-ins of one name from all addresses, before only addresses that it knows may try.
TRIES_OF_NAME: Final = 100
TRIES_WINDOW_S: Final = 300
FEW: Final = Bound(TRIES_MAX, TRIES_WINDOW_S * 1000)
_OF_ADDRESS: Final = Bound(TRIES_OF_ADDRESS, TRIES_WINDOW_S * 1000)
_OF_NAME: Final = Bound(TRIES_OF_NAME, TRIES_WINDOW_S * 1000)
#: The last use of a session is written down this often at most, in seconds.
SEEN_NOTED_S: Final = 300
#: Who came by a one-time link may choose a password without an old one for so long, in seconds.
FRESH_S: Final = 900


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A session, as its owner and those who manage accounts see it. `id` names it and opens nothing."""

    id: str
    account: str
    method: str
    address: str
    agent: str
    created_at: int
    seen_at: int
    expires_at: int
    present: bool = False


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sign-in came from (untrusted): the caller's address and what its browser calls itself."""

    address: str = ""
    agent: str = ""


class StaleError(RequestError):
    """Somebody who is signed in has to show anew who they are."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("auth.stale", "this act asks who you are, and you showed it too long ago")


class Sessions(Consents):
    """Sign-ins by password or one-time link, and sessions."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """As `Register`."""
        super().__init__(*given, **named)
        self._tries = Tries(self._store)
        # Verifying against something costs the same when the name is unknown.
        self._nobody = self._hash("nobody has this password")

    # --- signing in ----------------------------------------------------------------------------------------------

    def sign_in(
        self, name: str, password: str, address: str, now: int, *, agent: str = ""
    ) -> str | None:
        """Return a new session token, or None when name and password (both untrusted) do not match.

        Where the account has a second factor, the token begins with `HALF_PREFIX`, opens nothing, and is exchanged with a code (`second_factor`).

        Raises:
            RequestError: `request.rate_limited`: too many failures; `request.forbidden`: nobody signs in with a password here.
        """
        if not self._limits.local:
            raise RequestError("request.forbidden", "people sign in by single sign-on here")
        name, address = name[:64], address[:64]
        found = self._store.read(lambda conn: rows.account(conn, name))
        place = prefix(address)
        both = f"sign-in {place} {name}"
        sources = {both: FEW, f"sign-in {place}": _OF_ADDRESS}
        if found is None or place not in {prefix(one) for one in found["addresses"] or ()}:
            sources[f"sign-in of {name}"] = _OF_NAME
        self._tries.begin(sources, now)
        hashed = str(found["password_hash"]) if found else ""
        fits = self._verify(hashed or self._nobody, password)  # takes as long, whoever it is
        if found is None or not hashed or not fits or found["disabled_at"] is not None:
            return None

        def work(conn: Connection) -> str:
            tries.give_back(conn, sources, now)
            tries.forget(conn, both)
            origin = Origin(address=address, agent=agent)
            return self.open_session(conn, found, "password", origin, now)

        return self._store.write(work).result()

    def sign_in_link_ticket(
        self, name: str, now: int, *, by: str = "", actor: Actor | None = None
    ) -> str:
        """Make a one-time sign-in ticket for an account, good for an hour.

        Args:
            name: of the account.
            now: unix seconds.
            by: who makes it, for the record.
            actor: who makes it, and must hold all that the account holds; None = the machine's owner.

        Raises:
            RequestError: `request.not_found`, `request.forbidden`.
        """
        ticket = self.new_ticket()
        spend: Spend = free
        if actor is not None:
            spend = self.require_to_take_over("link", name, actor, now)

        def work(conn: Connection) -> None:
            found = account_row(conn, name)
            spend(conn)
            if actor is not None:
                actor.require_all_of(held_by(found))
            keep_ticket(conn, name, ticket, actor.name if actor is not None else by or name, now)

        self._store.write(work).result()
        return ticket

    def new_ticket(self) -> str:
        """Return the text of a one-time sign-in ticket, which `keep_ticket` makes good."""
        return TICKET_PREFIX + self._random(24).hex()

    def redeem(self, ticket: str, now: int, *, origin: Origin | None = None) -> str | None:
        """Exchange a one-time ticket (untrusted) for a session token, as `sign_in`; None when it is not good, or no longer."""
        if not ticket.startswith(TICKET_PREFIX):
            return None
        came = origin or Origin()

        def work(conn: Connection) -> str | None:
            found = rows.login(conn, digest(ticket))
            if found is None or not rows.drop_login(conn, digest(ticket)):
                return None
            if found["expires_at"] <= now or found["disabled_at"] is not None:
                return None
            account = account_row(conn, str(found["name"]))
            return self.open_session(conn, account, "link", came, now)

        return self._store.write(work).result()

    def open_session(
        self,
        conn: Connection,
        account: dict[str, Any],
        method: str,
        origin: Origin,
        now: int,
        *,
        proved: bool = False,
        proved_at: int | None = None,
    ) -> str:
        """Open a session of an account in the writer's transaction, and return its token; or half a one, where a second factor is still to come.

        Args:
            conn: the writer's connection.
            account: its row.
            method: password, link, oidc.
            origin: where from.
            now: unix seconds.
            proved: whether a second factor was shown already, here or to the provider that signed the person in.
            proved_at: when the person showed who they are; None = now.
        """
        half = account["totp_confirmed_at"] is not None and not proved and method != "oidc"
        lives = HALF_S if half else self._limits.session_s
        token = (HALF_PREFIX if half else SESSION_PREFIX) + self._random(32).hex()
        wants = self._limits.wants_second_factor(held_by(account)) and method != "oidc"
        kind = "half" if half else "session"
        if wants and account["totp_confirmed_at"] is None:
            kind = "enrol"
        rows.drop_stale_logins(conn, now)
        row = {
            "token_sha256": digest(token),
            "account_id": account["id"],
            "kind": kind,
            "method": method,
            "address": origin.address[:64],
            "agent": origin.agent[:200],
            "created_at": now,
            "seen_at": now,
            "proved_at": now if proved_at is None else proved_at,
            "expires_at": now + lives,
        }
        rows.add_login(conn, row)
        if not half:
            name = str(account["name"])
            known = [one for one in account["addresses"] or () if one != origin.address]
            addresses = [*known[-7:], origin.address] if origin.address else known
            rows.change_account(conn, name, {"addresses": addresses})
            action = "account.redeem" if method == "link" else "account.sign_in"
            audit.record(conn, now, name, action, name, {"method": method})
        return token

    def sign_out(self, session: str, now: int) -> None:
        """End a session; nothing happens when there is none."""

        def work(conn: Connection) -> None:
            found = rows.login(conn, digest(session))
            if found is not None and rows.drop_login(conn, digest(session)):
                name = str(found["name"])
                audit.record(conn, now, name, "account.sign_out", name)

        self._store.write(work).result()

    def actor_of_session(self, session: str, now: int) -> Actor | None:
        """Return who a session token (untrusted) belongs to, or None. Who has yet to set up a second factor holds nothing until then."""
        if not session.startswith(SESSION_PREFIX):
            return None

        def work(conn: Connection) -> Actor | None:
            found = rows.login(conn, digest(session))
            if found is None or found["expires_at"] <= now or found["disabled_at"] is not None:
                return None
            if found["kind"] == "enrol":
                return Actor(name=str(found["name"]), role=GRANTED, kind="enrol")
            self._note_seen(found, now)
            return actor_of(conn, found)

        return self._store.read(work)

    def _note_seen(self, found: dict[str, Any], now: int) -> None:
        """Note that a session is in use; nobody waits for it."""
        if now - found["seen_at"] >= SEEN_NOTED_S:
            token = str(found["token_sha256"])
            self._store.write(lambda conn: rows.change_login(conn, token, {"seen_at": now}))

    # --- sessions ------------------------------------------------------------------------------------------------

    def sessions(self, now: int, *, of: str = "", present: str = "") -> list[SessionFacts]:
        """Return sessions, the newest first.

        Args:
            now: unix seconds.
            of: name of the account; empty = everybody's.
            present: token of the session that asks.
        """
        here = digest(present)
        return [
            SessionFacts(
                id=str(row["token_sha256"])[:16],
                account=str(row["name"]),
                method=str(row["method"]),
                address=str(row["address"]),
                agent=str(row["agent"]),
                created_at=int(row["created_at"]),
                seen_at=int(row["seen_at"]),
                expires_at=int(row["expires_at"]),
                present=row["token_sha256"] == here,
            )
            for row in self._store.read(lambda conn: rows.sessions(conn, now, of))
        ]

    def end_session(self, session_id: str, actor: Actor, now: int, *, of: str = "") -> None:
        """End a session by its id (untrusted). Ending one is the safe direction: whoever manages accounts may.

        Args:
            session_id: `SessionFacts.id`.
            actor: who ends it.
            now: unix seconds.
            of: only one of this account; empty = of any.

        Raises:
            RequestError: `request.not_found`.
        """

        def work(conn: Connection) -> None:
            for row in rows.sessions(conn, now, of):
                if str(row["token_sha256"])[:16] == session_id:
                    rows.drop_login(conn, str(row["token_sha256"]))
                    audit.record(conn, now, actor.name, "session.end", str(row["name"]))
                    return
            raise RequestError("request.not_found", f"no session {session_id[:16]}")

        self._store.write(work).result()

    def end_sessions_of(self, name: str, actor: Actor, now: int, *, present: str = "") -> None:
        """End every session of an account, but for the present one.

        Raises:
            RequestError: `request.not_found`.
        """

        def work(conn: Connection) -> None:
            found = account_row(conn, name)
            rows.drop_logins_of(conn, int(found["id"]), but=digest(present))
            audit.record(conn, now, actor.name, "session.end_all", name)

        self._store.write(work).result()

    # --- the person's own ----------------------------------------------------------------------------------------

    def require_fresh(
        self, session: str, permission: str, method: str, path: str, now: int
    ) -> None:
        """Insist that whoever sits at a session (untrusted; empty = a token, which is not asked) showed of late who they are, for an act that widens.

        Raises:
            StaleError: too long ago.
        """
        if not self._limits.fresh_s or not session:
            return
        if not asks_for_proof(permission, method, path):
            return
        found = self._store.read(lambda conn: rows.login(conn, digest(session)))
        # a proof of the future is of a clock that was set back since, and proves nothing
        if found is None or not 0 <= now - int(found["proved_at"]) < self._limits.fresh_s:
            raise StaleError

    def prove(
        self, session: str, password: str, now: int, code: str = "", *, recorded: bool = False
    ) -> bool:
        """Say whether a password (untrusted) is that of a session's owner, and note that the owner sits there.

        Where there is a second factor a code of it (untrusted) has to fit as well; without one only the password is looked at, and nothing noted.
        `recorded`: it is an act by itself, and stands in the log.

        Raises:
            RequestError: `request.rate_limited`.
        """
        account = self._account_of(session, now)
        if account is None:
            return False
        sources = {f"prove {account['name']} {digest(session)}": FEW}
        self._tries.begin(sources, now)
        if not self._verify(str(account["password_hash"]), password):
            return False

        def work(conn: Connection) -> bool:
            present = account_row(conn, str(account["name"]))
            whole = present["totp_confirmed_at"] is None
            if code and not whole:
                whole = self._take_code(conn, present, code, now)
                if not whole:
                    return False
            tries.give_back(conn, sources, now)
            if whole:
                rows.change_login(conn, digest(session), {"proved_at": now})
            if whole and recorded:
                audit.record(conn, now, str(account["name"]), "account.prove", account["name"])
            return True

        return self._store.write(work).result()

    def prove_whole(self, session: str, password: str, code: str, now: int) -> bool:
        """Say whether password and code (untrusted) are all that it takes to show that a session's owner sits there; only then it is noted.

        Raises:
            RequestError: `request.rate_limited`.
        """
        account = self._account_of(session, now)
        if account is None or (account["totp_confirmed_at"] is not None and not code):
            return False
        return self.prove(session, password, now, code, recorded=True)

    def _take_code(self, conn: Connection, account: dict[str, Any], code: str, now: int) -> bool:
        """Take a code of a second factor; there is none here."""
        del conn, account, code, now
        return False

    def came_by_link(self, session: str, now: int) -> bool:
        """Say whether a session was opened by a one-time link within the last quarter of an hour: its owner may have no password yet."""
        found = self._store.read(lambda conn: rows.login(conn, digest(session)))
        return (
            found is not None and found["method"] == "link" and now - found["created_at"] < FRESH_S
        )

    def change_password(self, session: str, old: str, new: str, now: int) -> None:
        """Change a person's own password; their other sessions end. Who came by a one-time link just now needs no old one.

        Raises:
            RequestError: `request.forbidden`: the old one does not fit; `request.invalid`; `request.rate_limited`.
        """
        check_password(new)
        account = self._account_of(session, now)
        if account is None or account["issuer"]:
            raise RequestError("request.forbidden", "this account has no password here")
        if not self.came_by_link(session, now) and not self.prove(session, old, now):
            raise RequestError("request.forbidden", "the present password does not fit")
        hashed, name = self._hash(new), str(account["name"])

        def work(conn: Connection) -> None:
            rows.change_account(conn, name, {"password_hash": hashed})
            rows.drop_logins_of(conn, int(account["id"]), but=digest(session))
            audit.record(conn, now, name, "account.password", name)

        self._store.write(work).result()

    def _account_of(self, session: str, now: int) -> dict[str, Any] | None:
        def work(conn: Connection) -> dict[str, Any] | None:
            found = rows.login(conn, digest(session))
            if found is None or found["expires_at"] <= now or found["disabled_at"] is not None:
                return None
            return rows.account(conn, str(found["name"]))

        return self._store.read(work)


def keep_ticket(conn: Connection, name: str, ticket: str, by: str, now: int) -> None:
    """Have a ticket sign in the owner of an account once, within an hour; in the writer's transaction."""
    rows.drop_stale_logins(conn, now)
    row = {"kind": "ticket", "created_at": now, "expires_at": now + TICKET_S}
    account_id = account_row(conn, name)["id"]
    rows.add_login(conn, {"token_sha256": digest(ticket), "account_id": account_id, **row})
    audit.record(conn, now, by, "account.ticket", name)
