"""What the API tells, as plain structs: rollouts, evidence, releases, devices, events, the fleet. Times are unix seconds; shares are basis points."""

from typing import Any

import msgspec

from tidegate.core.authority import Mandate
from tidegate.core.protocol import DeliveryPolicy
from tidegate.core.release import ReleaseTarget
from tidegate.rollout.explain import Check
from tidegate.rollout.levels import Level
from tidegate.rollout.model import Approval, Finding, Policy, RingProgress
from tidegate.rollout.terms import Term
from tidegate.server.fixed import FixedFacts
from tidegate.server.gatekeeper.facts import GateFacts
from tidegate.server.incidents import IncidentFacts
from tidegate.server.supply import AttachmentNotes


class RolloutFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout, as the API gives it. `mandate` is the schedule that the release's signers set; a way back has none."""

    name: str
    kind: str
    parent: str | None
    children: tuple[str, ...]
    release: str
    release_counter: int
    product: str
    audience: str
    state: str
    generation: int
    policy: Policy
    rings: tuple[RingProgress, ...]
    isolated: tuple[str, ...]
    approvals: tuple[Approval, ...]
    delivery: DeliveryPolicy
    because: tuple[Finding, ...]
    room: int | None
    start_at: int
    created_at: int
    created_by: str
    started_at: int | None
    halted_at: int | None
    halted_by: str | None
    halt_reason: str | None
    ended_at: int | None
    incidents: tuple[str, ...] = ()
    mandate: Mandate | None = None
    #: Of a halted one: the release that its devices can be ordered back to at once.
    way_back: str = ""
    #: How much it asks of a device (`rollout.levels`), and all that it asks, in words.
    level: Level = "required"
    terms: tuple[Term, ...] = ()
    #: Of one that fetches ahead: when activation was let go (unix seconds).
    released_at: int | None = None
    #: Of one whose audience was fixed when it was made.
    snapshot: FixedFacts | None = None


class TallyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one ring and variant; the fields of `rollout.model.Tally`, with what follows from them."""

    ring: str
    variant: str
    audience: int
    offered: int
    downloading: int
    staged: int
    exposed: int
    rebooting: int
    verifying: int
    confirmed: int
    reverted: int
    failed_after: int
    lost: int
    failed_before: int
    transfer: int
    install: int
    declined: int
    retried: int
    unstarted: int
    last_permit_at: int
    last_confirmed_at: int
    reasons: dict[str, int]
    harmed: int
    attempts: int
    pending: int


class ExposureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Errors and device time of one variant, in the arm `updated` or `control`; `top` is what the one device with most errors had, where that is known."""

    variant: str
    arm: str
    errors: int
    device_s: int
    devices: int
    top: int = 0


class EvidenceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about a rollout, at a position of the event log; `gate` = the evidence against it, where its policy has such a guard."""

    rollout: str
    position: int
    tallies: tuple[TallyFacts, ...]
    exposure: tuple[ExposureFacts, ...]
    gate: GateFacts | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rollout's story."""

    id: int
    at: int
    generation: int
    actor: str
    action: str
    text: str
    because: tuple[Finding, ...]


class ArtifactFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact of a release: what stands in the slot, how much is transferred, what is signed."""

    path: str
    component: str
    install_size: int
    install_sha256: str
    length: int
    sha256: str
    target: ReleaseTarget


class AttachmentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A document of an artifact: what is signed about it, and what the server read from it."""

    component: str
    kind: str
    format: str
    name: str
    sha256: str
    length: int
    notes: AttachmentNotes


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A release, as the API gives it. `devices` run it now."""

    name: str
    product: str
    version: str
    counter: int
    security_version: int
    release_sha256: str
    channels: tuple[str, ...]
    kind: str
    state: str
    recalled_at: int | None
    recall_reason: str | None
    published_at: int
    published_by: str
    signers: tuple[str, ...]
    devices: int
    artifacts: tuple[ArtifactFacts, ...] = ()
    mandate: Mandate | None = None
    attachments: tuple[AttachmentFacts, ...] = ()


class UpdateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One update of a device."""

    id: str
    rollout: str
    attempt: int
    state: str
    reason: str | None
    detail: str
    ring: str
    from_counter: int
    release_counter: int
    offered_at: int
    state_at: int
    permitted_at: int | None
    deadline_at: int | None
    ended_at: int | None
    bytes: int
    resumes: int


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A device, as the API gives it. Its own words (attributes, serial, inhibitors) are untrusted text."""

    id: str
    state: str
    product: str
    model: str
    rev: int
    variant: str
    serial: str
    channel: str
    region: str
    site: str
    connectivity: str
    agent: str
    attributes: dict[str, Any]
    tags: tuple[str, ...]
    groups: tuple[str, ...]
    running_counter: int
    running_version: str
    running_sha256: str | None
    confirmed_at: int
    security_floor: int
    slots: dict[str, Any]
    refuses: tuple[str, ...]
    held: bool
    held_by: str
    inhibitors: tuple[str, ...]
    waiting: str
    #: Runs of the machine that ended although nobody had asked for it; when the last one was told, and what ended it: `panic`, `watchdog`, `unknown`.
    restarts: int
    restarted_at: int
    restart_cause: str
    last_seen: int
    enrolled_at: int
    key_sha256: str
    #: The same as eight words: what a person compares with what the device shows.
    key_words: str = ""
    #: Raised with every new key, and whenever sessions were ended.
    key_gen: int = 1
    #: Beginning of the digest of a new key that an operator approved, until it comes.
    key_promised: str = ""
    rekey: bool = False
    #: What it told of what it keeps beside its slots: counter and digest, by name.
    components: dict[str, Any] = {}
    update: UpdateFacts | None = None


class EventFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a device reported. `body` is what it sent, checked in form; `signed` = by the device's own key."""

    position: int
    device: str
    seq: int
    received_at: int
    at: int
    kind: str
    update: str | None
    attempt: int
    reason: str | None
    signed: bool
    body: dict[str, Any]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a device is, or is not, updating: the checks in order; the first that is not ok is the verdict."""

    device: str
    rollout: str
    release: str
    verdict: str
    checks: tuple[Check, ...]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices run a release."""

    product: str
    counter: int
    version: str
    devices: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet on one screen. `single_operator` = the two-person rule cannot be kept."""

    at: int
    devices: dict[str, int]
    seen_24h: int
    firmware: tuple[Running, ...]
    rollouts: dict[str, int]
    active: tuple[RolloutFacts, ...]
    incidents: tuple[IncidentFacts, ...]
    approvals: int
    pending_devices: int
    gate_epoch: int
    single_operator: bool
    accounts: int
