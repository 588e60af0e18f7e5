"""The sums: everything that is known about a release's evidence, as integers.

`fold` books one fact. It costs the same however many strata there are: what a fact adds is kept by profile, and given to the profile's strata when
somebody looks (`settle`). Only late events go to their strata at once, because each has risk sets of its own there.

After an isolation every stratum that overlaps the one that left is put back to even odds: what was permitted before then is neither charged nor credited there,
and the profiles that left count nowhere but in their own stratum. What is left in the sums is evidence about those who stay.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.facts import (
    Alive,
    Control,
    Credits,
    Dead,
    Fact,
    Fail,
    Isolated,
    Kind,
    Late,
    Left,
    Ok,
    Permit,
    Rate,
    Refund,
    Risk,
    Score,
    Shaken,
    Shock,
    Silent,
    Watch,
)
from tidegate.rollout.evidence.layout import KINDS
from tidegate.rollout.evidence.settings import (
    DAY_S,
    DELTAS_PPM,
    LATER_S,
    LATER_STAKES,
    THETAS_PCT,
    Harm,
)
from tidegate.rollout.evidence.strata import CLASS, VARIANT, Profile, Scheme

_KIND: Final[dict[Kind, int]] = {"crash": 0, "dark": 1}
_NEVER: Final = -1
#: Failures credited, by profile; becomes the six sums of the failure stream when it is settled.
PAID: Final = -1

Row = list[int]


class Home:
    """What is known of a profile: its strata, what its failures pay, and what it has had so far (admission's counters)."""

    __slots__ = ("credit", "held", "pending", "silence_ppm", "strata", "total", "variant")

    def __init__(self, strata: tuple[int, ...], variant: str, limit: int, silence_ppm: int) -> None:
        self.strata = strata
        self.variant = variant
        self.credit = stakes.credit(limit)
        self.silence_ppm = silence_ppm
        self.pending: dict[int, int] = {}
        self.total: Row = [0] * at.TRACKED
        self.held = True


class Book:
    """Evidence of one release. Not thread-safe; what it holds is worth as much as the facts that it was given."""

    def __init__(self, scheme: Scheme, harm: Harm, baseline: Baseline) -> None:
        self.scheme = scheme
        self.harm = harm
        self.baseline = baseline
        self.layout = at.layout(harm)
        self.rows: list[Row] = [[0] * self.layout.width for _ in scheme.strata]
        self.control_events = 0
        self.control_hours = 0
        self.credits: dict[int, int] = {}
        self.isolated: tuple[int, ...] = ()
        self.restarted: list[int] = [_NEVER] * len(scheme.strata)
        self.facts = 0
        #: Later stakes laid down, and the four hours of the last (`settings.LATER_S`).
        self.laid = (0, 0)
        #: A number for each stratum that rises whenever its row changes.
        self.versions: list[int] = [0] * len(scheme.strata)
        self._homes: dict[Profile, Home] = {}
        self._moved: set[Profile] = set()
        #: Whether some of what moved is who is under watch.
        self._rewatched = False
        #: Late events expected of each device under watch that no row has yet, by kind, in 10⁻⁹.
        self._expected = [0] * len(KINDS)
        self._restart = _NEVER
        self._play: tuple[tuple[int, ...], tuple[int, ...]] = ((), tuple(range(len(scheme.strata))))
        self._folds: dict[type, Callable[[Any], None]] = {
            Permit: self._permit,
            Refund: self._refund,
            Fail: self._fail,
            Ok: self._ok,
            Silent: self._silent,
            Alive: self._alive,
            Dead: self._dead,
            Left: self._left,
            Watch: self._watch,
            Late: self._late,
            Shock: self._shock,
            Rate: self._rate,
            Score: self._score,
            Control: self._control,
            Credits: self._credits,
            Isolated: self._isolate,
        }

    # ------------------------------------------------------------------ booking

    def fold(self, fact: Fact) -> None:
        """Book one fact.

        Raises:
            KeyError: not a fact of this version.
        """
        self.facts += 1
        self._folds[type(fact)](fact)

    def fold_all(self, facts: Iterable[Fact]) -> None:
        """Book facts in their order."""
        for fact in facts:
            self.fold(fact)

    def home(self, profile: Profile) -> Home:
        """Return what is known of a profile; a new one is taken in."""
        found = self._homes.get(profile)
        if found is not None:
            return found
        told = self.scheme.told_apart(profile)
        found = self._homes.get(told)
        if found is None:
            values = dict(zip(self.scheme.attributes, told, strict=True))
            limit = stakes.limit_ppm(
                self.baseline.failure(values[VARIANT]), self.harm.extra_failure_ppm
            )
            silence = self.baseline.silence(values.get(CLASS, ""))
            found = Home(self.scheme.strata_of(told), values[VARIANT], limit, silence)
            gone = [one for one in self.isolated if self.scheme.holds(one, told)]
            if gone:
                found.held, found.strata = False, (gone[0],)
            self._homes[told] = found
        self._homes[profile] = found
        return found

    def _add(self, profile: Profile, *changes: tuple[int, int], since: int) -> None:
        """Add to a profile. `since` = when its permit was granted: evidence of permits older than a stratum's restart stays out of it."""
        home = self._homes.get(profile) or self.home(profile)
        if since <= self._restart:
            self._add_old(home, changes, since)
            return
        pending = home.pending
        if not pending:
            self._moved.add(profile)
        for where, amount in changes:
            pending[where] = pending.get(where, 0) + amount

    def _add_old(self, home: Home, changes: tuple[tuple[int, int], ...], since: int) -> None:
        """Add what belongs to a permit that is older than some restart, stratum by stratum."""
        self._expect()
        for where, amount in changes:
            if 0 <= where < at.TRACKED:
                home.total[where] += amount
        for stratum in home.strata:
            old = since <= self.restarted[stratum]
            for where, amount in changes:
                if where in _COUNTED or not old:
                    self._give(self.rows[stratum], home, where, amount)
            self.versions[stratum] += 1

    def settle(self) -> None:
        """Give what was added by profile to the strata; after this `rows` are right."""
        self._expect()
        self._rewatched = False
        if self._moved:
            self._give_all()

    def _give_all(self) -> None:
        for profile in self._moved:
            home = self._homes[profile]
            pending, home.pending = home.pending, {}
            for where, amount in pending.items():
                if 0 <= where < at.TRACKED:
                    home.total[where] += amount
            items = list(pending.items())
            for stratum in home.strata:
                self.versions[stratum] += 1
                row = self.rows[stratum]
                for where, amount in items:
                    if where >= 0:
                        row[where] += amount
                    else:
                        self._give(row, home, where, amount)
        self._moved.clear()

    def _give(self, row: Row, home: Home, where: int, amount: int) -> None:
        if where != PAID:
            row[where] += amount
            return
        for index, worth in enumerate(home.credit):
            row[at.FAILURE + index] += amount * worth

    def _permit(self, fact: Permit) -> None:
        charged = fact.count if fact.charged is None else min(fact.count, fact.charged)
        self._add(fact.profile, (at.EXPOSED, fact.count), (at.CHARGED, charged), since=fact.at)

    def _refund(self, fact: Refund) -> None:
        charged = fact.count if fact.charged is None else min(fact.count, fact.charged)
        self._add(
            fact.profile,
            (at.EXPOSED, -fact.count),
            (at.CHARGED, -charged),
            since=fact.granted_at,
        )

    def _fail(self, fact: Fail) -> None:
        credited = fact.count if fact.credited is None else min(fact.count, fact.credited)
        changes = [(PAID, credited)]
        if not fact.again:
            changes.append((at.FAILED, fact.count))
        self._add(fact.profile, *changes, since=fact.granted_at)

    def _ok(self, fact: Ok) -> None:
        charged = fact.count if fact.charged is None else min(fact.count, fact.charged)
        changes = [(at.HEALTHY, fact.count)]
        if charged:
            worth = enumerate(stakes.charge())
            changes += [(at.SILENCE + index, charged * one) for index, one in worth]
        self._add(fact.profile, *changes, since=fact.granted_at)

    def _silent(self, fact: Silent) -> None:
        credited = fact.count if fact.credited is None else min(fact.count, fact.credited)
        charged = fact.count if fact.charged is None else min(fact.count, fact.charged)
        charged = max(charged, credited)
        changes = [(at.SILENT, fact.count)]
        if charged:
            limit = stakes.limit_ppm(fact.silence_ppm, self.harm.extra_silence_ppm)
            won, lost = stakes.gain(limit), stakes.charge()
            changes += [
                (at.SILENCE + one, credited * won[one] + (charged - credited) * lost[one])
                for one in range(len(DELTAS_PPM))
            ]
        self._add(fact.profile, *changes, since=fact.granted_at)

    def _alive(self, fact: Alive) -> None:
        self._add(fact.profile, (at.ALIVE + fact.gate, fact.count), since=fact.at)

    def _dead(self, fact: Dead) -> None:
        self._add(fact.profile, (at.DEAD + fact.gate, fact.count), since=fact.at)

    def _left(self, fact: Left) -> None:
        changes = [(at.ALIVE + gate, -fact.count) for gate in range(fact.gates)]
        if fact.healthy:
            changes.append((at.HEALTHY, -fact.count))
        self._add(fact.profile, *changes, (at.VOID, fact.count), since=fact.at)

    def _watch(self, fact: Watch) -> None:
        amount = -fact.count if fact.leave else fact.count
        self._rewatched = True
        self._add(fact.profile, (at.WATCHED + _KIND[fact.kind], amount), since=fact.at)

    def _late(self, fact: Late) -> None:
        kind = _KIND[fact.kind]
        if fact.updated and fact.paid:
            paid = min(fact.count, fact.paid)
            changes = ((at.SEEN + kind, paid), (at.SEEN_TODAY + kind, paid))
            self._add(fact.profile, *changes, since=fact.at)
        home = self.home(fact.profile)
        for risk in fact.risks:
            if risk[0] in home.strata:
                self._race(risk, kind, fact)

    def _race(self, risk: Risk, kind: int, fact: Late) -> None:
        stratum, updated, control = risk
        if control < self.harm.least_control or (updated < 1 and not fact.updated):
            return
        worth = stakes.race(max(1, updated), control, self.harm.hazard_pct, won=fact.updated)
        row, first = self.rows[stratum], at.RACE + kind * len(worth)
        for index, one in enumerate(worth):
            row[first + index] += fact.count * one
        self.versions[stratum] += 1

    def _shock(self, fact: Shock) -> None:
        for shaken in fact.shaken:
            self._share(shaken, _KIND[fact.kind])

    def _share(self, shaken: Shaken, kind: int) -> None:
        stratum, updated, control, *drawn, all_updated, all_others = shaken
        if control < self.harm.least_control or (updated < 1 and not all_updated):
            return
        tolerated = self.harm.hazard_pct
        won = stakes.race(max(1, updated), control, tolerated, won=True)
        lost = stakes.race(max(1, updated), control, tolerated, won=False)
        row, first = self.rows[stratum], at.RACE + kind * len(won)
        for index, (win, loss) in enumerate(zip(won, lost, strict=True)):
            one_a_site = drawn[0] * win + drawn[1] * loss
            row[first + index] += min(one_a_site, all_updated * win + all_others * loss)
        self.versions[stratum] += 1

    def _rate(self, fact: Rate) -> None:
        """Let expected late events grow with the devices that were under watch meanwhile: at once for all strata, when somebody looks."""
        if self._rewatched:
            self.settle()
        self._lay(fact.at)
        self._expected[_KIND[fact.kind]] += fact.expected_ppb

    def _expect(self) -> None:
        """Give the strata the late events that were expected since they last got them; who is under watch has not changed meanwhile."""
        if not any(self._expected):
            return
        expected, self._expected = self._expected, [0] * len(KINDS)
        for kind, ppb in enumerate(expected):
            if ppb:
                self._grow(kind, ppb)

    def _grow(self, kind: int, ppb: int) -> None:
        watched, expected, today = at.WATCHED + kind, at.EXPECTED + kind, at.EXPECTED_TODAY + kind
        for stratum, row in enumerate(self.rows):
            if row[watched] > 0:
                more = row[watched] * ppb
                row[expected] += more
                row[today] += more
                self.versions[stratum] += 1

    def _lay(self, now: int) -> None:
        """Lay down the stakes that are due: at fixed hours, whatever is known. What is left of the day's bet is given up with the day."""
        count, before = self.laid
        period = now // LATER_S
        if period <= before or count >= LATER_STAKES:
            return
        self.laid = (count + 1, period)
        if not count:
            return
        self.settle()
        days = DAY_S // LATER_S
        self._stake(stakes.afresh(), new_day=period // days > before // days)

    def _stake(self, floor: int, *, new_day: bool) -> None:
        first, last = at.RACE, at.RACE + len(KINDS) * len(THETAS_PCT)
        for stratum, row in enumerate(self.rows):
            race = row[first:last]
            if min(race) < floor:
                row[first:last] = [max(one, floor) for one in race]
                self.versions[stratum] += 1
            if new_day and any(row[at.EXPECTED_TODAY : at.FAILURE]):
                row[at.EXPECTED_TODAY : at.FAILURE] = [0] * (at.FAILURE - at.EXPECTED_TODAY)
                self.versions[stratum] += 1

    def _score(self, fact: Score) -> None:
        if fact.metric >= len(self.harm.metrics) or fact.window >= len(self.harm.windows_s):
            return
        first = at.metric_at(self.harm, fact.metric, fact.window)
        worth = stakes.rank(fact.sixteenths, self.harm.metric_ppm)
        changes = [(first + index, fact.count * one) for index, one in enumerate(worth)]
        self._add(fact.profile, *changes, since=fact.at)

    def _control(self, fact: Control) -> None:
        self.control_events += fact.events
        self.control_hours += fact.hours

    def _credits(self, fact: Credits) -> None:
        self.credits = {where: parts for where, parts in fact.parts_ppm.items() if parts}

    # ------------------------------------------------------------------ isolation

    def _isolate(self, fact: Isolated) -> None:
        """Take a stratum out of everything that overlaps it."""
        if fact.stratum in self.isolated or fact.stratum >= len(self.rows):
            return
        self.settle()
        self.isolated = (*self.isolated, fact.stratum)
        self.credits = {}
        for home in dict.fromkeys(self._homes.values()):
            if home.held and fact.stratum in home.strata:
                self._leave(home, fact.stratum)
        for stratum in self.overlapping(fact.stratum):
            row = self.rows[stratum]
            for where in range(at.ADMISSION, len(row)):
                if where not in _COUNTED:
                    row[where] = 0
            self.restarted[stratum] = fact.at
            self.versions[stratum] += 1
        self._restart = max(self._restart, fact.at)

    def _leave(self, home: Home, stratum: int) -> None:
        for other in home.strata:
            if other != stratum:
                row = self.rows[other]
                for where in _COUNTED:
                    row[where] -= home.total[where]
        home.held, home.strata = False, (stratum,)

    def overlapping(self, stratum: int) -> Iterator[int]:
        """Return the other strata that may share a device with this one: all but those with another value of one of its attributes."""
        mine = self.scheme.strata[stratum]
        values = dict(zip(mine.attributes, mine.values, strict=True))
        for index, one in enumerate(self.scheme.strata):
            theirs = zip(one.attributes, one.values, strict=True)
            if index != stratum and all(values.get(name, value) == value for name, value in theirs):
                yield index

    def in_play(self) -> tuple[int, ...]:
        """Return the strata whose evidence counts: not isolated, and not inside one that is."""
        if self._play[0] != self.isolated:
            self._play = (self.isolated, tuple(self._staying()))
        return self._play[1]

    def _staying(self) -> Iterator[int]:
        gone = [self.scheme.strata[one] for one in self.isolated]
        for index, one in enumerate(self.scheme.strata):
            pairs = set(zip(one.attributes, one.values, strict=True))
            if not any(
                pairs.issuperset(zip(out.attributes, out.values, strict=True)) for out in gone
            ):
                yield index

    # ------------------------------------------------------------------ storing

    def digest(self) -> str:
        """Return a digest of everything that is known; equal for equal logs."""
        return hashlib.sha256(self.encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the book as bytes, from which `decode` makes an equal one."""
        return msgspec.json.encode(self.pack(), order="deterministic")

    def pack(self) -> "Packed":
        """Return what is to be stored."""
        self.settle()
        homes = sorted(
            (profile, home.held, home.strata, home.total)
            for profile, home in self._homes.items()
            if profile == self.scheme.told_apart(profile) and any(home.total)
        )
        return Packed(
            schema=2,
            scheme=self.scheme,
            harm=self.harm,
            baseline=self.baseline,
            rows=self.rows,
            control=(self.control_events, self.control_hours),
            credits=sorted(self.credits.items()),
            isolated=self.isolated,
            restarted=self.restarted,
            facts=self.facts,
            laid=self.laid,
            homes=homes,
        )

    @classmethod
    def decode(cls, data: bytes) -> "Book":
        """Return the book that was encoded.

        Raises:
            msgspec.DecodeError: damaged, or of another version.
        """
        packed = msgspec.json.decode(data, type=Packed)
        return cls.unpack(packed, packed.harm, packed.baseline)

    @classmethod
    def unpack(cls, packed: "Packed", harm: Harm, baseline: Baseline) -> "Book":
        """Return the book that was stored; what it gets from now on is judged by these settings.

        Raises:
            msgspec.ValidationError: of another version, or settings with other metrics: its rows would be misread.
        """
        book = cls(packed.scheme, harm, baseline)
        fits = len(packed.rows) == len(book.rows) and len(packed.restarted) == len(book.rows)
        if (
            packed.schema != 2
            or not fits
            or (harm.metrics, harm.windows_s) != (packed.harm.metrics, packed.harm.windows_s)
            or any(len(row) != book.layout.width for row in packed.rows)
        ):
            raise msgspec.ValidationError("not an evidence book of this version")
        book.rows = [list(row) for row in packed.rows]
        book.control_events, book.control_hours = packed.control
        book.credits, book.isolated = dict(packed.credits), packed.isolated
        book.restarted, book.facts = list(packed.restarted), packed.facts
        book.laid = packed.laid
        book._restart = max(book.restarted)
        for profile, held, strata, total in packed.homes:
            home = book.home(profile)
            home.held, home.strata, home.total = held, strata, list(total)
        return book


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A book as it is stored."""

    schema: int
    scheme: Scheme
    harm: Harm
    baseline: Baseline
    rows: list[Row]
    control: tuple[int, int]
    credits: list[tuple[int, int]]
    isolated: tuple[int, ...]
    restarted: list[int]
    facts: int
    laid: tuple[int, int]
    homes: list[tuple[Profile, bool, tuple[int, ...], Row]]


#: What counts devices and is not evidence: kept right in every stratum, restarted or not.
_COUNTED: Final = frozenset({*range(at.ADMISSION), at.WATCHED, at.WATCHED + 1})
