"""Four eyes over accounts: who makes, widens or takes over an account needs the consent of one more person. Taking away never does.

Without this the rule over rollouts would be worth nothing: one person could make a second account, or reset somebody's password,
and be two. A consent is bound by a digest to the act, the account, what it would hold and what it holds now; whoever asked does
the same act again, once, within a day. Where nobody else could consent the rule cannot be kept; one person goes on, and the
interface says so (`approvals.is_single`).
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tidegate.core.codec import canonical
from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import FLEET, Actor, Grant, read_grants
from tidegate.server.people.register import (
    Register,
    account_row,
    actor_of,
    enabled,
    held_by,
    written,
)
from tidegate.server.store import Connection
from tidegate.server.store import admin_accounts as rows

#: Uses a consent up, in the transaction of the act.
Spend = Callable[[Connection], None]
#: What who only looks holds: giving it makes nobody a second person.
_LOOKING: Final = frozenset({"fleet.read", "audit.read"})


class ConsentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A request for consent, as the API gives it.

    Attributes:
        id: its number.
        act: create, edit, enable, reset, link, second_factor, purge.
        account: whose; of a purge: of which tenant, and the beginning of its plan's digest.
        grants: what the account would hold.
        person: whose account it would be, where that is said.
        asked_at, expires_at, decided_at: unix seconds.
        asked_by, decided_by: who.
        state: open, approved, declined, used.
        plan_sha256: the digest that a consent is bound to.
    """

    id: int
    act: str
    account: str
    grants: tuple[str, ...]
    person: str
    asked_at: int
    asked_by: str
    expires_at: int
    state: str
    decided_at: int | None
    decided_by: str | None
    plan_sha256: str


class _Need(msgspec.Struct, frozen=True, kw_only=True):
    """An act that takes a second person."""

    act: str
    name: str
    grants: tuple[Grant, ...]
    actor: Actor
    person: str

    @property
    def asker(self) -> str:
        """The person behind it."""
        return self.actor.owner or self.actor.name

    def people(self, conn: Connection) -> list[str]:
        """Return who could consent; nobody where the rule cannot be kept."""
        if self.actor.kind == "account" and rows.account(conn, self.actor.name) is None:
            return []  # nobody signs in as somebody without an account: that is a program in this process
        return others(conn, self.actor, self.grants)

    def digest(self, conn: Connection) -> str:
        """Return what a consent to it is bound to, as the account is now."""
        account = rows.account(conn, self.name)
        before = written(held_by(account)) if account is not None else []
        return _digest(self.act, self.name, written(self.grants), self.person, before)


class Consents(Register):
    """Requests for consent, and what they allow."""

    def require_consent(
        self,
        act: str,
        name: str,
        gives: Iterable[Grant],
        actor: Actor,
        now: int,
        *,
        person: str | None = None,
    ) -> Spend:
        """Insist on the consent that an act needs, or ask for it. It is used up in the transaction of the act, by what is returned.

        Args:
            act: as in `ConsentFacts`.
            name: of the account.
            gives: what whoever has the account in hand would hold by the act.
            actor: who acts.
            now: unix seconds.
            person: whose account it is said to be.

        Returns:
            What the act calls in its own transaction, before it changes anything: an act that fails leaves the consent as it was.

        Raises:
            RequestError: `request.approval_needed`: it was asked for; the same from what is returned, where the consent is gone or does not fit any more.
        """
        grants = tuple(sorted(gives))
        if not self._limits.consent or (not person and all(one.may <= _LOOKING for one in grants)):
            return free
        need = _Need(act=act, name=name, grants=grants, actor=actor, person=person or "")

        def ask(conn: Connection) -> tuple[int, list[str]] | None:
            people = need.people(conn)
            if not people or _request(conn, need, "approved", now) is not None:
                return None
            waiting = _request(conn, need, "open", now)
            return waiting or self._ask(conn, need, now), people

        def spend(conn: Connection) -> None:
            if not need.people(conn):
                return
            number = _request(conn, need, "approved", now)
            used = {"state": "used"}
            if number is None or not rows.settle_consent(conn, number, "approved", used):
                raise RequestError(
                    "request.approval_needed",
                    "the consent was used meanwhile, or what it was given for has changed; ask again",
                )

        waits = self._store.write(ask).result()
        if waits is not None:
            raise RequestError(
                "request.approval_needed",
                f"request {waits[0]}: one more person has to consent: {', '.join(waits[1])[:200]}",
            )
        return spend

    def _ask(self, conn: Connection, need: _Need, now: int) -> int:
        digest = need.digest(conn)
        number = rows.add_consent(
            conn,
            {
                "act": need.act,
                "account": need.name,
                "grants": written(need.grants),
                "person": need.person,
                "plan_sha256": digest,
                "asked_at": now,
                "asked_by": need.asker,
                "expires_at": now + self._limits.consent_s,
                "state": "open",
            },
        )
        detail = {"act": need.act, "request": number}
        audit.record(conn, now, need.actor.name, "consent.ask", need.name, detail, plan=digest)
        return number

    def require_to_take_over(self, act: str, name: str, actor: Actor, now: int) -> Spend:
        """Insist that an actor may bring an account into their own hands: they hold all that it holds, and one more person consents, unless it is theirs.

        Returns:
            What the act calls in its transaction, as `require_consent`.

        Raises:
            RequestError: `request.not_found`, `request.forbidden`, `request.approval_needed`.
        """
        held = held_by(self._store.read(lambda conn: account_row(conn, name)))
        actor.require_all_of(held)
        if name in actor.people:
            return free
        return self.require_consent(act, name, held, actor, now)

    def consents(self, now: int, *, every: bool = False) -> list[ConsentFacts]:
        """Return requests that are open or approved and not used yet; with `every`, those of before as well. The newest first."""
        found = self._store.read(lambda conn: rows.consents(conn, 0 if every else now))
        shown = found if every else [one for one in found if one["state"] in {"open", "approved"}]
        return [_facts(one) for one in shown]

    def consent(self, number: int, actor: Actor, now: int, *, approve: bool) -> ConsentFacts:
        """Consent to a request of somebody else, or decline it.

        Raises:
            RequestError: `request.not_found`; `request.conflict`: it was decided or ran out; `request.forbidden`: it is the actor's own, or the actor is a
                program, or holds less than would be given.
        """

        def work(conn: Connection) -> ConsentFacts:
            row = rows.consent(conn, number) if 0 < number < 1 << 53 else None
            if row is None:
                raise RequestError("request.not_found", f"no request {number}")
            actor.require("account.manage", FLEET)
            if actor.kind != "account":
                raise RequestError("request.forbidden", "a person consents, not a token")
            if row["state"] != "open" or row["expires_at"] <= now:
                state = row["state"] if row["state"] != "open" else "run out"
                raise RequestError("request.conflict", f"this request is {state} already")
            if approve:
                asker = rows.account(conn, str(row["asked_by"]))
                mine = actor_of(conn, asker).people if asker is not None else frozenset[str]()
                if (mine | {str(row["asked_by"]), str(row["account"])}) & actor.people:
                    raise RequestError(
                        "request.forbidden", "the second person must be somebody else"
                    )
                if row["grants"]:
                    actor.require_all_of(read_grants(row["grants"]))
            values = {
                "state": "approved" if approve else "declined",
                "decided_at": now,
                "decided_by": actor.name,
            }
            if not rows.settle_consent(conn, number, "open", values):
                raise RequestError("request.conflict", "somebody else decided it meanwhile")
            action = "consent.approve" if approve else "consent.decline"
            detail = {"act": row["act"], "request": number}
            plan = str(row["plan_sha256"])
            audit.record(conn, now, actor.name, action, str(row["account"]), detail, plan=plan)
            return _facts({**row, **values})

        return self._store.write(work).result()


def others(conn: Connection, actor: Actor, grants: Iterable[Grant]) -> list[str]:
    """Return who could consent: they manage accounts, hold what would be given, and are not the actor under another name."""
    wanted = tuple(grants)
    return [
        one.name
        for one in enabled(conn)
        if one.allows("account.manage", FLEET)
        and all(one.holds(grant) for grant in wanted)
        and not one.people & actor.people
    ]


def free(_: Connection) -> None:
    """Spend nothing: nobody has to consent."""


def _request(conn: Connection, need: _Need, state: str, now: int) -> int | None:
    """Return the newest request for exactly this act that is in a state."""
    digest = need.digest(conn)
    for row in rows.consents(conn, now):
        if (row["plan_sha256"], row["asked_by"]) == (digest, need.asker) and row["state"] == state:
            return int(row["id"])
    return None


def _digest(act: str, name: str, grants: list[str], person: str, before: list[str]) -> str:
    plan = {"act": act, "account": name, "grants": grants, "person": person, "before": before}
    return hashlib.sha256(canonical(plan)).hexdigest()


def _facts(row: dict[str, Any]) -> ConsentFacts:
    plain = {field: row[field] for field in ConsentFacts.__struct_fields__}
    return ConsentFacts(**{**plain, "grants": tuple(row["grants"] or ())})
