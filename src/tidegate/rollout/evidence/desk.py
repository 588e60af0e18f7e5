"""From what happens to facts, booked when they are mature.

Whenever a ratio decides, its numerator and its denominator must be known at the same age. So an answer is held until the deadline of its cohort, a crash counts
against a soak gate when the device reaches the gate's age, and late events are weighed a tick at a time.

What stands together falls together: a site's permits pay once until somebody there is well again; of late events, see `hazards`.

Like devices come as one happening with a `count`. Who is a device, and whether it says so for the first time, is `roster`'s matter. Counts that do not fit what
was permitted are cut to it: nobody can answer who was not asked. Times are unix seconds, of the server: `advance` before what
happens, `tick` when all of a tick is told.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from tidegate.rollout.evidence import cohorts, hazards, risks, sites
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.cohort import Cohort, Key
from tidegate.rollout.evidence.facts import (
    Alive,
    Dead,
    Fact,
    Fail,
    Kind,
    Left,
    Ok,
    Permit,
    Refund,
    Score,
    Silent,
    Watch,
)
from tidegate.rollout.evidence.habits import LEAST_S, PERSONAL_S
from tidegate.rollout.evidence.settings import CONTROLS, MILLION
from tidegate.rollout.evidence.strata import CLASS, OTHER, Profile

#: An updated device comes under watch for going dark this long after its permit.
_DARK_LAG_S: Final = LEAST_S
#: Of fewer devices not updated, one that vanished counts double.
_SAMPLE: Final = 50
#: Answers of silent devices are taken for so long after their deadline.
_KEPT_S: Final = 60 * 86_400
#: The server was down, or its clock stepped, when no tick came for so many ticks.
_MISSED: Final = 2


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of a desk."""

    now: int
    ticked: int
    down_s: int
    out: list[Fact]
    lost: list[tuple[int, str, int, int]]
    cohorts: cohorts.Packed
    risks: risks.Packed
    hazards: hazards.Packed
    sites: sites.Packed
    doubted: bool = False


class Desk:
    """Takes what happens, gives facts. In memory; what it holds follows from the happenings alone."""

    def __init__(
        self, book: Book, start: int, past: dict[Kind, tuple[int, int]] | None = None
    ) -> None:
        """Open a desk.

        Args:
            book: that the facts will be folded into. Read only.
            start: unix seconds.
            past: late events and device-hours of the fleet in the last 30 days, by kind.
        """
        self.book = book
        self.harm = book.harm
        #: Time of what happens next.
        self.now = start
        self._ticked = start
        self.risks = risks.Risks(book)
        self._hazards = hazards.Hazards(book, self.risks, past)
        self._out: list[Fact] = []
        self._down_s = 0
        self._cohorts = cohorts.Cohorts(book.harm)
        self._lost: dict[tuple[int, str], tuple[int, int]] = {}
        self.sites = sites.Sites(book.harm.site_s)
        #: Whether the last whole decision found the odds against the release above even: then permits go where they are evidence.
        self.doubted = False

    # ------------------------------------------------------------------ permits and their outcomes

    def permit(self, profile: Profile, count: int = 1, site: str = "") -> None:
        """Book permits that were granted now, before the answer leaves."""
        profile = self._told(profile)
        counted = not self.sites.blocked(site, self.now)
        answer_s = self.harm.answer_s(self._class(profile))
        cohort = self._cohorts.open(
            profile, site, self.now, self._down_s, answer_s, counted=counted
        )
        cohort.come(count)
        self.risks.leave_control(profile, count)
        if site:
            self.sites.begin(site, count)
        charged = None if counted else 0
        self._out.append(Permit(at=self.now, profile=profile, count=count, charged=charged))

    def refund(self, profile: Profile, granted_at: int, count: int = 1, site: str = "") -> None:
        """Take back permits that were not used, and not because something failed."""
        profile = self._told(profile)
        for key, cohort, part in self._cohorts.waiting(profile, granted_at, site, count):
            cohort.refunded += part
            cohort.leave(part)
            self.risks.control(profile, part)
            self.sites.end(site, part)
            self._out.append(
                Refund(
                    at=self.now,
                    profile=profile,
                    count=part,
                    granted_at=cohort.granted_at,
                    charged=part if key[3] else 0,
                )
            )

    def failed(self, profile: Profile, granted_at: int, count: int = 1, site: str = "") -> None:
        """Book failures of install, boot or warm-up: at once, whenever they are told. A silent device may tell of one later."""
        profile = self._told(profile)
        for key, cohort, part in self._cohorts.waiting(profile, granted_at, site, count):
            cohort.failed += part
            cohort.leave(part)
            self.sites.bad(site, part)
            paid = self._pays(site, cohort, key, part)
            self._fail(profile, cohort, part, paid, again=False)
            count -= part
        for key, cohort in self._cohorts.found(profile, granted_at, site):
            part = min(count, cohort.silent - cohort.returned)
            if part > 0:
                cohort.returned += part
                paid = 0 if site else self._pays(site, cohort, key, part)
                self._fail(profile, cohort, part, paid, again=True)
                count -= part

    def _fail(
        self, profile: Profile, cohort: Cohort, count: int, paid: int, *, again: bool
    ) -> None:
        self._out.append(
            Fail(
                at=self.now,
                profile=profile,
                count=count,
                granted_at=cohort.granted_at,
                credited=paid,
                again=again,
            )
        )

    def confirmed(self, profile: Profile, granted_at: int, count: int = 1, site: str = "") -> None:
        """Note devices that confirmed; booked at their deadline. After it they only count as heard again."""
        self.in_time(profile, granted_at, count, site)

    def in_time(self, profile: Profile, granted_at: int, count: int = 1, site: str = "") -> int:
        """Note devices that confirmed, and return how many of them before their deadline."""
        profile = self._told(profile)
        well = 0
        for _, cohort, part in self._cohorts.waiting(profile, granted_at, site, count):
            cohort.well += part
            well += part
            count -= part
            if site:
                self.sites.well(site, part, cohort.granted_at)
        for _, cohort in self._cohorts.found(profile, granted_at, site):
            part = min(count, cohort.silent - cohort.returned)
            if part > 0:
                cohort.returned += part
                cohort.back += part
                count -= part
        return well

    def heard(
        self, profile: Profile, granted_at: int, gate: int, count: int = 1, site: str = ""
    ) -> None:
        """Book devices heard for the first time at an age of at least a soak gate's, with nothing against them before."""
        profile = self._told(profile)
        age_s = self.harm.soaks[gate].age_s
        for _, cohort in self._cohorts.found(profile, granted_at, site):
            part = min(count, cohort.open[gate]) if self.now >= granted_at + age_s else 0
            if part > 0:
                cohort.open[gate] -= part
                count -= part
                self._out.append(Alive(at=self.now, profile=profile, count=part, gate=gate))

    # ------------------------------------------------------------------ late events

    def late(
        self,
        kind: Kind,
        profile: Profile,
        granted_at: int,
        count: int = 1,
        site: str = "",
        heard_at: int | None = None,
    ) -> None:
        """Book the first crash, or going dark, of updated devices after they confirmed.

        Args:
            kind: what happened; `dark` when the personal deadline has passed.
            profile: of the devices.
            granted_at: when they got their permit.
            count: how many.
            site: where they stand.
            heard_at: when they were last heard; a device that was heard at a gate's age has passed it. None = now.
        """
        profile = self._told(profile)
        heard_at = self.now if heard_at is None else heard_at
        for key, cohort in self._cohorts.found(profile, granted_at, site):
            part = min(count, cohort.well - cohort.gone)
            if part <= 0:
                continue
            count -= part
            cohort.gone += part
            if cohort.mature:
                self._late_of(kind, key, cohort, part, heard_at)
            else:
                cohort.later.append((kind, part, heard_at))

    def _late_of(self, kind: Kind, key: Key, cohort: Cohort, count: int, heard_at: int) -> None:
        _, profile, site, counted = key
        for gate, spec in enumerate(self.harm.soaks):
            of_age = cohort.granted_at + spec.age_s
            part = min(count, cohort.open[gate]) if heard_at < of_age else 0
            if part:
                cohort.open[gate] -= part
                self._cohorts.set(max(of_age, self.now), f"dead{gate}", key, part)
        if counted:
            self._hazards.tell((kind, True, profile, site, count))
        self._leave(key, cohort, count)

    def left(self, profile: Profile, granted_at: int, gates: int, site: str = "") -> None:
        """Take a device that was well out of everything: it left the fleet, and is neither proof of health nor of harm from now on.

        Args:
            profile: of the device.
            granted_at: when it got its permit.
            gates: soak gates that it has passed.
            site: where it stood.
        """
        profile = self._told(profile)
        for key, cohort in self._cohorts.found(profile, granted_at, site):
            if cohort.well - cohort.gone <= 0:
                continue
            cohort.leave(1, gates)
            self.sites.left(site)
            if cohort.mature:
                cohort.gone += 1
                cohort.left += 1
                self._leave(key, cohort, 1)
            else:
                cohort.well -= 1
                cohort.waived += 1
            healthy = cohort.mature
            self._out.append(Left(at=self.now, profile=profile, gates=gates, healthy=healthy))
            return

    def waived(self, profile: Profile, granted_at: int, site: str = "") -> None:
        """Take a device whose outcome is open out of everything. Its permit stays charged: what was paid for a bet is never given back."""
        profile = self._told(profile)
        for _, cohort, part in self._cohorts.waiting(profile, granted_at, site, 1):
            cohort.waived += part
            cohort.leave(part)
            self.sites.end(site, part)
            self._out.append(Left(at=self.now, profile=profile, count=part, healthy=False))

    def lapsed(self, profile: Profile, granted_at: int, gates: int, site: str = "") -> None:
        """Take out a device that confirmed after its deadline and is gone now, or crashed: at the age of each gate that it has not passed it counts as dead."""
        profile = self._told(profile)
        for key, cohort in self._cohorts.found(profile, granted_at, site):
            if not cohort.back:
                continue
            for gate in range(gates, len(self.harm.soaks)):
                if cohort.open[gate] > 0:
                    cohort.open[gate] -= 1
                    of_age = cohort.granted_at + self.harm.soaks[gate].age_s
                    self._cohorts.set(max(of_age, self.now), f"dead{gate}", key, 1)
            return

    def control_late(self, kind: Kind, profile: Profile, count: int = 1, site: str = "") -> None:
        """Book a crash, or going dark, of devices not updated. Who went dark is watched again when `control` says so."""
        profile = self._told(profile)
        self._hazards.tell((kind, False, profile, site, count))

    def control(self, profile: Profile, count: int) -> None:
        """Say that so many more devices not updated can be watched (negative: fewer). A permit takes them out by itself."""
        self.risks.control(self._told(profile), count)

    def vanished(self, since: int, region: str, sample: int, gone: int) -> None:
        """Say how many always-connected devices not updated, heard in the tick of `since`, were silent for the last `again_s` of its wait."""
        key = (since // self.harm.tick_s, region)
        before = self._lost.get(key, (0, 0))
        self._lost[key] = (before[0] + sample, before[1] + min(sample, gone))

    def scored(
        self, profile: Profile, window: int, sixteenths: int, *, metric: int = 0, count: int = 1
    ) -> None:
        """Book ranks (`rank`) of a metric whose window is complete. Each device once a window, each device not updated used once."""
        self._out.append(
            Score(
                at=self.now,
                profile=self._told(profile),
                count=count,
                metric=metric,
                window=window,
                sixteenths=sixteenths,
            )
        )

    def hazards(self) -> dict[Kind, tuple[int, int]]:
        """Return the late events of devices not updated, and their device-hours, by kind: what another desk of the same fleet may begin with."""
        return self._hazards.known()

    def site_room(self, site: str) -> int:
        """Return how many more permits a site may have now (`Sites.room`)."""
        return self.sites.room(site, self.now, doubted=self.doubted)

    def _pays(self, site: str, cohort: Cohort, key: Key, count: int) -> int:
        """Return how many of a cohort's failures are evidence."""
        if not key[3]:
            return 0
        return self.sites.pays(site, cohort.granted_at, self.now) if site else count

    # ------------------------------------------------------------------ time

    @property
    def ticked(self) -> int:
        """Return the time of the last tick."""
        return self._ticked

    def missed(self, now: int) -> int:
        """Return for how long nobody ticked until now, beyond a tick: the server was down, or its clock stepped forward."""
        elapsed = now - self._ticked
        return elapsed - self.harm.tick_s if elapsed > _MISSED * self.harm.tick_s else 0

    def advance(self, now: int) -> None:
        """Say what time it is for what happens next. It never goes back, and nothing is judged before `tick`."""
        self.now = max(self.now, now)

    def tick(self, now: int) -> list[Fact]:
        """Let time go on and return the facts since the last tick, in the order in which they are to be folded.

        Deadlines stand still while nobody ticks: a server that was down, or whose clock stepped, has heard nobody. Who could not answer meanwhile may be
        away when the server is back, so the answers that were owed are waited for until their devices would be missed anyway.
        """
        elapsed = max(0, now - self._ticked)
        missed_s = self.missed(now)
        self._down_s += missed_s
        if missed_s:
            self._cohorts.wait_longer(now - self._down_s, self._missed_after)
        self._ticked = max(self._ticked, now)
        spent_s = min(elapsed, self.harm.tick_s)
        self.advance(now)
        for key, cohort in self._cohorts.overdue(self.now - self._down_s):
            self._mature(key, cohort)
        self._forget_lost()
        for what, key, count in self._cohorts.ring(self.now):
            self._ring(what, key, count)
        self._out += self._hazards.tick(self.now, spent_s)
        for kind, profile, count in self.risks.go():
            self._out.append(
                Watch(at=self.now, profile=profile, count=count, kind=kind, leave=True)
            )
        return self.drain()

    def _forget_lost(self) -> None:
        """Let go what vanished in ticks of which no cohort will be judged any more.

        It is read for a cohort of the same tick alone, when that is judged, once; and no cohort is made of a tick that has gone by, as time never goes back.
        """
        if self._lost:
            first, owed = self.now // self.harm.tick_s, self._cohorts.owed()
            self._lost = {
                where: counts
                for where, counts in self._lost.items()
                if where[0] >= first or where[0] in owed
            }

    def drain(self) -> list[Fact]:
        """Return the facts that count at once (permits, failures, proofs of age, ranks), without letting time go on. The others wait for their tick."""
        out, self._out = self._out, []
        return out

    def _mature(self, key: Key, cohort: Cohort) -> None:
        """Judge a cohort as a whole."""
        tick, profile, _, counted = key
        cohort.mature = True
        cohort.silent = cohort.waiting
        ppm = self._silence(tick, profile)
        charged = None if counted else 0
        if cohort.well:
            self._out.append(
                Ok(
                    at=self.now,
                    profile=profile,
                    count=cohort.well,
                    granted_at=cohort.granted_at,
                    silence_ppm=ppm,
                    charged=charged,
                )
            )
        if cohort.silent:
            self._quiet(key, cohort, ppm, charged)
        self._come(key, cohort)
        for kind, count, heard_at in cohort.later:
            self._late_of(kind, key, cohort, count, heard_at)
        cohort.later = []
        self._cohorts.set(self.now + _KEPT_S, "forget", key)

    def _quiet(self, key: Key, cohort: Cohort, ppm: int, charged: int | None) -> None:
        _, profile, site, _ = key
        silent = cohort.silent
        self.sites.bad(site, silent)
        paid = self._pays(site, cohort, key, silent)
        self._out.append(
            Silent(
                at=self.now,
                profile=profile,
                count=silent,
                granted_at=cohort.granted_at,
                silence_ppm=ppm,
                credited=paid,
                charged=charged,
            )
        )
        wait_s = self._missed_after(profile)
        for gate, spec in enumerate(self.harm.soaks):
            of_age = cohort.granted_at + spec.age_s
            self._cohorts.set(max(of_age, self.now + wait_s), f"quiet{gate}", key, silent)

    def _missed_after(self, profile: Profile) -> int:
        """Return how long after its last contact a device of a class counts as dark, in seconds."""
        return PERSONAL_S.get(self._class(profile), PERSONAL_S[OTHER])

    def _silence(self, tick: int, profile: Profile) -> int:
        """Return the silence to be expected of a cohort: its class's, and what vanished of devices not updated in its region in the same tick."""
        region, connectivity = self.book.scheme.cell_of(profile)
        sample, gone = self._lost.get((tick, region), (0, 0))
        if not sample:
            known = [one for (when, _), one in self._lost.items() if when == tick]
            sample, gone = sum(one[0] for one in known), sum(one[1] for one in known)
        shock = 0
        if gone:
            gone += sample < _SAMPLE
            shock = -(-self.harm.shock_pct * gone * MILLION // (100 * sample))
        return self.book.baseline.silence(connectivity) + min(MILLION, shock)

    def _come(self, key: Key, cohort: Cohort) -> None:
        """Put those who are well under watch: for crashes now, for going dark when a device can have been missed."""
        if not cohort.well or not key[3]:
            return
        self._watch("crash", key[1], cohort.well)
        if cohort.granted_at + _DARK_LAG_S > self.now:
            self._cohorts.set(cohort.granted_at + _DARK_LAG_S, "dark", key)
        else:
            self._come_dark(key, cohort, cohort.well)

    def _come_dark(self, key: Key, cohort: Cohort, count: int) -> None:
        cohort.watched = count
        if count > 0:
            self._watch("dark", key[1], count)

    def _leave(self, key: Key, cohort: Cohort, count: int) -> None:
        """Take devices that had their late event out of the watch."""
        if not key[3]:
            return
        profile = key[1]
        watched = min(count, cohort.watched)
        cohort.watched -= watched
        parts: tuple[tuple[Kind, int], ...] = (("crash", count), ("dark", watched))
        for kind, part in parts:
            if part:
                self.risks.leaving.append((kind, profile, part))

    def _watch(self, kind: Kind, profile: Profile, count: int) -> None:
        self.risks.updated(kind, profile, count)
        self._out.append(Watch(at=self.now, profile=profile, count=count, kind=kind))

    def _ring(self, what: str, key: Key, count: int) -> None:
        """Do what a timer was set for."""
        if what == "forget":
            self._cohorts.forget(key)
        elif what == "dark":
            cohort = self._cohorts.of(key)
            self._come_dark(key, cohort, cohort.well - cohort.gone)
        else:
            gate = int(what[-1])
            if what.startswith("quiet"):
                cohort = self._cohorts.of(key)
                count = min(count, cohort.silent - cohort.back, cohort.open[gate])
                cohort.open[gate] -= count
            if count > 0:
                self._out.append(Dead(at=self.now, profile=key[1], count=count, gate=gate))

    # ------------------------------------------------------------------ profiles

    def _told(self, profile: Profile) -> Profile:
        return self.risks.told(profile)

    def _class(self, profile: Profile) -> str:
        return (
            self.book.scheme.cell_of(profile)[1] if CLASS in self.book.scheme.attributes else OTHER
        )

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored, so that `restore` makes an equal desk of a new one."""
        return Packed(
            now=self.now,
            ticked=self._ticked,
            down_s=self._down_s,
            out=self._out,
            lost=[(*where, *counts) for where, counts in self._lost.items()],
            cohorts=self._cohorts.pack(),
            risks=self.risks.pack(),
            hazards=self._hazards.pack(),
            sites=self.sites.pack(),
            doubted=self.doubted,
        )

    def restore(self, packed: Packed) -> None:
        """Take up what was stored.

        Raises:
            ValueError: settings that do not fit it (`Cohorts.restore`).
        """
        self.now, self._ticked, self._down_s = packed.now, packed.ticked, packed.down_s
        self._out = list(packed.out)
        self._lost = {(tick, region): (sample, gone) for tick, region, sample, gone in packed.lost}
        self._cohorts.restore(packed.cohorts, packed.now)
        self.risks.restore(packed.risks)
        self._hazards.restore(packed.hazards)
        self.sites.restore(packed.sites)
        self.doubted = packed.doubted


def rank(value: float, others: Sequence[float]) -> int | None:
    """Return the rank of an updated device among not-updated ones, in sixteenths: of the others, how many it is worse than, a tie counting half.

    Args:
        value: what was measured of the updated device (`pairs`).
        others: the same of fresh devices not updated, over the same clock windows: `settings.CONTROLS` or, where those run short, a half, a quarter or one.

    Returns:
        0 … 16, or None when there is no such number of others or a value is no number: then nothing is booked. How many there are must not depend on values.
    """
    if not others or CONTROLS % len(others) or not all(map(math.isfinite, (value, *others))):
        return None
    return CONTROLS // len(others) * sum(2 * (value > one) + (value == one) for one in others)
