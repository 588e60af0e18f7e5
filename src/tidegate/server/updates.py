"""What a device should do now: evaluated when it asks, inside a transaction, so that a halt is effective from its acknowledgement.

The first time that a rollout admits a device, its update row is made; there is none before. Decided elsewhere: who is in which ring (`rollout.cohort`), what
may follow what (`core.release.refusal`), and leave to activate (`server.permits`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.grant import Holder
from tidegate.core.protocol import (
    HELD_UNTIL,
    AssignedTarget,
    AssignmentBody,
    AssignmentRequest,
    DeliveryPolicy,
    DeviceState,
    RepoBinding,
)
from tidegate.core.release import ReleaseTarget, Running, refusal
from tidegate.rollout import keeping
from tidegate.rollout.retry import Ended, Ruling, rule
from tidegate.server import egress, outcomes, snapshot, telemetry
from tidegate.server.egress import UNBOUNDED, Budget, Wait
from tidegate.server.granted import Way, Ways
from tidegate.server.snapshot import Live
from tidegate.server.store import (
    Connection,
    changes,
    device_queries,
    hot,
    release_queries,
    rollout_rows,
)
from tidegate.server.store.hot import UpdateRow

Artifact = tuple[str, int, str, ReleaseTarget]

#: An assignment is good for this long; a device asks anew anyway.
VALID_S: Final = 24 * 3600
_HALTED: Final = "operator.halted"


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the server's state goes into every assignment.

    Attributes:
        repo: lowest metadata versions to be used with it; None before there is a repository.
        epoch: of the director's authority, from root.
        poll_after_s: when the device should ask again.
        ways: ways back that the incident ring granted; None where there are none.
        budget: of bytes, for downloads that begin.
    """

    repo: Callable[[], RepoBinding | None]
    epoch: Callable[[], int]
    poll_after_s: int = 300
    ways: Ways | None = None
    budget: Budget = UNBOUNDED


@dataclass(frozen=True, slots=True)
class _Choice:
    action: str
    update: UpdateRow | None = None
    live: Live | None = None
    artifact: Artifact | None = None
    because: str = ""
    way: Way | None = None


class Assigned(NamedTuple):
    """An assignment, and whether the next one will be the same as long as neither plan nor device change."""

    body: AssignmentBody
    settled: bool


def assign(
    conn: Connection, row: int, request: AssignmentRequest, terms: Terms, now: int
) -> Assigned:
    """Return what the device should do, and write what follows from it: its own word on its state, and the update row at its first admission.

    Args:
        conn: of a unit of work on the writer.
        row: of the device.
        request: from the device; believed only as far as it narrows.
        terms: the server's.
        now: unix seconds.

    Raises:
        RequestError: `device.unknown`.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    seq = _next_seq(device.assignment_seq, request.state.assignment_seq, now)
    note_state(conn, device, request.state, seq, now)
    decision = _Decision(conn, device, request.state, terms, now)
    choice = decision.choose()
    if request.state.waiting and _just_offered(choice.update, now):
        device_queries.change(conn, row, {"waiting": ""})  # it waited with what it had before
    body = AssignmentBody(
        tenant=device.tenant,
        device_id=device.id,
        device_key=device.key_sha256,
        epoch=terms.epoch(),
        seq=seq,
        issued=now,
        expires=now + VALID_S,
        nonce=request.nonce,
        action=choice.action,  # type: ignore[arg-type]  # one of the four
        update=choice.update.id if choice.update else None,
        attempt=choice.update.attempt if choice.update else 1,
        rollout=choice.live.rollout.name if choice.live else "",
        ring=choice.update.ring if choice.update else "",
        reason=choice.because,
        target=_assigned(choice.artifact),
        repo=terms.repo(),
        allow_refused=choice.live is not None and may_repeat(choice.live, choice.update),
        policy=decision.delivery(choice),
        poll_after_s=max(terms.poll_after_s, decision.after_s if choice.action == "none" else 0),
        grant=choice.way.grant if choice.way else None,
        cohort_proof=choice.way.proof if choice.way else None,
    )
    # The end of a hold on the device is news that only its next question brings.
    settled = choice.action in {"none", "hold"} and not decision.later and not request.state.held
    return Assigned(body, settled=settled)


def _next_seq(last: int, claimed: int, now: int) -> int:
    """Return a number above all that went before; also after a restore from a backup, since it follows the clock, and the device's own word within a day."""
    floor = now * 1000
    believed = claimed if claimed < floor + 86_400_000 else 0
    return max(last, believed, floor - 1) + 1


def _assigned(artifact: Artifact | None) -> AssignedTarget | None:
    if artifact is None:
        return None
    path, length, digest, target = artifact
    return AssignedTarget(
        path=path,
        length=length,
        sha256=digest,
        product=target.product,
        release_counter=target.release_counter,
        security_version=target.security_version,
        hardware=target.hardware,
        channels=target.channels,
    )


def note_state(conn: Connection, device: Any, state: DeviceState, seq: int, now: int) -> None:
    """Write what a device says of itself. Product and hardware were fixed when it was accepted."""
    values: dict[str, Any] = {
        "assignment_seq": seq,
        "last_seen": max(now, device.last_seen),
        "channel": state.channel,
        "agent": state.agent,
        "security_floor": _floor(conn, device, state.security_floor),
        "slots": {name: _plain_slot(slot) for name, slot in state.slots.items()},
        "refuses": list(state.refuses),
        "inhibitors": list(state.inhibitors),
        "waiting": state.waiting,
        "components": msgspec.to_builtins(state.components),
    }
    if device.held_by in {"", "device"}:
        values |= {"held": int(state.held), "held_by": "device" if state.held else ""}
    if state.attributes:
        values["attributes"] = _merged(device.attributes, state.attributes, device.given or {})
    device_queries.change(conn, device.row, values)
    changes.notify(conn, "device", str(device.row))
    slot = state.slots.get(state.running)
    known = hot.device(conn, device.row)
    if slot is None or slot.state != "confirmed" or known is None:
        return
    # A newer release of components beside the slots: its own report says which version and digest that is.
    newer = state.release_counter > slot.release_counter
    counter = max(slot.release_counter, state.release_counter)
    if counter != known.running_counter:
        sha256, version = (None, "") if newer else (slot.sha256, slot.version)
        telemetry.move_running(conn, known, counter, sha256, version, now)


def _floor(conn: Connection, device: Any, told: int) -> int:
    """Return a device's security floor with what it tells of it now (unproved).

    It only rises, and no further than an image led it that there is: else whoever holds a token for a day could bar a device from every release for ever.
    """
    known = int(device.security_floor)
    if told <= known:
        return known
    return max(known, min(told, release_queries.security_version_max(conn, device.product)))


def _plain_slot(slot: Any) -> dict[str, Any]:
    return {
        "state": slot.state,
        "release_counter": slot.release_counter,
        "security_version": slot.security_version,
        "version": slot.version,
        "sha256": slot.sha256,
    }


def _merged(old: dict[str, Any], own: dict[str, str], given: dict[str, str]) -> dict[str, Any]:
    """Return the device's own attributes, with the operator's tags and what the factory's list gave kept: those are not the device's to write."""
    kept = {snapshot.TAGS: old[snapshot.TAGS]} if snapshot.TAGS in old else {}
    return {name: value for name, value in own.items() if name != snapshot.TAGS} | given | kept


def _was_halted(update: UpdateRow) -> bool:
    """Say whether a halt ended an update before its device had leave."""
    return (update.state, update.reason) == ("cancelled", _HALTED)


def again(conn: Connection, live: Live, update: UpdateRow, now: int) -> Ruling | None:
    """Return what the rollout's policy says about another attempt of an update that has ended; None where there is no question of one."""
    if (
        update.state not in {"failed", "declined", "lost"}
        or update.permitted_at is not None
        or not live.proceeds
        or update.variant in live.rollout.isolated
    ):
        return None
    ended = Ended(
        update.state, update.reason or "", update.attempt, update.state_at, update.device_row
    )
    counts = {"retried": 0, "offered": 0}
    for _, _, name, value in hot.tallies(conn, live.row.id):
        if name in counts:
            counts[name] += value
    return rule(live.rollout.policy.retry, ended, now=now, **counts)


def _just_offered(update: UpdateRow | None, now: int) -> bool:
    return update is not None and update.state == "offered" and update.state_at == now


def may_repeat(live: Live, update: UpdateRow | None) -> bool:
    """Say whether a device is let try an image that it refuses: its rollout says so, or its owner declined it and the retry policy asks once more.

    A second attempt is never one after a failure: those are not repeated (`rollout.retry`).
    """
    if live.delivery.retry_refused:
        return True
    return update is not None and (update.attempt > 1 or update.reason == "user.declined")


class _Decision:
    """One device's question against every live rollout of its product."""

    def __init__(
        self, conn: Connection, device: Any, state: DeviceState, terms: Terms, now: int
    ) -> None:
        self.conn = conn
        self.state = state
        self.terms = terms
        self.now = now
        fresh = device_queries.by_row(conn, device.row)
        self.device: Any = fresh
        self.facts = snapshot.facts_of(conn, fresh, now)
        slot = state.slots.get(state.running)
        self.running = Running(
            release_counter=slot.release_counter if slot else 0,
            security_version=slot.security_version if slot else 0,
            sha256=slot.sha256 if slot else None,
            version=slot.version if slot else "",
        )
        self.later = False
        self.wait: Wait | None = None
        self.after_s = 0
        self.way: Way | None = None
        self.updates = {one.rollout_id: one for one in hot.updates_of(conn, device.row)}

    def choose(self) -> _Choice:
        """Return the first that applies: an update past the point of no return, a way back, what is under way, something new."""
        device = self.device
        if device.state != "accepted":
            return _Choice("none", because=f"the device is {device.state}")
        if self.terms.repo() is None:
            return _Choice("none", because="no root of trust yet")
        lives = snapshot.load_live(self.conn, device.product)
        under_way = [one for one in self.updates.values() if one.state in outcomes.OPEN]
        for update in under_way:
            if update.state in outcomes.AFTER:
                return self._go_on(update, lives)
        wished = self._offer(lives)
        if wished is not None:
            return wished
        for update in under_way:
            return self._go_on(update, lives)
        for live in lives:
            ended = self.updates.get(live.row.id)
            if live.row.state == "halted" and ended is not None and _was_halted(ended):
                return _Choice("hold", ended, live, because=_HALTED)  # it may not have heard it
        return _Choice("none", because=str(self.wait or "nothing for this device now"))

    def delivery(self, choice: _Choice) -> DeliveryPolicy:
        """Return when and how fast. What was fetched ahead waits on the device, which need not ask for leave again and again, until it is let go."""
        if choice.live is None:
            return DeliveryPolicy()
        staged = choice.update is not None and choice.update.state == "staged"
        if not staged or not snapshot.activation_bar(choice.live, self.facts):
            return choice.live.delivery
        return msgspec.structs.replace(choice.live.delivery, not_before=HELD_UNTIL)

    def _offer(self, lives: list[Live]) -> _Choice | None:
        """Return the first rollout that wants this device and is not the one under way already."""
        if self.device.held or self.state.held:
            return None
        for live in lives:
            update = self.updates.get(live.row.id)
            if update is not None and update.state in outcomes.BEFORE:
                return None  # what is under way comes before anything further down the list
            choice = self._again(live, update) if update is not None else self._admit(live)
            if choice is not None:
                self._supersede(choice)
                return choice
        return None

    def _admit(self, live: Live) -> _Choice | None:
        if not live.admits:
            return None
        ring, _ = snapshot.ring_for(live, self.facts)
        if ring is None:
            return None
        artifact, _ = self.pick(live)
        if artifact is None or not self._its_turn(live) or self._must_wait(live, artifact):
            return None
        update = UpdateRow(
            id=f"u-{live.row.id}-{self.device.row}", tenant=self.device.tenant,
            rollout_id=live.row.id, device_row=self.device.row, attempt=1, state="offered",
            reason=None, detail="", ring=ring, variant=self.device.variant,
            from_counter=self.running.release_counter, from_sha256=self.running.sha256,
            release_counter=live.row.counter, offered_at=self.now, state_at=self.now,
            permitted_at=None, deadline_at=self._start_by(live), ended_at=None, bytes=0, resumes=0,
        )  # fmt: skip
        outcomes.book(self.conn, None, update, product=self.device.product, now=self.now)
        return self._install(live, update, artifact)

    def _its_turn(self, live: Live) -> bool:
        """Say whether the release's signers let this device have it now; by the device's own clock as well, so that it is not offered what it must wait for."""
        if live.bar(self.facts.id, self.now) is not None:
            return False  # the plan counts as new when the next step opens
        told = self.state.offline_now
        if told and live.bar(self.facts.id, min(told, self.now)) is not None:
            self.later = True
            return False
        return True

    def _must_wait(self, live: Live, artifact: Artifact) -> bool:
        """Say whether the budget of bytes is spent. A way back to what stands in the other slot fetches nothing."""
        if live.row.kind == "fallback" and live.row.grant_id is None:
            return False
        self.wait = egress.take(
            self.conn, self.terms.budget, tenant=self.device.tenant, site=self.device.site,
            length=artifact[1], now=self.now,
        )  # fmt: skip
        if self.wait is not None:
            self.later, self.after_s = True, self.wait.after_s
        return self.wait is not None

    def _again(self, live: Live, update: UpdateRow) -> _Choice | None:
        """Offer once more what ended before its permit, as the rollout's policy says, and go on with what a halt ended."""
        if _was_halted(update):
            return self._resumed(live, update)
        ruling = again(self.conn, live, update, self.now)
        if ruling is None or not ruling.again or self._kept_out(live, update):
            return None
        if ruling.wait_s:
            self.later, self.after_s = True, min(ruling.wait_s, egress.WAIT_MAX_S)
            return None
        artifact, _ = self.pick(live, update)
        if artifact is None or self._must_wait(live, artifact):
            return None
        new = update._replace(
            attempt=ruling.attempt, state="offered", reason=None, detail="", state_at=self.now,
            ended_at=None, deadline_at=self._start_by(live),
        )  # fmt: skip
        outcomes.book(self.conn, update, new, product=self.device.product, now=self.now)
        return self._install(live, new, artifact)

    def _start_by(self, live: Live) -> int | None:
        start_s = live.rollout.policy.deadlines.start_s
        return self.now + start_s if start_s else None

    def _resumed(self, live: Live, update: UpdateRow) -> _Choice | None:
        """Offer the same attempt again, after its rollout was halted and resumed: what the device fetched is still there."""
        if not live.admits or self._kept_out(live, update):
            return None
        artifact, _ = self.pick(live, update)
        if artifact is None or not self._its_turn(live) or self._must_wait(live, artifact):
            return None
        new = update._replace(
            state="offered", reason=None, state_at=self.now, ended_at=None,
            deadline_at=self._start_by(live),
        )  # fmt: skip
        outcomes.book(self.conn, update, new, product=self.device.product, now=self.now)
        return self._install(live, new, artifact)

    def _kept_out(self, live: Live, update: UpdateRow) -> str:
        """Return what keeps this device out of a rollout that has admitted it, or an empty text."""
        isolated = live.rollout.isolated
        for variant in (update.variant, self.device.variant):
            if variant in isolated:
                return str(variant)
        return keeping.kept_out(keeping.queries(isolated), "", self.facts.attrs)

    def _supersede(self, choice: _Choice) -> None:
        for other in self.updates.values():
            if other.state in outcomes.BEFORE and choice.update and other.id != choice.update.id:
                outcomes.end(
                    self.conn, other, "superseded", "operator.cancelled",
                    product=self.device.product, now=self.now,
                )  # fmt: skip

    def _go_on(self, update: UpdateRow, lives: list[Live]) -> _Choice:
        """Answer for an update that is under way: go on, keep still, or nothing more."""
        live = next((one for one in lives if one.row.id == update.rollout_id), None)
        if live is None or live.row.release_state != "live":
            reason = "operator.cancelled" if live is None else "operator.recalled"
            if update.state in outcomes.BEFORE:
                outcomes.end(
                    self.conn, update, "cancelled", reason,
                    product=self.device.product, now=self.now,
                )  # fmt: skip
                return _Choice("none", because=reason)
            return _Choice("hold", update, live, because=reason)
        if live.row.state == "halted" and update.state in outcomes.BEFORE:
            ended = outcomes.end(
                self.conn, update, "cancelled", _HALTED,
                product=self.device.product, now=self.now,
            )  # fmt: skip
            # Not "none": the device remembers that it was held back, also against the same image from a stick.
            return _Choice("hold", ended, live, because=_HALTED)
        if not live.proceeds:
            return _Choice("hold", update, live, because=f"the rollout is {live.row.state}")
        kept_out = self._kept_out(live, update)
        if kept_out:
            return _Choice("hold", update, live, because=f"{kept_out} is isolated")
        if self.device.held:
            return _Choice("hold", update, live, because="the device is held")
        artifact, refused = self.pick(live, update)
        if artifact is None:
            return _Choice("hold", update, live, because=refused)
        return self._install(live, update, artifact)

    def _install(self, live: Live, update: UpdateRow, artifact: Artifact) -> _Choice:
        action = "fallback" if live.row.kind == "fallback" else "install"
        way = self.way if live.row.grant_id is not None else None
        return _Choice(action, update, live, artifact, way=way)

    def pick(self, live: Live, update: UpdateRow | None = None) -> tuple[Artifact | None, str]:
        """Return the artifact of a rollout's release for this device, or None and the reason for which the device would refuse."""
        if live.row.kind == "fallback":
            return self._pick_way_back(live)
        reason = "compat.hardware"
        for artifact in snapshot.targets_of(self.conn, live.row.release_id):
            found = self._refusal(artifact[3], fallback=False)
            again = may_repeat(live, update)
            if found is None and not again and artifact[3].digest in self.state.refuses:
                found = "operator.recalled" if live.row.release_state != "live" else "refused"
            if found is None:
                return artifact, ""
            if found != "compat.hardware":
                reason = found
        return None, reason

    def _refusal(self, target: ReleaseTarget, *, fallback: bool) -> str | None:
        floor = max(self.state.security_floor, self.device.security_floor)
        return refusal(
            target, hardware=self.facts.hardware, channel=self.state.channel,
            running=self.running, floor=floor, agent=self.state.agent,
            components=self.state.components,
            fallback=fallback, resume_min=self.state.resume_min,
        )  # fmt: skip

    def _pick_granted(self, live: Live, grant_id: int) -> tuple[Artifact | None, str]:
        """Return the image that the incident ring's grant leads this device back to."""
        if self.terms.ways is None:
            return None, "sig.unknown_key"
        holder = Holder(
            device_id=self.device.id,
            product=self.device.product,
            hardware=self.facts.hardware,
            running=self.running,
            release=next(iter(self._running_targets()), None),
            floor=max(self.state.security_floor, self.device.security_floor),
            last=self.state.fallback_last,
        )
        update = f"u-{live.row.id}-{self.device.row}"
        way = self.terms.ways.find(self.conn, grant_id, holder, update, self.now)
        if isinstance(way, str):
            return None, way
        refused = self._refusal(way.found.release, fallback=True)
        if refused is not None:
            return None, refused
        self.way = way
        return (way.found.path, way.found.length, way.found.sha256, way.found.release), ""

    def _pick_way_back(self, live: Live) -> tuple[Artifact | None, str]:
        """Return the image that stands confirmed in the other slot, where the running release itself allows the way back, or what a grant allows."""
        if self.running.release_counter != live.row.parent_counter:
            return None, "compat.counter"
        if live.row.grant_id is not None:
            return self._pick_granted(live, live.row.grant_id)
        allowed = self._allowed_counters()
        others = [
            slot.sha256
            for name, slot in self.state.slots.items()
            if name != self.state.running and slot.state == "confirmed"
        ]
        for artifact in snapshot.targets_of(self.conn, live.row.release_id):
            target = artifact[3]
            if (
                target.release_counter in allowed
                and target.install.sha256 in others
                and all(one.components <= target.components for one in self._running_targets())
                and self._refusal(target, fallback=True) is None
            ):
                return artifact, ""
        return None, "compat.counter"

    def _running_targets(self) -> list[ReleaseTarget]:
        """Return what is signed about the image that the device says it runs."""
        texts = rollout_rows.targets_of_counter(
            self.conn, self.device.tenant, self.device.product, self.running.release_counter
        )
        found = [msgspec.json.decode(text, type=ReleaseTarget) for text in texts]
        return [one for one in found if one.install.sha256 == self.running.sha256]

    def _allowed_counters(self) -> set[int]:
        return {
            one.counter
            for target in self._running_targets()
            for one in target.fallback_to
            if one.expires > self.now
        }
