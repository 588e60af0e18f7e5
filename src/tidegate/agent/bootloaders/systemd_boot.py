"""Boot loader `systemd_boot`: systemd-boot with boot counting, which keeps its record in the names of two entries on the EFI system partition.

`[bootloader.systemd_boot] esp` is where that partition is mounted (default `/efi`). In `loader/entries` each slot has one entry named
`tidegate-NUMBER-SLOT.conf`; behind the slot stands `+LEFT-DONE` while boots are counted. systemd-boot starts the entry with the highest number that has boots
left, and renames it before it does. So one rename carries order and tries: `arm_trial` gives the slot the highest number and a count, `commit` takes the count
away, `mark_bad` leaves `+0`. Each rename is to a free name, then the file is made durable, then the folder: on FAT another order may lose the entry.

The entries carry no `sort-key` and no `version`, `loader.conf` no `default`, and `systemd-bless-boot.service` is masked: each would decide in the agent's
place. Their `options` say `tidegate.slot=SLOT`. A committed slot is not counted: systemd-boot tries it for ever. Other files of the folder are left
alone. [Guide](../guides/boot-systemd-boot.md).
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH104, PTH108, PTH110, PTH118, PTH123, PTH208

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from tidegate.agent.boot import booted
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.files import sync_directory
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Most tries that can be asked for; as in `protocol.DeliveryPolicy`.
TRIES_MAX: Final = 15
PREFIX: Final = "tidegate-"
SUFFIX: Final = ".conf"
#: With four digits every name takes as many directory entries as any other: a new one always fits where an old one was.
NUMBER_MAX: Final = 9999
#: Directory entries in a sector of FAT, and what a name needs of them: one for each 13 characters, and one.
_ENTRIES: Final = 16
_CHARACTERS: Final = 13
_NAME_ENTRIES: Final = 3
_ENTRY_MAX: Final = 64 << 10
#: A choice that a person made in the menu; it would win over every count.
_CHOICE: Final = "LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class Entry(msgspec.Struct, frozen=True):
    """One slot's entry, as its name says it. `left` None = not counted."""

    number: int
    slot: SlotName
    left: int | None = None
    done: int = 0

    @property
    def rank(self) -> tuple[bool, int]:
        """What systemd-boot sorts by: the greatest is started."""
        return self.left != 0, self.number


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `esp`, where the EFI system partition is mounted; `efivars`, where efivarfs is (for tests); `slots`, the two names.

    Raises:
        ConfigError: `config.invalid`.
    """
    booted.require_known(settings, "systemd_boot", {"esp": str, "efivars": str})
    esp = str(settings.get("esp", "/efi"))
    efivars = str(settings.get("efivars", "/sys/firmware/efi/efivars"))
    slots = booted.slots_of(settings)
    if not all(one.isascii() and one.isalpha() and len(one) == 1 for one in slots):
        raise ConfigError("config.invalid", "[[slot]] name: one letter, as in the entry's name")
    if slots[0].lower() == slots[1].lower():
        raise ConfigError("config.invalid", "[[slot]] name: FAT does not tell cases apart")
    return SystemdBoot(esp, efivars, slots, settings)


class SystemdBoot:
    """`agent.ports.Bootloader` over the names of boot loader entries."""

    def __init__(
        self,
        esp: str,
        efivars: str,
        slots: tuple[SlotName, SlotName],
        settings: BootSettings,
    ) -> None:
        self._loader = os.path.join(esp, "loader")
        self._folder = os.path.join(esp, "loader", "entries")
        self._efivars = efivars
        self._slots = slots
        self._settings = settings

    def current(self) -> SlotName:
        """The slot that the kernel was started from."""
        return booted.current(self._settings)

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        entries = self._read()
        good = [one for one in entries.values() if one.left is None]
        if not good:
            raise DeviceError("activate.bootloader", f"{self._folder}: no slot was ever committed")
        return max(good, key=lambda one: one.rank).slot

    def state(self, slot: SlotName) -> SlotMark:
        """What the entry's name says. One that was counted down by booting stays on trial, also at 0; one behind a committed slot is not tried at all."""
        entries = self._read()
        entry, other = entries[self._known(slot)], entries[self._other(slot)]
        if entry.left is None:
            return "good"
        first = entry.number > other.number or other.left is not None
        return "trial" if first and (entry.left or entry.done) else "bad"

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        if self.state(slot) != "trial":
            return 0
        return self._read()[slot].left or 0

    def told(self) -> str:
        """The names of the entries, for the report of a trial that did not come back."""
        return ", ".join(_name(one) for one in self._read().values())

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times."""
        self._refuse_choices()
        with self._locked():
            entries = self._read()
            other = entries[self._other(slot)]
            if other.left is not None:
                raise DeviceError(
                    "activate.bootloader",
                    f"slot {other.slot} was never committed: nothing to go back to",
                )
            granted = max(1, min(tries, TRIES_MAX))
            self._rename(entries[slot], Entry(_above(entries[slot], other), slot, granted))

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good."""
        with self._locked():
            entries = self._read()
            number = _above(entries[self._known(slot)], entries[self._other(slot)])
            self._rename(entries[slot], Entry(number, slot))

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        with self._locked():
            entries = self._read()
            other = entries[self._other(slot)]
            if other.left is not None:
                raise DeviceError(
                    "activate.bootloader", f"slot {slot} is the only good one: it stays"
                )
            self._rename(entries[slot], Entry(entries[slot].number, slot, 0))

    # --- the folder ---------------------------------------------------------------------------------------------------

    def _read(self) -> dict[SlotName, Entry]:
        """Return each slot's entry: of several, what a cut may leave, the one that would be started."""
        found: dict[SlotName, Entry] = {}
        for entry in sorted(self._entries(), key=lambda one: one.rank):
            if self._starts_something(entry):
                found[entry.slot] = entry
        for slot in self._slots:
            if slot not in found:
                raise DeviceError(
                    "activate.bootloader",
                    f"{self._folder}: no entry for slot {slot}: make {_name(Entry(1, slot))}",
                )
        return found

    def _entries(self) -> list[Entry]:
        found = (_parse(name, self._slots) for name in self._names())
        return [one for one in found if one is not None]

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{self._folder}: {error.strerror}") from error

    def _starts_something(self, entry: Entry) -> bool:
        """Say whether the entry names something to start; one that does must also tell the kernel its slot."""
        path = self._path(entry)
        try:
            with open(path, "rb") as file:
                lines = file.read(_ENTRY_MAX).decode("utf-8", "replace").splitlines()
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
        words = [line.split() for line in lines]
        keys = {one[0] for one in words if len(one) > 1}
        if not keys & {"linux", "efi", "uki"}:
            return False
        if wrong := keys & {"sort-key", "version"}:
            raise DeviceError(
                "activate.bootloader",
                f"{path}: take {min(wrong)} out: the number in the name must decide the order",
            )
        said = f"{booted.PARAMETERS[0]}={entry.slot}"
        if not any(one[:1] == ["options"] and said in one for one in words):
            raise DeviceError("activate.bootloader", f"{path}: options must say {said}")
        return True

    def _rename(self, before: Entry, after: Entry) -> None:
        """Give an entry another name, durably. What stands there already is made durable all the same: who was killed here may have left it half done."""
        if after.number > NUMBER_MAX:
            raise DeviceError(
                "activate.bootloader",
                f"{self._folder}: number {NUMBER_MAX} is reached: rename both entries by hand, to 1 and 2",
            )
        self._require_room()
        try:
            self._clean_up(before)
            same = after == before or (after.left == before.left == 0 and not before.done)
            after = before if same else after
            if not same:
                if os.path.exists(self._path(after)):
                    raise DeviceError(
                        "activate.bootloader", f"{self._path(after)}: stands there already"
                    )
                os.rename(self._path(before), self._path(after))
            _sync_file(self._path(after))
            sync_directory(self._folder)
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{self._folder}: {error.strerror}") from error

    def _clean_up(self, kept: Entry) -> None:
        """Take away what an interrupted rename left of this slot. What is not empty may share its cluster with `kept`: it is renamed, not deleted."""
        for entry in self._entries():
            if entry.slot != kept.slot or entry == kept:
                continue
            path = self._path(entry)
            if os.stat(path).st_size == 0:  # noqa: PTH116
                os.unlink(path)
            else:
                aside = os.path.join(self._folder, f"{PREFIX}left-over-{entry.number}.old")
                if os.path.exists(aside):
                    raise DeviceError(
                        "activate.bootloader", f"{path}: run fsck.vfat, and remove {aside}"
                    )
                os.rename(path, aside)
                _sync_file(aside)
            sync_directory(self._folder)

    def _require_room(self) -> None:
        """Refuse a folder that is so full that old and new name could lie in different sectors: a cut between them would lose the entry."""
        used = sum(-(-len(name) // _CHARACTERS) + 1 for name in self._names())
        if 2 + used + _NAME_ENTRIES > _ENTRIES:
            raise DeviceError(
                "activate.bootloader",
                f"{self._folder}: too many files: a rename could span sectors; keep the two slots' entries and little else",
            )

    def _refuse_choices(self) -> None:
        """Refuse what makes systemd-boot start one entry whatever its count says."""
        path = os.path.join(self._loader, "loader.conf")
        try:
            with open(path, "rb") as file:
                lines = file.read(_ENTRY_MAX).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{path}: {error.strerror}") from error
        if any(line.split()[:1] in (["default"], ["preferred"]) for line in lines):
            raise DeviceError("activate.bootloader", f"{path}: take the line `default` out")
        if os.path.exists(os.path.join(self._efivars, _CHOICE)):
            raise DeviceError(
                "activate.bootloader",
                'somebody chose a default in the menu: `bootctl set-default ""` takes it back',
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let only one of ours (the agent, a person's command) rename at a time."""
        try:
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{self._folder}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _path(self, entry: Entry) -> str:
        names = {_parse(name, self._slots): name for name in self._names()}
        return os.path.join(self._folder, names.get(entry) or _name(entry))

    def _known(self, slot: SlotName) -> SlotName:
        if slot not in self._slots:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return slot

    def _other(self, slot: SlotName) -> SlotName:
        return self._slots[1 - self._slots.index(self._known(slot))]


def _above(entry: Entry, other: Entry) -> int:
    """Return a number that puts an entry first."""
    return entry.number if entry.number > other.number else other.number + 1


def _name(entry: Entry) -> str:
    counted = "" if entry.left is None else f"+{entry.left}" + (f"-{entry.done}" * bool(entry.done))
    return f"{PREFIX}{entry.number}-{entry.slot.lower()}{counted}{SUFFIX}"


def _parse(name: str, slots: tuple[SlotName, SlotName]) -> Entry | None:
    """Read a file name; None = somebody else's."""
    lower = name.lower()
    if not lower.startswith(PREFIX) or not lower.endswith(SUFFIX):
        return None
    number, _, rest = lower[len(PREFIX) : -len(SUFFIX)].partition("-")
    letter, plus, count = rest.partition("+")
    slot = next((one for one in slots if one.lower() == letter), None)
    left, minus, done = count.partition("-")
    if slot is None or not _is_number(number) or (plus and not _is_number(left)):
        return None
    if minus and not _is_number(done):
        return None
    if not plus:
        return Entry(int(number), slot)
    return Entry(int(number), slot, int(left), int(done or "0"))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _sync_file(path: str) -> None:
    """Make a file durable under its present name: on FAT it is this, not the folder's sync, that writes where its bytes are."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
