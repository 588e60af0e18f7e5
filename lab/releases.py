"""The releases of the lab's product, published once a run: a factory image, a good one, and one for each thing that can be wrong with an image."""

from typing import Final

from lab import images
from lab.plant import Plant, Release, health

FACTORY: Final = "factory"
GOOD: Final = "good"
#: Name → release counter, in the order in which they are published.
COUNTERS: Final = {
    FACTORY: 1,
    GOOD: 2,
    "panic": 3,
    "hang": 4,
    "no-kernel": 5,
    "dead-service": 6,
    "errors": 7,
}


def publish(plant: Plant, names: set[str]) -> dict[str, Release]:
    """Publish the factory's release and the named ones; those that are there already are returned as they are."""
    found = {}
    for name, counter in COUNTERS.items():
        if name in names | {FACTORY}:
            fault = "" if name in {FACTORY, GOOD} else name
            limits = {"error_rate_per_hour": 3600} if name == "errors" else {}
            contract = health(timeout_s=8 if name == "dead-service" else 20, **limits)
            found[name] = plant.release(counter, images.slot(f"1.{counter}.0", fault), contract)
    return found
