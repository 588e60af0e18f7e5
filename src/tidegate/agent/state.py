"""What the agent knows: the nouns of `agent.machine`. What may happen to it, and what it may do, is in `agent.events`.

`State` is what the journal holds. Three of its fields (`beat`, `wait`, the next sequence number below its reservation) are not worth a write to flash;
`durable` leaves them out, and they start afresh after a restart. A reader of the
journal skips fields that it does not know, so that an older agent can read a newer one's journal after a revert.
"""

from typing import Final, Literal

import msgspec

from tidegate.agent.ports import Bases, SlotName
from tidegate.core.protocol import (
    CheckResult,
    DeliveryPolicy,
    EventKind,
    GrantUse,
    Metrics,
    Restart,
)
from tidegate.core.release import ReleaseTarget

#: Format of the journal. A higher one is read all the same: fields are only ever added.
FORMAT: Final = 1
#: Refused digests kept; the oldest goes first. Equal to the limit of `protocol.DeviceState.refuses`.
REFUSED_MAX: Final = 32
#: Of `State.attended`: somebody has kept a record of how boots end since the device was new, or since later.
ALWAYS: Final = "always"
LATER: Final = "later"
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


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one component of an update here: it goes into the candidate slot, beside the slots, or is there already (`kept`)."""

    component: str
    kind: Literal["slot", "component", "kept"]


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One verified order to change the other slot: everything in it was checked by the worker.

    Attributes:
        update: the server's name for it; None for an act of a person on the device.
        product_floor: the product role's own floor for this hardware; bounds how far the device's floor may rise.
        grant: of a way back that the incident ring allowed: which grant is used up by it. Its image may be downloaded.
        resume_min: no install below this counter once that grant is taken.
        bundle: file or directory that the image comes from, by a person's word; "" = from the server. Such an update needs no permit.
        slot: the candidate; "" when nothing of it goes into a slot.
        places: where each of `release.pieces` goes; empty = one image, into the slot.
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
    grant: GrantUse | None = None
    resume_min: int = 0
    bundle: str = ""
    places: tuple[Place, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of which payload is durable in which slot. A record of another payload or slot is discarded, never resumed.

    Attributes:
        segments: segments of the payload whose bytes were flushed.
        since: first segment of the last interval, checked again on resume.
        stored_bytes: bytes that came over the link so far, all attempts together.
        begun_bytes: bytes kept of the next segment, which the link broke off.
    """

    payload_sha256: str
    index_sha256: str
    slot: SlotName
    segments: int = 0
    since: int = 0
    stored_bytes: int = 0
    resumes: int = 0
    etag: str = ""
    begun_bytes: int = 0


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


class Defer(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word on one image: not before then (unix seconds). `first_at`: when it was first put off."""

    sha256: str
    until_at: int
    first_at: int


class Ahead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question for leave ahead, made in boot `boot` at `mono`, and what became of it. `valid_s` counts from the question."""

    nonce: str
    mono: float
    boot: str
    valid_s: int
    answered: bool = False
    granted: bool = False


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
    restart: Restart | None = None
    health: tuple[CheckResult, ...] = ()
    log: str = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing is tried before `until_mono` (seconds of this boot's monotonic clock). Not written to the journal."""

    until_mono: float
    code: str
    detail: str = ""
    answered: bool = False


class Witness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What this device remembers of the log of what the server's operators did, as its witness.

    Attributes:
        note: the last signed head that it believed.
        epoch: of the authorities in root at that time: a later one begins a log anew.
        fork: a signed head that does not go on from `note`, the newest one that was shown.
        fork_at: since when (unix seconds).
    """

    note: str
    epoch: int = 1
    fork: str = ""
    fork_at: int = 0


# --- phases -----------------------------------------------------------------------------------------------------------


class Idle(msgspec.Struct, frozen=True, tag="idle", tag_field="phase"):
    """Nothing under way."""


class Downloading(msgspec.Struct, frozen=True, kw_only=True, tag="downloading", tag_field="phase"):
    """Bytes go into the candidate slot. `prepared`: the slot was marked bad durably, so that it may be overwritten.

    Attributes:
        again: the whole was read back wrong once.
        part: which of the release's pieces.
        bytes, resumes: what the pieces before it took.
    """

    update: Update
    prepared: bool = False
    progress: Progress | None = None
    failures: int = 0
    again: bool = False
    part: int = 0
    bytes: int = 0
    resumes: int = 0


class Installing(msgspec.Struct, frozen=True, kw_only=True, tag="installing", tag_field="phase"):
    """All bytes of a piece (`part`) are there; it is read back from the medium and compared with the signed digest."""

    update: Update
    bytes: int = 0
    resumes: int = 0
    again: bool = False
    part: int = 0


class Staged(msgspec.Struct, frozen=True, kw_only=True, tag="staged", tag_field="phase"):
    """A whole, signed image stands in the candidate slot, inert.

    Attributes:
        nonce: the permit question that is open; made on `nonce_boot` at `nonce_mono`.
        halted: the server said hold.
        now: a person said apply-now: windows are skipped, permit and inhibitors are not.
        ahead: leave for the time when the server may be out of reach (`agent.ahead`).
    """

    update: Update
    staged_at: int = 0
    nonce: str | None = None
    nonce_mono: float = 0.0
    nonce_boot: str = ""
    halted: bool = False
    now: bool = False
    ahead: Ahead | None = None


class Activating(msgspec.Struct, frozen=True, kw_only=True, tag="activating", tag_field="phase"):
    """Leave was given, in answer to `nonce`.

    Attributes:
        armed: the boot flag is set for `tries` boots, or a restart is all that is missing; the next boot tries what is new.
        part: which piece is made live next.
        begun: pieces before this may be live, wholly or in part: there is no way but on, or back.
        restart: a piece wants the device to restart.
        staged_at: since when the image was staged (unix seconds).
        valid_s: how long the leave is good, from the question on; 0 = as any.
    """

    update: Update
    nonce: str | None = None
    nonce_mono: float
    nonce_boot: str
    armed: bool = False
    part: int = 0
    begun: int = 0
    restart: bool = False
    failures: int = 0
    tries: int = 0
    staged_at: int = 0
    valid_s: int = 0


class Testing(msgspec.Struct, frozen=True, kw_only=True, tag="testing", tag_field="phase"):
    """The candidate runs on trial. All instants are of the monotonic clock of `boot_id`: another boot starts the warm-up again.

    Attributes:
        passing_mono: since when every check passes, or None.
        errors_base: the error count when the warm-up began; `errors` is the last one, and `errors_mark` where in its source it was taken.
        last: the last word of each check.
        failing: reason of the first failing check, or None.
        restarted: components beside the slots were made live before the restart; `part` is the next to say that it came up.
        flaps: how often something stopped passing, and `flapped` what did last.
        bases: numbers that checks compare with, by check: taken at their first look in this warm-up.
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
    restarted: bool = False
    part: int = 0
    failures: int = 0
    errors: int = 0
    errors_mark: str = ""
    flaps: int = 0
    flapped: str = ""
    bases: Bases = {}


class Confirming(msgspec.Struct, frozen=True, kw_only=True, tag="confirming", tag_field="phase"):
    """Healthy; the boot loader is being told, then the components beside the slots, and then the journal.

    Attributes:
        loader: the boot loader knows.
        part: which piece is told next.
        final: a piece was told that cannot be taken back: there is no way but on.
    """

    update: Update
    last: tuple[CheckResult, ...] = ()
    loader: bool = False
    part: int = 0
    final: bool = False
    failures: int = 0


class Reverting(msgspec.Struct, frozen=True, kw_only=True, tag="reverting", tag_field="phase"):
    """Going back: to the other confirmed slot first, and from there the components beside the slots, the last one first.

    Attributes:
        slot: what is not booted again; "" when no slot is touched.
        update: None when the agent does not know what was on trial.
        undo: pieces before this may be live, and are taken back.
        restart: a piece wants a restart after it was taken back; asked for in `boot_id`.
        broken: components that could not be taken back.
        boots: how often the agent came up in the trial.
        told: the history of the boot counter stands at the head of `log`.
    """

    slot: SlotName
    reason: str
    update: Update | None = None
    detail: str = ""
    last: tuple[CheckResult, ...] = ()
    log: str = ""
    marked: bool = False
    undo: int = 0
    restart: bool = False
    boot_id: str = ""
    broken: tuple[str, ...] = ()
    failures: int = 0
    boots: int = 0
    told: bool = False


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
        fallback_last: the last grant taken, by product: an older one, or this one again, opens nothing.
        halted: digests of images that the server held back last; a bundle does not get round that.
        resume_min: no install below this counter, by product: where a grant led back from. Never goes down.
        components: what was confirmed of each component beside the slots.
        leftovers: updates that came to an end, whose components still have to clean up.
        attended: an agent that stays keeps a record of how this boot ends: `always` since the device was new, `later`; "" = nobody does.
        witness: the log of the server's operators, as far as it was seen.
        watchdog_before: the hardware blamed its watchdog for a reset before the trial under way; such a word may stick, and then it says nothing.
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
    defer: Defer | None = None
    stalls: int = 0
    best: tuple[int, int] = (0, 0)
    damaged: bool = False
    partial: Progress | None = None
    fallback_last: dict[str, GrantUse] = {}
    resume_min: dict[str, int] = {}
    halted: tuple[str, ...] = ()
    components: dict[str, SlotRecord] = {}
    leftovers: tuple[Update, ...] = ()
    watchdog_before: bool = False
    attended: str = ""
    witness: Witness | None = None
    boot_id: str = ""
    current: SlotName = ""
    beat: Report | None = None
    wait: Wait | None = None


def durable(state: State) -> State:
    """Return the part of the state that a journal write is for; two states with equal parts need no write."""
    return msgspec.structs.replace(
        state, next_seq=max(state.next_seq, state.reserved_seq), beat=None, wait=None
    )
