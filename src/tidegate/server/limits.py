"""How often one address may ask for what costs a signature check. A token bucket each; memory is bounded."""

from typing import Final

_MOST_NAMES: Final = 20_000


class RateLimit:
    """Buckets by name (an address, say)."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        """Let `burst` through at once and `per_s` a second after that."""
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, now: float) -> bool:
        """Take one from a bucket; False when it is empty. `now` in seconds of any clock; one that goes back fills nothing."""
        left, at = self._buckets.get(name, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - at) * self._per_s)
        if left < 1:
            return False
        if len(self._buckets) > _MOST_NAMES:
            self._buckets.clear()
        self._buckets[name] = (left - 1, now)
        return True
