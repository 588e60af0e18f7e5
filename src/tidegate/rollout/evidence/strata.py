"""Whose evidence is kept apart.

A *profile* is one combination of attribute values. A *stratum* is all devices that share one value (a hardware variant, a region …) or two, or the whole
fleet. The strata and their weights are fixed when the rollout starts: weights that followed the evidence would be worth nothing. What turns up later, and
values too rare to be judged by themselves, are `other`.

A *cell* is one region and connectivity class: late events are compared inside it, because who is updated early depends on who is online when.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Final, TypeAlias

import msgspec

from tidegate.rollout.evidence.settings import StratumWeights

#: Values in the order of `Scheme.attributes`.
Profile: TypeAlias = tuple[str, ...]

OTHER: Final = "other"
VARIANT: Final = "variant"
REGION: Final = "region"
CLASS: Final = "class"
#: The attributes that every scheme begins with; more may follow (`from`, `site_kind`, …).
USUAL: Final = (VARIANT, REGION, CLASS)
FLEET: Final = 0

_LEAST: Final = 8
_MOST_STRATA: Final = 200
#: A stratum holds at least one device in so many.
_ONE_IN: Final = 500
_BILLION: Final = 1_000_000_000


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that share these values; no values = all. `weight_ppb` = its share of the wealth at the start, in parts per billion; 0 = counted only."""

    attributes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    size: int = 0
    weight_ppb: int = 0

    @property
    def name(self) -> str:
        """Return it as a query would say it: `variant=gw1-r3`; empty for the fleet."""
        pairs = zip(self.attributes, self.values, strict=True)
        return ", ".join(f"{attribute}={value}" for attribute, value in pairs)


class Scheme(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The strata of one rollout. `known` = values that are told apart, by attribute; `census` = devices by profile at the start."""

    attributes: tuple[str, ...]
    known: dict[str, tuple[str, ...]]
    strata: tuple[Stratum, ...]
    census: tuple[tuple[Profile, int], ...] = ()

    @cached_property
    def index(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], int]:
        """Return where each stratum stands."""
        return {(one.attributes, one.values): at for at, one in enumerate(self.strata)}

    @cached_property
    def log_weights(self) -> tuple[float, ...]:
        """Return the logarithm of each stratum's weight; -inf where it has none."""
        return tuple(
            math.log(one.weight_ppb / _BILLION) if one.weight_ppb else -math.inf
            for one in self.strata
        )

    @cached_property
    def variants(self) -> dict[str, int]:
        """Return the stratum of each hardware variant, in a fixed order; `other` is always among them."""
        return {
            one.values[0]: at for at, one in enumerate(self.strata) if one.attributes == (VARIANT,)
        }

    @cached_property
    def narrow(self) -> frozenset[int]:
        """Return the strata that are neither the fleet nor a hardware variant."""
        whole = ((), (VARIANT,))
        return frozenset(at for at, one in enumerate(self.strata) if one.attributes not in whole)

    @property
    def size(self) -> int:
        """Return how many devices there were at the start."""
        return self.strata[FLEET].size

    def profile(self, values: Mapping[str, str]) -> Profile:
        """Return the profile of a device; what is not said or not known is `other`.

        Args:
            values: attributes of the device; untrusted.
        """
        return self.told_apart(tuple(values.get(name, OTHER) for name in self.attributes))

    def told_apart(self, profile: Profile) -> Profile:
        """Return a profile with every value that is not told apart replaced by `other`."""
        named = zip(self.attributes, profile, strict=True)
        return tuple(value if value in self.known[name] else OTHER for name, value in named)

    def strata_of(self, profile: Profile) -> tuple[int, ...]:
        """Return the strata that a profile is in, the fleet first, its variant second."""
        named = list(zip(self.attributes, self.told_apart(profile), strict=True))
        found = [FLEET]
        for size in (1, 2):
            for chosen in combinations(named, size):
                key = (tuple(one[0] for one in chosen), tuple(one[1] for one in chosen))
                if key in self.index:
                    found.append(self.index[key])
        return tuple(found)

    def holds(self, stratum: int, profile: Profile) -> bool:
        """Say whether a profile is in a stratum."""
        one = self.strata[stratum]
        values = dict(zip(self.attributes, self.told_apart(profile), strict=True))
        return all(
            values[name] == value for name, value in zip(one.attributes, one.values, strict=True)
        )

    def cell_of(self, profile: Profile) -> tuple[str, str]:
        """Return region and connectivity class."""
        values = dict(zip(self.attributes, profile, strict=True))
        return values.get(REGION, OTHER), values.get(CLASS, OTHER)


def divide(
    census: Mapping[Profile, int],
    attributes: Sequence[str] = USUAL,
    weights: StratumWeights | None = None,
) -> Scheme:
    """Return the strata of a fleet.

    Args:
        census: devices by profile, values in the order of `attributes`; the devices that the rollout is for.
        attributes: `variant` first; others as the inventory has them.
        weights: of the groups of strata; None = the defaults.
    """
    names = tuple(attributes)
    total = sum(census.values())
    least = max(_LEAST, total // _ONE_IN)
    known = {name: _frequent(census, at, least) for at, name in enumerate(names)}
    bare = Scheme(attributes=names, known=known, strata=(Stratum(size=total),))
    counted: dict[Profile, int] = {}
    for profile, devices in census.items():
        told = bare.told_apart(profile)
        counted[told] = counted.get(told, 0) + devices
    groups = _grouped(names, counted, total, least)
    strata = _weighed(total, groups, weights or StratumWeights())
    ordered = tuple(sorted(counted.items()))
    return Scheme(attributes=names, known=known, strata=tuple(strata), census=ordered)


def _frequent(census: Mapping[Profile, int], at: int, least: int) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for profile, devices in census.items():
        counts[profile[at]] = counts.get(profile[at], 0) + devices
    return tuple(sorted(value for value, devices in counts.items() if devices >= least))


def _grouped(
    names: Sequence[str], census: Mapping[Profile, int], total: int, least: int
) -> tuple[list[Stratum], list[Stratum], list[Stratum]]:
    """Return variants, other single attributes and pairs. What holds the same devices as a larger stratum says nothing of its own."""
    variants = list(_of(names, census, (0,)))
    if all(one.values != (OTHER,) for one in variants):
        variants.append(Stratum(attributes=(names[0],), values=(OTHER,)))
    singles = [
        one
        for at in range(1, len(names))
        for one in _of(names, census, (at,))
        if least <= one.size < total
    ]
    sizes = {(one.attributes[0], one.values[0]): one.size for one in (*variants, *singles)}
    pairs = [
        one
        for chosen in combinations(range(len(names)), 2)
        for one in _of(names, census, chosen)
        if one.size >= least
        and all(
            sizes.get(single, total) != one.size
            for single in zip(one.attributes, one.values, strict=True)
        )
    ]
    pairs.sort(key=lambda one: (-one.size, one.attributes, one.values))
    room = max(0, _MOST_STRATA - 1 - len(variants) - len(singles))
    return variants, singles, pairs[:room]


def _of(
    names: Sequence[str], census: Mapping[Profile, int], chosen: tuple[int, ...]
) -> Iterator[Stratum]:
    counts: dict[tuple[str, ...], int] = {}
    for profile, devices in census.items():
        values = tuple(profile[at] for at in chosen)
        counts[values] = counts.get(values, 0) + devices
    attributes = tuple(names[at] for at in chosen)
    for values in sorted(counts):
        yield Stratum(attributes=attributes, values=values, size=counts[values])


def _weighed(
    total: int,
    groups: tuple[list[Stratum], list[Stratum], list[Stratum]],
    weights: StratumWeights,
) -> Iterator[Stratum]:
    """Divide the wealth: between groups by weight, inside a group equally, nothing to strata too small to be judged."""
    least = max(_LEAST, total // _ONE_IN)
    shares = [weights.variants, weights.singles, weights.pairs]
    judged = [sum(one.size >= least for one in group) for group in groups]
    given = weights.fleet + sum(share for share, count in zip(shares, judged, strict=True) if count)
    given = max(1, given)
    yield Stratum(size=total, weight_ppb=_BILLION * weights.fleet // given)
    for group, share, count in zip(groups, shares, judged, strict=True):
        for one in group:
            each = _BILLION * share // (given * count) if one.size >= least else 0
            yield msgspec.structs.replace(one, weight_ppb=each)
