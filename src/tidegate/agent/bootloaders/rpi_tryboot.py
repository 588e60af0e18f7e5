"""Boot loader `rpi_tryboot`: Raspberry Pi 4, 5 and their modules, whose firmware reads `autoboot.txt` and starts another partition once when told to.

`[bootloader.rpi_tryboot] autoboot` is that file on the first partition (default `/boot/autoboot.txt`); `partitions`, the number of each slot's boot partition
in the order of the `[[slot]]` (default `["2", "3"]`). The file begins as `boot/rpi/autoboot.txt` is shipped: `[all] boot_partition` is the committed slot,
`[tryboot] boot_partition` the other, and a comment keeps what the firmware has no place for. It is rewritten in place, within its one sector, at the same size.

The firmware's flag is set by the restart itself (`reboot "0 tryboot"`), lives in no file, and is gone after one start: one try, never more. A power cut
before that restart leaves the old slot running and costs the try. Tested on emulated state, not on a board. [Guide](../guides/boot-others.md).
"""

from collections.abc import Callable
from typing import Final

import msgspec

from tidegate.agent.boot import booted, inplace
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: The firmware reads no more of it.
SIZE_MAX: Final = 512
#: What the restart is told; 0 stands for the default partition, from which `autoboot.txt` is read.
ARGUMENT: Final = "0 tryboot"
_MARK: Final = b"# tidegate "
_BOOT_LENGTH: Final = 12
_NONE: Final = "-"
_REPAIR: Final = "begin with boot/rpi/autoboot.txt as it is shipped"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds.

    Attributes:
        primary: the slot of `[all]`.
        trial: the slot on trial, kept until it is committed or marked bad.
        bad: a slot not to be booted.
        boot: during which boot the trial was armed; in a later one its try is spent.
    """

    primary: SlotName
    trial: SlotName = _NONE
    bad: SlotName = _NONE
    boot: str = _NONE * _BOOT_LENGTH


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `autoboot`, `partitions`; `slots`, the two names; `device_tree` and `boot_id`, for tests.

    Raises:
        ConfigError: `config.invalid`.
    """
    kinds = {"autoboot": str, "partitions": list, "device_tree": str, "boot_id": str}
    booted.require_known(settings, "rpi_tryboot", kinds)
    slots = booted.slots_of(settings)
    if not all(one.isascii() and one.isalnum() and len(one) == 1 for one in slots):
        raise ConfigError("config.invalid", "[[slot]] name: one letter, as in autoboot.txt's mark")
    partitions = settings.get("partitions", ["2", "3"])
    numbers = [str(one) for one in partitions] if isinstance(partitions, list) else []
    usable = all(one.isascii() and one.isdecimal() and one[0] != "0" for one in numbers)
    if len(set(numbers)) != 2 or not usable or len(numbers[0]) != len(numbers[1]):
        raise ConfigError(
            "config.invalid",
            '[bootloader.rpi_tryboot] partitions: two numbers of as many digits, such as ["2", "3"]',
        )
    return RpiTryboot(settings, dict(zip(slots, numbers, strict=True)))


class RpiTryboot:
    """`agent.ports.Bootloader` over `autoboot.txt`; it asks for a restart with an argument (`agent.ports.ArguedReboot`)."""

    def __init__(self, settings: BootSettings, partitions: dict[SlotName, str]) -> None:
        self._settings = settings
        self._path = str(settings.get("autoboot", "/boot/autoboot.txt"))
        self._tree = str(settings.get("device_tree", "/proc/device-tree"))
        self._boot_id = str(settings.get("boot_id", "/proc/sys/kernel/random/boot_id"))
        self._partitions = partitions

    def current(self) -> SlotName:
        """The slot whose partition the firmware started; where it does not say, that of the kernel command line."""
        told = self._settings.get("current") or self._firmware_says()
        return booted.current({**self._settings, "current": told})

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        return self._read().primary

    def state(self, slot: SlotName) -> SlotMark:
        """What the file holds of that slot."""
        held = self._read()
        if self._known(slot) == held.trial:
            return "trial"
        return "bad" if slot == held.bad else "good"

    def tries_left(self, slot: SlotName) -> int:
        """1 for a slot on trial until the next start, whatever that starts; else 0."""
        held = self._read()
        return int(self._known(slot) == held.trial and held.boot == self._this_boot())

    def told(self) -> str:
        """The file's mark, for the report of a trial that did not come back."""
        held = self._read()
        return f"[all] boot_partition={self._partitions[held.primary]}, {self._mark(held)}"

    def reboot_argument(self) -> str | None:
        """What the restart must be told for the trial to begin; None when there is none."""
        held = self._read()
        return ARGUMENT if held.trial != _NONE and self.tries_left(held.trial) else None

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` once, however many tries are asked for, at the restart that is told `reboot_argument`."""
        boot = self._this_boot()

        def armed(held: Record) -> Record:
            other = self._good_beside(held, slot)
            return Record(primary=other, trial=slot, boot=boot)

        self._change(armed)

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good."""

        def committed(held: Record) -> Record:
            other = self._other(slot)
            # What was on trial was never committed: it does not become good by another one's commit.
            bad = other if other in (held.bad, held.trial) else _NONE
            return Record(primary=slot, bad=bad)

        self._change(committed)

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        self._change(lambda held: Record(primary=self._good_beside(held, slot), bad=slot))

    def _good_beside(self, held: Record, slot: SlotName) -> SlotName:
        """Return the other slot, which must be good: it is what is gone back to."""
        other = self._other(slot)
        if other in (held.bad, held.trial):
            raise DeviceError("activate.bootloader", f"slot {slot} is the only good one: it stays")
        return other

    # --- the file -----------------------------------------------------------------------------------------------------

    def _read(self) -> Record:
        return self._decode(inplace.read(self._path, SIZE_MAX))

    def _change(self, change: Callable[[Record], Record]) -> None:
        inplace.edit(
            self._path, SIZE_MAX, lambda body: self._encode(body, change(self._decode(body)))
        )

    def _decode(self, body: bytes) -> Record:
        fields = _fields(body, self._path)
        if "boot_partition all" not in fields or "boot_partition tryboot" not in fields:
            raise self._wrong("[all] and [tryboot] each name a boot_partition")
        if "tryboot_a_b all" not in fields or _text(body, fields["tryboot_a_b all"]) != "1":
            raise self._wrong("[all] says tryboot_a_b=1")
        slots = {number: slot for slot, number in self._partitions.items()}
        primary = slots.get(_text(body, fields["boot_partition all"]))
        other = slots.get(_text(body, fields["boot_partition tryboot"]))
        if primary is None or other is None or primary == other:
            raise self._wrong(f"boot_partition is one of {', '.join(slots)}, each once")
        if "mark" not in fields:
            raise self._wrong("a line `# tidegate trial=- bad=- boot=------------`")
        words = _text(body, fields["mark"]).split(" ")
        said = dict(word.split("=", 1) for word in words if "=" in word)
        held = Record(
            primary=primary,
            trial=said.get("trial", ""),
            bad=said.get("bad", ""),
            boot=said.get("boot", ""),
        )
        known = {_NONE, *self._partitions}
        fits = self._mark(held) == _text(body, fields["mark"])
        if not fits or not {held.trial, held.bad} <= known or primary in (held.trial, held.bad):
            raise self._wrong("its mark fits the rest")
        return held

    def _encode(self, body: bytes, held: Record) -> bytes:
        """Put a record into the file; every field keeps its width, and everything else its place."""
        fields = _fields(body, self._path)
        changed = bytearray(body)
        texts = {
            "boot_partition all": self._partitions[held.primary],
            "boot_partition tryboot": self._partitions[self._other(held.primary)],
            "mark": self._mark(held),
        }
        for name, text in texts.items():
            changed[fields[name]] = text.encode()
        return bytes(changed)

    def _mark(self, held: Record) -> str:
        return f"trial={held.trial} bad={held.bad} boot={held.boot:.{_BOOT_LENGTH}}"

    def _wrong(self, wanted: str) -> DeviceError:
        return DeviceError("activate.bootloader", f"{self._path}: not so, that {wanted}: {_REPAIR}")

    def _firmware_says(self) -> SlotName | None:
        path = f"{self._tree}/chosen/bootloader/partition"
        try:
            number = str(int.from_bytes(inplace.read(path, 4), "big"))
        except DeviceError:
            return None
        return next((slot for slot, one in self._partitions.items() if one == number), None)

    def _this_boot(self) -> str:
        text = inplace.read(self._boot_id, 64).decode("ascii", "replace")
        return text.strip().replace("-", "")[:_BOOT_LENGTH].ljust(_BOOT_LENGTH, "0")

    def _known(self, slot: SlotName) -> SlotName:
        if slot not in self._partitions:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return slot

    def _other(self, slot: SlotName) -> SlotName:
        self._known(slot)
        return next(one for one in self._partitions if one != slot)


def _fields(body: bytes, path: str) -> dict[str, slice]:
    """Return where the values are that are changed or asked for: `KEY SECTION`, and `mark`.

    Raises:
        DeviceError: `activate.bootloader`: one stands there twice.
    """
    found: dict[str, slice] = {}
    section, at = "all", 0
    for line in body.splitlines(keepends=True):
        text = line.rstrip(b"\r\n ")
        name, start = "", 0
        if text.startswith(_MARK):
            name, start = "mark", len(_MARK)
        elif text.startswith(b"["):
            section = text.strip(b"[]").decode("ascii", "replace").lower()
        elif b"=" in text and not text.startswith(b"#"):
            key = text.partition(b"=")[0]
            name, start = f"{key.decode('ascii', 'replace')} {section}", len(key) + 1
        if name in found:
            raise DeviceError("activate.bootloader", f"{path}: {name!r} stands there twice")
        if name:
            found[name] = slice(at + start, at + len(text))
        at += len(line)
    return found


def _text(body: bytes, where: slice) -> str:
    return body[where].decode("ascii", "replace")
