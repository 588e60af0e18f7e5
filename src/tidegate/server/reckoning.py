"""How many devices have an artifact installed, from the counters that are kept with every device. No device is looked at one by one.

A device has an artifact when it runs its release and the artifact is made for its hardware: so an artifact of another component than the slot's counts too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tidegate.core.hardware import Hardware, HardwareRange, compatible
from tidegate.server.store import Connection, admin_devices


class Installed:
    """The counters of one moment, asked several times."""

    def __init__(self, conn: Connection) -> None:
        """Read the counters."""
        self._counts: dict[tuple[str, int], dict[str, int]] = {}
        for row in admin_devices.firmware(conn):
            found = self._counts.setdefault((row["product"], row["counter"]), {})
            found[row["variant"]] = found.get(row["variant"], 0) + max(0, row["devices"])

    def devices(self, artifacts: Iterable[Mapping[str, Any]]) -> int:
        """Return how many devices have at least one of these artifacts (rows with `product`, `counter`, `target`)."""
        return sum(self.by_variant(artifacts).values())

    def by_variant(self, artifacts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Return the same by hardware variant."""
        reached: set[tuple[str, int, str]] = set()
        for one in artifacts:
            key = (str(one["product"]), int(one["counter"]))
            made_for = ranges_of(one["target"])
            reached |= {
                (*key, variant) for variant in self._counts.get(key, ()) if fits(made_for, variant)
            }
        found: dict[str, int] = {}
        for product, counter, variant in reached:
            count = self._counts[product, counter][variant]
            if count:
                found[variant] = found.get(variant, 0) + count
        return found

    def releases(self) -> dict[tuple[str, int], int]:
        """Return how many devices run each release, (product, counter)."""
        return {key: sum(found.values()) for key, found in self._counts.items()}


def ranges_of(target: Mapping[str, Any]) -> tuple[HardwareRange, ...]:
    """Return what hardware a stored target is made for."""
    return msgspec.convert(target["hardware"], type=tuple[HardwareRange, ...])


def fits(ranges: tuple[HardwareRange, ...], variant: str) -> bool:
    """Say whether a hardware variant, `gw1-r3`, is one of those."""
    model, _, rev = variant.rpartition("-r")
    if not rev.isascii() or not rev.isdigit() or int(rev) > 65_535:
        return False
    return compatible(ranges, Hardware(model, int(rev)))
