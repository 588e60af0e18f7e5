"""Boot loader `efi`: the firmware's own boot manager, for boards whose kernel (or unified image) it starts without another loader.

Each slot has a boot entry (`Boot####`) of its own, found by its description: `[bootloader.efi] labels`, in the order of the `[[slot]]`, by default
`["Tidegate A", "Tidegate B"]` with the slots' names. `vars` is where efivarfs is mounted (default `/sys/firmware/efi/efivars`). A committed slot stands in
`BootOrder`, the primary first; one that is not good does not stand there. A trial is `BootNext`: the firmware deletes it before it starts the entry, so there
is one try, never more. What else stands in `BootOrder` keeps its place behind the slots.

Where two variables change, the first change alone is harmless: arming takes the slot out of `BootOrder` before it sets `BootNext`; committing and marking bad
first delete a `BootNext` of the slot that loses. Which slot runs is what `BootCurrent` says.

Tested on emulated variables, not on a board. [Guide](../guides/boot-others.md).
"""

import struct
from typing import Final

from tidegate.agent.boot import booted
from tidegate.agent.boot.efi_variables import EfiVariables
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

_ACTIVE: Final = 1


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `labels`, `vars`; `slots`, the two names.

    Raises:
        ConfigError: `config.invalid`.
    """
    booted.require_known(settings, "efi", {"labels": list, "vars": str})
    slots = booted.slots_of(settings)
    labels = settings.get("labels", [f"Tidegate {slot}" for slot in slots])
    found = [str(one) for one in labels] if isinstance(labels, list) else []
    if len(set(found)) != 2:
        raise ConfigError(
            "config.invalid", "[bootloader.efi] labels: the descriptions of two boot entries"
        )
    variables = EfiVariables(str(settings.get("vars", "/sys/firmware/efi/efivars")))
    return Efi(settings, variables, dict(zip(slots, found, strict=True)))


class Efi:
    """`agent.ports.Bootloader` over `BootOrder` and `BootNext`."""

    def __init__(
        self, settings: BootSettings, variables: EfiVariables, labels: dict[SlotName, str]
    ) -> None:
        self._settings = settings
        self._variables = variables
        self._labels = labels

    def current(self) -> SlotName:
        """The slot whose entry the firmware started; where it was another one (a loader in between), that of the kernel command line."""
        told = self._settings.get("current") or self._firmware_says()
        return booted.current({**self._settings, "current": told})

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        entries = self._entries()
        slots = {number: slot for slot, number in entries.items()}
        for number in self._order():
            if number in slots:
                return slots[number]
        raise DeviceError(
            "activate.bootloader",
            "BootOrder names none of the slots: `efibootmgr -o` puts one there",
        )

    def state(self, slot: SlotName) -> SlotMark:
        """Good: in `BootOrder`. On trial: what `BootNext` names, or what runs without being good. Else bad."""
        number = self._entry(slot)
        if number in self._order():
            return "good"
        return "trial" if self._next() == number or self.current() == slot else "bad"

    def tries_left(self, slot: SlotName) -> int:
        """1 for a slot on trial until it is started; else 0."""
        number = self._entry(slot)
        return int(self._next() == number and number not in self._order())

    def told(self) -> str:
        """The variables, for the report of a trial that did not come back."""
        following = self._next()
        order = ",".join(f"{one:04X}" for one in self._order()[:32])
        named = ", ".join(f"{slot}={number:04X}" for slot, number in self._entries().items())
        return f"{named}, BootOrder={order}, BootNext={'' if following is None else f'{following:04X}'}"

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` once, however many tries are asked for, at the next start."""
        number = self._entry(slot)
        self._require_good(self._other(slot))
        self._reorder([one for one in self._order() if one != number])
        if self._next() != number:
            self._variables.write("BootNext", struct.pack("<H", number))

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good; the other one stays behind it if it is good."""
        number, other = self._entry(slot), self._entry(self._other(slot))
        self._forget(other)
        order = self._order()
        behind = [other] if other in order else []
        self._reorder([number, *behind, *(one for one in order if one not in (number, other))])
        self._forget(number)

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        number = self._entry(slot)
        self._require_good(self._other(slot))
        self._forget(number)
        self._reorder([one for one in self._order() if one != number])

    def _require_good(self, slot: SlotName) -> None:
        if self._entry(slot) not in self._order():
            raise DeviceError(
                "activate.bootloader",
                f"slot {slot} does not stand in BootOrder: the other is the only good one, and stays",
            )

    # --- the variables ------------------------------------------------------------------------------------------------

    def _order(self) -> list[int]:
        body = self._variables.read("BootOrder") or b""
        if len(body) % 2:
            raise DeviceError(
                "activate.bootloader", "BootOrder is damaged: `efibootmgr -o` sets it anew"
            )
        return list(struct.unpack(f"<{len(body) // 2}H", body))

    def _reorder(self, order: list[int]) -> None:
        if order != self._order():
            self._variables.write("BootOrder", struct.pack(f"<{len(order)}H", *order))

    def _next(self) -> int | None:
        body = self._variables.read("BootNext")
        return None if body is None else _number(body, "BootNext")

    def _forget(self, number: int) -> None:
        if self._next() == number:
            self._variables.delete("BootNext")

    def _firmware_says(self) -> SlotName | None:
        body = self._variables.read("BootCurrent")
        if body is None:
            return None
        number = _number(body, "BootCurrent")
        return next((slot for slot, one in self._entries().items() if one == number), None)

    def _entries(self) -> dict[SlotName, int]:
        """Find each slot's boot entry.

        Raises:
            DeviceError: `activate.bootloader`: none, or more than one, or one that the firmware skips.
        """
        by_label: dict[str, list[int]] = {}
        for name in self._variables.names():
            digits = name.removeprefix("Boot")
            if len(name) == 8 and len(digits) == 4 and set(digits) <= set("0123456789ABCDEF"):
                label = _label(self._variables.read(name) or b"")
                by_label.setdefault(label, []).append(int(digits, 16))
        found = {}
        for slot, label in self._labels.items():
            numbers = by_label.get(label, [])
            if len(numbers) != 1:
                raise DeviceError(
                    "activate.bootloader",
                    f'{len(numbers)} active boot entries "{label}", not one: `efibootmgr` shows them, `efibootmgr -c -L "{label}"` makes one',
                )
            found[slot] = numbers[0]
        return found

    def _entry(self, slot: SlotName) -> int:
        if slot not in self._labels:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return self._entries()[slot]

    def _other(self, slot: SlotName) -> SlotName:
        return next(one for one in self._labels if one != slot)


def _number(body: bytes, name: str) -> int:
    if len(body) != 2:
        raise DeviceError(
            "activate.bootloader", f"{name} is damaged: it holds one number of 16 bits"
        )
    return int.from_bytes(body, "little")


def _label(option: bytes) -> str:
    """Read the description of a load option (attributes, length of the path list, description with its end, …); "" for one that is not active, or damaged."""
    if len(option) < 6 or not option[0] & _ACTIVE:
        return ""
    text = option[6:]
    end = next((at for at in range(0, len(text) - 1, 2) if text[at : at + 2] == b"\0\0"), 0)
    return text[:end].decode("utf-16-le", "replace")
