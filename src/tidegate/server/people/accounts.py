"""Accounts of people: made, given roles, disabled, given a new password. Nobody gives more than they have, and somebody always owns the server."""

from collections.abc import Callable, Sequence

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import OWNING, Actor, Grant, read_grant, read_grants, role_of
from tidegate.server.passwords import made_of_words
from tidegate.server.people.consent import Consents, Spend, free
from tidegate.server.people.register import (
    Row,
    account_row,
    check_name,
    check_password,
    held_by,
    written,
)
from tidegate.server.store import Connection
from tidegate.server.store import admin_accounts as rows


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An account, as the API gives it.

    Attributes:
        name: of the account.
        role: the one role held in everything, or `granted`.
        grants: all that is held, `ROLE` or `ROLE@SCOPE`.
        person: who it belongs to; accounts of one person are no second person to each other.
        origin: `local`, or the issuer by whom it signs in.
        second_factor: whether one is set up.
        created_at: unix seconds.
        disabled_at: unix seconds, None = it is enabled.
    """

    name: str
    role: str
    grants: tuple[str, ...]
    person: str
    origin: str
    second_factor: bool
    created_at: int
    disabled_at: int | None


class Accounts(Consents):
    """Accounts of people."""

    def first_account(self, now: int, name: str = "admin") -> str | None:
        """Make the first account on a fresh store and return its password, which is shown once; None when there are accounts already."""
        if self._store.read(rows.account_count):
            return None
        password = made_of_words(self._random)
        hashed = self._hash(password)

        def work(conn: Connection) -> bool:
            if rows.account_count(conn):
                return False
            row = {"name": name, "password_hash": hashed, "role": "admin", "created_at": now}
            rows.add_account(conn, row)
            audit.record(conn, now, "tidegate", "account.create", name, {"role": "admin"})
            return True

        return password if self._store.write(work).result() else None

    def create_account(
        self,
        name: str,
        role: str,
        password: str | None,
        actor: Actor,
        now: int,
        *,
        grants: Sequence[str] = (),
        person: str = "",
        also: Callable[[Connection], object] | None = None,
    ) -> str:
        """Make an account and return its password (made of words when none is given).

        Args:
            name: 1 to 64 letters, digits and . _ - @.
            role: held in everything; not asked where there are `grants`.
            password: None = one is made.
            actor: who makes it.
            now: unix seconds.
            grants: `ROLE` or `ROLE@SCOPE`, untrusted.
            person: whose account it is, where that person has others; empty = its own.
            also: what is done with it in the same transaction.

        Raises:
            RequestError: `request.invalid`, `request.conflict`, `request.approval_needed`; `request.forbidden`: more than the maker's own.
        """
        check_name(name)
        if person:
            check_name(person)
        held = read_grants(grants) if grants else (read_grant(role),)
        actor.require_all_of(held)
        if self._store.read(lambda conn: rows.account(conn, name)) is not None:
            raise RequestError("request.conflict", f"there is an account {name} already")
        chosen = made_of_words(self._random) if password is None else check_password(password)
        spend = self.require_consent("create", name, held, actor, now, person=person)
        hashed = self._hash(chosen)

        def work(conn: Connection) -> None:
            if rows.account(conn, name) is not None:
                raise RequestError("request.conflict", f"there is an account {name} already")
            spend(conn)
            row = {
                "name": name,
                "password_hash": hashed,
                "role": role_of(held),
                "grants": written(held),
                "person": person,
                "created_at": now,
            }
            rows.add_account(conn, row)
            audit.record(conn, now, actor.name, "account.create", name, {"grants": written(held)})
            if also is not None:
                also(conn)

        self._store.write(work).result()
        return chosen

    def edit_account(
        self,
        name: str,
        actor: Actor,
        now: int,
        *,
        role: str | None = None,
        grants: Sequence[str] | None = None,
        disabled: bool | None = None,
        person: str | None = None,
    ) -> AccountFacts:
        """Change what an account holds, whose it is, disable or enable it. Its sessions end.

        Raises:
            RequestError: `request.not_found`, `request.invalid`; `request.conflict`: nobody would own the server any more; `request.forbidden`: it would
                hold more than the actor does.
        """
        wanted: tuple[Grant, ...] | None = None
        if grants is not None:
            wanted = read_grants(grants)
        elif role is not None:
            wanted = (read_grant(role),)
        if person:
            check_name(person)
        if wanted is None and disabled is None and person is None:
            raise RequestError("request.invalid", "say what is to change: role, person or disabled")

        present = self._store.read(lambda conn: account_row(conn, name))
        more = [one for one in wanted or () if one not in held_by(present)]
        takes_over = disabled is False or person is not None
        actor.require_all_of([*more, *(held_by(present) if takes_over else ())])
        spend: Spend = free
        if more or takes_over:
            gives = wanted if wanted is not None else held_by(present)
            act = "enable" if disabled is False else "edit"
            spend = self.require_consent(act, name, gives, actor, now, person=person)

        def work(conn: Connection) -> AccountFacts:
            found = account_row(conn, name)
            spend(conn)
            before = held_by(found)
            values: Row = {}
            if wanted is not None:
                # Taking away is the safe direction; giving is not.
                actor.require_all_of(one for one in wanted if one not in before)
                values |= {"role": role_of(wanted), "grants": written(wanted)}
            if disabled is False or person is not None:
                actor.require_all_of(before)
            if person is not None:
                values["person"] = person
            if disabled is not None:
                values["disabled_at"] = now if disabled else None
            rows.change_account(conn, name, values)
            require_owner(conn, name)
            rows.drop_logins_of(conn, int(found["id"]))
            detail = {
                "grants": written(wanted if wanted is not None else before),
                "disabled": int(bool(disabled)),
                **({"person": person} if person is not None else {}),
            }
            kept = {key: found[key] for key in values}
            audit.record(
                conn, now, actor.name, "account.edit", name, detail, before=kept, after=values
            )
            return account_facts(account_row(conn, name))

        return self._store.write(work).result()

    def reset_password(
        self, name: str, actor: Actor | str, now: int, password: str | None = None
    ) -> str:
        """Give an account a new password and end its sessions; return the password. Its second factor stays.

        Args:
            name: of the account.
            actor: who does it, and must hold all that the account holds: who can sign in as somebody has what they have. A text = the machine's owner.
            now: unix seconds.
            password: None = one is made.

        Raises:
            RequestError: `request.not_found`, `request.invalid`, `request.forbidden`, `request.approval_needed`; `request.conflict`: it has no password here,
                and a password would go round its provider.
        """
        chosen = made_of_words(self._random) if password is None else check_password(password)
        if self._store.read(lambda conn: account_row(conn, name))["issuer"]:
            raise RequestError("request.conflict", f"{name} signs in by single sign-on")
        spend: Spend = free
        if isinstance(actor, Actor):
            spend = self.require_to_take_over("reset", name, actor, now)
        hashed = self._hash(chosen)

        def work(conn: Connection) -> None:
            found = account_row(conn, name)
            spend(conn)
            if isinstance(actor, Actor):
                actor.require_all_of(held_by(found))
            by = actor.name if isinstance(actor, Actor) else actor
            rows.change_account(conn, name, {"password_hash": hashed})
            rows.drop_logins_of(conn, int(found["id"]))
            audit.record(conn, now, by, "account.password", name)

        self._store.write(work).result()
        return chosen

    def accounts(self) -> list[AccountFacts]:
        """Return every account."""
        return [account_facts(row) for row in self._store.read(rows.accounts)]

    def account_of(self, name: str) -> AccountFacts:
        """Return an account.

        Raises:
            RequestError: `request.not_found`.
        """
        return account_facts(self._store.read(lambda conn: account_row(conn, name)))


def require_owner(conn: Connection, name: str) -> None:
    """Insist that somebody who is enabled holds everything, in everything.

    Raises:
        RequestError: `request.conflict`.
    """
    if not rows.people_with(conn, OWNING):
        raise RequestError("request.conflict", f"{name} is the last admin")


def account_facts(row: Row) -> AccountFacts:
    """Return an account as the API gives it."""
    return AccountFacts(
        name=str(row["name"]),
        role=str(row["role"]),
        grants=tuple(written(held_by(row))),
        person=str(row["person"]) or str(row["name"]),
        origin=str(row["issuer"]) or "local",
        second_factor=row["totp_confirmed_at"] is not None,
        created_at=int(row["created_at"]),
        disabled_at=row["disabled_at"],
    )
