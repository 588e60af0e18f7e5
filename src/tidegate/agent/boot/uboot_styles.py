"""What two kinds of U-Boot boot script make of the environment, as pure functions of it: what each variable means, and which ones a change sets.

`order`: the script walks `BOOT_ORDER` and takes the first slot that has tries left in `BOOT_<slot>_LEFT`, one less each time (ours, `boot/uboot/tidegate.cmd`,
and the ones that RAUC describes). It counts the confirmed slot down as well, so that must be filled up again after every healthy boot.

`bootcount`: U-Boot itself counts up in `bootcount` while `upgrade_available` is 1, and runs `altbootcmd` instead of `bootcmd` past `bootlimit`
(`boot/uboot/tidegate-bootcount.env`, and the ones that Mender and SWUpdate describe). What is confirmed is not counted.

In both, `tidegate_trial` names the slot on trial. Only the agent reads and writes it, in the same write as the rest: a slot that was put first to be tried
looks no different from one that was put first to stay, and a slot that the loader gave up on still has to be known as one that was tried.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from tidegate.agent.boot.uboot_env import Changes, Environment
from tidegate.agent.ports import SlotMark, SlotName
from tidegate.core.errors import DeviceError

#: Names the slot on trial; see above.
TRIAL: Final = "tidegate_trial"
#: Names the slots that must not be booted, in style `bootcount`; `altbootcmd` may ask.
BAD: Final = "tidegate_bad"
_AVAILABLE: Final = "upgrade_available"
_COUNT: Final = "bootcount"
_LIMIT: Final = "bootlimit"


class Style(Protocol):
    """How one kind of script keeps it. Every method raises DeviceError `activate.bootloader` for values that make no sense: nothing is made up."""

    def names(self) -> tuple[str, ...]:
        """Name the variables that say what is booted."""
        ...

    def primary(self, env: Environment) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        ...

    def state(self, env: Environment, slot: SlotName, running: SlotName | None) -> SlotMark:
        """What is held of that slot, by a system that runs from `running`; None = not known."""
        ...

    def tries_left(self, env: Environment, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        ...

    def counted_down(self, env: Environment, slot: SlotName) -> bool:
        """Say whether a confirmed slot has fewer boots left than it was confirmed with."""
        ...

    def armed(self, env: Environment, slot: SlotName, tries: int) -> Changes:
        """Put a slot on trial."""
        ...

    def committed(self, env: Environment, slot: SlotName) -> Changes:
        """Keep a slot for good."""
        ...

    def marked_bad(self, env: Environment, slot: SlotName) -> Changes:
        """Never boot a slot until it is armed again."""
        ...


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`Style` `order`. What is in `BOOT_ORDER` and is none of our slots (a rescue system) keeps its place among the others.

    Attributes:
        slots: our two.
        order: the variable with the slots in the order in which they are tried.
        left: the variable with a slot's tries, `{slot}` standing for its name. Hexadecimal, as `setexpr` counts.
        full: tries of a confirmed slot.
        tries_max: most tries that the script can count.
    """

    slots: tuple[SlotName, SlotName]
    order: str = "BOOT_ORDER"
    left: str = "BOOT_{slot}_LEFT"
    full: int = 3
    tries_max: int = 15

    def names(self) -> tuple[str, ...]:
        """The order, the tries, the trial."""
        return (self.order, *map(self._name, self.slots), TRIAL)

    def primary(self, env: Environment) -> SlotName:
        """The first slot that is not on trial and has tries left; when all are spent, the first: the script fills them up."""
        trial = env.get(TRIAL)
        ours = [one for one in self._order(env) if one in self.slots]
        settled = [one for one in ours if one != trial] or ours
        return next((one for one in settled if self._left(env, one)), settled[0])

    def state(self, env: Environment, slot: SlotName, running: SlotName | None) -> SlotMark:
        """Bad is what is not in the order, and what was given up by the script."""
        if slot not in self._order(env):
            return "bad"
        left = self._left(env, slot)
        if slot == env.get(TRIAL):
            return "trial"
        return "good" if left or slot == running else "bad"

    def tries_left(self, env: Environment, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        return self._left(env, slot) if self.state(env, slot, None) == "trial" else 0

    def counted_down(self, env: Environment, slot: SlotName) -> bool:
        """Say whether the script counted."""
        return self._left(env, slot) < self.full

    def armed(self, env: Environment, slot: SlotName, tries: int) -> Changes:
        """First in the order, with its tries; what it would go back to gets all of its own."""
        others = [one for one in self._order(env) if one != slot]
        back = next((one for one in others if one in self.slots), None)
        given = max(1, min(tries, self.tries_max))
        return {
            self.order: " ".join((slot, *others)),
            **({self._name(back): f"{self.full:x}"} if back is not None else {}),
            self._name(slot): f"{given:x}",
            TRIAL: slot,
        }

    def committed(self, env: Environment, slot: SlotName) -> Changes:
        """First in the order, with all tries. A trial of the other one ends with that: never confirmed, it is no slot to fall back on."""
        trial = env.get(TRIAL)
        ended = trial if trial in self.slots and trial != slot else None
        others = [one for one in self._order(env) if one not in (slot, ended)]
        return {
            self.order: " ".join((slot, *others)),
            self._name(slot): f"{self.full:x}",
            **({self._name(ended): "0"} if ended is not None else {}),
            TRIAL: None,
        }

    def marked_bad(self, env: Environment, slot: SlotName) -> Changes:
        """Out of the order, so that filling up spent slots does not bring it back; the next one gets all of its tries."""
        others = [one for one in self._order(env) if one != slot]
        back = next((one for one in others if one in self.slots), None)
        if back is None:
            raise _nothing_left(slot)
        trial = env.get(TRIAL)
        return {
            self.order: " ".join(others),
            self._name(slot): "0",
            # Tries of a slot on trial are the server's to give.
            **({self._name(back): f"{self.full:x}"} if back != trial else {}),
            **({TRIAL: None} if trial == slot else {}),
        }

    def _name(self, slot: SlotName) -> str:
        return self.left.replace("{slot}", slot)

    def _order(self, env: Environment) -> list[str]:
        text = env.get(self.order)
        found = list(dict.fromkeys((text or "").split()))
        if not any(one in self.slots for one in found):
            raise DeviceError(
                "activate.bootloader",
                f"{self.order} is {text!r:.80} and names none of {', '.join(self.slots)}: fw_setenv {self.order} '{' '.join(self.slots)}', "
                "or does the boot script use another variable?",
            )
        return found

    def _left(self, env: Environment, slot: SlotName) -> int:
        name = self._name(slot)
        return _number(env, name, 16, f"fw_setenv {name} {self.full:x}")


class Bootcount(msgspec.Struct, frozen=True, kw_only=True):
    """`Style` `bootcount`.

    Attributes:
        slots: our two.
        select: for each slot the variables, with their values, that make `bootcmd` boot it.
        tries_max: largest `bootlimit` that is set.
    """

    slots: tuple[SlotName, SlotName]
    select: Mapping[SlotName, Mapping[str, str]]
    tries_max: int = 15

    def names(self) -> tuple[str, ...]:
        """What selects, U-Boot's own counters, the trial."""
        return (*self.select[self.slots[0]], _AVAILABLE, _COUNT, _LIMIT, TRIAL, BAD)

    def primary(self, env: Environment) -> SlotName:
        """The selected slot; the other one while that is on trial and the other may be booted."""
        selected = self._selected(env)
        back = self._other(selected)
        on_trial = selected == self._trial(env) and back not in self._bad(env)
        return back if on_trial else selected

    def state(self, env: Environment, slot: SlotName, running: SlotName | None) -> SlotMark:
        """What was on trial and is not selected any more was given up: on trial, with no try left."""
        if slot == self._trial(env):
            return "trial"
        return "bad" if slot in self._bad(env) else "good"

    def tries_left(self, env: Environment, slot: SlotName) -> int:
        """What `bootlimit` leaves."""
        if slot != self._trial(env) or slot != self._selected(env) or not self._counts(env):
            return 0
        # Past a limit of 0 U-Boot never runs altbootcmd.
        limit = _number(env, _LIMIT, 10, f"fw_setenv {_LIMIT} 3")
        return max(0, limit - self._number(env, _COUNT))

    def counted_down(self, env: Environment, slot: SlotName) -> bool:
        """Never: U-Boot counts trials only."""
        return False

    def armed(self, env: Environment, slot: SlotName, tries: int) -> Changes:
        """Selected, counted from 0."""
        if self._other(slot) in self._bad(env):
            raise _nothing_left(self._other(slot))
        return {
            **self.select[slot],
            _COUNT: "0",
            _LIMIT: str(max(1, min(tries, self.tries_max))),
            _AVAILABLE: "1",
            TRIAL: slot,
            BAD: self._bad_list(env, slot, bad=False),
        }

    def committed(self, env: Environment, slot: SlotName) -> Changes:
        """Selected, not counted any more. A trial of the other one ends with that: never confirmed, it is no slot to fall back on."""
        other = self._other(slot)
        ended = self._trial(env) == other or other in self._bad(env)
        return {
            **self.select[slot],
            _COUNT: "0",
            _AVAILABLE: "0",
            TRIAL: None,
            BAD: other if ended else None,
        }

    def marked_bad(self, env: Environment, slot: SlotName) -> Changes:
        """The other one selected; not counted, unless that is on trial itself."""
        other = self._other(slot)
        if other in self._bad(env):
            raise _nothing_left(slot)
        changes: dict[str, str | None] = {BAD: self._bad_list(env, slot, bad=True)}
        if self._selected(env) == slot:
            changes |= {**self.select[other], _COUNT: "0", _AVAILABLE: "0"}
        if self._trial(env) == slot:
            changes[TRIAL] = None
        return changes

    def _selected(self, env: Environment) -> SlotName:
        for slot, wanted in self.select.items():
            if all(env.get(name) == value for name, value in wanted.items()):
                return slot
        ways = " or ".join(
            " ".join(f"{name}={value}" for name, value in one.items())
            for one in self.select.values()
        )
        raise DeviceError(
            "activate.bootloader",
            f"the U-Boot environment selects no slot: it wants {ways}; set it with fw_setenv, or correct [bootloader.uboot] select",
        )

    def _trial(self, env: Environment) -> SlotName | None:
        named = env.get(TRIAL)
        if named is not None:
            return named
        return self._selected(env) if self._counts(env) else None

    def _counts(self, env: Environment) -> bool:
        return self._number(env, _AVAILABLE) != 0

    def _number(self, env: Environment, name: str) -> int:
        """Read a counter; U-Boot itself takes one that is not there for 0."""
        return 0 if env.get(name) is None else _number(env, name, 10, f"fw_setenv {name} 0")

    def _bad(self, env: Environment) -> list[str]:
        return (env.get(BAD) or "").split()

    def _bad_list(self, env: Environment, slot: SlotName, *, bad: bool) -> str | None:
        kept = [one for one in self._bad(env) if one != slot]
        return " ".join((*kept, slot) if bad else kept) or None

    def _other(self, slot: SlotName) -> SlotName:
        first, second = self.slots
        return second if slot == first else first


def _number(env: Environment, name: str, radix: int, remedy: str) -> int:
    text = env.get(name)
    digits: Sequence[str] = "0123456789abcdefABCDEF"[: 10 if radix == 10 else None]
    if text is None or not 1 <= len(text) <= 4 or any(one not in digits for one in text):
        raise DeviceError("activate.bootloader", f"{name} is {text!r:.40} and no number: {remedy}")
    return int(text, radix)


def _nothing_left(slot: SlotName) -> DeviceError:
    return DeviceError(
        "activate.bootloader",
        f"slot {slot[:64]} is the only one that can be booted: without it nothing would be",
    )
