"""What the agent knows, what may happen to it, and what it may do: the nouns of `agent.machine`.

`State` is what the journal holds. Three of its fields (`beat`, `wait`, the next sequence number below its reservation) are not worth a write to flash;
`durable` leaves them out, and they start afresh after a restart. Events are past participles, effects imperatives; a reader of the journal skips fields that
it does not know, so that an older agent can read a newer one's journal after a revert.
"""

from typing import Final, Literal

import msgspec

from tidegate.agent.ports import SlotMark, SlotName
from tidegate.core.protocol import CheckResult, DeliveryPolicy, EventKind, Metrics
from tidegate.core.release import HealthContract, ReleaseTarget

#: Format of the journal. A higher one is read all the same: fields are only ever added.
FORMAT: Final = 1
#: Refused digests kept; the oldest goes first. Equal to the limit of `protocol.DeviceState.refuses`.
REFUSED_MAX: Final = 32
#: Reports kept while the server is away; the least important go first.
OUTBOX_MAX: Final = 128

SlotWord = Literal["empty", "writing", "staged", "trying", "confirmed", "bad"]


class SlotRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in a slot, as far as this agent put or confirmed it there. `release` was verified when it was installed."""

    state: SlotWord = "empty"
    release_counter: int = 0
    security_version: int = 0
    version: str = ""
    sha256: str | None = None
    release: ReleaseTarget | None = None


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One verified order to change the other slot: everything in it was checked by the worker.

    Attributes:
        update: the server's name for it; None for an act of a person on the device.
        product_floor: the product role's own floor for this hardware; bounds how far the device's floor may rise.
    """

    update: str | None
    attempt: int = 1
    action: Literal["install", "fallback"] = "install"
    release: ReleaseTarget
    slot: SlotName
    from_counter: int = 0
    product_floor: int = 0
    allow_refused: bool = False
    policy: DeliveryPolicy = DeliveryPolicy()


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of which payload is durable in which slot. A record of another payload or slot is discarded, never resumed.

    Attributes:
        segments: segments of the payload whose bytes were flushed.
        since: first segment of the last interval, checked again on resume.
        stored_bytes: bytes that came over the link so far, all attempts together.
    """

    payload_sha256: str
    index_sha256: str
    slot: SlotName
    segments: int = 0
    since: int = 0
    stored_bytes: int = 0
    resumes: int = 0
    etag: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Which assignment this was: (epoch, seq) never goes back."""

    epoch: int = 0
    seq: int = 0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is not tried again here, and why."""

    sha256: str
    reason: str
    at: int


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word: activate nothing until then (unix seconds)."""

    reason: str
    until_at: int


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event owed to the server. `agent.outbox` adds what is the same in all of them."""

    seq: int
    at: int
    kind: EventKind
    update: str | None = None
    attempt: int = 0
    release_counter: int = 0
    from_counter: int = 0
    reason: str | None = None
    detail: str = ""
    running_counter: int = 0
    running_sha256: str | None = None
    running_version: str = ""
    bytes: int = 0
    resumes: int = 0
    nonce: str | None = None
    metrics: Metrics | None = None
    health: tuple[CheckResult, ...] = ()
    log: str = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing is tried before `until_mono` (seconds of this boot's monotonic clock). Not written to the journal."""

    until_mono: float
    code: str
    detail: str = ""
    answered: bool = False


# --- phases -----------------------------------------------------------------------------------------------------------


class Idle(msgspec.Struct, frozen=True, tag="idle", tag_field="phase"):
    """Nothing under way."""


class Downloading(msgspec.Struct, frozen=True, kw_only=True, tag="downloading", tag_field="phase"):
    """Bytes go into the candidate slot. `prepared`: the slot was marked bad durably, so that it may be overwritten.

    `again`: the whole was read back wrong once.
    """

    update: Update
    prepared: bool = False
    progress: Progress | None = None
    failures: int = 0
    again: bool = False


class Installing(msgspec.Struct, frozen=True, kw_only=True, tag="installing", tag_field="phase"):
    """All bytes are there; the slot is read back from the medium and compared with the signed digest."""

    update: Update
    bytes: int = 0
    resumes: int = 0
    again: bool = False


class Staged(msgspec.Struct, frozen=True, kw_only=True, tag="staged", tag_field="phase"):
    """A whole, signed image stands in the candidate slot, inert.

    Attributes:
        nonce: the permit question that is open; made on `nonce_boot` at `nonce_mono`.
        halted: the server said hold.
        now: a person said apply-now: windows are skipped, permit and inhibitors are not.
    """

    update: Update
    staged_at: int = 0
    nonce: str | None = None
    nonce_mono: float = 0.0
    nonce_boot: str = ""
    halted: bool = False
    now: bool = False


class Activating(msgspec.Struct, frozen=True, kw_only=True, tag="activating", tag_field="phase"):
    """Leave was given, in answer to `nonce`. `armed`: the boot flag is set; the next boot tries the candidate."""

    update: Update
    nonce: str | None = None
    nonce_mono: float
    nonce_boot: str
    armed: bool = False


class Testing(msgspec.Struct, frozen=True, kw_only=True, tag="testing", tag_field="phase"):
    """The candidate runs on trial. All instants are of the monotonic clock of `boot_id`: another boot starts the warm-up again.

    Attributes:
        passing_mono: since when every check passes, or None.
        errors_base: the error counter when the warm-up began.
        last: the last word of each check.
        failing: reason of the first failing check, or None.
    """

    update: Update
    boot_id: str
    began_mono: float
    passing_mono: float | None = None
    errors_base: int = 0
    last: tuple[CheckResult, ...] = ()
    failing: str | None = None
    boots: int = 1
    accepted: bool = False


class Confirming(msgspec.Struct, frozen=True, kw_only=True, tag="confirming", tag_field="phase"):
    """Healthy; the boot loader is being told, and then the journal."""

    update: Update
    last: tuple[CheckResult, ...] = ()


class Reverting(msgspec.Struct, frozen=True, kw_only=True, tag="reverting", tag_field="phase"):
    """Going back to the other confirmed slot. `update` is None when the agent does not know what was on trial."""

    slot: SlotName
    reason: str
    update: Update | None = None
    detail: str = ""
    last: tuple[CheckResult, ...] = ()
    log: str = ""
    marked: bool = False


Phase = Idle | Downloading | Installing | Staged | Activating | Testing | Confirming | Reverting


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that must outlive a power cut.

    Attributes:
        slots: what stands in each slot.
        floor: the device's security floor; never goes down.
        order: the last assignment obeyed; never goes back.
        next_seq: sequence number of the next report; never used twice, thanks to `reserved_seq`.
        refused: images not tried again.
        ended: the last (update, attempt) pairs that came to an end here, so that a repeated assignment starts nothing.
        noticed: security reasons reported lately, with the time, so that they are not repeated at every poll.
        stalls: durable steps since the last progress; the loop guard.
        best: how far the present update came: (rank of the phase, segments).
        partial: a download that was put aside; resumed when the same payload is ordered again.
        damaged: the journal was lost; stays until an update is confirmed.
    """

    format: int = FORMAT
    phase: Phase = msgspec.field(default_factory=Idle)
    slots: dict[str, SlotRecord] = {}
    floor: int = 0
    order: Order = Order()
    next_seq: int = 1
    reserved_seq: int = 1
    outbox: tuple[Report, ...] = ()
    refused: tuple[Refusal, ...] = ()
    ended: tuple[tuple[str, int], ...] = ()
    last: tuple[str, int] | None = None
    noticed: dict[str, int] = {}
    hold: Hold | None = None
    stalls: int = 0
    best: tuple[int, int] = (0, 0)
    damaged: bool = False
    partial: Progress | None = None
    boot_id: str = ""
    current: SlotName = ""
    beat: Report | None = None
    wait: Wait | None = None


def durable(state: State) -> State:
    """Return the part of the state that a journal write is for; two states with equal parts need no write."""
    return msgspec.structs.replace(
        state, next_seq=max(state.next_seq, state.reserved_seq), beat=None, wait=None
    )


# --- events -----------------------------------------------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The agent started; what the boot loader says. `log` is the end of the boot before."""

    now: int
    mono: float
    boot_id: str
    current: SlotName
    primary: SlotName
    marks: dict[str, SlotMark]
    tries: dict[str, int]
    log: str = ""
    errors: int = 0


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """The world as it is now: what is allowed to happen next is decided from this. `nonce` is fresh, for use if a question is to be asked."""

    now: int
    mono: float
    nonce: str
    download_open: bool = True
    activate_open: bool = True
    inhibitors: tuple[str, ...] = ()
    manual_confirm: bool = False
    online: bool = True


class Offered(msgspec.Struct, frozen=True):
    """A poll hinted that there is something for this device."""


class Assigned(msgspec.Struct, frozen=True, kw_only=True, tag="assigned"):
    """A verified assignment to change something."""

    now: int
    order: Order
    update: Update


class Ordered(msgspec.Struct, frozen=True, kw_only=True, tag="ordered"):
    """A verified assignment to keep still (`hold`) or that there is nothing (`none`)."""

    now: int
    order: Order
    action: Literal["hold", "none"]
    reason: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The worker refused what it was sent. Without `update`, nothing in it could be trusted enough to name one."""

    now: int
    reason: str
    detail: str = ""
    update: str | None = None
    attempt: int = 1
    release_counter: int = 0
    order: Order | None = None


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """The boot loader will not boot this slot."""

    now: int
    slot: SlotName


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progressed"):
    """Bytes up to there are durable."""

    now: int
    progress: Progress


class Downloaded(msgspec.Struct, frozen=True, kw_only=True, tag="downloaded"):
    """Every byte is in the slot and flushed."""

    now: int
    progress: Progress


class Installed(msgspec.Struct, frozen=True, kw_only=True, tag="installed"):
    """The slot, read back, is what was signed."""

    now: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """An effect did not work. `retryable`: the same may work later."""

    now: int
    mono: float
    reason: str
    detail: str = ""
    retryable: bool = False


class Permitted(msgspec.Struct, frozen=True, kw_only=True, tag="permitted"):
    """Leave to activate, verified: bound to this nonce."""

    now: int
    mono: float
    nonce: str
    permit: str


class PermitRefused(msgspec.Struct, frozen=True, kw_only=True, tag="permit_refused"):
    """No leave now."""

    now: int
    mono: float
    because: str
    retry_after_s: int


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """The boot flag is set."""

    now: int


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check's word, with the reason that it stands for when it fails."""

    name: str
    reason: str
    ok: bool
    detail: str = ""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Every check of the contract was run once. `errors` is the error counter's total of this boot."""

    now: int
    mono: float
    results: tuple[ProbeResult, ...]
    errors: int
    manual_confirm: bool = False


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The running slot is the primary, for good."""

    now: int


class Acked(msgspec.Struct, frozen=True):
    """The server holds every report up to `seq`."""

    seq: int


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A heartbeat is due."""

    now: int
    metrics: Metrics


class HoldAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person says: nothing activates until then."""

    now: int
    reason: str
    until_at: int


class ReleaseAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The person's hold ends."""

    now: int


class ApplyAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person says: activate what is staged now."""

    now: int


class ConfirmAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person accepts the running slot."""

    now: int


class RevertAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person wants the other confirmed slot back."""

    now: int
    reason: str


class Noticed(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the server should know, and that ends nothing."""

    now: int
    reason: str
    detail: str = ""


#: What a worker may answer.
Answer = (
    Assigned
    | Ordered
    | Refused
    | Progressed
    | Downloaded
    | Installed
    | Failed
    | Permitted
    | PermitRefused
)
Event = (
    Started
    | Looked
    | Offered
    | Answer
    | Marked
    | Armed
    | Checked
    | Committed
    | Acked
    | Beat
    | HoldAsked
    | ReleaseAsked
    | ApplyAsked
    | ConfirmAsked
    | RevertAsked
    | Noticed
)


# --- effects ----------------------------------------------------------------------------------------------------------


class Refresh(msgspec.Struct, frozen=True, tag="refresh"):
    """Ask for the assignment and verify it."""


class MarkBad(msgspec.Struct, frozen=True, kw_only=True, tag="mark_bad"):
    """Tell the boot loader never to boot this slot."""

    slot: SlotName


class Download(msgspec.Struct, frozen=True, kw_only=True, tag="download"):
    """Stream the payload into the slot, from where it stopped."""

    update: Update
    progress: Progress | None


class ReadBack(msgspec.Struct, frozen=True, kw_only=True, tag="read_back"):
    """Read the slot from the medium and compare it with the signed digest."""

    update: Update


class AskPermit(msgspec.Struct, frozen=True, kw_only=True, tag="ask_permit"):
    """Ask for leave to activate."""

    update: Update
    nonce: str


class Arm(msgspec.Struct, frozen=True, kw_only=True, tag="arm"):
    """Set the boot flag."""

    slot: SlotName
    tries: int


class Reboot(msgspec.Struct, frozen=True, tag="reboot"):
    """Restart the device."""


class CheckHealth(msgspec.Struct, frozen=True, kw_only=True, tag="check_health"):
    """Run every check of the contract once."""

    contract: HealthContract


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag="commit"):
    """Make this slot the primary for good."""

    slot: SlotName


Effect = Refresh | MarkBad | Download | ReadBack | AskPermit | Arm | Reboot | CheckHealth | Commit
