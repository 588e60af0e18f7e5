"""A simulated board: two slots, a boot loader that counts down, a watchdog, and images that behave as the simulator's truth says.

What boots is decided by the bytes in the slot: a torn image is no image, whatever anybody believes about it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

import msgspec

from tidegate.agent.ports import Bootloader, PowerCut, SlotMark, SlotName
from tidegate.core.errors import DeviceError
from tidegate.sim.clock import DeviceClock
from tidegate.sim.component import SimComponent
from tidegate.sim.disk import MemorySlot, MemoryStorage, Power, SlotMedium
from tidegate.sim.faults import Behaviour, DiskFaults, Truth

SLOTS: Final[tuple[SlotName, SlotName]] = ("A", "B")
#: Boots in a row without a running system before the board is called dead.
BOOTS_MAX: Final = 32
WATCHDOG_S: Final = 60.0
BOOT_S: Final = 20.0


@dataclass(frozen=True)
class Image:
    """One known image: what a slot with exactly these bytes runs."""

    counter: int
    version: str
    sha256: str
    size: int


@dataclass
class Catalogue:
    """Every image that was ever signed for this population, by digest."""

    images: dict[str, Image] = field(default_factory=dict)

    def add(self, image: Image) -> None:
        """Make an image known."""
        self.images[image.sha256] = image

    def find(self, slot: SlotMedium) -> Image | None:
        """Return the image whose exact bytes stand in the slot, durably; None for a torn or foreign one."""
        for size in sorted({image.size for image in self.images.values()}):
            if size <= slot.size:
                found = self.images.get(hashlib.sha256(slot.durable(size)).hexdigest())
                if found is not None and found.size == size:
                    return found
        return None


class LoaderState(msgspec.Struct, frozen=True, kw_only=True):
    """What the boot loader keeps, replaced as a whole by one durable write."""

    primary: SlotName = "A"
    trial: SlotName | None = None
    tries: int = 0
    bad: tuple[SlotName, ...] = ()


class SimBootloader:
    """`agent.ports.Bootloader` with its state in one durable record."""

    def __init__(self, power: Power, random: Random) -> None:
        """Start with slot A confirmed."""
        self._power = power
        self._random = random
        self.kept = LoaderState()
        self.running: SlotName = "A"
        self.on_change: Callable[[str, SlotName], None] = lambda _action, _slot: None

    def current(self) -> SlotName:
        """The slot that is running."""
        self._power.check()
        return self.running

    def primary(self) -> SlotName:
        """The slot that boots when nothing is on trial."""
        self._power.check()
        return self.kept.primary

    def state(self, slot: SlotName) -> SlotMark:
        """What the loader holds of that slot."""
        self._power.check()
        if slot == self.kept.trial:
            return "trial"
        return "bad" if slot in self.kept.bad else "good"

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial."""
        self._power.check()
        return self.kept.tries if slot == self.kept.trial else 0

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Try `slot` at the next boot."""
        bad = tuple(one for one in self.kept.bad if one != slot)
        self._keep(
            "arm", slot, LoaderState(primary=self.kept.primary, trial=slot, tries=tries, bad=bad)
        )

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary."""
        bad = tuple(one for one in self.kept.bad if one != slot)
        self._keep("commit", slot, LoaderState(primary=slot, bad=bad))

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        other = next(one for one in SLOTS if one != slot)
        primary = other if slot == self.kept.primary else self.kept.primary
        trial = None if slot == self.kept.trial else self.kept.trial
        self._keep(
            "mark_bad",
            slot,
            LoaderState(
                primary=primary,
                trial=trial,
                tries=self.kept.tries if trial else 0,
                bad=tuple(sorted({*self.kept.bad, slot})),
            ),
        )

    def choose(self) -> SlotName:
        """Decide what to boot, spending a try first. Part of the boot loader, not of the agent."""
        kept = self.kept
        if kept.trial is None:
            return kept.primary
        if kept.tries > 0:
            less = msgspec.structs.replace(kept, tries=kept.tries - 1)
            self._keep("count_down", kept.trial, less)
            return kept.trial
        bad = tuple(sorted({*kept.bad, kept.trial}))
        self._keep("give_up", kept.trial, LoaderState(primary=kept.primary, bad=bad))
        return kept.primary

    def _keep(self, action: str, slot: SlotName, state: LoaderState) -> None:
        cut = self._power.operation(f"bootloader.{action}")
        if cut == "before" or (cut == "torn" and self._random.random() < 0.5):
            self._power.fail()
        self.kept = state
        self.on_change(action, slot)
        if cut is not None:
            self._power.fail()


@dataclass
class Trial:
    """One time that the boot flag was set: which release, from which, and what came of it. The boot loader's own record, whatever the agent reports."""

    counter: int
    from_counter: int
    slot: SlotName
    armed_at: float
    outcome: Literal["open", "confirmed", "reverted"] = "open"

    @property
    def is_fallback(self) -> bool:
        """Say whether this went back to an older release."""
        return self.counter < self.from_counter


@dataclass
class History:
    """What really happened on a board. `cuts` says of each power cut when it came: `install`, `flag` (as the boot flag was set) or `after`."""

    boots: int = 0
    failed_boots: int = 0
    torn_boots: int = 0
    trials: list[Trial] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    trail: list[tuple[float, str]] = field(default_factory=list)


class SimBoard:
    """`agent.ports.Board`, and the hardware underneath it.

    Attributes:
        storage: the agent's state directory.
        components: what is kept beside the slots, by name.
        loader: the boot loader with its own state; `bootloader` is what the agent sees of it.
        history: the truth about every boot.
        dead: the board found nothing to boot, `BOOTS_MAX` times in a row, or what it booted destroyed it.
    """

    def __init__(
        self,
        *,
        variant: str,
        clock: DeviceClock,
        random: Random,
        catalogue: Catalogue,
        truth: Truth,
        slot_size: int,
    ) -> None:
        """Make a board without any image; see `load`."""
        self.variant = variant
        self.clock = clock
        self.random = random
        self.catalogue = catalogue
        self.truth = truth
        self.power = Power(random)
        self.power.on_fail = self._note_cut
        self.disk = DiskFaults()
        self.storage = MemoryStorage(self.power, self.disk)
        self.media = {name: SlotMedium(slot_size) for name in SLOTS}
        self.components: dict[str, SimComponent] = {}
        self.loader = SimBootloader(self.power, random)
        self.bootloader: Bootloader = self.loader
        self.loader.on_change = self._record
        self.history = History()
        self.dead = False
        self.wants_reboot = False
        self._image: Image | None = None
        self._boot_id = ""
        self._log = ""
        self._bitten = False
        #: What the kernel says at the next start ended the run before, as of a crash; it says so once.
        self.panicked = False
        self._errors = 0
        self._counted_at = 0.0
        self._seen: dict[SlotName, tuple[int, Image | None]] = {}

    # --- agent.ports.Board -----------------------------------------------------------------------------------------

    def slots(self) -> tuple[SlotName, SlotName]:
        """The two slots."""
        return SLOTS

    def open_slot(self, slot: SlotName) -> MemorySlot:
        """Open a slot's bytes."""
        self.power.check()
        if slot not in self.media:
            raise DeviceError("install.slot", f"no slot {slot}")
        return MemorySlot(slot, self.media[slot], self.power, self.disk)

    def slot_folder(self, slot: SlotName) -> str:
        """No slot here is a folder."""
        raise DeviceError("install.slot", f"slot {slot} is no folder")

    def component(self, name: str) -> SimComponent:
        """Return where a component is kept."""
        self.power.check()
        if name not in self.components:
            raise DeviceError("install.slot", f"no component {name}")
        return self.components[name]

    def boot_id(self) -> str:
        """A name for this boot."""
        return self._boot_id

    def reboot(self) -> None:
        """Note that the device is to restart; the device object does it when the agent has returned."""
        self.power.check()
        self.wants_reboot = True

    def boot_log(self, armed_boot: str) -> str:
        """The end of the previous boot's log."""
        return self._log

    def running_log(self) -> str:
        """A simulated system writes no log while it runs."""
        return ""

    def whole_log(self) -> str:
        """What the next boot would find."""
        return self._log

    def log_kept(self) -> None:
        """The log is one line, and the next boot's own."""
        self._log = ""
        self.panicked = False

    def last_words(self) -> str:
        """Say whether the system crashed by itself."""
        return "panic" if self.panicked else ""

    def watchdog_reset(self) -> bool:
        """Say whether the image before hung until the watchdog reset the board."""
        return self._bitten

    # --- the hardware ----------------------------------------------------------------------------------------------

    def add_component(self, name: str, image: bytes, size: int) -> SimComponent:
        """Give the board a component beside the slots, with an image as the factory put it in; `size` is the room for a copy, in bytes."""
        made = SimComponent(name, size, self.power, self.random, self.disk)
        made.load(image)
        self.components[name] = made
        return made

    def load(self, image: bytes, slot: SlotName = "A") -> None:
        """Put an image into a slot as the factory does."""
        self.media[slot].load(image)

    def image_in(self, slot: SlotName) -> Image | None:
        """Return what really stands in a slot, by its bytes."""
        medium = self.media[slot]
        known = self._seen.get(slot)
        if known is None or known[0] != medium.writes:
            known = (medium.writes, self.catalogue.find(medium))
            self._seen[slot] = known
        return known[1]

    @property
    def image(self) -> Image | None:
        """What really runs; None on a board that runs nothing."""
        return self._image

    def behaviour(self) -> Behaviour:
        """How the running image behaves here."""
        counter = self._image.counter if self._image is not None else 0
        return self.truth.of(counter, self.variant)

    def start(self) -> None:
        """Switch on: the boot loader decides, until something runs. A `PowerCut` in here only means another try."""
        self.wants_reboot = False
        self._bitten = False
        for _ in range(BOOTS_MAX):
            self._power_on()
            try:
                if self._boot_once():
                    return
            except PowerCut:
                continue
        self.dead = True
        self._image = None

    def _power_on(self) -> None:
        for medium in self.media.values():
            medium.lose(self.random)
        for one in self.components.values():
            one.lose()
        self.power.restore()

    def _boot_once(self) -> bool:
        self.history.boots += 1
        slot = self.loader.choose()
        self.clock.sleep(BOOT_S)
        image = self.image_in(slot)
        behaviour = self.truth.of(image.counter, self.variant) if image is not None else None
        self._note(slot, image)
        if image is None:
            self.history.torn_boots += 1
        if behaviour is not None and behaviour.bricks:
            self.history.failed_boots += 1
            self.dead, self._image = True, None
            return True
        if behaviour is None or not behaviour.boots or behaviour.hangs:
            self.history.failed_boots += 1
            self._bitten = behaviour is not None and behaviour.boots
            self.clock.sleep(WATCHDOG_S)
            self._log = f"slot {slot}: no running system; reset by the watchdog"
            return False
        self.loader.running, self._image = slot, image
        self.clock.restart()
        self._boot_id = self.clock.random_bytes(8).hex()
        self._errors, self._counted_at = 0, 0.0
        return True

    def _record(self, action: str, slot: SlotName) -> None:
        trials = self.history.trials
        current = trials[-1] if trials and trials[-1].outcome == "open" else None
        if action == "arm":
            if current is None or current.slot != slot:
                trials.append(self._trial(slot))
        elif current is not None and current.slot == slot and action != "count_down":
            current.outcome = "confirmed" if action == "commit" else "reverted"

    def _note_cut(self) -> None:
        trials, where = self.history.trials, self.power.cut_at[-1]
        open_now = bool(trials) and trials[-1].outcome == "open"
        phase = "after" if open_now else "install"
        self.history.cuts.append("flag" if "bootloader.arm" in where else phase)

    def _trial(self, slot: SlotName) -> Trial:
        image, running = self.image_in(slot), self._image
        return Trial(
            counter=image.counter if image is not None else 0,
            from_counter=running.counter if running is not None else 0,
            slot=slot,
            armed_at=self.clock.at(),
        )

    def _note(self, slot: SlotName, image: Image | None) -> None:
        name = f"{slot}:{image.version if image is not None else 'torn'}"
        self.history.trail.append((self.clock.at(), name))

    # --- what the system on the board shows ------------------------------------------------------------------------

    def errors_total(self) -> int:
        """Errors since this boot: a seeded Poisson count of what the running image really logs."""
        now = self.clock.monotonic()
        behaviour = self.behaviour()
        rate = behaviour.errors_per_hour or 0.0
        start, usual = self._counted_at, self.truth.errors_per_hour
        calm = max(0.0, min(now, behaviour.calm_s) - start)
        loud = max(0.0, now - max(start, behaviour.calm_s))
        self._errors += poisson(self.random, (calm * min(rate, usual) + loud * rate) / 3600)
        self._counted_at = max(start, now)
        return self._errors


def poisson(random: Random, mean: float) -> int:
    """Draw a Poisson count; by the normal approximation above a mean of 50."""
    if mean <= 0:
        return 0
    if mean > 50:
        return max(0, round(random.gauss(mean, mean**0.5)))
    count, total = 0, random.expovariate(1.0)
    while total < mean:
        count += 1
        total += random.expovariate(1.0)
    return count
