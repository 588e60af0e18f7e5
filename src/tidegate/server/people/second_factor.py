"""The second factor of local accounts: set up and confirmed by a code, asked for at sign-in, codes for when the phone is lost.

A secret is not stored: it is derived from the server's own secret and a salt, so that a stolen database holds none. Recovery codes are stored as digests.
"""

import hashlib
import hmac
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit, tries
from tidegate.server.actors import Actor
from tidegate.server.people import totp
from tidegate.server.people.register import account_row, digest, held_by
from tidegate.server.people.sessions import (
    FEW,
    HALF_PREFIX,
    SESSION_PREFIX,
    Origin,
    Sessions,
)
from tidegate.server.store import Connection
from tidegate.server.store import admin_accounts as rows

RECOVERY_CODES: Final = 10


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """A second factor that is being set up: what an app is told, as text and as an address for a picture."""

    secret: str
    address: str


class SecondFactor(Sessions):
    """Second factors of accounts."""

    def _secret_of(self, account: dict[str, Any]) -> bytes:
        told = f"tidegate totp {account['id']} {account['totp_salt']}".encode()
        return hmac.new(self._secret, told, hashlib.sha256).digest()[: totp.SECRET_BYTES]

    def begin_second_factor(self, session: str, issuer: str, now: int) -> Enrolment:
        """Give the owner of a session a secret to set up. It counts once a code of it was shown; until then it may be had again.

        Raises:
            RequestError: `request.unauthenticated`; `request.conflict`: there is one already.
        """

        def work(conn: Connection) -> dict[str, Any]:
            account = self._owner(conn, session, now)
            if account["totp_confirmed_at"] is not None:
                raise RequestError("request.conflict", "there is a second factor already")
            if not account["totp_salt"]:
                salt = self._random(16).hex()
                rows.change_account(conn, str(account["name"]), {"totp_salt": salt})
                account["totp_salt"] = salt
            return account

        account = self._store.write(work).result()
        secret = self._secret_of(account)
        where = totp.address(secret, str(account["name"]), issuer)
        return Enrolment(secret=totp.shown(secret), address=where)

    def confirm_second_factor(self, session: str, code: str, now: int) -> list[str]:
        """Have a second factor count from now on, since its owner showed a code (untrusted); return the recovery codes, shown once. Other sessions end.

        Raises:
            RequestError: `request.unauthenticated`, `request.conflict`, `request.rate_limited`; `auth.second_factor`: the code does not fit.
        """
        codes = [self._random(5).hex() for _ in range(RECOVERY_CODES)]
        sources = {f"enrol {digest(session)}": FEW}
        self._tries.begin(sources, now)

        def work(conn: Connection) -> bool:
            account = self._owner(conn, session, now)
            name = str(account["name"])
            if account["totp_confirmed_at"] is not None or not account["totp_salt"]:
                raise RequestError("request.conflict", "no second factor is being set up")
            step = totp.step_of(self._secret_of(account), code, now, 0)
            if step is None:
                return False
            tries.give_back(conn, sources, now)
            values = {
                "totp_confirmed_at": now,
                "totp_step": step,
                "recovery": [digest(one) for one in codes],
            }
            rows.change_account(conn, name, values)
            rows.change_login(conn, digest(session), {"kind": "session", "proved_at": now})
            rows.drop_logins_of(conn, int(account["id"]), but=digest(session))
            audit.record(conn, now, name, "account.second_factor", name, {"set_up": 1})
            return True

        if not self._store.write(work).result():
            raise RequestError("auth.second_factor", "this code does not fit")
        return codes

    def second_factor(self, half: str, code: str, now: int) -> str | None:
        """Exchange half a sign-in and a code (both untrusted) for a session token; None when the half is not good, or no longer.

        Raises:
            RequestError: `auth.second_factor`: the code does not fit, or was used; `request.rate_limited`.
        """
        if not half.startswith(HALF_PREFIX):
            return None
        found = self._store.read(lambda conn: rows.login(conn, digest(half)))
        if found is None or found["expires_at"] <= now or found["disabled_at"] is not None:
            return None
        sources = {f"half {digest(half)}": FEW, f"code {found['name']}": FEW}
        self._tries.begin(sources, now)

        def work(conn: Connection) -> str | None:
            account = account_row(conn, str(found["name"]))
            if not self._take_code(conn, account, code, now):
                return None
            if not rows.drop_login(conn, digest(half)):
                return None
            tries.give_back(conn, sources, now)
            origin = Origin(address=str(found["address"]), agent=str(found["agent"]))
            return self.open_session(conn, account, str(found["method"]), origin, now, proved=True)

        session = self._store.write(work).result()
        if session is None:
            raise RequestError("auth.second_factor", "this code does not fit, or was used already")
        return session

    def _take_code(self, conn: Connection, account: dict[str, Any], code: str, now: int) -> bool:
        """Take a code of the app, or a recovery code, once; in the writer's transaction, so that no other process takes it too."""
        name = str(account["name"])
        step = totp.step_of(self._secret_of(account), code, now, int(account["totp_step"]))
        if step is not None:
            rows.change_account(conn, name, {"totp_step": step})
            return True
        left = [str(one) for one in account["recovery"] or ()]
        given = digest("".join(code.split()).lower())
        if given not in left:
            return False
        left.remove(given)
        rows.change_account(conn, name, {"recovery": left})
        audit.record(conn, now, name, "account.recovery_code", name, {"left": len(left)})
        return True

    def remove_second_factor(self, session: str, password: str, now: int) -> None:
        """Take away a person's own second factor, for their password.

        Raises:
            RequestError: `request.forbidden`: the password does not fit, or the person's roles want one; `request.rate_limited`.
        """
        if not self.prove(session, password, now):
            raise RequestError("request.forbidden", "the present password does not fit")

        def work(conn: Connection) -> None:
            account = self._owner(conn, session, now)
            if self._limits.wants_second_factor(held_by(account)):
                raise RequestError("request.forbidden", "your roles want a second factor here")
            _forget(conn, account, str(account["name"]), now)

        self._store.write(work).result()

    def reset_second_factor(self, name: str, actor: Actor, now: int) -> None:
        """Take away somebody's second factor, who lost it; their sessions end. Takes all that the account holds.

        Raises:
            RequestError: `request.not_found`, `request.forbidden`.
        """
        spend = self.require_to_take_over("second_factor", name, actor, now)

        def work(conn: Connection) -> None:
            account = account_row(conn, name)
            spend(conn)
            _forget(conn, account, actor.name, now)
            rows.drop_logins_of(conn, int(account["id"]))

        self._store.write(work).result()

    def _owner(self, conn: Connection, session: str, now: int) -> dict[str, Any]:
        found = rows.login(conn, digest(session)) if session.startswith(SESSION_PREFIX) else None
        if found is None or found["expires_at"] <= now or found["disabled_at"] is not None:
            raise RequestError("request.unauthenticated", "no valid session was sent")
        return account_row(conn, str(found["name"]))


def _forget(conn: Connection, account: dict[str, Any], by: str, now: int) -> None:
    values = {"totp_salt": "", "totp_confirmed_at": None, "totp_step": 0, "recovery": None}
    rows.change_account(conn, str(account["name"]), values)
    audit.record(conn, now, by, "account.second_factor", str(account["name"]), {"set_up": 0})
