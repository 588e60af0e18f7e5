"""How long commits take, as counts by upper bound: what a histogram is made of. Written by the writer's thread alone, read by any."""

from typing import Final

#: Upper bounds in seconds.
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Timing:
    """Durations that were measured, and how much work was done in them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.work = 0

    def add(self, took_s: float, work: int) -> None:
        """Take in one commit of so many pieces of work."""
        place = next((at for at, bound in enumerate(BOUNDS_S) if took_s <= bound), len(BOUNDS_S))
        self._counts[place] += 1
        self.sum_s += took_s
        self.work += work

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, how many took no longer), as Prometheus writes them."""
        found: list[tuple[str, float]] = []
        count = 0
        for name, one in zip((*map(str, BOUNDS_S), "+Inf"), self._counts, strict=True):
            count += one
            found.append((name, count))
        return found
