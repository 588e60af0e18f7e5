"""When evidence is weighed: a whole step every quarter of an hour, and an early decision whenever something happened.

A whole step is taken in the planner's thread, beside the writer, from what is durable; only what happened meanwhile is told inside the transaction of the
plan. Only the process that holds the planner's lease keeps anything in memory; it finds out that it was overtaken by the generation of the stored state,
and then forgets. Everybody else, people's acts included, plans with the decision that was stored, and with the room that is left of it.
"""

import logging
from typing import Any, Final

import msgspec

from tidegate.rollout import gates
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import VARIANT
from tidegate.rollout.gates.evidence import Weighed
from tidegate.rollout.model import Policy, Rollout
from tidegate.server.gatekeeper import kept as keeping
from tidegate.server.gatekeeper import opening, rooms
from tidegate.server.gatekeeper.kept import Kept
from tidegate.server.gatekeeper.muster import Muster, Standing, standing
from tidegate.server.snapshot import ACCEPTED, Fleet
from tidegate.server.store import Connection, Store, gate_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
_log = logging.getLogger("tidegate.gatekeeper")
_PLANNED: Final = frozenset({"active", "paused", "completed"})
_NAME: Final = "evidence"


def guard_of(policy: Policy) -> Weighed | None:
    """Return the guard of a policy that weighs evidence, if it has one."""
    loaded = (gates.of_spec(spec, "guards") for spec in policy.guards if spec.gate == _NAME)
    return next((gate for gate in loaded if isinstance(gate, Weighed)), None)


class Keeper:
    """What a process that plans keeps in memory. `prepare` in the planner's thread, then `weigh` in the transaction of the plan."""

    def __init__(
        self, fleet: Fleet, attributes: tuple[str, ...] = (), *, poll_s: int = 300
    ) -> None:
        """Weigh what this fleet does.

        Args:
            fleet: in memory.
            attributes: of devices' own, by which strata are made, beside the usual ones.
            poll_s: how often a device that is connected asks, in seconds.
        """
        self._fleet = fleet
        self._attributes = attributes
        self._poll_s = poll_s
        self._kept: dict[int, Kept] = {}

    def forget(self, rollout_id: int) -> None:
        """Drop what is in memory of a rollout: it was overtaken, or its transaction failed."""
        self._kept.pop(rollout_id, None)

    def retain(self, rollouts: list[int]) -> None:
        """Drop all but these: others are not planned any more."""
        for one in self._kept.keys() - set(rollouts):
            del self._kept[one]

    # ------------------------------------------------------------------ beside the writer

    def prepare(self, store: Store, rollout_id: int, now: int) -> None:
        """Bring what is in memory up to date, and take a whole step when it is time for one.

        Args:
            store: read only.
            rollout_id: of the rollout.
            now: unix seconds.
        """
        try:
            store.read(lambda conn: self._prepare(conn, rollout_id, now))
        except BaseException:
            self.forget(rollout_id)
            raise

    def _prepare(self, conn: Connection, rollout_id: int, now: int) -> None:
        row = rows.rollout_by_id(conn, rollout_id)
        if row is None or row["state"] not in _PLANNED:
            self.forget(rollout_id)
            return
        policy = msgspec.convert(row["policy"], type=Policy)
        guard = guard_of(policy)
        if guard is None:
            self.forget(rollout_id)
            return
        model = _model(row, policy)
        kept = self._current(conn, rollout_id)
        if kept is None:
            self._open(conn, row, model, guard.harm, now)
            return
        self._keep_out(conn, kept, model)
        harm = _patient(guard.harm, kept.harm)
        if not kept.is_due(now) and harm == kept.harm:
            return
        asked = opening.wanted(conn, row, model, self._attributes)
        muster = Muster(self._fleet, asked)
        gone = kept.missing(muster.of, self._fits(asked.product))
        kept.feed(gate_rows.happenings(conn, rollout_id, kept.position), self._introduce)
        kept.part(gone, self._fits(asked.product))
        contacts = gate_rows.heard_since(conn, str(row["tenant"]), asked.product, kept.stepped_at)
        kept.hear(sorted(contacts, key=lambda one: (one[1], one[0])), muster.of, now)
        kept.follow(harm)
        kept.step(now)

    def _open(self, conn: Connection, row: Row, model: Rollout, harm: Harm, now: int) -> None:
        """Make a gate ready that was never open, or that people had begin anew."""
        rollout_id = int(row["id"])
        head = gate_rows.head(conn, rollout_id)
        asked = opening.wanted(conn, row, model, self._attributes)
        opened = opening.open_gate(conn, self._fleet, row, asked, harm, now, poll_s=self._poll_s)
        kept = Kept(rollout_id, opened.roster, opened.harm, opened.baseline, now, opened.crowded)
        if head is not None:
            kept.generation, kept.position = head.generation, head.position
        kept.told_out = set(model.isolated)
        kept.step(now)
        self._kept[rollout_id] = kept

    def _keep_out(self, conn: Connection, kept: Kept, model: Rollout) -> None:
        """Find what the book has to be told of whom people keep out; it is told in the transaction of the plan."""
        new = set(model.isolated) - kept.told_out
        kept.told_out &= set(model.isolated)
        if not new:
            return
        kept.feed(gate_rows.happenings(conn, kept.rollout_id, kept.position), self._introduce)
        for entry in sorted(new):
            kept.to_tell += kept.out(entry, lambda one: self._fleet.facts(one).attrs)
            kept.told_out.add(entry)

    def _current(self, conn: Connection, rollout_id: int) -> Kept | None:
        """Return what is in memory, read anew where it was overtaken; None = the gate was never opened."""
        head = gate_rows.head(conn, rollout_id)
        kept = self._kept.get(rollout_id)
        if head is None:
            self.forget(rollout_id)
            return None
        if kept is not None and kept.generation == head.generation:
            return kept
        stored = gate_rows.kept(conn, rollout_id)
        assert stored is not None  # noqa: S101 - of the same snapshot
        if not stored.snapshot:
            self.forget(rollout_id)
            return None
        kept = self._kept[rollout_id] = Kept.restored(rollout_id, stored)
        kept.site_rooms = {
            one.name: one.room for one in gate_rows.rooms(conn, rollout_id, gate_rows.SITE)
        }
        return kept

    def _fits(self, product: str) -> "_Fits":
        return _Fits(self._fleet, product)

    def _introduce(self, row: int) -> Standing | None:
        """Find a device that got its permit before anybody met it."""
        if not 0 < row < len(self._fleet.ids):
            return None
        return standing(self._fleet.facts(row), self._attributes)

    # ------------------------------------------------------------------ in the writer's transaction

    def weigh(self, conn: Connection, row: Row, model: Rollout, now: int) -> Decision | None:
        """Return the decision to plan with, its permits as they are left; None = this rollout's evidence is not weighed yet.

        Args:
            conn: the writer's connection; what it read is written with what follows from it, or not at all.
            row: of the rollout.
            model: the same as the planner sees it.
            now: unix seconds.
        """
        rollout_id, tenant = int(row["id"]), str(row["tenant"])
        kept = self._kept.get(rollout_id)
        head = gate_rows.head(conn, rollout_id)
        if kept is None or (head.generation if head else 0) != kept.generation:
            self.forget(rollout_id)
            return remembered(conn, row, model, now)
        if kept.fresh:
            self._begin(conn, kept, tenant, now)
        told = [(now, number, what) for number, what in kept.to_tell]
        gate_rows.put_happenings(conn, tenant, rollout_id, told)
        kept.to_tell = []
        kept.feed(gate_rows.happenings(conn, rollout_id, kept.position), self._introduce)
        if kept.undecided or kept.decided_for != model.generation:
            self._decide(conn, kept, row, now)
            kept.decided_for = model.generation
        elif kept.unsaved is None:
            return remembered(conn, row, model, now)
        self._store(conn, kept, tenant, now)
        return remembered(conn, row, model, now)

    def _begin(self, conn: Connection, kept: Kept, tenant: str, now: int) -> None:
        """Write the state of a gate that opens, and what has happened before: all of it, or after people had it begin anew what is still open."""
        assert kept.unsaved is not None and kept.decision is not None  # noqa: S101, PT018 - it was just made ready
        again = kept.generation > 0
        first = kept.first(kept.unsaved, keeping.text_of(kept.decision), now)
        gate_rows.put_state(conn, tenant, kept.rollout_id, first)
        kept.generation, kept.fresh = first.generation, False
        before = opening.backlog(conn, kept.rollout_id, now, again=again)
        gate_rows.put_happenings(conn, tenant, kept.rollout_id, before)

    def _decide(self, conn: Connection, kept: Kept, row: Row, now: int) -> None:
        """Decide between two steps, and note that it was done: who takes over does the same."""
        gate_rows.put_happenings(
            conn, str(row["tenant"]), kept.rollout_id, [(now, 0, keeping.EARLY)]
        )
        kept.feed(gate_rows.happenings(conn, kept.rollout_id, kept.position), self._introduce)
        if kept.decision is not None and kept.decision.verdict != "go":
            kept.save()

    def _store(self, conn: Connection, kept: Kept, tenant: str, now: int) -> None:
        """Write the decision, what is left of it to whom, and the state where there is a new one."""
        decision = kept.decision
        assert decision is not None  # noqa: S101 - there is one since the gate was opened
        values: dict[str, Any] = {"decision": keeping.text_of(decision), "decided_at": now}
        saved = kept.unsaved
        if saved is not None:
            values |= {
                "position": saved.position,
                "stepped_at": saved.stepped_at,
                "harm": saved.harm,
                "snapshot": saved.snapshot,
                "digest": saved.digest,
                "facts": saved.facts,
            }
            gate_rows.forget_happenings(conn, kept.rollout_id, saved.position)
            for page in saved.pages:
                gate_rows.add_facts(
                    conn, tenant, kept.rollout_id, page.at, page.body, page.digest, page.harm
                )
        if not gate_rows.change_state(conn, kept.rollout_id, kept.generation, values):
            raise RuntimeError("the gate's state moved inside a transaction")
        kept.generation += 1
        kept.saved()
        gate_rows.set_parts(conn, tenant, kept.rollout_id, _parts(kept, decision))
        gate_rows.set_sites(conn, tenant, kept.rollout_id, _sites(kept))


class _Fits:
    """Says of a row whether it is an accepted device of a product."""

    def __init__(self, fleet: Fleet, product: str) -> None:
        self._fleet = fleet
        self._product = product

    def __call__(self, row: int) -> bool:
        fleet = self._fleet
        return (
            0 < row < len(fleet.ids)
            and fleet.state[row] == ACCEPTED
            and fleet.product_of(row) == self._product
        )


def remembered(conn: Connection, row: Row, model: Rollout, now: int) -> Decision | None:  # noqa: ARG001 - of the shape of `Keeper.weigh`
    """Return the decision that was stored last, its permits as they are left; None = there is none. For whoever keeps nothing in memory."""
    rollout_id = int(row["id"])
    text = gate_rows.decision(conn, rollout_id)
    if not text:
        return None
    decision = keeping.decision_of(text)
    left = {one.name: max(0, one.room) for one in gate_rows.rooms(conn, rollout_id, gate_rows.PART)}
    permits = {name: left.get(f"{VARIANT}={name}", 0) for name in decision.permits}
    return msgspec.structs.replace(decision, permits=permits)


def _parts(kept: Kept, decision: Decision) -> list[tuple[str, int, str]]:
    """Return what a decision leaves to each part, as (name, room, why there is no more)."""
    scheme = kept.book.scheme
    odds = {one.name: one.odds for one in decision.needles}
    found = []
    for name, stratum in scheme.variants.items():
        title = scheme.strata[stratum].name
        found.append((title, decision.permits.get(name, 0), _because(title, odds, decision)))
    for stratum, room in decision.caps.items():
        title = scheme.strata[stratum].name
        found.append((title, room, _because(title, odds, decision)))
    return found


def _because(title: str, odds: dict[str, float], decision: Decision) -> str:
    against = odds.get(title, 1.0)
    if decision.verdict != "go":
        return "the evidence is against the release"
    if against >= 2:
        return f"{title}: the odds against it are {against:,.0f} : 1; few permits an hour until they fall"
    return f"as many devices are on their way as may be now: {decision.limits}"


def _sites(kept: Kept) -> list[tuple[str, int, str]]:
    """Return the rooms of sites that differ from what was written."""
    desk = kept.roster.watch.desk
    found = []
    looked = kept.touched | (kept.site_rooms.keys() if kept.all_sites else set())
    for site in sorted(looked - {""}):
        room = desk.site_room(site)
        if site in kept.touched or kept.site_rooms[site] != room:
            kept.site_rooms[site] = room
            found.append((site, room, rooms.at_site(site, doubted=desk.doubted)))
    kept.touched.clear()
    kept.all_sites = False
    return found


def _patient(harm: Harm, known: Harm) -> Harm:
    """Return settings with the patience that the gate was opened with."""
    return msgspec.structs.replace(
        harm,
        report_s=max(harm.report_s, known.report_s),
        away_s=known.away_s,
        again_s=max(harm.again_s, known.again_s),
    )


def _model(row: Row, policy: Policy) -> Rollout:
    """Return as much of a rollout as says whom it is for."""
    return Rollout(
        name=str(row["name"]),
        release_sha256=str(row["release_sha256"]),
        state=row["state"],
        generation=int(row["generation"]),
        policy=policy,
        rings=(),
        isolated=tuple(row["isolated"]),
    )
