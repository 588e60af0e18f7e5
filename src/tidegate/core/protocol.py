"""Tidegate's own wire messages between device and server, as `docs/reference/protocol.md` pins them.

Everything here is untrusted until a signature or a token says otherwise; every string and list has a limit. Messages may grow fields; readers skip what
they do not know. Signed documents (`*Body`) obey `crit`.
"""

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.codec import INTEGER_MAX
from tidegate.core.hardware import Hardware, HardwareRange, Name
from tidegate.core.merkle import CohortProof
from tidegate.core.release import (
    Channel,
    Components,
    Counter,
    Seconds,
    SecurityVersion,
    Sha256,
    Size,
)

DeviceId = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$(?!\n)")
]
Nonce = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
#: Numbers that nothing else bounds: larger ones survive neither a database nor a browser.
Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Ordinal = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
#: How often something was done: fits 32 bits, which is what databases keep for it.
Times = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Text = Annotated[str, Meta(max_length=512)]
Short = Annotated[str, Meta(max_length=64)]
Ident = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$(?!\n)")
]
PublicKey = Annotated[str, Meta(min_length=64, max_length=600)]
Attributes = Annotated[dict[Short, Text], Meta(max_length=64)]

#: DSSE payload types: one a document type, so that no document can stand in for another.
ENROL_TYPE: Final = "application/vnd.tidegate.enrol.v1+json"
SESSION_TYPE: Final = "application/vnd.tidegate.session.v1+json"
REKEY_TYPE: Final = "application/vnd.tidegate.rekey.v1+json"
ASSIGNMENT_TYPE: Final = "application/vnd.tidegate.assignment.v1+json"
PERMIT_TYPE: Final = "application/vnd.tidegate.permit.v1+json"
TIME_TYPE: Final = "application/vnd.tidegate.time.v1+json"
EVENT_TYPE: Final = "application/vnd.tidegate.event.v1+json"

#: Header by which a device that asks for a payload says which status it lets itself be sent on by.
FOLLOWS_HEADER: Final = "tidegate-follows"

#: Leave that is given ahead is good for this long at most (ADR 0018).
OFFLINE_PERMIT_MAX_S: Final = 7 * 86_400
#: Leave to activate is good for this long after the device made its nonce, on the device's own monotonic clock (ADR 0011).
PERMIT_VALID_S: Final = 900


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """One signature of a DSSE envelope; `sig` is base64."""

    keyid: Annotated[str, Meta(max_length=128)]
    sig: Annotated[str, Meta(max_length=8192)]


class Envelope(msgspec.Struct, frozen=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope as it travels; `payload` is base64. Opened by `core.keys` only."""

    payload: Annotated[str, Meta(max_length=128 << 10)]
    payload_type: Annotated[str, Meta(max_length=128)]
    signatures: Annotated[tuple[EnvelopeSignature, ...], Meta(max_length=16)]


# --- enrol and session -----------------------------------------------------------------------------------------------


class EnrolBody(msgspec.Struct, frozen=True, kw_only=True):
    """Signed by the new device key itself: proof that the device holds it."""

    type: Literal["enrol"] = msgspec.field(default="enrol", name="_type")
    spec: Literal[1] = 1
    device_id: DeviceId
    public_key: PublicKey
    keytype: Literal["ed25519", "ecdsa"] = "ed25519"
    product: Name
    hardware: Hardware
    channel: Channel = "stable"
    attributes: Attributes = {}
    agent: Short = ""
    crit: tuple[str, ...] = ()


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/enrol`. Without a claim token the device waits for a person."""

    envelope: Envelope
    claim: Annotated[str, Meta(max_length=200)] | None = None


class EnrolAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`state` accepted, pending, rejected or revoked."""

    device_id: DeviceId
    state: Literal["accepted", "pending", "rejected", "revoked"]
    poll_after_s: Seconds = 300


class NonceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/nonce`: to be signed into the session request within `valid_s`."""

    nonce: Nonce
    valid_s: Seconds


class SessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Signed by the device key: "I am here now", bound to the server's nonce.

    `previous` is `session_ref` of the last token that it received, "" for none: two devices with one key cannot both know it.
    """

    type: Literal["session"] = msgspec.field(default="session", name="_type")
    spec: Literal[1] = 1
    device_id: DeviceId
    nonce: Nonce
    boot_id: Short
    agent: Short = ""
    previous: Short | None = None
    crit: tuple[str, ...] = ()


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/session`."""

    envelope: Envelope


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An opaque bearer token for polls, assignments, permits, events and bytes. Every earlier one is over.

    `rekey`: an operator wants this device to make itself a new key.
    """

    token: Annotated[str, Meta(max_length=256)]
    expires_in_s: Seconds
    acked_seq: Count = 0
    rekey: bool = False


def session_ref(token: str) -> str:
    """Return what stands for a session token where the token itself must not: the first half of its SHA-256, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]


class RekeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A device's new key, bound to the server's nonce. Signed by the old key and by the new one; no token has a say in it."""

    type: Literal["rekey"] = msgspec.field(default="rekey", name="_type")
    spec: Literal[1] = 1
    device_id: DeviceId
    nonce: Nonce
    #: SHA-256 of the public key that this one follows.
    old_key: Sha256
    public_key: PublicKey
    keytype: Literal["ed25519", "ecdsa"] = "ed25519"
    crit: tuple[str, ...] = ()


class RekeyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/rekey`. May be repeated until the device knows the answer."""

    envelope: Envelope


class RekeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`done`: the new key is the device's key, and every session of the old one is over. `pending`: a person has to approve it first; the old one stays."""

    state: Literal["done", "pending"]
    key_gen: Count


# --- poll -------------------------------------------------------------------------------------------------------------


class PollAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /d/v1/poll`: a hint without authority, the same bytes for many devices."""

    work: bool
    poll_after_s: Seconds
    gate_epoch: Count


# --- assignment -------------------------------------------------------------------------------------------------------


class SlotState(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot holds; `state` is empty, writing, staged, trying, confirmed, bad."""

    state: Literal["empty", "writing", "staged", "trying", "confirmed", "bad"]
    release_counter: Count = 0
    security_version: SecurityVersion = 0
    version: Short = ""
    sha256: Sha256 | None = None


class GrantUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which grant a device took last, and for which update. `done`: it led to a trial, so that it opens nothing more (`core.grant`)."""

    epoch: Count = 0
    serial: Count = 0
    update: Short = ""
    done: bool = False


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself when it asks for its assignment. Believed only as far as it narrows.

    `offline_now` is the time (unix seconds) by which it judges rollout mandates; 0 = not told. `release_counter` is the newest release that it confirmed, be
    it of components beside the slots alone; 0 = not told.
    """

    hardware: Hardware
    channel: Channel
    agent: Short
    boot_id: Short
    running: Name
    slots: Annotated[dict[Name, SlotState], Meta(min_length=1, max_length=4)]
    security_floor: SecurityVersion = 0
    refuses: Annotated[tuple[Sha256, ...], Meta(max_length=32)] = ()
    root_version: Count = 0
    assignment_seq: Count = 0
    held: bool = False
    inhibitors: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    waiting: Annotated[str, Meta(max_length=64)] = ""
    free_bytes: Count | None = None
    attributes: Attributes = {}
    offline_now: Count = 0
    components: Components = {}
    release_counter: Count = 0
    resume_min: Count = 0
    fallback_last: GrantUse = GrantUse()


#: A signed head of the operators' log (C2SP checkpoint), signatures and all.
AuditNote = Annotated[str, Meta(min_length=1, max_length=4096)]


class AssignmentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/assignment`: the worker's question, with its own nonce (16 random bytes, hex).

    `audit_seen` is the last head of the operators' log that the device believed: what it is a witness of.
    """

    nonce: Nonce
    state: DeviceState
    audit_seen: AuditNote | msgspec.UnsetType = msgspec.UNSET


class AssignedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The image that the director names; must equal what the product role signed."""

    path: Annotated[str, Meta(max_length=300)]
    length: Size
    sha256: Sha256
    product: Name
    release_counter: Counter
    security_version: SecurityVersion
    hardware: Annotated[tuple[HardwareRange, ...], Meta(max_length=64)]
    channels: Annotated[tuple[Channel, ...], Meta(max_length=16)]


class RepoBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Lowest metadata versions with which this assignment may be used."""

    root_min: Ordinal
    timestamp_min: Ordinal
    snapshot_min: Ordinal


#: `not_before` of an order that may be fetched and staged and waits to be let go: a time that never comes. 2100-01-01.
HELD_UNTIL: Final = 4_102_444_800


class DeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When and how fast.

    `retry_refused`: also devices that went back from this image try it again.
    `offline_permit_s`: leave to activate may be given ahead, for so long; 0 = never. Windows are texts of `core.schedule`;
    `bps_max` is bytes a second of stored bytes; 0 or empty = no limit.
    """

    download_window: Annotated[tuple[Short, ...], Meta(max_length=16)] = ()
    activate_window: Annotated[tuple[Short, ...], Meta(max_length=16)] = ()
    zone: Annotated[str, Meta(max_length=64)] = "device"
    bps_max: Count = 0
    activate: Literal["immediate", "window", "manual"] = "immediate"
    not_before: Seconds = 0
    deadline: Seconds = 0
    tries: Annotated[int, Meta(ge=1, le=15)] = 3
    offline_permit_s: Annotated[int, Meta(ge=0, le=OFFLINE_PERMIT_MAX_S)] = 0
    retry_refused: bool = False


class AssignmentBody(msgspec.Struct, frozen=True, kw_only=True):
    """What this device should do now, signed by the director. It may only narrow what the product role allows.

    `install` brings `target`; `fallback` orders back to `target`, which must stand confirmed in the other slot and be named in the running release's
    signed `fallback_to`, or be what the incident ring's `grant` allows, with `cohort_proof` that this device is meant; `hold` keeps everything as it is (a
    staged slot stays inert); `none` has nothing.
    """

    type: Literal["assignment"] = msgspec.field(default="assignment", name="_type")
    spec: Literal[1] = 1
    tenant: Short = "default"
    device_id: DeviceId
    device_key: Sha256
    epoch: Count = 1
    seq: Ordinal
    issued: Seconds
    expires: Seconds
    nonce: Nonce
    action: Literal["install", "fallback", "hold", "none"]
    update: Ident | None = None
    attempt: Ordinal = 1
    rollout: Annotated[str, Meta(max_length=128)] = ""
    ring: Short = ""
    reason: Text = ""
    target: AssignedTarget | None = None
    allow_refused: bool = False
    repo: RepoBinding | None = None
    policy: DeliveryPolicy = DeliveryPolicy()
    poll_after_s: Seconds = 300
    grant: Envelope | None = None
    cohort_proof: CohortProof | None = None
    crit: tuple[str, ...] = ()


class AuditNews(msgspec.Struct, frozen=True, kw_only=True):
    """The newest signed head of the operators' log, and the proof (RFC 6962, section 2.1.2) that it goes on from the one that the device has seen.

    Not the director's word: the audit key signs the head. Whoever leaves it out makes a device no witness, and nothing else.
    """

    checkpoint: AuditNote
    proof: Annotated[tuple[Sha256, ...], Meta(max_length=64)] = ()


class AssignmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The director's answer; `audit` where there is a head of the log that the device has not seen."""

    envelope: Envelope
    audit: AuditNews | msgspec.UnsetType = msgspec.UNSET


# --- permit -----------------------------------------------------------------------------------------------------------


class PermitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/permit`, immediately before the boot flag. Asking again with the same nonce gives the same permit, unless the rollout was stopped meanwhile.

    `ahead_s`: for leave that is good for so long, while there is still a server to ask; 0 = to be used at once.
    """

    nonce: Nonce
    update: Ident
    attempt: Ordinal
    slot_sha256: Sha256
    release_counter: Counter
    ahead_s: Annotated[int, Meta(ge=0, le=OFFLINE_PERMIT_MAX_S)] = 0


class PermitBody(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to activate, signed by the director; single use; good for `valid_s` from the making of the nonce."""

    type: Literal["permit"] = msgspec.field(default="permit", name="_type")
    spec: Literal[1] = 1
    tenant: Short = "default"
    device_id: DeviceId
    permit: Ident
    update: Ident
    attempt: Ordinal
    slot_sha256: Sha256
    gate_epoch: Count
    nonce: Nonce
    issued: Seconds
    valid_s: Seconds = PERMIT_VALID_S
    crit: tuple[str, ...] = ()


class PermitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Granted: `envelope`. Not granted: `envelope` is null, `because` says why, `retry_after_s` when to ask again."""

    envelope: Envelope | None = None
    because: Text = ""
    retry_after_s: Seconds = 60


# --- time -------------------------------------------------------------------------------------------------------------


class TimeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/time`."""

    nonce: Nonce


class TimeBody(msgspec.Struct, frozen=True, kw_only=True):
    """The director's word on what time it is, bound to the device's nonce."""

    type: Literal["time"] = msgspec.field(default="time", name="_type")
    spec: Literal[1] = 1
    device_id: DeviceId
    nonce: Nonce
    time: Seconds
    crit: tuple[str, ...] = ()


class TimeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The director's answer."""

    envelope: Envelope


# --- events -----------------------------------------------------------------------------------------------------------

EventKind = Literal[
    "heartbeat",
    "downloading",
    "staged",
    "rebooting",
    "verifying",
    "confirmed",
    "failed",
    "reverted",
    "declined",
    "permit_returned",
    "security",
]
#: Events that decide about a release; they count only when signed by the device key.
SIGNED_KINDS: Final = frozenset({"confirmed", "failed", "reverted", "declined", "permit_returned"})


MetricName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$(?!\n)")]
#: Metrics of its own that a device may tell of.
NAMED_MAX: Final = 16


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the last heartbeat of this device. `device_s` is the time they cover.

    `named`: metrics of the device's own, by name: what a counter grew by in that time, or a gauge's value times `device_s`. No number is left out, not sent.
    """

    errors: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    device_s: Annotated[int, Meta(ge=0, le=40_000_000)] = 0
    named: Annotated[dict[MetricName, float], Meta(max_length=NAMED_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )


class Restart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of the machine that ended although nobody had asked for it. Untrusted, and never worth more than one device's word.

    Attributes:
        boot_id: of the run that ended.
        cause: `panic` the kernel gave up, `watchdog` the hardware reset it, `unknown` it just ended, as when the power goes. Others may follow.
        count: runs that this stands for; 0 = none: the device says that it keeps a record from now on.
        always: it has kept one since it was new.
    """

    boot_id: Short = ""
    cause: Annotated[str, Meta(max_length=16)] = "unknown"
    count: Count = 1
    always: bool = False


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One health check's last word. `reason`: what its failure stands for; `by`: who asked for it, the signed release unless this says `device`."""

    name: Name
    ok: bool
    detail: Annotated[str, Meta(max_length=200)] = ""
    reason: Short | msgspec.UnsetType = msgspec.UNSET
    by: Literal["device"] | msgspec.UnsetType = msgspec.UNSET


class EventBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device reports. Idempotent by (device, seq). `at` is the device's clock, for people only: the server uses its own."""

    type: Literal["event"] = msgspec.field(default="event", name="_type")
    spec: Literal[1] = 1
    device_id: DeviceId
    seq: Ordinal
    at: Seconds
    kind: EventKind
    boot_id: Short = ""
    update: Ident | None = None
    attempt: Times = 0
    release_counter: Count = 0
    from_counter: Count = 0
    variant: Annotated[str, Meta(max_length=80)] = ""
    region: Short = ""
    site: Short = ""
    connectivity: Literal["always", "intermittent"] = "always"
    reason: Short | None = None
    detail: Text = ""
    running_counter: Count = 0
    running_sha256: Sha256 | None = None
    running_version: Short = ""
    bytes: Count = 0
    resumes: Times = 0
    #: `permit_returned`: the question whose permit is given back; without it, every permit of this update is.
    nonce: Nonce | None = None
    metrics: Metrics | None = None
    restart: Restart | None = None
    health: Annotated[tuple[CheckResult, ...], Meta(max_length=64)] = ()
    log: Annotated[str, Meta(max_length=16 << 10)] = ""
    crit: tuple[str, ...] = ()


class EventItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event: plain (`body`), or signed by the device key (`envelope`). Exactly one is there."""

    body: EventBody | None = None
    envelope: Envelope | None = None


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/events`, in order of seq."""

    events: Annotated[tuple[EventItem, ...], Meta(min_length=1, max_length=256)]


class LogWish(msgspec.Struct, frozen=True, kw_only=True):
    """The server would like to see the log of this attempt's failure. A device may leave it at that."""

    update: Ident
    attempt: Times


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to `acked_seq` is durable and may be forgotten. `refused` lists (seq, code) that were not counted and must not be sent again."""

    acked_seq: Count
    refused: tuple[tuple[Count, str], ...] = ()
    want_log: LogWish | msgspec.UnsetType = msgspec.UNSET


#: Most of a packed log, in bytes.
LOG_BYTES_MAX: Final = 64 << 10


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /d/v1/log`, after a `want_log`: the end of the device's log, UTF-8 in zlib's format. Untrusted text; nothing is decided by it."""

    update: Ident
    attempt: Times
    data: Annotated[bytes, Meta(max_length=LOG_BYTES_MAX)]


class LogAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """It is kept."""

    kept: bool = True


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457. `type` is `urn:tidegate:error:` + code."""

    type: str
    title: str
    status: int
    detail: str = ""
    code: str = ""
    hint: str = ""
