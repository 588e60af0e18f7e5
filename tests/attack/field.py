"""A device in the field that runs a bad build, and a thief who holds the director's key: what the attacks are played with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.crash.lab import Device, Order, make_device
from tests.crash.releases import DAY, make_release, signer

from tidegate.agent.state import Idle, State
from tidegate.core.grant import GRANT_TYPE, Cohort, GrantBody, Leaving, Resume, Return
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import Signer, add_signature, sign_document
from tidegate.core.merkle import CohortProof, levels, prove
from tidegate.core.metadata import RoleKeys
from tidegate.core.protocol import ASSIGNMENT_TYPE, AssignmentBody, Envelope, EventBody

GOOD, BEFORE, BAD = 1, 2, 3
SECURITY = 6
INCIDENT = (signer("incident 0"), signer("incident 1"))
COHORT = tuple(f"dev-{number}" for number in range(1, 12))
_LEVELS = levels(COHORT)
_JOINED = b"".join(_LEVELS)

Twist = Callable[[AssignmentBody], AssignmentBody | Envelope]


def proof_of(device_id: str) -> CohortProof | None:
    """Return a device's place in the cohort."""
    return prove(lambda at, count: _JOINED[at : at + count], len(COHORT), device_id)


@dataclass
class Field:
    """One device that runs BAD (counter 3) and holds BEFORE (2) in its other slot; GOOD (1) has to be downloaded.

    Attributes:
        twist: what the thief does to an assignment before it is signed; an envelope is sent as it is.
        grant, proof: what goes with an order back.
    """

    device: Device
    twist: Twist | None = None
    grant: Envelope | None = None
    proof: CohortProof | None = field(default_factory=lambda: proof_of("dev-1"))
    sent: list[Envelope] = field(default_factory=list)

    @property
    def plane(self) -> Any:
        """The control plane, in the thief's hands."""
        return self.device.plane

    @property
    def state(self) -> State:
        """What the agent knows."""
        assert self.device.runner is not None
        return self.device.runner.state

    def assign(self, body: AssignmentBody) -> Envelope:
        """Sign what the device is told."""
        if body.action == "fallback":
            body = msgspec.structs.replace(body, grant=self.grant, cohort_proof=self.proof)
        made = body if self.twist is None else self.twist(body)
        if isinstance(made, AssignmentBody):
            made = sign_document(made, ASSIGNMENT_TYPE, self.plane.director)
        self.sent.append(made)
        return made

    def order(self, action: str, counter: int = 0, update: str = "u-x", attempt: int = 1) -> None:
        """Give an order."""
        release = next(
            (one for one in self.plane.releases if one.target.release.release_counter == counter),
            None,
        )
        self.plane.order = Order(action, release, update if release else None, attempt)

    def live(self, limit_s: float = 7200.0) -> None:
        """Run until the order had an outcome that was told, or time is up."""
        for runner in self.device.run(limit_s):
            if self.plane.outcomes():
                self.plane.order = None
            resting = isinstance(runner.state.phase, Idle) and not runner.state.outbox
            if self.plane.order is None and resting and not runner.busy:
                break

    def install(self, counter: int, update: str = "u-x") -> None:
        """Order an install and see it through."""
        self.order("install", counter, update)
        self.live()

    def back(self, counter: int = GOOD, update: str = "u-back", attempt: int = 1) -> None:
        """Order a way back and see it through."""
        self.order("fallback", counter, update, attempt)
        self.live()

    def forget(self) -> None:
        """Let the plane forget what it heard."""
        self.plane.events = {
            seq: one for seq, one in self.plane.events.items() if one.kind == "heartbeat"
        }
        self.plane.requests.clear()

    def alarms(self) -> list[str | None]:
        """Return the reasons of the security events that arrived."""
        return [one.reason for one in self.events() if one.kind == "security"]

    def events(self) -> list[EventBody]:
        """Return what was reported, in order."""
        return [one for _, one in sorted(self.plane.events.items())]

    def slots(self) -> dict[str, bytes]:
        """Return what stands in the slots."""
        board = self.device.board
        found = {}
        for name in board.slots():
            slot = board.open_slot(name)
            found[name] = slot.read_at(0, 64 * 4096)
            slot.close()
        return found

    def refuses(self, attack: Callable[[], None], code: str) -> None:
        """Hold that an attack changes nothing on the device and arrives at the server under its own code."""
        before, runs = self.slots(), self.device.runs
        kept = (self.state.floor, self.state.fallback_last, self.state.resume_min)
        permits = dict(self.plane.permits)
        # What was told is not told again within the hour.
        self.plane.clock.wait_until(self.plane.clock.at() + 4000)
        self.forget()
        attack()
        assert code in self.alarms(), (self.alarms(), self.plane.outcomes())
        # A clock that is found to be wrong is told beside it.
        assert set(self.alarms()) - {"clock.untrusted"} == {code}
        assert self.device.runs == runs
        assert self.slots() == before
        assert self.plane.permits == permits
        assert (self.state.floor, self.state.fallback_last, self.state.resume_min) == kept
        assert not [one for one in self.plane.requests if "/blobs/" in one]
        assert "confirmed" not in self.plane.kinds()
        self.plane.order = None
        self.forget()


def in_the_field(*, way_back: bool = False) -> Field:
    """Make a device, bring it to the bad build through the one before, and hand its server to the thief.

    Args:
        way_back: whether the bad build's own `fallback_to` names its predecessor.
    """
    device = make_device(GOOD, BEFORE, BAD)
    plane = device.plane
    plane.incident = RoleKeys(tuple(one.public for one in INCIDENT), 2)
    plane.floor = SECURITY - 1
    plane.releases = tuple(_release(counter, way_back=way_back) for counter in (1, 2, 3))
    plane.roots.clear()
    plane.publish()
    device.settings = msgspec.structs.replace(device.settings, anchor=plane.root)
    found = Field(device)
    plane.assign = found.assign  # type: ignore[method-assign]
    for counter in (BEFORE, BAD):
        found.install(counter, f"u-{counter}")
        assert device.runs == counter, plane.outcomes()
        found.forget()
    return found


def _release(counter: int, *, way_back: bool) -> Any:
    changes: dict[str, object] = {"security_version": SECURITY}
    if not way_back:
        changes["fallback_to"] = ()
    return make_release(counter, **changes)


def grant(found: Field, **changes: object) -> GrantBody:
    """Write the grant that leads the cohort from BAD to GOOD."""
    releases = {one.target.release.release_counter: one.target for one in found.plane.releases}
    now = int(found.plane.clock.wall())
    good, bad = releases[GOOD], releases[BAD]
    body = GrantBody(
        product="gw1",
        epoch=found.plane.epoch,
        serial=7,
        incident="INC-2026-014",
        reason="boot loops",
        hardware=(HardwareRange("gw1", 3, 4),),
        cohort=Cohort(merkle_root=_LEVELS[-1].hex(), count=len(COHORT)),
        leaving=(Leaving(release_counter=BAD, sha256=bad.release.install.sha256),),
        to=(
            Return(
                path=good.path,
                length=good.length,
                sha256=good.sha256,
                release_counter=GOOD,
                security_version=good.release.security_version,
            ),
        ),
        resume=Resume(min_counter=BAD + 1),
        issued=now,
        expires=now + 14 * DAY,
    )
    return msgspec.structs.replace(body, **changes)


def signed(body: GrantBody, *signers: Signer) -> Envelope:
    """Put a grant into an envelope signed by the incident ring, or by others."""
    first, *rest = signers or INCIDENT
    envelope = sign_document(body, GRANT_TYPE, first)
    for one in rest:
        envelope = add_signature(envelope, one)
    return envelope
