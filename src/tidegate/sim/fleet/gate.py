"""Tidegate's own policy: the real desk, book and decision of `tidegate.rollout.evidence`, fed with what a server would hear.

No rule of the gate is written here: this file tells what happened, device by device grouped where devices are alike, and gives the permits that were decided
to those that ask, in the order of the salted hash.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, cast

import numpy as np

from tidegate.rollout.evidence.baseline import from_history
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.facts import Kind
from tidegate.rollout.evidence.settings import CONTROLS, HOUR_S, MILLION, Harm
from tidegate.rollout.evidence.strata import CLASS, REGION, VARIANT, divide
from tidegate.rollout.evidence.watch import Watch
from tidegate.sim.fleet.arrays import ArrayBook, ArrayWealth
from tidegate.sim.fleet.errors import WINDOWS_H
from tidegate.sim.fleet.policy import News, Orders, View
from tidegate.sim.fleet.population import NEVER, Bools, Floats, Ints
from tidegate.sim.fleet.spec import DAY_TICKS, PERSONAL_H, TICKS_H
from tidegate.sim.fleet.truth import HAZARD_DAYS

#: Attributes that strata are made of, in the order of profiles, and what the fleet calls them.
ATTRIBUTES: Final = (VARIANT, REGION, CLASS, "from_version", "site_kind")
TICK_S: Final = 900
#: A Monday, 00:00 UTC.
_MONDAY: Final = 1_767_571_200
#: A device gets a permit only where its habit leaves it online until its report.
LEAST_ONLINE: Final = 6
#: A decision an hour is enough where nobody got a permit for so many ticks, or only the tail is left: nothing grows that it could stop.
QUIET: Final = 8
TAIL: Final = 0.9
#: Devices not updated whose silence tells an outage, by region.
SAMPLE: Final = 150
#: Ticks from a permit to its answer, and to the end of the time in which an answer is waited for.
_ANSWER: Final = 5
_DEADLINE: Final = 6
_ALWAYS: Final = ("always", "night")
#: So many numbers are counted faster without numpy.
_FEW: Final = 48


class Gate:
    """The evidence gate with given settings."""

    human = False

    def __init__(self, harm: Harm) -> None:
        """Take the settings."""
        self._harm = harm
        #: Ages and windows that nothing is decided by are not listened to.
        self.hears = frozenset(
            {
                *("ok", "failed", "crashed", "vanished", "returned"),
                *(f"age{one.age_s // HOUR_S}" for one in harm.soaks),
                *(f"metric{one // HOUR_S}" for one in harm.windows_s),
            }
        )
        self._decision: Decision | None = None

    def begin(self, view: View) -> None:
        """Divide the fleet into strata and tell the desk who is there."""
        fleet, self._view = view.fleet, view
        codes = np.stack([fleet.codes(one) for one in ATTRIBUTES])
        whole, self._profile = np.unique(codes, axis=1, return_inverse=True)
        self._profile = self._profile.reshape(-1)
        names = [fleet.names[one] for one in ATTRIBUTES]
        self._profiles = [
            tuple(name[code] for name, code in zip(names, column, strict=True))
            for column in whole.T.tolist()
        ]
        counts = np.bincount(self._profile, minlength=len(self._profiles)).tolist()
        scheme = divide(
            dict(zip(self._profiles, counts, strict=True)), ATTRIBUTES, self._harm.strata
        )
        history, hours = view.history, fleet.size * HAZARD_DAYS * 24
        past = [
            {
                name: (int(failed), int(tried))
                for name, failed, tried in zip(names[0], failures, attempts, strict=True)
            }
            for failures, attempts in zip(history.failures, history.attempts, strict=True)
        ]
        silence = {
            name: round(share * MILLION)
            for name, share in zip(fleet.names["class"], history.silence, strict=True)
        }
        self._start = _MONDAY + round(view.scenario.starts_h * TICKS_H) * TICK_S
        late: dict[Kind, tuple[int, int]] = {
            "crash": (history.crashes, hours),
            "dark": (history.darks, hours),
        }
        known = bool(past)
        self.watch = Watch(
            scheme,
            self._harm,
            from_history(past, silence if known else None),
            self._start,
            late if known else None,
            kind=ArrayBook,
        )
        self._wealth = ArrayWealth(cast("ArrayBook", self.watch.book))
        for profile, count in zip(self._profiles, counts, strict=True):
            self.watch.desk.control(profile, count)
        size = fleet.size
        self._granted = np.full(size, NEVER)
        #: Profile and site as one number.
        self._sites = int(fleet.site.max(initial=-1)) + 2
        self._place = self._profile * self._sites + fleet.site + 1
        self._well, self._gone = np.zeros(size, bool), np.zeros(size, bool)
        self._missing = np.zeros(size, bool)
        self._waiting = self._queues()
        asks_at = fleet.next_asking(np.arange(size), view.staged)
        #: When each device of a queue asks next.
        self._asks_at = {name: asks_at[queue] for name, queue in self._waiting.items()}
        self._given_at = self._given = 0
        self._decided_at = self._start
        self._blocked: Bools = np.zeros(len(self._profiles), bool)
        self._shut: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._members: dict[int, Bools] = {}
        self._masks: dict[int, Bools] = {}
        self._caps: dict[int, int] = {}
        self._ticks_granted: set[int] = set()
        self._controls = _Controls(view, self._granted, self._missing)
        self._samples = self._sampled()

    def step(self, tick: int, news: News) -> Orders:
        """Tell the desk what happened, decide, and give out permits."""
        now = self._now(tick)
        desk = self.watch.desk
        desk.advance(now)
        for kind, idx in news.items():
            self._tell(kind, idx, tick)
        if tick - _DEADLINE in self._ticks_granted:
            self._tell_shock(tick - _DEADLINE)
        self.watch.book.fold_all(desk.tick(now))
        idle = tick > self._given_at + QUIET or self._given >= TAIL * self._granted.size
        if idle and tick % TICKS_H:
            return Orders()
        decision = self._decision = self._decide(now)
        if decision.verdict == "halt":
            return Orders(stop="halted", why=self._why(decision))
        if decision.verdict == "isolate" and decision.blame is not None:
            return Orders(isolated=(decision.blame.name,), why=self._why(decision))
        granted = self._grant(decision, tick)
        if granted.size:
            self._given_at, self._given = tick, self._given + granted.size
        return Orders(activate=granted)

    def _decide(self, now: int) -> Decision:
        """Decide, and book what the decision has to be remembered by."""
        book = self.watch.book
        decision = decide(book, now, since_s=now - self._decided_at, known=self._wealth)
        self._decided_at = now
        self.watch.desk.doubted = decision.doubted
        book.fold_all(decision.carried)
        return decision

    def meters(self) -> Mapping[str, float]:
        """Return the logarithm of the odds against the release."""
        return {} if self._decision is None else {"ln_e": self._decision.log_odds}

    def _why(self, decision: Decision) -> str:
        blame = decision.blame
        if blame is None:
            return f"{decision.odds:.0f} : 1"
        return f"{decision.odds:.0f} : 1 by {blame.stream}, {blame.name or 'the whole fleet'}"

    def _now(self, tick: int) -> int:
        return self._start + tick * TICK_S

    # --- what happened ----------------------------------------------------------------------------------------------------

    def _tell(self, kind: str, idx: Ints, tick: int) -> None:
        updated = self._granted[idx] < NEVER
        desk = self.watch.desk
        if kind == "ok":
            self._well[idx] = True
            self._each(idx, desk.confirmed)
        elif kind == "failed":
            self._each(idx, desk.failed)
        elif kind == "crashed":
            self._late("crash", idx, updated)
        elif kind == "vanished":
            self._late("dark", idx, updated)
            self._missing[idx] = True
        elif kind == "returned":
            back = idx[~updated & self._missing[idx]]
            self._missing[idx] = False
            for profile, _, _, count in self._groups(back):
                desk.control(profile, count)
        elif kind.startswith("age"):
            self._heard(idx, int(kind[3:]))
        elif kind.startswith("metric"):
            self._scored(idx, int(kind[6:]))

    def _late(self, kind: Kind, idx: Ints, updated: Bools) -> None:
        """Tell crashes and silences: of updated devices that were well and have had none, and of those not updated."""
        desk = self.watch.desk
        first = idx[updated & self._well[idx] & ~self._gone[idx]]
        self._gone[first] = True
        for profile, granted, site, count in self._groups(first):
            name = profile[ATTRIBUTES.index(CLASS)]
            ago = round(PERSONAL_H[name] * HOUR_S) if kind == "dark" else 0
            desk.late(kind, profile, granted, count, site, desk.now - ago)
        for profile, _, site, count in self._groups(idx[~updated]):
            desk.control_late(kind, profile, count, site)

    def _heard(self, idx: Ints, hours: int) -> None:
        ages = [one.age_s // HOUR_S for one in self._harm.soaks]
        if hours in ages:
            gate = ages.index(hours)
            for profile, granted, site, count in self._groups(idx[~self._gone[idx]]):
                self.watch.desk.heard(profile, granted, gate, count, site)

    def _scored(self, idx: Ints, hours: int) -> None:
        windows = [one // HOUR_S for one in self._harm.windows_s]
        if hours not in windows:
            return
        window = WINDOWS_H.index(hours)
        after, before = self._view.errors.updated(idx, self._granted[idx], window)
        fresh = ~self._gone[idx] & self._well[idx]
        steps = 2 * CONTROLS + 1
        for scored, theirs in self._controls.draw(idx[fresh], window):
            mine = np.searchsorted(idx, scored)
            ranks = _ranks(
                _measured(
                    np.hstack([after[mine, None], theirs[0]]),
                    np.hstack([before[mine, None], theirs[1]]),
                )
            )
            for key, count in _counted(self._profile[scored] * steps + ranks):
                profile, found = divmod(key, steps)
                self.watch.desk.scored(
                    self._profiles[profile], windows.index(hours), found, count=count
                )

    def _tell_shock(self, since: int) -> None:
        """Tell how many always-connected devices that are no cohort of now fell silent meanwhile, by region."""
        self._ticks_granted.discard(since)
        for region, idx in self._samples:
            settled = (self._granted[idx] == NEVER) | (self._granted[idx] < since - DAY_TICKS)
            able = idx[settled]
            able = able[self._view.heard(able, since, since)][:SAMPLE]
            if able.size:
                heard = self._view.heard(able, since + _ANSWER + 1, since + _DEADLINE)
                gone = int((~heard).sum())
                self.watch.desk.vanished(self._now(since), region, int(able.size), gone)

    def _sampled(self) -> list[tuple[str, Ints]]:
        fleet = self._view.fleet
        always = np.isin(
            fleet.klass, [n for n, one in enumerate(fleet.names["class"]) if one in _ALWAYS]
        )
        last = np.argsort(-fleet.order)
        return [
            (name, last[(fleet.region[last] == code) & always[last]][: 4 * SAMPLE])
            for code, name in enumerate(fleet.names["region"])
        ]

    def _each(self, idx: Ints, tell: Callable[[tuple[str, ...], int, int, str], None]) -> None:
        for profile, granted, site, count in self._groups(idx):
            tell(profile, granted, count, site)

    def _groups(self, idx: Ints) -> Iterator[tuple[tuple[str, ...], int, str, int]]:
        """Yield (profile, unix time of the permit, site, count) of devices that are alike."""
        if not idx.size:
            return
        sites, profiles = self._sites, len(self._profiles)
        for one, count in _counted(self._granted[idx] * (profiles * sites) + self._place[idx]):
            rest, site = divmod(one, sites)
            tick, profile = divmod(rest, profiles)
            yield self._profiles[profile], self._now(tick), str(site) if site else "", count

    # --- who may ----------------------------------------------------------------------------------------------------------

    def _queues(self) -> dict[str, Ints]:
        """Return the devices of each variant that have no permit yet, in the order of the salted hash."""
        fleet = self._view.fleet
        order = np.argsort(fleet.order)
        return {
            name: order[fleet.variant[order] == code]
            for code, name in enumerate(fleet.names["variant"])
        }

    def _grant(self, decision: Decision, tick: int) -> Ints:
        """Give the permits of each variant to those that ask first."""
        capped = tuple(decision.caps)
        none = tuple(one for one, cap in decision.caps.items() if not cap)
        shut = (*none, *self.watch.book.isolated)
        if (shut, capped) != self._shut:
            self._shut, self._blocked = (shut, capped), self._in(shut)
            self._members = {one: self._inside(one) for one in capped if one not in none}
        self._caps = {one: cap for one, cap in decision.caps.items() if cap}
        known = self.watch.book.scheme.variants
        names = list(self._waiting)
        found = []
        for told in known:
            permits = decision.permits.get(told, 0)
            # Rare variants share the permits of `other`, in the order of their names.
            mine = [told] if told in self._waiting else [one for one in names if one not in known]
            for name in mine:
                if permits > 0:
                    chosen = self._asking(name, permits, tick)
                    permits -= chosen.size
                    found.append(chosen)
        granted = np.concatenate(found) if found else np.empty(0, np.int64)
        if granted.size:
            self._ticks_granted.add(tick)
        return granted

    def _in(self, strata: tuple[int, ...]) -> Bools:
        """Return which profiles are in any of these strata."""
        found: Bools = np.zeros(len(self._profiles), bool)
        for one in strata:
            found |= self._inside(one)
        return found

    def _inside(self, stratum: int) -> Bools:
        """Return which profiles are in a stratum; worked out once."""
        found = self._masks.get(stratum)
        if found is None:
            holds = self.watch.book.scheme.holds
            found = np.array([holds(stratum, profile) for profile in self._profiles])
            self._masks[stratum] = found
        return found

    def _within_caps(self, able: Ints) -> Ints:
        """Return those that no cap of a stratum leaves out, first come first served."""
        for stratum, cap in self._caps.items():
            member = self._members[stratum][self._profile[able]]
            able = able[~member | (np.cumsum(member) <= cap)]
        return able

    def _asking(self, name: str, permits: int, tick: int) -> Ints:
        """Return up to so many devices of a variant that ask now, and take them out of the queue."""
        queue, asks_at = self._waiting[name], self._asks_at[name]
        places = np.flatnonzero(asks_at <= tick)
        able = queue[places]
        if self._blocked.any():
            free = ~self._blocked[self._profile[able]]
            places, able = places[free], able[free]
        fleet, view = self._view.fleet, self._view
        chosen: list[Ints] = []
        begin, width, left = 0, 4 * permits + 64, permits
        while left > 0 and begin < able.size:
            part = able[begin : begin + width]
            asks = fleet.asking(part, tick) & (fleet.left(part, tick) >= LEAST_ONLINE)
            later = places[begin : begin + width][~asks]
            asks_at[later] = fleet.next_asking(queue[later], tick + 1)
            part = part[asks]
            part = self._within_caps(part[view.heard(part, tick, tick)])
            taken = self._permitted(part, left)
            for stratum in self._caps:
                self._caps[stratum] -= int(self._members[stratum][self._profile[taken]].sum())
            chosen.append(taken)
            left -= taken.size
            begin, width = begin + width, 2 * width
        found = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
        if found.size:
            self._granted[found] = tick
            stays = np.ones(queue.size, bool)
            stays[places[:begin]] = self._granted[able[:begin]] == NEVER
            self._waiting[name], self._asks_at[name] = queue[stays], asks_at[stays]
        return found

    def _permitted(self, able: Ints, most: int) -> Ints:
        """Tell the desk of the permits, as far as each site has room. Returns who got one."""
        desk, sites = self.watch.desk, self._view.fleet.site
        if not (sites[able] >= 0).any():
            taken = able[:most]
        else:
            chosen: list[int] = []
            room: dict[int, int] = {}
            for device, site in zip(able.tolist(), sites[able].tolist(), strict=True):
                if len(chosen) == most:
                    break
                if site >= 0:
                    left = room.get(site)
                    left = desk.site_room(str(site + 1)) if left is None else left
                    room[site] = left - 1
                    if left <= 0:
                        continue
                chosen.append(device)
            taken = np.array(chosen, np.int64)
        for profile, _, site, count in self._groups(taken):
            desk.permit(profile, count, site)
        return taken


class _Controls:
    """Devices not updated whose metric has not been used yet, by window and cell; those that are updated last come first."""

    def __init__(self, view: View, granted: Ints, missing: Bools) -> None:
        fleet = view.fleet
        self._view, self._granted, self._missing = view, granted, missing
        self._cell = fleet.region * len(fleet.names["class"]) + fleet.klass
        last = np.argsort(-fleet.order)
        cells = int(self._cell.max()) + 1
        pools = [last[self._cell[last] == cell] for cell in range(cells)]
        self._pools = [list(pools) for _ in WINDOWS_H]

    def draw(self, idx: Ints, window: int) -> Iterator[tuple[Ints, tuple[Ints, Ints]]]:
        """Draw others for devices whose window is complete; who is drawn is used up.

        Yields:
            devices, sorted, and what so many others each counted after and before: `CONTROLS`, or half as many as often as a cell has too few for all.
        """
        found: dict[int, tuple[list[Ints], list[Ints]]] = {}
        for cell in np.unique(self._cell[idx]).tolist():
            mine = idx[self._cell[idx] == cell]
            pool = self._pools[window][cell]
            able = pool[: 2 * CONTROLS * mine.size + 64]
            rest = pool[able.size :]
            able = able[(self._granted[able] == NEVER) & ~self._missing[able]]
            each = CONTROLS
            while each > 1 and each * mine.size > able.size:
                each //= 2
            count = min(mine.size, able.size // each)
            used = able[: count * each]
            self._pools[window][cell] = np.concatenate([able[used.size :], rest])
            if count:
                devices, others = found.setdefault(each, ([], []))
                devices.append(mine[:count])
                others.append(used.reshape(count, each))
        for devices, others in found.values():
            scored, table = np.concatenate(devices), np.concatenate(others)
            order = np.argsort(scored)
            scored, table = scored[order], table[order]
            since = np.broadcast_to(self._granted[scored][:, None], table.shape)
            yield scored, self._view.errors.control(table, since, window)


def _counted(keys: Ints) -> Iterator[tuple[int, int]]:
    """Yield each number, rising, and how often it comes."""
    if keys.size > _FEW:
        found, counts = np.unique(keys, return_counts=True)
        yield from zip(found.tolist(), counts.tolist(), strict=True)
        return
    few: dict[int, int] = {}
    for key in sorted(keys.tolist()):
        few[key] = few.get(key, 0) + 1
    yield from few.items()


def _ranks(measured: Floats) -> Ints:
    """Return what `desk.rank` says of the first of each row among the others."""
    values, others = measured[:, :1], measured[:, 1:]
    steps = 2 * (values > others).sum(axis=1) + (values == others).sum(axis=1)
    found: Ints = CONTROLS // others.shape[1] * steps
    return found


def _measured(after: Ints, before: Ints) -> Floats:
    """Return what `pairs` makes of each row of devices that are compared."""
    whole = after + before
    scale = whole + 2 * whole.mean(axis=1, keepdims=True)
    found: Floats = np.divide(after - before, scale, out=np.zeros(scale.shape), where=scale > 0)
    return found
