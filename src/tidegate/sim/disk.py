"""A simulated disk: small durable files and two slots over one power supply that can fail at every durable operation.

What a cut leaves is what real storage leaves: a renamed file is old or new; a slot keeps any part of what was not flushed, down to half
a page. Pages with the same bytes are kept once for all devices, so that a fleet's slots fit in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tidegate.agent.ports import PowerCut
from tidegate.core.errors import DeviceError
from tidegate.sim.faults import Cut, CutMode, DiskFaults

PAGE: Final = 4096
_ZEROS: Final = bytes(PAGE)
#: One copy of each page, for all simulated slots of this process.
_pages: dict[bytes, bytes] = {_ZEROS: _ZEROS}


@dataclass
class Power:
    """The power of one device. `operations` counts durable operations since the device was made; `cut_at` names those that were cut.

    After a cut every port of the device raises `PowerCut` until `restore`: nothing that runs in a `finally` may touch the disk of a dead device.
    """

    random: Random
    operations: int = 0
    on: bool = True
    cut_at: list[str] = field(default_factory=list)
    on_fail: Callable[[], None] = field(default=lambda: None)
    _cuts: list[Cut] = field(default_factory=list)
    _at: int = 0

    def arm(self, *cuts: Cut) -> None:
        """Let the power fail at the first cut's operation from now, at the second's counted from the restart after it, and so on."""
        self._cuts = list(cuts)
        self._count_from_here()

    def operation(self, name: str) -> CutMode | None:
        """Count one durable operation and say how it is cut, if it is.

        Raises:
            PowerCut: the power is off already.
        """
        self.check()
        self.operations += 1
        if not self._cuts or self.operations < self._at:
            return None
        mode = self._cuts.pop(0).mode
        self.cut_at.append(f"{mode} {name}")
        return mode

    def check(self) -> None:
        """Raise `PowerCut` when there is no power."""
        if not self.on:
            raise PowerCut

    def fail(self) -> None:
        """Switch off and raise `PowerCut`."""
        self.on = False
        self.on_fail()
        raise PowerCut

    def restore(self) -> None:
        """Switch on again. A restart that no cut forced counts on: operations after a planned reboot can be cut, too."""
        if not self.on:
            self.on = True
            self._count_from_here()

    def _count_from_here(self) -> None:
        if self._cuts:
            self._at = self.operations + self._cuts[0].operation


class MemoryStorage:
    """`agent.ports.Storage`: atomic small files."""

    def __init__(self, power: Power, faults: DiskFaults) -> None:
        """Start empty."""
        self._power = power
        self._faults = faults
        self.files: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """Return the content, or None."""
        self._power.check()
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Replace the content durably; a cut leaves old or new.

        Raises:
            DeviceError: `install.write` when read-only, `install.space` when full.
        """
        cut = self._power.operation(f"storage.write {name}")
        if cut == "before":
            self._power.fail()
        self._refuse(name, len(data))
        if cut != "torn" or self._power.random.random() < 0.5:
            self.files[name] = bytes(data)
        if cut is not None:
            self._power.fail()

    def delete(self, name: str) -> None:
        """Remove durably."""
        cut = self._power.operation(f"storage.delete {name}")
        if cut == "before":
            self._power.fail()
        if self._faults.read_only:
            raise DeviceError("install.write", "the state directory is read-only")
        self.files.pop(name, None)
        if cut is not None:
            self._power.fail()

    def names(self) -> list[str]:
        """List what is there."""
        self._power.check()
        return sorted(self.files)

    def free_bytes(self) -> int:
        """Room left."""
        self._power.check()
        if self._faults.full:
            return 0
        return max(0, self._faults.capacity - sum(map(len, self.files.values())))

    def _refuse(self, name: str, size: int) -> None:
        if self._faults.read_only:
            raise DeviceError("install.write", "the state directory is read-only")
        if self._faults.full or size > self.free_bytes() + len(self.files.get(name, b"")):
            raise DeviceError("install.space", "no room in the state directory")


class SlotMedium:
    """The bytes of one slot. `pages` is what a power cut leaves; `pending` was written and not flushed."""

    def __init__(self, size: int) -> None:
        """Make an empty slot of `size` bytes, a multiple of 4,096."""
        if size % PAGE:
            raise ValueError(size)
        self.size = size
        self.pages: list[bytes] = [_ZEROS] * (size // PAGE)
        self.pending: dict[int, bytes] = {}
        self.writes = 0

    def load(self, image: bytes) -> None:
        """Fill the slot as a factory does: durable at once."""
        padded = image + bytes(-len(image) % PAGE)
        for number in range(len(padded) // PAGE):
            self.pages[number] = _share(padded[number * PAGE : (number + 1) * PAGE])
        self.writes += 1

    def durable(self, length: int) -> bytes:
        """Return the first `length` bytes as they would be after a cut."""
        return b"".join(self.pages[: -(-length // PAGE)])[:length]

    def settle(self) -> None:
        """Make all pending pages durable."""
        for number, page in self.pending.items():
            self.pages[number] = page
        self.pending.clear()

    def lose(self, random: Random) -> None:
        """Let each pending page survive, get lost or tear in the middle, as the power goes."""
        if not self.pending:
            return
        for number, page in self.pending.items():
            fate = random.random()
            if fate < 0.4:
                self.pages[number] = page
            elif fate < 0.6:
                half = PAGE // 2
                self.pages[number] = _share(page[:half] + self.pages[number][half:])
        self.pending.clear()
        self.writes += 1


class MemorySlot:
    """`agent.ports.SlotDevice` over a `SlotMedium`, which records an order."""

    concurrent: Final = False

    def __init__(self, name: str, medium: SlotMedium, power: Power, faults: DiskFaults) -> None:
        """Open the slot."""
        self._name = name
        self._medium = medium
        self._power = power
        self._faults = faults
        self.size = medium.size

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write; durable after `flush`.

        Raises:
            DeviceError: `install.write` (bad block, read-only, outside the slot).
        """
        cut = self._power.operation(f"slot.write {self._name}")
        if cut == "before":
            self._power.fail()
        self._refuse(offset, len(data))
        self._put(offset, data if cut != "torn" else data[: len(data) // 2])
        if cut is not None:
            self._power.fail()

    def zero_at(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        self.write_at(offset, bytes(length))

    def read_at(self, offset: int, length: int) -> bytes:
        """Read what the slot holds now."""
        self._power.check()
        first, last = offset // PAGE, -(-(offset + length) // PAGE)
        pages, pending = self._medium.pages, self._medium.pending
        numbers = range(first, min(last, len(pages)))
        found = b"".join(pending.get(number, pages[number]) for number in numbers)
        start = offset - first * PAGE
        return found[start : start + length]

    def flush(self) -> None:
        """Make everything written durable; torn, a part of it."""
        cut = self._power.operation(f"slot.flush {self._name}")
        if cut in {"before", "torn"}:
            self._power.fail()
        self._medium.settle()
        if cut is not None:
            self._power.fail()

    def close(self) -> None:
        """Let go; what was not flushed stays at risk."""

    def _refuse(self, offset: int, length: int) -> None:
        if self._faults.read_only:
            raise DeviceError("install.write", "the slot is read-only")
        if offset < 0 or offset + length > self.size:
            raise DeviceError("install.write", "outside the slot")
        if any(offset <= bad < offset + length for bad in self._faults.bad_blocks):
            raise DeviceError("install.write", "input/output error")

    def _put(self, offset: int, data: bytes | memoryview) -> None:
        self._medium.writes += 1
        view = memoryview(data)
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, PAGE)
            length = min(PAGE - start, len(data) - done)
            piece = bytes(view[done : done + length])
            if length < PAGE:
                old = self._medium.pending.get(number, self._medium.pages[number])
                piece = old[:start] + piece + old[start + length :]
            self._medium.pending[number] = _share(piece)
            done += length


def _share(page: bytes) -> bytes:
    return _pages.setdefault(page, page)
