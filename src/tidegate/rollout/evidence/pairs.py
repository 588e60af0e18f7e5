"""Metrics that devices report of themselves, made into ranks: each updated device against devices not updated, over the same hours.

**What is compared.** Time is cut into halves of a day. A device's window begins with the first half-day after its permit; *before* is the same time a day
earlier for windows of half a day, and the same time of the week whole weeks earlier for longer ones. A device's rates are made one measure: how much they
rose, relative to its own level and to that of all who are compared (`_measures`). Without a record of before, and whether there is one is known when the permit
is granted, the rates after it are compared, among devices of exactly the same profile.

**With whom.** Eight devices that are not updated when the window has ended, of the same variant, region and connectivity class, each used once a window; four,
two or one where there are not eight for each that is ranked in these hours. One that was used is not ranked itself later: what is known of it already would
make it no fair ninth. At most one device of a site speaks for the same hours.

**What books nothing.** No number, no value in a quarter of a window, no others, and equal values all over: a metric that never moves says nothing.

A counter is told as what it counted in so many seconds, a gauge as its mean times the seconds. In memory: 6 bytes a half-day, device and metric, some 200 bytes
a device with the usual windows; of a large fleet a part is followed, drawn by a hash, and whoever gets a permit, as far as there is room.
"""

import math
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec

from tidegate.core.bucket import BUCKETS, bucket
from tidegate.rollout.evidence.crowd import BACK, WELL, Crowd, floats, from_bytes, to_bytes
from tidegate.rollout.evidence.desk import rank
from tidegate.rollout.evidence.settings import CONTROLS, DAY_S, HOUR_S, Harm
from tidegate.rollout.evidence.strata import VARIANT, Scheme

BIN_S: Final = 12 * HOUR_S
_DAY: Final = DAY_S // BIN_S
_WEEK: Final = 7 * _DAY
#: After a window's end its last reports may still come: an hourly one, or that of a device that is online once a day.
_GRACE_S: Final = {"always": 3 * HOUR_S}
_LATE_GRACE_S: Final = 26 * HOUR_S
_SPARE: Final = 4
#: Devices that are followed with up to two metrics: of a larger fleet a part. Whoever gets a permit is followed besides, up to a quarter more.
MOST: Final = 65_536
#: Share of a window that must be covered by reports.
_COVERED: Final = 4
#: Devices that are looked at before a rank is given up.
_LOOKS: Final = 64
#: Values beyond this are no measurement.
_LARGEST: Final = 1e30

#: What devices share that may be compared: the whole profile, or variant and cell.
_Alike: TypeAlias = tuple[str, ...]
#: Metric, window, and who is alike.
_Pool: TypeAlias = tuple[int, int, _Alike]
#: After, and before.
_Rates: TypeAlias = tuple[float, float | None]


class Ranked(NamedTuple):
    """A rank to be booked: the device's number, metric and window by their place in the settings, and what `desk.rank` said."""

    one: int
    metric: int
    window: int
    sixteenths: int


class _Hours(msgspec.Struct):
    """Of those whose windows end together: how many of who is alike are not ranked yet, sites that have spoken, pools that were counted."""

    left: Counter[_Alike]
    heard: set[str] = msgspec.field(default_factory=set)
    counted: set[_Pool] = msgspec.field(default_factory=set)


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored. Columns are little-endian; `values` and `covered` metric by metric, half-day by half-day."""

    ones: list[int]
    latest: int
    until: list[int]
    values: list[list[bytes]]
    covered: list[list[bytes]]
    used: list[bytes]
    pools: list[tuple[_Pool, list[int]]]
    due: list[tuple[int, list[list[int]]]]


class Pairs:
    """The half-days of the devices that are followed. A row is a device's place here; its number is its place in the crowd."""

    def __init__(self, scheme: Scheme, harm: Harm, crowd: Crowd) -> None:
        self._crowd = crowd
        self._metrics = len(harm.metrics)
        #: For each window: half-days that it lasts, and how many earlier it is compared with.
        self._windows = [_halves(one) for one in harm.windows_s]
        self._ring = max((last + back for last, back in self._windows), default=0) + _SPARE
        self._most = 2 * MOST // max(2, self._metrics)
        self._share = BUCKETS * self._most // max(self._most, scheme.size)
        self._variant = scheme.attributes.index(VARIANT)
        self._signs = [-1.0 if name.startswith("-") else 1.0 for name in harm.metrics]
        self._rows: dict[int, int] = {}
        self._ones = array("I")
        self._until = array("q")
        self._latest = 0
        self._values = [[array("f") for _ in range(self._ring)] for _ in harm.metrics]
        self._covered = [[array("H") for _ in range(self._ring)] for _ in harm.metrics]
        self._used = [bytearray() for _ in harm.metrics]
        self._groups: dict[_Alike, array[int]] = {}
        self._pools: dict[_Pool, deque[int]] = {}
        self._due: dict[int, list[array[int]]] = {}

    def measured(self, one: int, at: int, metric: int, value: float, seconds: int) -> None:
        """Take what a device measured of itself in the seconds before.

        Args:
            one: its number in the crowd.
            at: unix seconds, of the server; untrusted are only the others.
            metric: place in `Harm.metrics`.
            value: what was counted, or a gauge's mean times the seconds.
            seconds: that it covers. Time that an earlier report covered is not counted again.
        """
        if not (math.isfinite(value) and abs(value) < _LARGEST) or seconds <= 0:
            return
        row = self._row(one)
        if row is None:
            return
        self._roll(at // BIN_S)
        # One column for all metrics would call the second metric of a report covered already.
        place = row * self._metrics + metric
        start = max(self._until[place], at - min(seconds, 7 * DAY_S))
        if start >= at:
            return
        self._until[place] = at
        rate = self._signs[metric] * value / seconds
        for half in range(start // BIN_S, (at - 1) // BIN_S + 1):
            if half <= self._latest - self._ring:
                continue
            part = min(at, (half + 1) * BIN_S) - max(start, half * BIN_S)
            slot = half % self._ring
            self._values[metric][slot][row] += rate * part
            covered = self._covered[metric][slot]
            covered[row] = min(BIN_S, covered[row] + part)

    def begin(self, one: int) -> None:
        """Note that a device got its permit: its windows begin with the next half-day."""
        if not self._metrics or self._row(one, always=True) is None:
            return
        for window in range(len(self._windows)):
            when = self._ends(one, window)
            if when not in self._due:
                self._due[when] = [array("I") for _ in self._windows]
            self._due[when][window].append(one)

    def due(self, now: int) -> Iterator[Ranked]:
        """Rank whose window has ended. Each is ranked once, or not at all."""
        self._roll(now // BIN_S)
        for when in sorted(one for one in self._due if one <= now):
            for window, ones in enumerate(self._due.pop(when)):
                # Who gave its permit back, and got another, is ranked at another time.
                mine = [one for one in ones if self._ends(one, window) == when]
                crowds = Counter(alike for one in mine for alike in set(self._alike(one)))
                for metric in range(self._metrics):
                    hours = _Hours(left=crowds.copy())
                    for one in mine:
                        found = self._ranked(one, metric, window, hours)
                        hours.left.subtract(set(self._alike(one)))
                        if found is not None:
                            yield Ranked(one, metric, window, found)

    # ------------------------------------------------------------------ ranking

    def _ends(self, one: int, window: int) -> int:
        """Return when a device's window is ranked: its end, and time for the last reports to come."""
        grace_s = _GRACE_S.get(self._crowd.cell_of(one)[1], _LATE_GRACE_S)
        return (_first(self._crowd.granted_at[one]) + self._windows[window][0]) * BIN_S + grace_s

    def _ranked(self, one: int, metric: int, window: int, hours: _Hours) -> int | None:
        """Return a device's rank."""
        crowd, row = self._crowd, self._rows.get(one)
        site = crowd.site_of(one)
        if row is None or crowd.state[one] not in {WELL, BACK} or site in hours.heard:
            return None
        first = _first(crowd.granted_at[one])
        last, back = self._windows[window]
        if self._used[metric][row] or first - back <= self._latest - self._ring:
            return None
        after = self._rate(row, metric, first, last)
        if after is None:
            return None
        before = self._rate(row, metric, first - back, last)
        alike = self._alike(one)[before is not None]
        key = (metric, window, alike)
        most = _halved(self._there(key, hours) // hours.left[alike])
        others = self._others(key, first, hours.heard | {site}, before is not None, most)
        if not others:
            return None
        hours.heard.update(name for other, _ in others if (name := self._site(other)))
        if site:
            hours.heard.add(site)
        for other, _ in others:
            self._used[metric][other] |= 1 << window
        return _rank((after, before), [rates for _, rates in others])

    def _there(self, key: _Pool, hours: _Hours) -> int:
        """Return how many fresh devices there are in a pool, or more than are wanted."""
        metric, window, alike = key
        pool = self._pool(key)
        if key not in hours.counted and len(pool) < CONTROLS * hours.left[alike]:
            # Once for all that are ranked in these hours: a pool is looked through.
            hours.counted.add(key)
            fresh = [row for row in pool if not self._gone(row, metric, window)]
            pool.clear()
            pool.extend(fresh)
        return len(pool)

    def _gone(self, row: int, metric: int, window: int) -> bool:
        return bool(self._used[metric][row] >> window & 1 or self._crowd.state[self._ones[row]])

    def _others(
        self, key: _Pool, first: int, heard: set[str], with_before: bool, most: int
    ) -> list[tuple[int, _Rates]]:
        """Draw the rows of fresh devices not updated, and their rates after and before: so many, or half as many as often as there are too few."""
        metric, window, _ = key
        last, back = self._windows[window]
        pool = self._pool(key)
        found: list[tuple[int, _Rates]] = []
        later: list[int] = []
        sites = set(heard)
        for _ in range(min(len(pool), _LOOKS)):
            row = pool.popleft()
            if self._gone(row, metric, window):
                continue
            site = self._site(row)
            after = self._rate(row, metric, first, last)
            before = self._rate(row, metric, first - back, last) if with_before else None
            able = after is not None and (before is not None or not with_before)
            if after is None or not able or not self._compared(row) or (site and site in sites):
                later.append(row)
                continue
            sites.add(site)
            found.append((row, (after, before)))
            if len(found) == most:
                break
        kept = _halved(len(found)) if found else 0
        pool.extendleft(row for row, _ in reversed(found[kept:]))
        pool.extend(later)
        return found[:kept]

    def _rate(self, row: int, metric: int, first: int, count: int) -> float | None:
        """Return what a device measured a second in some half-days; None when too little of them is known."""
        values, covered = self._values[metric], self._covered[metric]
        slots = [half % self._ring for half in range(first, first + count)]
        seconds = sum(covered[slot][row] for slot in slots)
        if seconds * _COVERED < count * BIN_S:
            return None
        return math.fsum(values[slot][row] for slot in slots) / seconds

    def _pool(self, key: _Pool) -> deque[int]:
        """Return the rows of those who are alike, in the order of a hash."""
        found = self._pools.get(key)
        if found is None:
            names, ones = self._crowd.names, self._ones
            rows = self._groups.get(key[2], array("I"))
            drawn = sorted(rows, key=lambda row: bucket("pairs", names[ones[row]]))
            found = self._pools[key] = deque(drawn)
        return found

    def _alike(self, one: int) -> tuple[_Alike, _Alike]:
        """Return the profile of a device, and its variant and cell."""
        profile = self._crowd.profile_of(one)
        return profile, (profile[self._variant], *self._crowd.cell_of(one))

    def _compared(self, row: int) -> bool:
        return self._crowd.compared(self._ones[row])

    def _site(self, row: int) -> str:
        return self._crowd.site_of(self._ones[row])

    # ------------------------------------------------------------------ rows and half-days

    def _row(self, one: int, *, always: bool = False) -> int | None:
        """Return a device's row; it is taken in when its turn came by the draw, or when it always is, while there is room."""
        found = self._rows.get(one)
        if found is not None:
            return found
        room = self._most + self._most // 4 if always else self._most
        drawn = always or bucket("followed", self._crowd.names[one]) < self._share
        if not drawn or len(self._ones) >= room:
            return None
        found = self._rows[one] = len(self._ones)
        self._ones.append(one)
        self._until.extend([0] * self._metrics)
        for columns in self._values:
            for values in columns:
                values.append(0.0)
        for counts in self._covered:
            for covered in counts:
                covered.append(0)
        for used in self._used:
            used.append(0)
        self._join(found, one)
        return found

    def _join(self, row: int, one: int) -> None:
        for alike in dict.fromkeys(self._alike(one)):
            self._groups.setdefault(alike, array("I")).append(row)
            for metric in range(self._metrics):
                for window in range(len(self._windows)):
                    pool = self._pools.get((metric, window, alike))
                    if pool is not None:
                        pool.append(row)

    def _roll(self, half: int) -> None:
        """Begin a half-day: what is older than the ring is forgotten."""
        rows = len(self._ones)
        for new in range(max(self._latest + 1, half - self._ring + 1), half + 1):
            for metric in range(self._metrics):
                self._values[metric][new % self._ring] = array("f", bytes(4 * rows))
                self._covered[metric][new % self._ring] = array("H", bytes(2 * rows))
        self._latest = max(self._latest, half)

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        return Packed(
            ones=self._ones.tolist(),
            latest=self._latest,
            until=self._until.tolist(),
            values=[[to_bytes(one) for one in columns] for columns in self._values],
            covered=[[to_bytes(one) for one in columns] for columns in self._covered],
            used=[bytes(one) for one in self._used],
            pools=[(key, list(pool)) for key, pool in self._pools.items()],
            due=[(when, [one.tolist() for one in ones]) for when, ones in self._due.items()],
        )

    def restore(self, packed: Packed) -> None:
        """Take up what was stored under the same metrics and windows.

        Raises:
            ValueError: columns of other lengths.
        """
        rows = len(packed.ones)
        self._ones, self._until = array("I", packed.ones), array("q", packed.until)
        self._rows = {one: row for row, one in enumerate(packed.ones)}
        for row, one in enumerate(packed.ones):
            self._join(row, one)
        self._latest = packed.latest
        self._values = [[floats(one) for one in columns] for columns in packed.values]
        self._covered = [[from_bytes("H", one) for one in columns] for columns in packed.covered]
        self._used = [bytearray(one) for one in packed.used]
        self._pools = {key: deque(pool) for key, pool in packed.pools}
        self._due = {when: [array("I", one) for one in ones] for when, ones in packed.due}
        lengths = {len(one) for columns in self._values for one in columns}
        lengths |= {len(one) for columns in self._covered for one in columns}
        lengths |= {len(one) for one in self._used}
        if len(self._until) != rows * self._metrics or lengths - {rows}:
            raise ValueError("columns of other lengths")


def _first(at: int) -> int:
    """Return the first half-day that begins at or after a moment."""
    return -(-at // BIN_S)


def _halves(window_s: int) -> tuple[int, int]:
    """Return how many half-days a window lasts, and how many earlier what it is compared with begins: a day, or whole weeks."""
    last = max(1, -(-window_s // BIN_S))
    return last, _DAY if last == 1 else _WEEK * -(-last // _WEEK)


def _halved(count: int) -> int:
    """Return how many others are taken where there are so many for each: all that are wanted, or half as many as often as needed, but one."""
    return min(CONTROLS, 1 << max(1, count).bit_length() - 1)


def _rank(mine: _Rates, others: list[_Rates]) -> int | None:
    """Return the rank among all that are compared; None when they are all the same."""
    values = _measures([mine, *others])
    if len(set(values)) == 1:
        return None
    return rank(values[0], values[1:])


def _measures(rates: list[_Rates]) -> list[float]:
    """Return one measure of each device that is compared, the larger the worse.

    `(after - before) / (after + before + 2 · level)`, the level being the mean of `after + before` of them all. Of small counts the plain ratio says
    little: one error after none would be worse than six after one. The level depends on all of them alike, so any order of them is as likely as before.
    """
    pairs = [(after, before) for after, before in rates if before is not None]
    if len(pairs) < len(rates):
        return [after for after, _ in rates]
    whole = [abs(after) + abs(before) for after, before in pairs]
    level = math.fsum(whole) / len(whole)
    if not level:
        return [0.0] * len(pairs)
    return [
        (after - before) / (size + 2 * level)
        for (after, before), size in zip(pairs, whole, strict=True)
    ]
