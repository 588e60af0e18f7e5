"""What people can do, as calls: the one door behind API, web and command line.

Each call reads what it has to show on a snapshot, acts in one transaction, plans what follows in the same transaction, and returns when it is durable. Nothing
is decided here.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import Envelope
from tidegate.rollout import edits, keeping
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.model import Rollout
from tidegate.server import (
    acts,
    apart,
    approvals,
    fallbacks,
    grants,
    once,
    planning,
    rollouts,
    stopping,
    widening,
)
from tidegate.server.acts import ChangedError, Outcome, Stopped
from tidegate.server.amendments import Terms, amended, terms_of
from tidegate.server.approvals import Rules
from tidegate.server.audiences import Audiences
from tidegate.server.auth import Actor, Auth
from tidegate.server.config import Settings
from tidegate.server.drafts import Draft, draft_of
from tidegate.server.fallbacks import WayBack
from tidegate.server.headcount import Sample
from tidegate.server.people.limits import Limits, require_a_way_in
from tidegate.server.people.provider import Provider
from tidegate.server.people.single_sign_on import SingleSignOn
from tidegate.server.reach import Reach
from tidegate.server.services import Services
from tidegate.server.snapshot import Fleet
from tidegate.server.store import Connection

T = TypeVar("T")
#: Decisions that may follow one another at once (a ring without gates, say).
_STEPS_MAX: Final = 4
#: Up to so many devices are asked one by one before a rollout is made: a tenth of a second.
ASKED_MAX: Final = 1_000


#: Acts that are counted before they are done, and how often that is tried anew where somebody else changed the rollout in between.
_COUNTED: Final = frozenset({"start", "activate", "resume", "advance", "readmit"})
_COUNTS_MAX: Final = 4


class Operations:
    """The acts on rollouts over opened services. Safe to call from any thread; made once a server (`of`)."""

    def __init__(self, services: Services) -> None:
        """Act on these."""
        self.services = services
        self.audiences = audiences_of(services)
        settings = services.settings
        self.rules = Rules(
            above_devices=settings.approval_above_devices,
            above_share_bp=settings.approval_above_bp,
            expires_s=settings.approval_expires_s,
        )

    def create(self, data: Mapping[str, Any], actor: Actor, reason: str, now: int) -> Outcome:
        """Make a rollout of a parsed policy file (untrusted), and start it unless it is a draft.

        Raises:
            RequestError: `request.invalid`, `request.not_found`, `request.conflict`, `request.forbidden`.
        """
        draft = draft_of(data)
        self._read(lambda conn: rollouts.require_to_create(conn, draft, actor))
        reach, meant = self._read(
            lambda conn: (self._reach(conn, draft, now), self._fixed(conn, draft, now))
        )
        return self._act(
            lambda conn: rollouts.create(
                conn, draft, reach, actor, reason, self.rules, now, meant=meant
            ),
            now,
        )

    def _fixed(self, conn: Connection, draft: Draft, now: int) -> Fixed | None:
        """Return whom a snapshot rollout means, or None: it takes newcomers. Counted here as well, so that the writer finds it counted."""
        if draft.policy.dynamic:
            return None
        product = str(acts.release_of(conn, draft.release)["product"])
        return self.audiences.fix(conn, rollouts.unmade(draft), product, now)

    def _reach(self, conn: Connection, draft: Draft, now: int) -> Reach:
        """Say whom a rollout reaches: device by device, or at most where there are very many."""
        rate = self.services.settings.egress_rate
        if len(self.services.fleet) <= ASKED_MAX:
            return rollouts.preview(conn, draft, now, rate)
        return rollouts.bound(conn, draft, self.audiences.count, now, rate)

    def preview(self, data: Mapping[str, Any], actor: Actor, now: int) -> Reach:
        """Say whom a rollout would reach; writes nothing. Raises as `create`."""
        draft = draft_of(data)
        self._read(lambda conn: rollouts.require_to_create(conn, draft, actor))
        rate = self.services.settings.egress_rate

        def look(conn: Connection) -> Reach:
            product = str(acts.release_of(conn, draft.release)["product"])
            chosen = self.audiences.sample(conn, rollouts.unmade(draft), product, now)
            return rollouts.preview(conn, draft, now, rate, chosen)

        return self._read(look)

    def reach_of(self, name: str, verb: str, detail: Mapping[str, Any], now: int) -> int:
        """Return how many devices a verb would widen a rollout to; 0 for verbs that do not widen."""
        chosen = self._sampled(now)
        return self._read(
            lambda conn: rollouts.prepare(conn, name, verb, dict(detail), now, chosen)
        )

    def _sampled(self, now: int) -> Callable[[Connection, Rollout, str], Sample | None]:
        return lambda conn, rollout, product: self.audiences.sample(conn, rollout, product, now)

    def act(
        self,
        name: str,
        verb: str,
        actor: Actor,
        reason: str,
        now: int,
        *,
        detail: Mapping[str, Any] | None = None,
        generation: int | None = None,
    ) -> Outcome:
        """Carry out start, approve, pause, resume, halt, cancel, advance, isolate or readmit (`rollouts.act`)."""
        wanted = dict(detail or {})
        tries = 1 if generation is not None else _COUNTS_MAX
        for _ in range(tries - 1):
            with contextlib.suppress(ChangedError):
                return self._once(name, verb, actor, reason, now, wanted, generation)
        return self._once(name, verb, actor, reason, now, wanted, generation)

    def _once(
        self,
        name: str,
        verb: str,
        actor: Actor,
        reason: str,
        now: int,
        wanted: dict[str, Any],
        generation: int | None,
    ) -> Outcome:
        """Count, and do what was counted: an edit at the same moment would be nobody's to approve."""
        counted, devices = self._read(
            lambda conn: (
                int(acts.row_of(conn, name)["generation"]),
                rollouts.prepare(conn, name, verb, wanted, now, self._sampled(now)),
            )
        )
        pinned = counted if generation is None and verb in _COUNTED else generation
        done = self._act(
            lambda conn: rollouts.act(
                conn, name, verb, actor, reason, now,
                rules=self.rules, detail=wanted, devices=devices, generation=pinned,
            ),
            now,
        )  # fmt: skip
        if verb == "isolate" and done.stopped is not None:
            met = self._kept_out(done.name, done.stopped, stopping.entry_of(wanted), now)
            return msgspec.structs.replace(done, stopped=met)
        return done

    def edit(
        self,
        name: str,
        data: Mapping[str, Any],
        actor: Actor,
        reason: str,
        now: int,
        *,
        generation: int | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Replace a rollout's policy by a parsed policy file (untrusted)."""
        row = self._read(lambda conn: acts.row_of(conn, name))
        draft = draft_of({"release": row["release"], **data, "name": name})
        return self._edit(draft, actor, reason, now, generation, dry_run=dry_run)

    def amend(
        self,
        name: str,
        data: Mapping[str, Any],
        actor: Actor,
        reason: str,
        now: int,
        *,
        generation: int | None = None,
        dry_run: bool = False,
    ) -> Outcome:
        """Change some parts of a rollout's policy (`amendments`; untrusted)."""
        row = self._read(lambda conn: acts.row_of(conn, name))
        if generation is None:  # what is not named comes from this reading of it
            generation = int(row["generation"])
        draft = amended(row, data)
        return self._edit(draft, actor, reason, now, generation, dry_run=dry_run)

    def terms(self, name: str) -> Terms:
        """Return what of a rollout can be changed."""
        return terms_of(self._read(lambda conn: acts.row_of(conn, name)))

    def wider(self, name: str, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Say in which ways parts of a policy (untrusted) would make a rollout wider; none of one that has not begun."""
        row = self._read(lambda conn: acts.row_of(conn, name))
        stands, draft = terms_of(row), amended(row, data)
        if row["started_at"] is None:
            return ()
        return edits.wider((stands.policy, stands.delivery), (draft.policy, draft.delivery))

    def _edit(
        self,
        draft: Draft,
        actor: Actor,
        reason: str,
        now: int,
        generation: int | None,
        *,
        dry_run: bool,
    ) -> Outcome:
        name = draft.name
        chosen = self._sampled(now)
        # before and afterwards: the greater of the two is what one person decides about
        rate = self.services.settings.egress_rate
        found = self._read(lambda conn: rollouts.when_edited(conn, draft, now, rate, chosen))
        devices = max(self.reach_of(name, "edit", {}, now), found.offered)
        done = self._act(
            lambda conn: widening.edit(
                conn, name, draft, actor, reason, self.rules, devices, now, generation=generation
            ),
            now,
            dry_run=dry_run,
        )
        return msgspec.structs.replace(done, warnings=found.warnings)

    def way_back(self, name: str, to: str, scope: str, now: int) -> WayBack:
        """Say whom a fallback would reach; writes nothing."""
        return self._read(lambda conn: fallbacks.preview(conn, name, to, scope, now))

    def fall_back(
        self, name: str, to: str, scope: str, actor: Actor, reason: str, now: int
    ) -> Outcome:
        """Order a halted rollout's devices back (`fallbacks.order`)."""
        actor.require("rollout.fallback")
        found = self.way_back(name, to, scope, now)
        return self._act(
            lambda conn: fallbacks.order(conn, found, actor, reason, self.rules, now), now
        )

    def fall_back_by_grant(
        self, incident: str, envelope: Envelope, actor: Actor, reason: str, now: int
    ) -> Outcome:
        """Take in a grant that the incident ring signed and order its devices back (`grants.submit`)."""
        return self._act(
            lambda conn: grants.submit(
                self.services, conn, incident, envelope, actor, reason, self.rules, now
            ),
            now,
        )

    def decide(
        self,
        request: int,
        actor: Actor,
        reason: str,
        now: int,
        *,
        approve: bool,
    ) -> Outcome:
        """Approve or decline a request (`widening.decide`)."""
        return self._act(
            lambda conn: widening.decide(conn, request, actor, reason, now, approve=approve), now
        )

    def requests(self, state: str = "open") -> list[approvals.RequestFacts]:
        """Return the inbox."""
        return self._read(lambda conn: approvals.listed(conn, state=state))

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self.services.store.read(work)

    def _act(
        self, work: Callable[[Connection], Outcome], now: int, *, dry_run: bool = False
    ) -> Outcome:
        """Act, and plan what follows, in one transaction; `dry_run`: take it back."""

        def both(conn: Connection) -> Outcome:
            done = work(conn)
            row = acts.row_of(conn, done.name)
            for _ in range(_STEPS_MAX):
                plan = planning.reconcile(conn, int(row["id"]), self.audiences.count, now)
                if plan is None or not plan.changed:
                    break
            return done

        store = self.services.store
        if dry_run:
            return once.rehearse(store, both)
        done = store.write(once.once(both), urgent=True).result()
        if done.verb in {"isolate", "readmit"}:
            done = self._count_apart(done, now)
        self.services.wake()
        return done

    def _count_apart(self, done: Outcome, now: int) -> Outcome:
        """Have everybody counted where they belong since somebody was kept out, or let in again; say whom an isolation met."""
        store = self.services.store
        rollout_id = store.read(lambda conn: int(acts.row_of(conn, done.name)["id"]))
        moves = apart.count_all(store, rollout_id, now)
        met = done.stopped
        if met is None or not moves:
            return done
        found = store.read(
            lambda conn: stopping.stopped(
                conn, acts.row_of(conn, done.name), met.incident, met.by, met.at, moves[0][1]
            )
        )
        return msgspec.structs.replace(done, stopped=found)

    def _kept_out(self, name: str, met: Stopped, entry: str, now: int) -> Stopped:
        """Say of an isolation that is in force how many devices it keeps out: who mistyped a name would believe that it is done."""
        product, count = self._read(lambda conn: self._meant_by(conn, name, entry, now))
        doubt = ""
        if count == 0:
            known = () if entry.startswith(keeping.MARK) else self.audiences.variants(product)
            what = entry.removeprefix(keeping.MARK)
            doubt = f"no device of {product} is {what} at present{did_you_mean(what, known)}"
        return msgspec.structs.replace(met, kept_out=count, doubt=doubt)

    def _meant_by(
        self, conn: Connection, name: str, entry: str, now: int
    ) -> tuple[str, int | None]:
        product = str(acts.row_of(conn, name)["product"])
        return product, self.audiences.meant_by(conn, keeping.query_of(entry), product, now)


_AUDIENCES: Final[WeakKeyDictionary[Fleet, Audiences]] = WeakKeyDictionary()


def audiences_of(services: Services) -> Audiences:
    """Return the counts of audiences of a server: one memory for planner and people."""
    return _AUDIENCES.setdefault(services.fleet, Audiences(services.fleet))


def limits_of(settings: Settings) -> Limits:
    """Return what a server's settings say about people."""
    return Limits(
        session_s=settings.accounts_session_s,
        fresh_s=settings.accounts_fresh_s,
        token_default_s=settings.token_default_s,
        token_max_s=settings.token_max_s,
        second_factor=settings.second_factor,
        local=settings.accounts_local,
        consent=settings.approval_accounts,
        consent_s=settings.approval_expires_s,
    )


def single_sign_on_of(services: Services, auth: Auth) -> SingleSignOn | None:
    """Return sign-in by the provider that the settings name, or None.

    Raises:
        ConfigError: `config.missing`: browsers could not be sent back; `config.invalid`, `config.unreadable`.
    """
    settings = services.settings
    require_a_way_in(
        settings.oidc, local=settings.accounts_local, external_url=settings.external_url
    )
    if settings.oidc is None:
        return None
    provider = Provider(settings.oidc)
    return SingleSignOn(services.store, auth, provider, settings.external_url)


def auth_of(services: Services) -> Auth:
    """Return accounts, logins and tokens over opened services."""
    return Auth(
        services.store,
        token_bytes=services.randomness,
        limits=limits_of(services.settings),
        secret=services.keys.secret,
    )
