"""Boot loader `grub`: GRUB on BIOS or EFI with the shipped `boot/grub/tidegate.cfg`, which keeps its record in an environment block.

`[bootloader.grub] env` is the block, 1,024 bytes made by `grub-editenv FILE create` (default `/boot/grub/grubenv`). Its variables: `ORDER`, the slots in the
order in which they are tried; for each slot `X_TRY`, boots left (`00` to `15`), and `X_OK`, 1 once it was committed. GRUB boots the first slot of `ORDER` with
boots left, and writes down one less before it loads the kernel; a committed slot is counted as well, and refilled by the agent once it is healthy, so that one
that stops booting is left for the other after 15 times. The slots' names are those of the script: A and B. The kernel gets `tidegate.slot=NAME`.

The block is rewritten in place, within one sector, in one write: that is atomic on FAT, on ext4 and on a raw disk, where a new file renamed over the old one
is not. Other variables stay as they are. [Guide](../guides/boot-grub.md).
"""

from collections.abc import Callable
from typing import Final

from tidegate.agent.boot import booted, inplace
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Size of the block: GRUB's tools make no other.
SIZE: Final = 1024
HEADER: Final = b"# GRUB Environment Block\n"
#: Most tries that can be asked for; what a committed slot is refilled to. The script's cascade ends here.
TRIES_MAX: Final = 15
_REPAIR: Final = "make it anew with `grub-editenv FILE create`, the boot script fills it in"

Variables = dict[str, str]


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `env`, path of the environment block; `slots`, the two names.

    Raises:
        ConfigError: `config.invalid`.
    """
    booted.require_known(settings, "grub", {"env": str})
    path = str(settings.get("env", "/boot/grub/grubenv"))
    slots = booted.slots_of(settings)
    if not all(_is_name(one) for one in slots) or slots[0] == slots[1]:
        raise ConfigError(
            "config.invalid",
            "[[slot]] name: letters and digits, as boot/grub/tidegate.cfg has them",
        )
    return Grub(path, slots, settings)


class Grub:
    """`agent.ports.CountingBootloader` over a GRUB environment block."""

    def __init__(self, path: str, slots: tuple[SlotName, SlotName], settings: BootSettings) -> None:
        self._path = path
        self._slots = slots
        self._settings = settings

    def current(self) -> SlotName:
        """The slot that the kernel was started from."""
        return booted.current(self._settings)

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        return self._read().primary

    def state(self, slot: SlotName) -> SlotMark:
        """What the block holds of that slot."""
        return self._read().mark(slot)

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        held = self._read()
        return held.left(slot) if held.mark(slot) == "trial" else 0

    def counted_down(self) -> bool:
        """Say whether the script counted the running slot down, and it is the primary with nothing left to try before it."""
        held, current = self._read(), self.current()
        first = held.order[0]
        settled = held.good(first) or not held.left(first)
        return settled and held.primary == current and held.left(current) < TRIES_MAX

    def told(self) -> str:
        """The block's own words on the slots, for the report of a trial that did not come back."""
        return self._read().words()

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times: order and tries in one write."""

        def armed(held: Record) -> Variables:
            other = held.other(slot)
            if not held.good(other):
                # Without one to go back to, a trial would be no trial.
                raise DeviceError(
                    "activate.bootloader",
                    f"slot {other} was never committed: nothing to go back to",
                )
            return _first(slot, other, good=False, tries=max(1, min(tries, TRIES_MAX)))

        self._change(armed)

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, and refill its boots. Repeated after every healthy boot; nothing is written when they are full."""
        self._change(lambda held: _first(slot, held.other(slot), good=True, tries=TRIES_MAX))

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""

        def marked(held: Record) -> Variables:
            other = held.other(slot)
            if not held.good(other):
                raise DeviceError(
                    "activate.bootloader", f"slot {slot} is the only good one: it stays"
                )
            return {
                "ORDER": f"{other} {slot}",
                f"{slot}_OK": "0",
                f"{slot}_TRY": "00",
                # The other one is what must boot now: it may have been counted down while it was not the one that ran.
                f"{other}_TRY": f"{TRIES_MAX:02}",
            }

        self._change(marked)

    def _read(self) -> "Record":
        return Record(decode(inplace.read(self._path, SIZE), self._path), self._slots, self._path)

    def _change(self, change: "Callable[[Record], Variables]") -> None:
        def rewritten(body: bytes) -> bytes:
            held = Record(decode(body, self._path), self._slots, self._path)
            return encode(body, change(held), self._path)

        inplace.edit(self._path, SIZE, rewritten)


class Record:
    """What a block says of two slots.

    Raises:
        DeviceError: `activate.bootloader`: a variable is missing or none of its values.
    """

    def __init__(self, held: Variables, slots: tuple[SlotName, SlotName], path: str) -> None:
        self._held = held
        self._slots = slots
        self._path = path
        order = tuple(held.get("ORDER", "").split())
        if sorted(order) != sorted(slots):
            raise self._wrong("ORDER")
        for slot in slots:
            if held.get(f"{slot}_OK") not in ("0", "1"):
                raise self._wrong(f"{slot}_OK")
            self.left(slot)
        self.order = order

    @property
    def primary(self) -> SlotName:
        """The committed slot that is tried first."""
        good = [one for one in self.order if self.good(one)]
        ready = [one for one in good if self.left(one)]
        if not good:
            raise DeviceError("activate.bootloader", f"{self._path}: no slot was ever committed")
        return (ready or good)[0]

    def words(self) -> str:
        """Return the variables as they stand there, in one line."""
        names = ("ORDER", *(f"{slot}_{one}" for slot in self._slots for one in ("OK", "TRY")))
        return ", ".join(f"{name}={self._held[name]}" for name in names)

    def good(self, slot: SlotName) -> bool:
        """Say whether the slot was committed and not marked bad since."""
        return self._held[f"{slot}_OK"] == "1"

    def left(self, slot: SlotName) -> int:
        """Return the boots left."""
        text = self._held.get(f"{slot}_TRY", "")
        if not text.isdecimal() or not text.isascii() or int(text) > TRIES_MAX:
            raise self._wrong(f"{slot}_TRY")
        return int(text)

    def mark(self, slot: SlotName) -> SlotMark:
        """Say what the loader makes of a slot. On trial is what stands first without having been committed, also when its tries are spent."""
        self.other(slot)
        if self.good(slot):
            return "good"
        return "trial" if self.order[0] == slot else "bad"

    def other(self, slot: SlotName) -> SlotName:
        """Return the other slot."""
        if slot not in self._slots:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return self._slots[1 - self._slots.index(slot)]

    def _wrong(self, name: str) -> DeviceError:
        value = self._held.get(name)
        said = "is missing" if value is None else f"is {value[:40]!r}"
        return DeviceError("activate.bootloader", f"{self._path}: {name} {said}: {_REPAIR}")


def _first(slot: SlotName, other: SlotName, *, good: bool, tries: int) -> Variables:
    return {
        "ORDER": f"{slot} {other}",
        f"{slot}_OK": "1" if good else "0",
        f"{slot}_TRY": f"{tries:02}",
    }


def _is_name(slot: str) -> bool:
    return slot.isascii() and slot.isalnum() and len(slot) <= 16


def decode(body: bytes, path: str) -> Variables:
    """Read an environment block.

    Args:
        body: its bytes.
        path: for the message.

    Raises:
        DeviceError: `activate.bootloader`: damaged. Nothing is made up in its place.
    """
    found: Variables = {}
    for line in _lines(body, path):
        name, equals, value = line.partition(b"=")
        if equals and not line.startswith(b"#"):
            found[name.decode("utf-8", "replace")] = _unescaped(value[:-1])
    return found


def encode(body: bytes, changes: Variables, path: str) -> bytes:
    """Return the block with some variables changed, everything else byte for byte as it was.

    Raises:
        DeviceError: `activate.bootloader`: damaged, or no room.
    """
    fresh = {name.encode(): f"{name}={value}\n".encode() for name, value in changes.items()}
    held = _lines(body, path)
    names = [line.partition(b"=")[0] for line in held]
    lines = [fresh.get(name, line) for name, line in zip(names, held, strict=True)]
    lines += [line for name, line in fresh.items() if name not in names]
    content = b"".join(lines)
    if len(content) > SIZE:
        raise DeviceError("activate.bootloader", f"{path}: no room: unset what is not needed")
    return content.ljust(SIZE, b"#")


def _lines(body: bytes, path: str) -> list[bytes]:
    """Split a block into lines, each with its end; the padding is left away. A line end behind a backslash belongs to the value."""
    if len(body) != SIZE or not body.startswith(HEADER):
        raise DeviceError("activate.bootloader", f"{path}: no GRUB environment block: {_REPAIR}")
    content = body.rstrip(b"#")
    if not content.endswith(b"\n"):
        raise DeviceError("activate.bootloader", f"{path}: a line without its end: {_REPAIR}")
    lines, start, at = [], 0, 0
    while at < len(content):
        if content[at : at + 1] == b"\\":
            at += 2
            continue
        at += 1
        if content[at - 1 : at] == b"\n":
            lines.append(content[start:at])
            start = at
    if start < len(content):
        raise DeviceError("activate.bootloader", f"{path}: a line without its end: {_REPAIR}")
    return lines


def _unescaped(value: bytes) -> str:
    found = bytearray()
    escaped = False
    for one in value:
        if one == 0x5C and not escaped:
            escaped = True
            continue
        found.append(one)
        escaped = False
    return found.decode("utf-8", "replace")
