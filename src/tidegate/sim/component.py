"""A simulated component beside the slots: two copies and the switch between them, over the same power that can fail at every durable operation."""

from random import Random

from tidegate.core.errors import DeviceError
from tidegate.sim.disk import MemorySlot, Power, SlotMedium
from tidegate.sim.faults import DiskFaults

COPIES = ("a", "b")


class SimComponent:
    """`agent.ports.ComponentPlace`, and what really stands there.

    Args:
        name: of the component.
        size: most bytes of a copy, a multiple of 4,096.
        power: of the device.
        random: decides what a cut leaves.
        faults: of the device's disk.
    """

    def __init__(
        self, name: str, size: int, power: Power, random: Random, faults: DiskFaults
    ) -> None:
        self._name = name
        self._power = power
        self._random = random
        self._faults = faults
        self.media = {copy: SlotMedium(size) for copy in COPIES}
        self.kept = ""

    # --- agent.ports.ComponentPlace ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """There is no file system."""
        raise DeviceError("install.slot", f"{self._name}: a simulated component holds images only")

    def live(self) -> str:
        """Which copy is live."""
        self._power.check()
        return self.kept

    def open(self, copy: str, size: int) -> MemorySlot:
        """Open a copy. The live one is never opened for writing."""
        self._power.check()
        if copy == self.kept:
            raise DeviceError("install.slot", f"{self._name}/{copy} is live")
        return MemorySlot(f"{self._name}.{copy}", self.media[copy], self._power, self._faults)

    def make_live(self, copy: str) -> None:
        """Switch: old or new, never half."""
        cut = self._power.operation(f"component.switch {self._name}")
        if cut == "before" or (cut == "torn" and self._random.random() < 0.5):
            self._power.fail()
        self.kept = copy
        if cut is not None:
            self._power.fail()

    def drop(self, copy: str) -> None:
        """Remove a copy."""
        self._power.check()
        if copy == self.kept:
            raise DeviceError("install.slot", f"{self._name}/{copy} is live")

    # --- the truth -----------------------------------------------------------------------------------------------------

    def load(self, image: bytes) -> None:
        """Put an image in as the factory does."""
        self.media["a"].load(image)
        self.kept = "a"

    def content(self, length: int) -> bytes:
        """Return the first bytes of what is live, as they would be after a cut; b"" when nothing is."""
        return self.media[self.kept].durable(length) if self.kept else b""

    def lose(self) -> None:
        """Let what was not flushed survive, get lost or tear."""
        for medium in self.media.values():
            medium.lose(self._random)
