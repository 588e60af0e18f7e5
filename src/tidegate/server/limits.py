"""How often one address may ask for what costs a signature check. Token buckets; memory is bounded.

An address is an IPv4 address or an IPv6 /64: whoever has a /64 has all of it. A site behind one address (NAT) is one name here, so nothing is ever locked: an
empty bucket fills again from the moment at which it is left alone, and devices that hold a session are not counted at all.
"""

import functools
import ipaddress
from collections import OrderedDict
from typing import Final

_MOST_NAMES: Final = 20_000


class RateLimit:
    """Buckets by name (an address, say). The one that was not touched for longest is forgotten first."""

    def __init__(self, *, per_s: float, burst: float) -> None:
        """Let `burst` through at once and `per_s` a second after that."""
        self._per_s = per_s
        self._burst = burst
        self._buckets: OrderedDict[str | int, tuple[float, float]] = OrderedDict()

    def take(self, name: str | int, now: float, cost: int = 1) -> bool:
        """Take from a bucket; False, and nothing is taken, when there is not enough. `now` in seconds of any clock; one that goes back fills nothing."""
        left = self._left(name, now)
        if left < cost:
            return False
        self._put(name, left - cost, now)
        return True

    def empty(self, name: str | int, now: float) -> bool:
        """Say whether a bucket is empty, taking nothing."""
        return self._left(name, now) < 1

    def _left(self, name: str | int, now: float) -> float:
        left, at = self._buckets.get(name, (self._burst, now))
        if at > now:
            # the clock was set back: it fills from here on, not from when that time comes again
            self._buckets[name] = left, now
        return min(self._burst, left + max(0.0, now - at) * self._per_s)

    def _put(self, name: str | int, left: float, now: float) -> None:
        self._buckets[name] = (left, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MOST_NAMES:
            self._buckets.popitem(last=False)


class Door:
    """What one address may ask of the routes that want no token.

    Everybody may ask often: a site of a thousand devices that lost its power comes back all at once. Who keeps failing (a forged signature, a claim that is
    none, an unknown device) may try at a trickle only, for as long as that goes on.
    """

    def __init__(self, *, per_s: float, burst: float, bad_per_s: float, bad: float) -> None:
        """Set the rates: of everything, and of what failed."""
        self._asked = RateLimit(per_s=per_s, burst=burst)
        self._failed = RateLimit(per_s=bad_per_s, burst=bad)

    def admits(self, address: str, now: float) -> bool:
        """Say whether one more request of an address is looked at, and count it."""
        name = prefix(address)
        return self._asked.take(name, now) and not self._failed.empty(name, now)

    def failed(self, address: str, now: float) -> None:
        """Count a request that was not what it claimed to be."""
        self._failed.take(prefix(address), now)


@functools.lru_cache(maxsize=4096)
def prefix(address: str) -> str:
    """Return the part of an address that stands for one place; what is no address stands for itself."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"
    return address
