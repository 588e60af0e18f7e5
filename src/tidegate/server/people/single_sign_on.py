"""Signing in by an OpenID provider: the flow there and back, and the account that follows from what the provider says.

A flow is put down under the digest of its `state`, bound to the browser that began it, and is there once. Accounts are found by
issuer and subject, never by a name that somebody chose; the first time, one is made. What it holds follows the person's groups,
at every sign-in.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import Grant, read_grants, role_of
from tidegate.server.people.provider import Provider, auth_time, refused
from tidegate.server.people.register import account_row, digest, held_by, written
from tidegate.server.people.sessions import Origin, Sessions
from tidegate.server.store import Connection, Store
from tidegate.server.store import admin_accounts as rows

#: How long a person may take at the provider, in seconds.
FLOW_S: Final = 600
#: Where the provider sends browsers back to.
BACK: Final = "/sign-in/single/back"


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that begins: where the browser goes, and the secret that it keeps in a cookie meanwhile."""

    address: str
    browser: str


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that came back well: the session, and the page that was asked for."""

    session: str
    next: str


class SingleSignOn:
    """Sign-in by one provider. Safe to call from any thread; calls may wait for the network, never inside a transaction."""

    def __init__(self, store: Store, sessions: Sessions, provider: Provider, here: str) -> None:
        """Take the parts.

        Args:
            store: of the server.
            sessions: opens sessions.
            provider: whom people sign in at.
            here: this server's own address as browsers know it; never taken from a request.
        """
        self._store = store
        self._sessions = sessions
        self._provider = provider
        self._here = here.rstrip("/")
        self._groups = {
            name: read_grants(texts) for name, texts in provider.settings.groups.items()
        }

    @property
    def label(self) -> str:
        """What the button says."""
        return self._provider.settings.label

    @property
    def back(self) -> str:
        """The address to which the provider sends browsers back."""
        return f"{self._here}{BACK}"

    def begin(self, to: str, now: int, *, again: bool = False) -> Begun:
        """Begin a flow for a browser that wants to see `to` afterwards (a path on this server).

        `again`: the provider is to have the person show who they are, also when it knows them still.

        Raises:
            RequestError: `auth.provider`.
        """
        state, nonce, verifier, browser = (self._sessions.secret_text() for _ in range(4))
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
            .rstrip(b"=")
            .decode()
        )
        address = self._provider.address(self.back, state, nonce, challenge, now, again=again)

        def work(conn: Connection) -> None:
            rows.drop_stale_flows(conn, now)
            row = {
                "state_sha256": digest(state),
                "nonce": nonce,
                "verifier": verifier,
                "browser_sha256": digest(browser),
                "next": to,
                "expires_at": now + FLOW_S,
            }
            rows.add_flow(conn, row)

        self._store.write(work).result()
        return Begun(address=address, browser=browser)

    def finish(self, answer: Mapping[str, str], browser: str, origin: Origin, now: int) -> Ended:
        """Take what came back by way of a browser, and open a session.

        Args:
            answer: the query of the address (untrusted): `code`, `state`, `iss`, `error`.
            browser: the cookie's secret (untrusted).
            origin: where the browser is.
            now: unix seconds.

        Raises:
            RequestError: `auth.provider`: something does not hold; `request.forbidden`: this person has no role here, or is disabled.
        """
        state = answer.get("state", "")
        flow = self._store.write(lambda conn: rows.take_flow(conn, digest(state))).result()
        if flow is None or flow["expires_at"] <= now:
            raise refused("this sign-in was used, or took too long; begin again")
        if not hmac.compare_digest(str(flow["browser_sha256"]), digest(browser)):
            raise refused("this sign-in was begun by another browser")
        issuer = answer.get("iss", "")
        wanted = self._provider.described(now).authorization_response_iss_parameter_supported
        if (issuer or wanted) and issuer != self._provider.settings.issuer:
            raise refused("the answer is from another provider")
        if answer.get("error") or not answer.get("code"):
            raise refused("the provider did not sign you in")
        claims = self._provider.claims(
            answer["code"][:4096], self.back, str(flow["verifier"]), str(flow["nonce"]), now
        )
        session = self._store.write(lambda conn: self._admit(conn, claims, origin, now)).result()
        if session is None:
            raise RequestError("request.forbidden", "none of your groups has a role here")
        return Ended(session=session, next=str(flow["next"]))

    def _admit(
        self, conn: Connection, claims: dict[str, Any], origin: Origin, now: int
    ) -> str | None:
        """Open a session for whom a provider vouches; None for who holds nothing here any more, which is written down all the same."""
        issuer, subject = self._provider.settings.issuer, str(claims["sub"])
        held = self._held(claims)
        found = rows.account_of_subject(conn, issuer, subject)
        if found is not None and found["disabled_at"] is not None:
            raise RequestError("request.forbidden", "this account is disabled")
        if not held:
            if found is not None:
                self._set(conn, found, (), now)
            return None
        if found is None:
            found = self._make(conn, issuer, subject, claims, held, now)
        elif held_by(found) != held:
            self._set(conn, found, held, now)
        account = account_row(conn, str(found["name"]))
        proved_at = min(auth_time(claims), now)
        return self._sessions.open_session(conn, account, "oidc", origin, now, proved_at=proved_at)

    def _held(self, claims: dict[str, Any]) -> tuple[Grant, ...]:
        told = claims.get(self._provider.settings.groups_claim, [])
        groups = told if isinstance(told, list) else [told]
        found = {
            grant for one in groups if isinstance(one, str) for grant in self._groups.get(one, ())
        }
        return tuple(sorted(found))

    def _set(
        self, conn: Connection, account: dict[str, Any], held: tuple[Grant, ...], now: int
    ) -> None:
        name = str(account["name"])
        rows.change_account(conn, name, {"role": role_of(held), "grants": written(held)})
        if not held:
            rows.drop_logins_of(conn, int(account["id"]))
        audit.record(conn, now, "single sign-on", "account.edit", name, {"grants": written(held)})

    def _make(
        self,
        conn: Connection,
        issuer: str,
        subject: str,
        claims: dict[str, Any],
        held: tuple[Grant, ...],
        now: int,
    ) -> dict[str, Any]:
        """Make an account. A local one of the same name is taken for the same person's, which only ever forbids: nobody is their own second person."""
        plain = _plain_name(claims.get(self._provider.settings.name_claim))
        name = plain or f"user-{digest(subject)[:8]}"
        if rows.account(conn, name) is not None:
            name = f"{name[:55]}-{digest(issuer + ' ' + subject)[:8]}"
        row = {
            "name": name,
            "password_hash": "",
            "role": role_of(held),
            "grants": written(held),
            "person": plain,
            "issuer": issuer,
            "subject": subject,
            "created_at": now,
        }
        rows.add_account(conn, row)
        detail = {"grants": written(held), "issuer": issuer}
        audit.record(conn, now, "single sign-on", "account.create", name, detail)
        return account_row(conn, name)

    def way_out(self, now: int) -> str:
        """Return where a browser signs out at the provider, too; empty where it has no such place, or cannot be asked."""
        try:
            where = self._provider.described(now).end_session_endpoint
        except RequestError:
            return ""
        asked = {
            "client_id": self._provider.settings.client_id,
            "post_logout_redirect_uri": f"{self._here}/sign-in",
        }
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}" if where else ""


def _plain_name(told: object) -> str:
    """Return a claim (untrusted) as a name of an account; empty where nothing of it can be one."""
    text = told if isinstance(told, str) else ""
    kept = "".join(one for one in text if one.isascii() and (one.isalnum() or one in "._-@"))
    return kept.lstrip("._-@")[:64]
