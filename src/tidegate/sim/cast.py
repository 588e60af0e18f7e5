"""The cast of the demo: which releases there are, and how they really behave. Only the simulator reads the second half."""

from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.sim.faults import Behaviour
from tidegate.sim.population import VARIANTS

PRODUCT: Final = "gw"
MODEL: Final = "gw1"
#: The real agent's board: another model of the same product, with slots of real size.
REAL_MODEL: Final = "gw1-dev"
REAL_ID: Final = "real-1"
#: Breaks under 1.2.0, and is left out of what follows until somebody has mended it.
FRAIL: Final = "gw1-r7"
UNBENCHED: Final = tuple(variant.name for variant in VARIANTS[1:] if variant.name != FRAIL)


@dataclass(frozen=True)
class ReleasePlan:
    """One release of the story.

    Attributes:
        extra: module of the standard library that this version brought.
        revs: revisions of `gw1` that it is made for, both ends included.
        real: it also has an artifact for the real agent's board.
        behaviours: how it behaves, by variant; good where nothing is said.
        back_to: counters that its signed metadata allow a way back to.
    """

    counter: int
    version: str
    extra: str
    revs: tuple[int, int] = (3, 7)
    real: bool = False
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    back_to: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The release's name."""
        return f"{PRODUCT}-{self.version}"


FACTORY: Final = ReleasePlan(1, "1.0.0", "", real=True)
GOOD: Final = ReleasePlan(2, "1.1.0", "queue.py", real=True, back_to=(1,))
FRAGILE: Final = ReleasePlan(
    3,
    "1.2.0",
    "sched.py",
    real=True,
    behaviours={FRAIL: Behaviour(service=False)},
    back_to=(2,),
)
DEAD: Final = ReleasePlan(
    4,
    "1.3.0",
    "shelve.py",
    revs=(3, 6),
    behaviours={name: Behaviour(boots=False) for name in UNBENCHED},
    back_to=(2, 3),
)
NOISY: Final = ReleasePlan(
    5,
    "1.4.0",
    "statistics.py",
    revs=(3, 6),
    behaviours={"*": Behaviour(errors_per_hour=30.0, calm_s=120.0)},
    back_to=(2, 3),
)
SOUND: Final = ReleasePlan(6, "1.5.0", "textwrap.py", revs=(3, 6), back_to=(2, 3))
RELEASES: Final = (FACTORY, GOOD, FRAGILE, DEAD, NOISY, SOUND)


def policy(release: ReleasePlan, name: str, *, soak: str = "1s") -> dict[str, Any]:
    """Write the laboratory's rollout: internal, pilot, then 10, 50 and 100 % of the rest. `soak` is for all but the first ring."""

    def ring(title: str, audience: str, healthy: int, **extra: Any) -> dict[str, Any]:
        gates = [{"type": "minimum_sample", "healthy": healthy, "patience": "30s"}]
        return {"name": title, "audience": audience, "soak": soak, "gates": gates, **extra}

    return {
        "name": name,
        "release": release.name,
        "preset": "lab",
        "guards": [
            {"type": "failure_rate", "max": "30%", "sample": 4, "healthy": 3},
            {"type": "metric", "ratio": 2.0, "exposure": "1h", "devices": 3},
        ],
        "deadlines": {"return": "60s", "confirm": "60s"},
        "ring": [
            ring("internal", "stage = internal", 6) | {"soak": "1s"},
            ring("pilot", "stage = pilot", 12),
            ring("fleet", "rest", 12, steps=["10%", "50%", "100%"]),
        ],
    }
