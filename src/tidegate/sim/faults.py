"""What can go wrong under a device, as data: power cuts, disk faults, link faults, and how an image behaves on a variant."""

from dataclasses import dataclass, field, replace
from typing import Literal

CutMode = Literal["before", "torn", "after"]


@dataclass(frozen=True)
class Cut:
    """The power goes away at the `operation`-th durable operation (1 = the next), before it, in the middle of it, or just after."""

    operation: int
    mode: CutMode = "before"


@dataclass
class DiskFaults:
    """Faults of one device's storage and slots. Sizes in bytes; `bad_blocks` are slot offsets that cannot be written."""

    capacity: int = 8 << 20
    full: bool = False
    read_only: bool = False
    bad_blocks: frozenset[int] = frozenset()


@dataclass
class LinkFaults:
    """Faults of one device's link. Ratios are 0..1 a request; `truncate_at` cuts bodies of bytes after so many bytes, `truncations` times.

    Attributes:
        latency_s: seconds from request to answer.
        bytes_per_s: how fast a body comes; 0 = at once.
        loss_ratio: share of requests that get no answer.
        cut_ratio: share of bodies that end early, at a random byte.
    """

    latency_s: float = 0.05
    bytes_per_s: float = 0.0
    loss_ratio: float = 0.0
    cut_ratio: float = 0.0
    truncate_at: int | None = None
    truncations: int = 0


@dataclass(frozen=True)
class Behaviour:
    """How an image really behaves on a hardware variant: the truth that only the simulator knows.

    Attributes:
        boots: the kernel comes up at all.
        hangs: it comes up, then hangs until the watchdog resets the board.
        bricks: it destroys what the board boots by: nothing comes up ever again.
        service: the core service runs.
        network: the network comes up.
        errors_per_hour: what the device logs while it runs this image.
        calm_s: the errors keep to the fleet's usual rate for so long after boot: trouble that a warm-up does not see.
    """

    boots: bool = True
    hangs: bool = False
    bricks: bool = False
    service: bool = True
    network: bool = True
    errors_per_hour: float | None = None
    calm_s: float = 0.0


GOOD = Behaviour()


@dataclass
class Truth:
    """Which image behaves how on which variant; the first that fits, a variant's own word before the word for all."""

    behaviours: dict[tuple[int, str], Behaviour] = field(default_factory=dict)
    errors_per_hour: float = 0.05

    def of(self, counter: int, variant: str) -> Behaviour:
        """Return how the release `counter` behaves on `variant`, with the error rate filled in."""
        found = self.behaviours.get((counter, variant)) or self.behaviours.get((counter, "*"), GOOD)
        if found.errors_per_hour is None:
            return replace(found, errors_per_hour=self.errors_per_hour)
        return found
