"""One boot loader back end, with its loader's own side: what a board does at power-on."""

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.agent import bootloaders
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import Bootloader

SLOTS = ("A", "B")


@dataclass
class Rig:
    """A board as the contract needs it.

    Attributes:
        name: of the back end.
        settings: what `[bootloader.NAME]` holds, `slots` included.
        boot: one power-on: spends a try as the loader does, and returns the slot that it starts.
        damage: spoils what the loader keeps, so that nobody can read it.
        tries_max: most tries that this loader can grant; 1 for those that try once.
    """

    name: str
    settings: BootSettings
    boot: Callable[[], str]
    damage: Callable[[], None]
    tries_max: int = 15

    def loader(self, current: str) -> Bootloader:
        """Return the back end as a system that was booted from `current` makes it."""
        return bootloaders.load(self.name, {**self.settings, "current": current})
