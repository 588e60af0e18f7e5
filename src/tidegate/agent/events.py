"""What may happen to an agent, and what it may do: events are past participles, effects imperatives. Pure.

`Answer` is the part of the events that a worker gives; those and the effects carry tags, because they travel between processes.
"""

from typing import Literal

import msgspec

from tidegate.agent.ports import Bases, SlotMark, SlotName
from tidegate.agent.state import Order, Progress, Update, Witness
from tidegate.core.protocol import Metrics
from tidegate.core.release import HealthContract, Part


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The agent started; what the boot loader says.

    `log` is the end of the boot before; `loader` the boot loader's own record in its own words; `watchdog`: the hardware says that its watchdog made this boot.
    `attended`: this agent stays, and so can say later how the boot ended; `orderly`: one that stayed saw the boot before end as it should, or this is the
    same boot; `cause`: what the system says ended the boot before, "" for nothing.
    """

    now: int
    mono: float
    boot_id: str
    current: SlotName
    primary: SlotName
    marks: dict[str, SlotMark]
    tries: dict[str, int]
    log: str = ""
    errors: int = 0
    errors_mark: str = ""
    loader: str = ""
    watchdog: bool = False
    attended: bool = False
    orderly: bool = False
    cause: str = ""


class LocalRules(msgspec.Struct, frozen=True, kw_only=True):
    """What this device's own configuration says about waiting, in seconds.

    Attributes:
        defer_max_s: how long a person may put an activation off, holds included.
        security_deadline_s: a security release goes ahead this long after it was staged, whatever window, deferral or manual start say; 0 = when the
            order's own deadline says so.
        inhibitors_after_s: this long after that, inhibitors do not stop it either; None = they always do.
        offline_permit_s: leave to activate is asked for ahead, and kept for so long, where the order allows that; 0 = never.
        give_up_s: an update that something on this device keeps from being activated for so long is declined; 0 = never.
    """

    defer_max_s: int = 7 * 86_400
    security_deadline_s: int = 0
    inhibitors_after_s: int | None = None
    give_up_s: int = 0
    offline_permit_s: int = 0


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """The world as it is now: what is allowed to happen next is decided from this. `nonce` is fresh, for use if a question is to be asked.

    Attributes:
        window_trouble: why the order's windows cannot be judged here; they count as closed.
        unreachable: the server was asked for a session and did not answer.
        staged_s: since when an image is staged, by the clock of this boot, as far as this run of the agent saw it.
        overdue_s: the same, since when it is overdue.
    """

    now: int
    mono: float
    nonce: str
    download_open: bool = True
    activate_open: bool = True
    inhibitors: tuple[str, ...] = ()
    manual_confirm: bool = False
    online: bool = True
    unreachable: bool = False
    window_trouble: str = ""
    metered: bool = False
    staged_s: float = 0.0
    overdue_s: float = 0.0
    rules: LocalRules = LocalRules()


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


class Deferred(msgspec.Struct, frozen=True, kw_only=True, tag="deferred"):
    """A verified assignment that this device must not follow yet (`reason`); `left_s` seconds to wait, None = nobody knows."""

    now: int
    mono: float
    order: Order
    reason: str
    sha256: str
    left_s: int | None = None
    detail: str = ""


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
    """The boot loader will not boot this slot. `log` is the end of this boot, where the slot is the running one."""

    now: int
    slot: SlotName
    log: str = ""


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
    """An effect did not work. `retryable`: the same may work later, but not sooner than in `retry_after_s`."""

    now: int
    mono: float
    reason: str
    detail: str = ""
    retryable: bool = False
    retry_after_s: int = 0


class Permitted(msgspec.Struct, frozen=True, kw_only=True, tag="permitted"):
    """Leave to activate, verified: bound to this nonce."""

    now: int
    mono: float
    nonce: str
    permit: str
    valid_s: int = 0


class PermitRefused(msgspec.Struct, frozen=True, kw_only=True, tag="permit_refused"):
    """No leave now, in answer to `nonce`."""

    now: int
    mono: float
    because: str
    retry_after_s: int
    nonce: str = ""


#: What can be done with a component beside the slots (`agent.installers`).
Act = Literal["activate", "verify", "commit", "roll_back", "verify_back", "discard"]


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """A component did what `Change` said. `restart`: it wants the device to restart. `final`: it cannot be taken back any more."""

    now: int
    act: Act
    part: int = 0
    restart: bool = False
    final: bool = False


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """The boot flag is set, for as many boots as the boot loader granted."""

    now: int
    tries: int = 0


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check's word, with the reason that it stands for when it fails, and whether the device's own policy asked for it."""

    name: str
    reason: str
    ok: bool
    detail: str = ""
    own: bool = False


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Every check was run once.

    Attributes:
        errors: the error count; it only grows while the agent runs, and `errors_mark` lets a restarted one go on from it.
        contract: what was asked: the signed contract as the device's own policy narrowed it; None = just as it was signed.
        bases: what checks want to be remembered for their next look.
    """

    now: int
    mono: float
    results: tuple[ProbeResult, ...]
    errors: int
    errors_mark: str = ""
    manual_confirm: bool = False
    contract: HealthContract | None = None
    bases: Bases = {}


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The running slot is the primary, for good."""

    now: int


class Acked(msgspec.Struct, frozen=True):
    """The server holds every report up to `seq`."""

    seq: int


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A heartbeat is due. `first`: the server has not heard one since the agent started."""

    now: int
    metrics: Metrics
    first: bool = False


class HoldAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person says: nothing activates until then."""

    now: int
    reason: str
    until_at: int


class DeferAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A person puts off the activation of what is under way until then, `limit_s` after his first word at most. A time that has passed takes it back."""

    now: int
    until_at: int
    limit_s: int


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


class Noticed(msgspec.Struct, frozen=True, kw_only=True, tag="noticed"):
    """Something that the server should know, and that ends nothing."""

    now: int
    reason: str
    detail: str = ""
    log: str = ""


class Witnessed(msgspec.Struct, frozen=True, kw_only=True, tag="witnessed"):
    """A head of the operators' log that the device remembers from now on."""

    witness: Witness


#: What a worker may answer.
Answer = (
    Assigned
    | Ordered
    | Deferred
    | Refused
    | Progressed
    | Downloaded
    | Installed
    | Failed
    | Permitted
    | PermitRefused
    | Noticed
    | Witnessed
    | Changed
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
    | DeferAsked
    | ReleaseAsked
    | ApplyAsked
    | ConfirmAsked
    | RevertAsked
)


# --- effects ----------------------------------------------------------------------------------------------------------


class Refresh(msgspec.Struct, frozen=True, tag="refresh"):
    """Ask for the assignment and verify it."""


class MarkBad(msgspec.Struct, frozen=True, kw_only=True, tag="mark_bad"):
    """Tell the boot loader never to boot this slot."""

    slot: SlotName


class Download(msgspec.Struct, frozen=True, kw_only=True, tag="download"):
    """Stream the payload of a piece to where it goes, from where it stopped."""

    update: Update
    progress: Progress | None
    part: int = 0

    @property
    def piece(self) -> Part:
        """Return what is fetched."""
        return self.update.release.pieces[self.part]


class ReadBack(msgspec.Struct, frozen=True, kw_only=True, tag="read_back"):
    """Read a piece from the medium and compare it with the signed digest."""

    update: Update
    part: int = 0

    @property
    def piece(self) -> Part:
        """Return what is read."""
        return self.update.release.pieces[self.part]


class AskPermit(msgspec.Struct, frozen=True, kw_only=True, tag="ask_permit"):
    """Ask for leave to activate; with `ahead_s`, for leave that is good for so long."""

    update: Update
    nonce: str
    ahead_s: int = 0


class Arm(msgspec.Struct, frozen=True, kw_only=True, tag="arm"):
    """Set the boot flag."""

    slot: SlotName
    tries: int


class Reboot(msgspec.Struct, frozen=True, tag="reboot"):
    """Restart the device."""


class CheckHealth(msgspec.Struct, frozen=True, kw_only=True, tag="check_health"):
    """Run every check of the contract once. `bases` is what they asked to be remembered."""

    contract: HealthContract
    bases: Bases = {}


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag="commit"):
    """Make this slot the primary for good."""

    slot: SlotName


class Change(msgspec.Struct, frozen=True, kw_only=True, tag="change"):
    """Have a component beside the slots do something. `discard` and `verify_back` are for all of the update's."""

    update: Update
    act: Act
    part: int = 0

    @property
    def piece(self) -> Part:
        """Return what it is about."""
        return self.update.release.pieces[self.part]


Effect = (
    Refresh
    | MarkBad
    | Download
    | ReadBack
    | AskPermit
    | Arm
    | Reboot
    | CheckHealth
    | Commit
    | Change
)
