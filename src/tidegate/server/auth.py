"""Who is asking: accounts, sessions and API tokens in one (`server.people`), and what a request shows of them.

Roles and what they may do are in `server.actors`. Secrets are random and only their SHA-256 is stored; passwords are argon2id.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tidegate.core.errors import RequestError
from tidegate.server.actors import ROLES, Actor
from tidegate.server.people.accounts import AccountFacts, Accounts
from tidegate.server.people.register import PASSWORD_MAX, PASSWORD_MIN, digest
from tidegate.server.people.second_factor import SecondFactor
from tidegate.server.people.sessions import (
    TICKET_S,
    TRIES_MAX,
    TRIES_WINDOW_S,
    SessionFacts,
    keep_ticket,
)
from tidegate.server.people.tokens import TOKEN_PREFIX, USE_NOTED_S, ApiTokens, TokenFacts
from tidegate.server.store import Connection

__all__ = [
    "COOKIE",
    "PASSWORD_MAX",
    "PASSWORD_MIN",
    "ROLES",
    "TICKET_S",
    "TOKEN_PREFIX",
    "TRIES_MAX",
    "TRIES_WINDOW_S",
    "USE_NOTED_S",
    "AccountFacts",
    "Actor",
    "Auth",
    "SessionFacts",
    "TokenFacts",
    "digest",
]

COOKIE: Final = "tidegate_session"


class Auth(SecondFactor, Accounts, ApiTokens):
    """Accounts, sessions and tokens over a store. Safe to call from any thread."""

    def authenticate(
        self, headers: Mapping[str, str], cookies: Mapping[str, str], now: int, address: str = ""
    ) -> Actor:
        """Return who asks, by bearer token or session cookie (both untrusted), from an address.

        Raises:
            RequestError: `request.unauthenticated`.
        """
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        by_token = scheme.lower() == "bearer"
        session = cookies.get(COOKIE, "")
        actor = (
            self.actor_of_token(credential.strip(), now, address)
            if by_token
            else self.actor_of_session(session, now)
        )
        if actor is None:
            raise RequestError("request.unauthenticated", "no valid token or session was sent")
        return actor

    def invite(
        self, name: str, grants: Sequence[str], actor: Actor, now: int, *, person: str = ""
    ) -> str:
        """Make an account with a one-time sign-in ticket for its owner, both or neither; return the ticket. What is consented to is the account.

        Raises:
            RequestError: as `create_account`.
        """
        ticket = self.new_ticket()

        def also(conn: Connection) -> None:
            keep_ticket(conn, name, ticket, actor.name, now)

        self.create_account(name, "", None, actor, now, grants=grants, person=person, also=also)
        return ticket
