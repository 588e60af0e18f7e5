"""Boot loader `file`: a small file in place of a boot loader, for simulators, containers and demonstrations.

`[bootloader.file] path` is the record (`agent.boot.file_record`); whoever starts the slots, `tidegate sim board` for one, takes the boot decision from it and
sets `TIDEGATE_SLOT` to the slot that it started. The file must be on a journalling file system: it is renamed over.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import os

from tidegate.agent.boot import file_record as boot_file
from tidegate.agent.boot.file_record import BootRecord
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.files import replace_file
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Set by whoever started this slot; stands for the kernel command line of a real board.
SLOT_VARIABLE = "TIDEGATE_SLOT"


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `path` of the record; `slots`, the two names; `current`, for tests, instead of `TIDEGATE_SLOT`.

    Raises:
        ConfigError: `config.missing` or `config.invalid`.
    """
    path, slots = settings.get("path"), settings.get("slots")
    if not isinstance(path, str) or not path:
        raise ConfigError("config.missing", "[bootloader.file] path: where the boot record is")
    if not isinstance(slots, list | tuple) or len(slots) != 2:
        raise ConfigError("config.invalid", "[[slot]]: exactly two are needed")
    current = settings.get("current") or os.environ.get(SLOT_VARIABLE)
    if current is not None and current not in slots:
        raise ConfigError("config.invalid", f"{SLOT_VARIABLE}={current!s:.64} is no slot")
    names = (str(slots[0]), str(slots[1]))
    return FileBootloader(path, names, None if current is None else str(current))


class FileBootloader:
    """`agent.ports.Bootloader` over one file."""

    def __init__(
        self, path: str, slots: tuple[SlotName, SlotName], current: SlotName | None
    ) -> None:
        self._path = path
        self._slots = slots
        self._current = current

    def current(self) -> SlotName:
        """The slot that is running, by the word of whoever started it; without one, the primary."""
        return self._current if self._current is not None else self._read().primary

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        return self._read().primary

    def state(self, slot: SlotName) -> SlotMark:
        """What the record holds of that slot."""
        return boot_file.mark(self._read(), slot)

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        record = self._read()
        return record.tries if slot == record.trial else 0

    def told(self) -> str:
        """The record."""
        record = self._read()
        tried = f"trial={record.trial} tries={record.tries}" if record.trial else "no trial"
        return f"primary={record.primary} {tried} bad={','.join(record.bad) or 'none'}"

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times."""
        self._write(boot_file.armed(self._read(), slot, tries))

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good."""
        self._write(boot_file.committed(self._read(), slot))

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        self._write(boot_file.marked_bad(self._read(), slot))

    def _read(self) -> BootRecord:
        try:
            with open(self._path, "rb") as file:
                body = file.read()
        except FileNotFoundError:
            return BootRecord(slots=self._slots, primary=self._slots[0])
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{self._path}: {error.strerror}") from error
        return boot_file.decode(body)

    def _write(self, record: BootRecord) -> None:
        try:
            replace_file(self._path, boot_file.encode(record))
        except DeviceError as error:
            raise DeviceError("activate.bootloader", error.detail) from error
