"""Boot loader `barebox`: barebox with its bootchooser over the state framework, by way of `barebox-state` (Debian: dt-utils).

`[bootloader.barebox]`: `tool` (default `barebox-state`), `state`, the name of the state (`state`), `prefix` of its variables (`bootstate`), and `targets`, the
bootchooser's names of the slots in the order of the `[[slot]]` (`["system0", "system1"]`). Each target has `remaining_attempts` and `priority`; barebox starts
the one of the highest priority that has attempts left, and writes down one less before it does. A slot on trial has priority 30, the primary 20, the other good
one 10, a bad one 0. All variables of a change go into one call, which `barebox-state` writes to its redundant copies at once.

barebox counts a committed slot as well: the agent refills it to 15 after a healthy start. Set `global.bootchooser.reset_attempts="all-zero"`, so that barebox
never stops for want of attempts. Tested with a program that keeps the same record, not on a board. [Guide](../guides/boot-others.md).
"""

from typing import Final

import msgspec

from tidegate.agent.boot import booted
from tidegate.agent.boot import tool as boot_tool
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Most tries that can be asked for; what a committed slot is refilled to.
TRIES_MAX: Final = 15
TRIAL: Final = 30
PRIMARY: Final = 20
SPARE: Final = 10
_TIMEOUT_S: Final = 30.0


class Target(msgspec.Struct, frozen=True):
    """What barebox keeps of one slot."""

    priority: int
    attempts: int


#: Both slots.
Targets = dict[SlotName, Target]


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `tool`, `state`, `prefix`, `targets`; `slots`, the two names.

    Raises:
        ConfigError: `config.invalid`.
    """
    kinds = {"tool": str, "state": str, "prefix": str, "targets": list}
    booted.require_known(settings, "barebox", kinds)
    slots = booted.slots_of(settings)
    targets = settings.get("targets", ["system0", "system1"])
    found = [str(one) for one in targets] if isinstance(targets, list) else []
    if len(set(found)) != 2 or not all(one.replace("_", "").isalnum() for one in found):
        raise ConfigError(
            "config.invalid", "[bootloader.barebox] targets: two names of the bootchooser's"
        )
    return Barebox(settings, dict(zip(slots, found, strict=True)))


class Barebox:
    """`agent.ports.CountingBootloader` over `barebox-state`."""

    def __init__(self, settings: BootSettings, targets: dict[SlotName, str]) -> None:
        self._settings = settings
        self._command = (
            str(settings.get("tool", "barebox-state")),
            "-n",
            str(settings.get("state", "state")),
        )
        prefix = settings.get("prefix", "bootstate")
        self._names = {slot: f"{prefix}.{target}" for slot, target in targets.items()}

    def current(self) -> SlotName:
        """The slot that the kernel was started from."""
        return booted.current(self._settings)

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        return _primary(self._read())

    def state(self, slot: SlotName) -> SlotMark:
        """What the state holds of that slot."""
        return _mark(self._read()[self._known(slot)])

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        held = self._read()[self._known(slot)]
        return held.attempts if _mark(held) == "trial" else 0

    def counted_down(self) -> bool:
        """Say whether barebox counted the running slot down, and it is the primary with nothing left to try before it."""
        held, current = self._read(), self.current()
        waiting = any(_mark(one) == "trial" and one.attempts for one in held.values())
        settled = not waiting and _primary(held) == current
        return settled and held[current].attempts < TRIES_MAX

    def told(self) -> str:
        """The state's variables, for the report of a trial that did not come back."""
        held = self._read()
        return ", ".join(
            f"{self._names[slot]}: priority {one.priority}, remaining_attempts {one.attempts}"
            for slot, one in held.items()
        )[:400]

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times."""
        other = self._good_beside(self._read(), slot)
        granted = max(1, min(tries, TRIES_MAX))
        self._write({slot: Target(TRIAL, granted), other: Target(PRIMARY, TRIES_MAX)})

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, with all of its attempts."""
        other = self._other(slot)
        good = _mark(self._read()[other]) == "good"
        behind = Target(SPARE, TRIES_MAX) if good else Target(0, 0)
        self._write({slot: Target(PRIMARY, TRIES_MAX), other: behind})

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        other = self._good_beside(self._read(), slot)
        self._write({slot: Target(0, 0), other: Target(PRIMARY, TRIES_MAX)})

    def _good_beside(self, held: Targets, slot: SlotName) -> SlotName:
        """Return the other slot, which must be good: it is what is gone back to."""
        other = self._other(slot)
        if _mark(held[other]) != "good":
            raise DeviceError("activate.bootloader", f"slot {slot} is the only good one: it stays")
        return other

    def _read(self) -> Targets:
        asked = [
            f"{self._names[slot]}.{one}"
            for slot in self._names
            for one in ("priority", "remaining_attempts")
        ]
        words = [word for name in asked for word in ("-g", name)]
        lines = boot_tool.run([*self._command, *words], _TIMEOUT_S).split()
        if len(lines) != len(asked) or not all(one.isdecimal() for one in lines):
            raise DeviceError(
                "activate.bootloader",
                f"{self._command[0]} does not say what {', '.join(asked)} are: `{self._command[0]} -d` shows its variables",
            )
        numbers = [int(one) for one in lines]
        return {
            slot: Target(numbers[2 * at], numbers[2 * at + 1])
            for at, slot in enumerate(self._names)
        }

    def _write(self, wanted: Targets) -> None:
        """Set everything in one call: it is written to the state's copies at once."""
        if wanted == self._read():
            return
        words = []
        for slot, target in wanted.items():
            words += ["-s", f"{self._names[slot]}.priority={target.priority}"]
            words += ["-s", f"{self._names[slot]}.remaining_attempts={target.attempts}"]
        boot_tool.run([*self._command, *words], _TIMEOUT_S)

    def _known(self, slot: SlotName) -> SlotName:
        if slot not in self._names:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return slot

    def _other(self, slot: SlotName) -> SlotName:
        self._known(slot)
        return next(one for one in self._names if one != slot)


def _mark(target: Target) -> SlotMark:
    """Say what a target's numbers mean. One on trial stays so when its attempts are spent."""
    if target.priority == 0:
        return "bad"
    return "trial" if target.priority >= TRIAL else "good"


def _primary(held: Targets) -> SlotName:
    good = {slot: one for slot, one in held.items() if _mark(one) == "good"}
    if not good:
        raise DeviceError(
            "activate.bootloader", "no slot has a priority of 1 to 29: none was ever committed"
        )
    return max(good, key=lambda slot: (bool(good[slot].attempts), good[slot].priority))
