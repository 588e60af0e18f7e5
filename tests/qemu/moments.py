"""Moments of an update at which the lab takes the power away."""

from dataclasses import dataclass
from typing import Literal

from lab.device import MARKER


@dataclass(frozen=True)
class Moment:
    """When the power goes.

    Attributes:
        after: what the console has to say first; a phase is said up to a quarter of a second after it was entered.
        within_s: at random in this long after that; 0: at the agent's next write of the boot loader's environment, which hangs then, neither durable nor lost.
        slot: at random in the candidate slot instead: as soon as the agent writes, or reads back, beyond that place. How fast a board is must not matter.
        loader: the write is the loader's, anywhere in the boot partition. Linux writes there of its own accord, too: the day on which a file was read.
        all_lost: nothing of what was not flushed is left, instead of a part by chance.
        passed: what the console says when it is too late for this moment; the next one is waited for then.
    """

    name: str
    after: str
    within_s: float
    passed: str = r"^UP slot=B"
    slot: Literal["", "written", "read"] = ""
    all_lost: bool = False
    loader: bool = False


DOWNLOAD = Moment("download", r"^PHASE downloading", 0.0, r"^PHASE (installing|staged)|^UP slot=B", "written")  # fmt: skip
INSTALL = Moment("install", r"^PHASE installing", 0.0, r"RESTART asked for|^UP slot=B", "read")
FLAG = Moment("boot flag", r"^PHASE (installing|staged)", 0.0)
LOADER = Moment("loader's write", r"RESTART asked for", 0.0, loader=True)
FIRST_BOOT = Moment("first boot", MARKER.replace("[AB]", "B"), 4.0, r"^PHASE testing")
WARM_UP = Moment("warm-up", r"^PHASE testing", 2.0, r"^PHASE idle")
CONFIRM = Moment("confirming", r"^PHASE testing", 0.0, r"^PHASE idle")
CONFIRM_LOST = Moment("confirming", r"^PHASE testing", 0.0, r"^PHASE idle", all_lost=True)
REVERT = Moment("reverting", r"^PHASE testing", 0.0, r"^PHASE idle")
WAY_BACK = Moment("way back", r"^UP slot=B(?s:.*)RESTART asked for", 5.0, r"^PHASE idle")
#: What a whole run must have cut at. Whether the others come is chance: the way back is cut only if the device starts the bad image once more before.
DEMANDED = tuple(
    one.name for one in (DOWNLOAD, INSTALL, FLAG, FIRST_BOOT, WARM_UP, CONFIRM, REVERT)
)
