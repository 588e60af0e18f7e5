"""Gives the running slot its tries back where the boot loader counts a confirmed slot down as well, as GRUB's and U-Boot's scripts do.

Else a device that was confirmed once would leave its slot after a few ordinary starts.

It is done a minute after the start and not at once, so that a confirmed slot that cannot stay up for that long is left for the other one. Nothing is written
where nothing was counted, and never while something is on trial: then the tries are that trial's.
"""

from typing import Final

from tidegate.agent.ports import Bootloader, CountingBootloader
from tidegate.agent.state import Downloading, Idle, Installing, Staged, State
from tidegate.core.errors import DeviceError

#: A system that has run for this long since its start is well enough to keep its slot, in seconds.
WELL_AFTER_S: Final = 60.0
#: Pause after a boot record that could not be read or written, in seconds.
AGAIN_S: Final = 600.0
_SETTLED: Final = (Idle, Downloading, Installing, Staged)


class Refill:
    """Commits the running slot once after a start, where that is needed.

    Args:
        loader: of this device; read when `give` is called first.
    """

    def __init__(self, loader: Bootloader) -> None:
        self._loader = loader
        self._at: float | None = 0.0
        if not isinstance(loader, CountingBootloader):
            self._at = None

    def wait_s(self, state: State, mono: float) -> float:
        """Return in how many seconds there is something to do; inf = nothing, as things are."""
        if self._at is None or not isinstance(state.phase, _SETTLED):
            return float("inf")
        return max(0.0, self._at - mono)

    def give(self, state: State, mono: float) -> str:
        """Do it if it is due. Return what went wrong, or ""; it is then tried again later, and nothing else is kept waiting."""
        loader = self._loader
        if self.wait_s(state, mono) > 0 or not isinstance(loader, CountingBootloader):
            return ""
        try:
            counted = loader.counted_down()
            if counted and mono >= WELL_AFTER_S:
                loader.commit(loader.current())
                counted = False
        except DeviceError as error:
            self._at = mono + AGAIN_S
            return str(error)
        self._at = WELL_AFTER_S if counted else None
        return ""
