"""What the agent needs of the world, as protocols: the real device implements them, and so does the simulator (`tidegate.sim`).

Time, randomness, disk, slots, boot loader, network and the board's own word on health all come in through here, so that the same machine and the same runner
can be cut off the power at every durable operation.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

from tidegate.core.release import HealthCheck

SlotName = str  # "A" or "B"
#: What checks compare with from one round to the next, by check and name.
Bases = dict[str, int | str]


class PowerCut(BaseException):
    """The power went away; raised by simulated ports only. Nothing may catch it but the simulator."""


class Clock(Protocol):
    """Time on this device. `now` may be wrong by decades; `monotonic` only moves forward and restarts at boot."""

    def now(self) -> float:
        """Unix seconds by the device's own clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since some instant of this boot."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait. A simulated clock only notes the time."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable bytes (nonces, keys, jitter)."""
        ...


#: What vouches for a clock: `synced`: the kernel holds it synchronised; `rtc`: a battery-backed clock agrees with it; `none`: nobody.
Proof = Literal["synced", "rtc", "none"]


@runtime_checkable
class ProvenClock(Clock, Protocol):
    """A clock that says what vouches for it. One that does not say is not believed (`agent.timekeeping`)."""

    def proof(self) -> Proof:
        """Say what vouches for `now`, at this moment."""
        ...

    def set(self, at: float) -> bool:
        """Set the system's clock, unix seconds. Return whether the system let us."""
        ...


class Response(Protocol):
    """An HTTP answer whose body is read in pieces. Header names are lower case."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields, names in lower case."""
        ...

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes; b"" at the end. Raises TransferError (`download.truncated`, `.timeout`, …) for every way a link fails."""
        ...

    def close(self) -> None:
        """Give the connection back or away. Safe to repeat."""
        ...


class Transport(Protocol):
    """HTTP to the control plane. Every failure is a TransferError with a `download.*` code; any status is an answer."""

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Send one request to `path` (absolute path on the configured server)."""
        ...


class Storage(Protocol):
    """Small durable files of the agent's state directory, outside the slots. Names are plain (`journal.0`)."""

    def read(self, name: str) -> bytes | None:
        """Return the content, or None when it does not exist."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Replace the content: new file, fsync, rename, fsync of the directory. After return it is durable; a cut leaves old or new."""
        ...

    def delete(self, name: str) -> None:
        """Remove durably. Safe to repeat."""
        ...

    def names(self) -> list[str]:
        """List what is there."""
        ...

    def free_bytes(self) -> int:
        """Room left, in bytes."""
        ...


class SlotDevice(Protocol):
    """The bytes of one slot: a block device or a file of fixed size.

    Attributes:
        size: in bytes.
    """

    size: int

    @property
    def concurrent(self) -> bool:
        """Whether threads may call while others do. What they write keeps no order among them then."""
        ...

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write; durable only after `flush`. Raises DeviceError `install.write` or `install.space`."""
        ...

    def zero_at(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Read from the medium, past any cache where the system allows."""
        ...

    def flush(self) -> None:
        """Return when everything written is durable."""
        ...

    def close(self) -> None:
        """Let go. Safe to repeat."""
        ...


SlotMark = Literal["good", "trial", "bad"]


class Bootloader(Protocol):
    """The boot flag. Each change is one atomic durable write; a cut leaves old or new. Only the boot loader decides what boots."""

    def current(self) -> SlotName:
        """The slot that is running."""
        ...

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        ...

    def state(self, slot: SlotName) -> SlotMark:
        """What the boot loader holds of that slot."""
        ...

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        ...

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times, then go back to the primary by itself."""
        ...

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good."""
        ...

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        ...


@runtime_checkable
class CountingBootloader(Bootloader, Protocol):
    """A boot loader that counts the confirmed slot down as well: it must be committed again after every healthy boot (`agent.runner`)."""

    def counted_down(self) -> bool:
        """Say whether the running slot is confirmed, nothing is on trial, and boots have been counted since it was committed last."""
        ...


class ComponentPlace(Protocol):
    """Where a component beside the slots is kept: two copies, `a` and `b`, of which at most one is live."""

    @property
    def path(self) -> str:
        """The folder of it, for installers that write file trees. Raises DeviceError `install.slot` where there is no file system."""
        ...

    def live(self) -> str:
        """Which copy is live; "" for none."""
        ...

    def open(self, copy: str, size: int) -> SlotDevice:
        """Open a copy that is one file, of exactly `size` bytes; made when it is not there. Raises DeviceError `install.*`."""
        ...

    def make_live(self, copy: str) -> None:
        """Make a copy live, or none (""): one atomic durable change."""
        ...

    def drop(self, copy: str) -> None:
        """Remove a copy. Safe to repeat."""
        ...


@runtime_checkable
class TellingBootloader(Bootloader, Protocol):
    """A boot loader that can say what its own record holds, for the report of a trial that did not come back."""

    def told(self) -> str:
        """The record in the loader's own words, one line, at most 400 characters. Raises DeviceError as the other questions do."""
        ...


@runtime_checkable
class ArguedReboot(Protocol):
    """A boot loader whose trial begins with a restart that is told something: the flag is in no file."""

    def reboot_argument(self) -> str | None:
        """Say what the next restart must be told (one argument, blanks included), or None for a plain one."""
        ...


class Board(Protocol):
    """The device's slots, boot loader and power switch."""

    @property
    def bootloader(self) -> Bootloader:
        """Who decides what boots."""
        ...

    def slots(self) -> tuple[SlotName, SlotName]:
        """The names of the two slots."""
        ...

    def open_slot(self, slot: SlotName) -> SlotDevice:
        """Open a slot's bytes for reading and writing. Raises DeviceError `install.slot`."""
        ...

    def slot_folder(self, slot: SlotName) -> str:
        """The folder of a slot that is a folder. Raises DeviceError `install.slot` for any other, and for the running one."""
        ...

    def component(self, name: str) -> ComponentPlace:
        """Where that component is kept. Raises DeviceError `install.slot`: it is not kept here."""
        ...

    def boot_id(self) -> str:
        """A name for this boot, new each time."""
        ...

    def reboot(self) -> None:
        """Restart the device. May return; the process is then about to end."""
        ...

    def boot_log(self, armed_boot: str) -> str:
        """The end of the previous boot's log, at most 16 KiB; "" where none is kept, or where that boot was `armed_boot`, the one that set the boot flag."""
        ...

    def running_log(self) -> str:
        """The end of this boot's log, at most 16 KiB; "" where none is kept."""
        ...

    def whole_log(self) -> str:
        """The ends of this boot's log and of the one before, at most 192 KiB, for whoever looks for the cause of a failure; "" where none is kept."""
        ...

    def log_kept(self) -> None:
        """What earlier boots left behind is written down, or was before anything was on trial: it is not returned again."""
        ...

    def watchdog_reset(self) -> bool:
        """Say whether the hardware blames its watchdog for this boot."""
        ...

    def last_words(self) -> str:
        """Say what the system itself says ended the boot before: `panic`, or "" for nothing. Ask before `log_kept`."""
        ...


class HealthProbe(Protocol):
    """One health check, made from a contract's entry by `agent.health.load` (or by a simulated board)."""

    def check(self, now: float) -> tuple[bool, str]:
        """Return (passes, detail in a few words). Never raises; bounded in time."""
        ...


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """A round of checks to do: `signed` asked for by the release, `own` by this device; `bases` is what they asked to be remembered."""

    signed: tuple[HealthCheck, ...]
    own: tuple[HealthCheck, ...] = ()
    bases: Bases = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check's word. `name` is unique in a round."""

    name: str
    reason: str
    ok: bool
    detail: str = ""
    own: bool = False


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a whole round, in its order, and what is to be remembered for the next."""

    results: tuple[Finding, ...]
    bases: Bases = {}


class Examiner(Protocol):
    """Does rounds of checks, one at a time, beside everything else: nothing here blocks, whatever a check does."""

    def begin(self, checkup: Checkup) -> None:
        """Begin a round; one under way is given up."""
        ...

    def answer(self) -> Findings | None:
        """Return the round's result once it is there, or None. A check that did not answer in time failed."""
        ...

    def close(self) -> None:
        """Give up the round under way, and end all that it started. Safe to repeat."""
        ...


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A count of errors that only grows, and the place in its source where it was taken.

    Attributes:
        problem: why the source could not be read; the count is the one before then.
    """

    count: int = 0
    mark: str = ""
    problem: str = ""


class ErrorCounter(Protocol):
    """The device's own count of errors (a file, the journal, a metric), for the warm-up and for heartbeats."""

    def read(self, last: Reading | None) -> Reading:
        """Go on counting from `last`, also where a source began anew since; None = begin here. Bounded in time, never raises."""
        ...


class Meters(Protocol):
    """The device's own metrics, for heartbeats. What is told was not heard until `heard` says so."""

    def told(self, seconds: int) -> dict[str, float]:
        """Return, by name, what each metric amounted to in the seconds since it was heard last (`protocol.Metrics.named`). Bounded in time; never raises."""
        ...

    def heard(self) -> None:
        """What was told last is known to the server."""
        ...


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The world of one device.

    Attributes:
        examiner: does the health checks.
        inhibitors: what says "not now" at this moment, in words.
        meters: reads the device's own metrics; None = there are none.
        connect: opens the way to another server by its origin (`http://cache.site:8080`); None = over plain sockets, with the system's authorities.
    """

    clock: Clock
    storage: Storage
    board: Board
    transport: Transport
    examiner: Examiner
    errors: ErrorCounter
    meters: Meters | None = None
    inhibitors: Callable[[], tuple[str, ...]] = tuple
    connect: Callable[[str], Transport] | None = None


class World(Protocol):
    """What whoever works on a device may use of it."""

    @property
    def clock(self) -> Clock:
        """Time and randomness."""
        ...

    @property
    def storage(self) -> Storage:
        """The state directory."""
        ...

    @property
    def board(self) -> Board:
        """Slots and boot loader."""
        ...

    @property
    def transport(self) -> Transport:
        """The way to the server."""
        ...
