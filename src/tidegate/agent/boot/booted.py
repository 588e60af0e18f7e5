"""Which slot is running, by the word of whoever started it: never by what a boot loader would start next.

After a revert the boot loader's record may still name the other slot first; only the command line of the running kernel tells what was started.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import os
from collections.abc import Mapping, Sequence
from typing import Final

from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import SlotName
from tidegate.core.errors import ConfigError, DeviceError
from tidegate.core.nearest import did_you_mean

#: Set by whoever started this slot; stands for the kernel command line on boards that have none (containers, virtual boards).
SLOT_VARIABLE: Final = "TIDEGATE_SLOT"
#: Kernel parameters that name the slot, ours first. The second is what RAUC's boot scripts set.
PARAMETERS: Final = ("tidegate.slot", "rauc.slot")
#: Settings of every boot loader: the slots' names, and for tests what was booted.
_EVERYWHERE: Final = frozenset({"slots", "current", "cmdline"})
_LINE_MAX: Final = 64 << 10


def slots_of(settings: BootSettings) -> tuple[SlotName, SlotName]:
    """Return the two slots' names.

    Raises:
        ConfigError: `config.invalid`: not exactly two.
    """
    slots = settings.get("slots")
    if not isinstance(slots, list | tuple) or len(slots) != 2:
        raise ConfigError("config.invalid", "[[slot]]: exactly two are needed")
    return str(slots[0]), str(slots[1])


def require_known(settings: BootSettings, name: str, kinds: Mapping[str, type]) -> None:
    """Refuse settings that a back end does not know, and values of another kind than it wants.

    Args:
        settings: of the boot loader.
        name: its name.
        kinds: the type of each setting of its own.

    Raises:
        ConfigError: `config.invalid`.
    """
    for key, value in settings.items():
        if key in _EVERYWHERE:
            continue
        if key not in kinds:
            near = did_you_mean(key, kinds)
            raise ConfigError("config.invalid", f"[bootloader.{name}] unknown key {key[:64]}{near}")
        if not isinstance(value, kinds[key]) or (kinds[key] is int and isinstance(value, bool)):
            raise ConfigError("config.invalid", f"[bootloader.{name}] {key}: not {value!r:.60}")
        if value in ("", []):
            raise ConfigError("config.invalid", f"[bootloader.{name}] {key} is empty")


def current(settings: BootSettings) -> SlotName:
    """Return the slot that this system was started from.

    Asked in this order: `current` of the settings (for tests), `TIDEGATE_SLOT`, the kernel command line (`tidegate.slot=NAME`, `rauc.slot=NAME`).

    Args:
        settings: of the boot loader; `cmdline` is another file than `/proc/cmdline`.

    Raises:
        DeviceError: `activate.bootloader`: nobody says, or it is no slot of this device.
    """
    slots = slots_of(settings)
    said = settings.get("current") or os.environ.get(SLOT_VARIABLE) or _parameter(settings)
    if said is None:
        raise DeviceError(
            "activate.bootloader",
            f"the kernel command line names no slot: the boot script passes {PARAMETERS[0]}={slots[0]}",
        )
    return _known(str(said), slots)


def _known(said: str, slots: Sequence[SlotName]) -> SlotName:
    if said not in slots:
        raise DeviceError(
            "activate.bootloader",
            f"booted from {said[:64]!r}, which is none of: {', '.join(slots)}",
        )
    return said


def _parameter(settings: BootSettings) -> str | None:
    path = str(settings.get("cmdline") or "/proc/cmdline")
    try:
        with open(path, "rb") as file:
            words = file.read(_LINE_MAX).decode("utf-8", "replace").split()
    except OSError as error:
        raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
    for name in PARAMETERS:
        # The last one wins, as for the kernel itself.
        for word in reversed(words):
            key, _, value = word.partition("=")
            if key == name and value:
                return value
    return None
