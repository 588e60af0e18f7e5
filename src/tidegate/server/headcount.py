"""Counting a fleet in memory: how many devices are in which ring of a policy, and which ones, without asking the database device by device.

Most queries ask for what many devices have in common (model, site, channel, running release …). Then each kind is asked once, and a million devices are
counted, or written down one by one, in some hundredths of a second.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tidegate.core.hardware import Hardware
from tidegate.rollout import cohort
from tidegate.rollout.model import Policy, Rollout
from tidegate.server.snapshot import ACCEPTED, OF_KIND, Fleet, with_query_groups

Counts = dict[tuple[str, str], int]

#: What of it changes with each update.
_OF_RUNNING: Final = frozenset({"counter", "release"})
#: From states to masks: all bits where a device is accepted.
_IF_ACCEPTED: Final = bytes(0xFF if one == ACCEPTED else 0 for one in range(256))
_NO_SERIALS: Final[Mapping[int, str]] = MappingProxyType({})


def count(
    fleet: Fleet,
    rollout: Rollout,
    product: str,
    now: int = 0,
    serials: Mapping[int, str] = _NO_SERIALS,
) -> Counts:
    """Count the accepted devices of a product by (ring, variant) of a rollout, as its queries say.

    Args:
        fleet: in memory.
        rollout: whose rings are asked.
        product: of its release.
        now: unix seconds, for queries about when devices were last heard; 0 = these find nobody.
        serials: by row, where a query asks for them (`Fleet.names_asked`).
    """
    rows: Iterable[int] = range(1, len(fleet.ids))
    counts: Counter[tuple[str, str]] = Counter()
    names = fleet.names_asked(rollout)
    if names <= OF_KIND:
        rows = sorted(fleet.plan.members) if "group" in names else ()
        _count_alike(fleet, rollout, product, frozenset(rows), counts)
    for row in rows:
        if not 0 < row < len(fleet.ids) or fleet.state[row] != ACCEPTED:
            continue
        if fleet.kinds[fleet.kind_of[row]][0] == product:
            facts = fleet.facts(row, now, serials.get(row, ""))
            _count_one(rollout, facts.attrs, facts.variant, 1, counts)
    return dict(counts)


def count_fixed(fleet: Fleet, rollout: Rollout, fixed: cohort.Fixed) -> Counts:
    """Count those of a fixed audience who are in the fleet still, by (ring, variant)."""
    size = min(len(fixed.rings), len(fleet.ids))
    there = _and(fixed.rings[:size], fleet.state[:size].translate(_IF_ACCEPTED))
    counts: Counter[tuple[str, str]] = Counter()
    for (ring, number), devices in Counter(zip(there, fleet.kind_of, strict=False)).items():
        if ring:
            _, model, rev = fleet.kinds[number][:3]
            name = rollout.policy.rings[ring - 1].name
            counts[(name, Hardware(model, rev).variant)] += devices
    return dict(counts)


def fix(
    fleet: Fleet,
    rollout: Rollout,
    product: str,
    now: int,
    serials: Mapping[int, str] = _NO_SERIALS,
) -> cohort.Fixed:
    """Return whom the queries of a rollout mean now, device by device; arguments as of `count`."""
    names, policy = fleet.names_asked(rollout), rollout.policy
    kind_of = fleet.kind_of[:]
    size = len(kind_of)
    if names <= OF_KIND:
        rings = bytearray(_rings_by_kind(fleet, kind_of, policy, product, names))
        alone: Iterable[int] = sorted(fleet.plan.members) if "group" in names else ()
    else:
        rings, alone = bytearray(size), range(1, size)
    for row in alone:
        if 0 < row < size and fleet.state[row] == ACCEPTED:
            facts = fleet.facts(row, now, serials.get(row, ""))
            index = cohort.ring_of(policy, facts.attrs) if facts.product == product else None
            rings[row] = 0 if index is None else index + 1
    return cohort.Fixed(_and(rings, fleet.state[:size].translate(_IF_ACCEPTED)))


class Sample(NamedTuple):
    """Devices that stand for a fleet: `rows`, how many devices each stands for, by its ring's index, and `counts` of all by (ring, variant)."""

    rows: tuple[int, ...]
    weights: Mapping[int, float]
    counts: Mapping[tuple[str, str], int]


def sample(
    fleet: Fleet, fixed: cohort.Fixed, counts: Mapping[tuple[str, str], int], most: int
) -> Sample:
    """Choose devices to ask in place of everybody: of each ring all, or by lot as many as its share of the limit. The same fleet gives the same sample.

    Args:
        fleet: in memory.
        fixed: whom a rollout means.
        counts: of them, by (ring, variant).
        most: devices in all, about.
    """
    size = min(len(fixed.rings), len(fleet.ids))
    there = _and(fixed.rings[:size], fleet.state[:size].translate(_IF_ACCEPTED))
    found = {ring: count for ring in range(1, 256) if (count := there.count(ring))}
    each = most // max(1, len(found))
    draw = Random(size)  # noqa: S311 - by lot, and repeatable; nothing to guess
    rows: list[int] = []
    weights: dict[int, float] = {}
    for ring, count in found.items():
        chosen: set[int] = set()
        if count <= each:
            at = -1
            while (at := there.find(ring, at + 1)) >= 0:
                chosen.add(at)
        while len(chosen) < min(count, each):
            row = draw.randrange(size)
            if there[row] == ring:
                chosen.add(row)
        rows += chosen
        weights[ring - 1] = count / len(chosen)
    return Sample(tuple(sorted(rows)), weights, counts)


def _rings_by_kind(
    fleet: Fleet, kind_of: "array[int]", policy: Policy, product: str, names: frozenset[str]
) -> bytes:
    """Return the ring of each device by its kind (and running release, where that is asked for): 0 = none, else its index and one."""

    def ring(number: int, counter: int) -> int:
        kind = fleet.kinds[number]
        if not kind or kind[0] != product:
            return 0
        attrs = fleet.attributes_of_kind(kind, counter=counter)
        index = cohort.ring_of(policy, with_query_groups(attrs, fleet.plan.group_queries))
        return 0 if index is None else index + 1

    if names & _OF_RUNNING:
        known = _Memo(ring)
        return bytes(map(known.__getitem__, zip(kind_of, fleet.counter, strict=False)))
    table = [ring(number, 0) for number in range(len(fleet.kinds))]
    if len(set(table[1:])) == 1:
        return bytes(table[1:2]) * len(kind_of)  # one ring for everybody: the usual case
    return bytes(map(table.__getitem__, kind_of))


def _count_alike(
    fleet: Fleet,
    rollout: Rollout,
    product: str,
    alone: frozenset[int],
    counts: Counter[tuple[str, str]],
) -> None:
    """Count all devices but those that are looked at alone, kind by kind."""
    alike = fleet.alike.copy()
    for row in alone:
        if 0 < row < len(fleet.ids) and fleet.state[row] == ACCEPTED:
            alike[(fleet.kind_of[row], fleet.counter[row])] -= 1
    for (number, counter), devices in alike.items():
        kind = fleet.kinds[number]
        if devices > 0 and kind[0] == product:
            attrs = fleet.attributes_of_kind(kind, counter=counter)
            attrs = with_query_groups(attrs, fleet.plan.group_queries)
            _count_one(rollout, attrs, attrs["variant"], devices, counts)


def _count_one(
    rollout: Rollout,
    attrs: Mapping[str, Any],
    variant: str,
    devices: int,
    counts: Counter[tuple[str, str]],
) -> None:
    index = cohort.ring_of(rollout.policy, attrs)
    if index is not None:
        counts[(rollout.policy.rings[index].name, variant)] += devices


class _Memo(dict[tuple[int, int], int]):
    """Rings by (kind, running counter), each asked once."""

    def __init__(self, ring: Callable[[int, int], int]) -> None:
        super().__init__()
        self._ring = ring

    def __missing__(self, key: tuple[int, int]) -> int:
        found = self[key] = self._ring(*key)
        return found


def _and(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Return the bits that both have; as long as the first. As whole numbers: a million bytes take a thousandth of a second."""
    both = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return both.to_bytes(len(one), "little")
