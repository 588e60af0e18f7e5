"""Single devices in front of the desk: who they are, what they say for the first time, and when silence means that they are gone.

Devices and logs repeat themselves, come late, out of order or from the future, and lie. So a device has one permit, one outcome and one late event that count,
whatever it says later; time is the server's and never goes back; who is not known is not heard. What is not taken is counted in `ignored`, by reason. Retries
are never evidence.

What it knows is a few columns (`crowd`), so that `dump` and `load` take seconds for a million devices. A roster that was loaded goes on exactly as the one that
was dumped would have: the same facts, in the same order.
"""

import zlib
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from tidegate.core.bucket import bucket
from tidegate.rollout.evidence import crowd as columns
from tidegate.rollout.evidence import pairs as ranks
from tidegate.rollout.evidence import watch as watches
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.crowd import BACK, CONTROL, CRASHED, DARK, LEFT, OUT, OVER, WELL
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.habits import Habits
from tidegate.rollout.evidence.settings import DAY_S, Harm
from tidegate.rollout.evidence.strata import Scheme
from tidegate.rollout.evidence.watch import Watch

Ignored: TypeAlias = Literal["unknown", "twice", "future", "unasked"]

#: Always-connected devices that are looked at for what befalls a region, per tick.
_SAMPLE: Final = 150
#: States in which a device can pass soak gates.
_PROVED: Final = frozenset({WELL, BACK})
#: Of what `dump` writes; raised when a roster of before could not be read any more.
_VERSION: Final = 1


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    watch: watches.Packed
    crowd: columns.Packed
    ignored: dict[Ignored, int]
    down_s: int
    deadlines: list[tuple[int, list[int]]]
    shown: list[tuple[int, int, list[tuple[str, list[int]]]]]
    pairs: ranks.Packed
    habits: bytes


class Roster:
    """The devices of one rollout. `step` once a tick; between, what happens, in the order in which the server saw it, and `early` as often as one likes."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.crowd = columns.Crowd(watch.book.scheme)
        self.ignored: dict[Ignored, int] = {}
        book = watch.book
        self._metrics = {name.lstrip("-"): at for at, name in enumerate(book.harm.metrics)}
        self._pairs = ranks.Pairs(book.scheme, book.harm, self.crowd)
        self.habits = Habits()
        self._down_s = 0
        #: Who is to be looked at when so many ticks of time with the server up have gone by.
        self._deadlines: dict[int, array[int]] = {}
        self._shown: dict[int, tuple[int, dict[str, dict[int, None]]]] = {}

    @property
    def devices(self) -> Mapping[str, int]:
        """Return the devices that were ever met, and their numbers."""
        return self.crowd.numbers

    def meet(self, device: str, values: Mapping[str, str], at: int, site: str = "") -> None:
        """Take in a device that is not updated. Known ones keep their profile: evidence does not move between strata.

        Args:
            device: its name.
            values: its attributes; untrusted.
            at: when it was seen, unix seconds.
            site: where it stands, if its devices share their fate.

        Raises:
            ValueError: a name with a line break in it.
        """
        if not self._in_time(at):
            return
        one = self.crowd.numbers.get(device)
        if one is not None and self.crowd.state[one] != LEFT:
            self.seen(device, at)
            return
        desk = self.watch.desk
        if one is None:
            profile = self.watch.book.scheme.profile(values)
            one = self.crowd.add(device, profile, site, desk.now)
            self.habits.add()
            self._due(one, desk.now - self._down_s)
        self.crowd.state[one] = CONTROL
        self.crowd.flags[one] &= ~DARK
        if self.crowd.compared(one):
            desk.control(self.crowd.profile_of(one), 1)
        self._alive(one)

    def leave(self, device: str) -> None:
        """Take a device out that left the audience: revoked, deleted, of another product now. Nothing is ever said of it again, unless it is met anew.

        Its silence is no going dark, and it proves nothing any more. Only who had its permit and has not answered is still judged: it was given the release,
        and a person who takes broken devices away must not take the evidence with them.
        """
        one = self.crowd.numbers.get(device)
        if one is not None and self.crowd.state[one] != OUT:
            self._take_out(one)

    def exclude(self, device: str) -> None:
        """Take a device out that is not to count any more, an open outcome included: a person isolated a part that is finer than the strata."""
        one = self.crowd.numbers.get(device)
        if one is not None:
            self._take_out(one)

    def inherit(self, earlier: "Roster") -> None:
        """Begin with what an earlier roster learned of the same devices: how long they are usually not heard. Before anything happens."""
        for device, one in self.crowd.numbers.items():
            theirs = earlier.crowd.numbers.get(device)
            if theirs is not None:
                self.habits.inherit(one, earlier.habits.gaps(theirs))

    def isolate(self, stratum: int, keep: Callable[[Fact], None] | None = None) -> None:
        """Book that a person isolated a stratum (`Watch.isolate`)."""
        self.watch.isolate(stratum, keep)

    def seen(self, device: str, at: int) -> None:
        """Take a sign of life."""
        one = self._known(device, at)
        if one is not None:
            self._alive(one)

    def hear(self, contacts: Iterable[tuple[str, int]], other: Callable[[str, int], None]) -> None:
        """Take signs of life of many devices, in the order of time: as `advance` and `seen` of each, and several times as fast.

        Args:
            contacts: device, and when it was heard, unix seconds; trusted not to be from the future.
            other: is given those that were not met, or left.
        """
        crowd, desk, down_s = self.crowd, self.watch.desk, self._down_s
        numbers, state, flags = crowd.numbers, crowd.state, crowd.flags
        heard_at, heard_up, profile = crowd.heard_at, crowd.heard_up, crowd.profile
        contact, tick_s = self.habits.contact, desk.harm.tick_s
        #: Profiles of which nobody more is remembered in this tick.
        tick, full = -1, set[int]()
        for device, at in contacts:
            if at > desk.now:
                desk.advance(at)
            one = numbers.get(device)
            if one is None or state[one] == LEFT:
                other(device, at)
                continue
            now = max(heard_at[one], desk.now)
            up, before = now - down_s, heard_up[one]
            if up > before:
                contact(one, before, up)
            heard_at[one], heard_up[one] = now, up
            if flags[one] & DARK:
                self._lighten(one)
            if desk.now // tick_s != tick:
                tick = desk.now // tick_s
                full.clear()
            if profile[one] not in full and not self._show(one):
                full.add(profile[one])
            if state[one] in _PROVED:
                self._age(one)

    def measured(self, device: str, at: int, name: str, value: float, seconds: int) -> None:
        """Take what a device measured of itself, for its rank among devices not updated.

        To be fed with every heartbeat: each metric of it that `Harm.metrics` names (with a minus before the name, less of it is worse). Others are passed over.

        Args:
            device: its name.
            at: when the report came, unix seconds.
            name: of the metric, as the device says it.
            value: what was counted in those seconds, or a gauge's mean times the seconds; untrusted, and no number books nothing.
            seconds: that it covers.
        """
        metric = self._metrics.get(name)
        one = self._known(device, at) if metric is not None else None
        if one is not None and metric is not None:
            self._alive(one)
            self._pairs.measured(one, self.watch.desk.now, metric, value, seconds)

    def permit(self, device: str, at: int) -> bool:
        """Book a permit. Return whether it counts: it is the device's first of this release."""
        one = self._known(device, at)
        if one is None or not self._is(one, CONTROL):
            return False
        crowd, desk = self.crowd, self.watch.desk
        self._alive(one)
        if crowd.flags[one] & CRASHED:
            desk.control(crowd.profile_of(one), 1)
            crowd.flags[one] &= ~CRASHED
        crowd.state[one], crowd.granted_at[one] = OUT, desk.now
        desk.permit(crowd.profile_of(one), 1, crowd.site_of(one))
        self._pairs.begin(one)
        return True

    def refund(self, device: str, at: int) -> None:
        """Take back a permit that was not used, and not because something failed. The next one counts."""
        one = self._known(device, at)
        if one is not None and self._is(one, OUT):
            self.watch.desk.refund(*self._place(one, 1))
            self.crowd.state[one] = CONTROL
            self._alive(one)

    def failed(self, device: str, at: int) -> None:
        """Book that its first attempt failed; also long after its deadline."""
        one = self._known(device, at)
        if one is not None and self._is(one, OUT):
            self._failed(one)

    def confirmed(self, device: str, at: int) -> None:
        """Book that its first attempt succeeded."""
        one = self._known(device, at)
        if one is None or not self._is(one, OUT):
            return
        well = self.watch.desk.in_time(*self._place(one, 1))
        self.crowd.state[one] = WELL if well else BACK
        self._alive(one)

    def crashed(self, device: str, at: int) -> None:
        """Book a crash, or that it went back by itself: in the warm-up it is a failure, later a late event, before a permit one of the control."""
        one = self._known(device, at)
        if one is None:
            return
        desk, crowd = self.watch.desk, self.crowd
        if crowd.state[one] == OUT:
            self._failed(one)
        elif crowd.state[one] == WELL:
            self._alive(one)
            desk.late("crash", *self._place(one, 1))
            crowd.state[one] = OVER
        elif crowd.state[one] == BACK:
            self._take_out(one)
        elif crowd.compared(one):
            profile = crowd.profile_of(one)
            desk.control_late("crash", profile, 1, crowd.site_of(one))
            desk.control(profile, -1)
            crowd.flags[one] |= CRASHED
            self._alive(one)
        else:
            self._ignore("twice")

    def step(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Let time go on: who is overdue has gone dark, cohorts whose deadline has passed are judged, and it is decided what follows."""
        desk = self.watch.desk
        self._down_s += desk.missed(now)
        desk.advance(now)
        self._darken()
        self._tell_vanished()
        for one in self._pairs.due(desk.now):
            profile = self.crowd.profile_of(one.one)
            desk.scored(profile, one.window, one.sixteenths, metric=one.metric)
        return self.watch.step(now, keep)

    def early(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Book what counts at once and decide again, between two ticks (`Watch.early`)."""
        return self.watch.early(now, keep)

    # ------------------------------------------------------------------ who speaks

    def _known(self, device: str, at: int) -> int | None:
        if not self._in_time(at):
            return None
        one = self.crowd.numbers.get(device)
        if one is None or self.crowd.state[one] == LEFT:
            self._ignore("unknown")
            return None
        return one

    def _in_time(self, at: int) -> bool:
        """Say whether an event is not from the future; one that is late counts as of now."""
        desk = self.watch.desk
        if at > desk.now + desk.harm.tick_s:
            self._ignore("future")
            return False
        desk.advance(at)
        return True

    def _is(self, one: int, state: int) -> bool:
        if self.crowd.state[one] == state:
            return True
        self._ignore("unasked" if self.crowd.state[one] == CONTROL else "twice")
        return False

    def _ignore(self, why: Ignored) -> None:
        self.ignored[why] = self.ignored.get(why, 0) + 1

    def _place(self, one: int, count: int) -> tuple[tuple[str, ...], int, int, str]:
        """Return what the desk finds a device by."""
        crowd = self.crowd
        return crowd.profile_of(one), crowd.granted_at[one], count, crowd.site_of(one)

    def _failed(self, one: int) -> None:
        self.watch.desk.failed(*self._place(one, 1))
        self.crowd.state[one] = OVER

    def _take_out(self, one: int) -> None:
        crowd, desk = self.crowd, self.watch.desk
        profile, granted_at, _, site = self._place(one, 1)
        state = crowd.state[one]
        if crowd.compared(one):
            desk.control(profile, -1)
        elif state == OUT:
            desk.waived(profile, granted_at, site)
        elif state == WELL:
            desk.left(profile, granted_at, crowd.gates[one], site)
        elif state == BACK:
            desk.lapsed(profile, granted_at, crowd.gates[one], site)
        crowd.state[one] = LEFT if state == CONTROL else max(state, OVER)

    # ------------------------------------------------------------------ life and silence

    def _alive(self, one: int) -> None:
        """Note a contact: the soak gates that it passes, and that it is not dark."""
        desk, crowd = self.watch.desk, self.crowd
        now = max(crowd.heard_at[one], desk.now)
        self.habits.contact(one, crowd.heard_up[one], now - self._down_s)
        crowd.heard_at[one], crowd.heard_up[one] = now, now - self._down_s
        if crowd.flags[one] & DARK:
            self._lighten(one)
        self._show(one)
        if crowd.state[one] in _PROVED:
            self._age(one)

    def _lighten(self, one: int) -> None:
        """Take a device for dark no more."""
        crowd = self.crowd
        crowd.flags[one] &= ~DARK
        if crowd.compared(one):
            self.watch.desk.control(crowd.profile_of(one), 1)

    def _age(self, one: int) -> None:
        """Tell the soak gates that a device which is well has passed."""
        desk, crowd = self.watch.desk, self.crowd
        soaks = desk.harm.soaks
        granted_at, gate = crowd.granted_at[one], crowd.gates[one]
        while gate < len(soaks) and desk.now >= granted_at + soaks[gate].age_s:
            desk.heard(crowd.profile_of(one), granted_at, gate, 1, crowd.site_of(one))
            gate += 1
        crowd.gates[one] = gate

    def _wait_s(self, one: int) -> int:
        return self.habits.wait_s(one, self.crowd.cell_of(one)[1])

    def _due(self, one: int, heard_up: int) -> None:
        """Look at a device again when its deadline will have passed."""
        tick = -(-(heard_up + self._wait_s(one)) // self.watch.desk.harm.tick_s)
        found = self._deadlines.get(tick)
        if found is None:
            found = self._deadlines[tick] = array("I")
        found.append(one)

    def _darken(self) -> None:
        """Take for dark who was not heard within its personal deadline of time in which the server was up."""
        desk, crowd = self.watch.desk, self.crowd
        up = desk.now - self._down_s
        tick = up // desk.harm.tick_s
        for past in sorted(one for one in self._deadlines if one <= tick):
            for one in self._deadlines.pop(past):
                if crowd.state[one] == OVER:
                    continue
                wait_s = self._wait_s(one)
                heard_up = crowd.heard_up[one]
                if heard_up + wait_s <= up:
                    self._gone(one)
                    # Heard again, it is looked at again; until then there is nothing to find.
                    heard_up = up
                self._due(one, heard_up)

    def _gone(self, one: int) -> None:
        desk, crowd = self.watch.desk, self.crowd
        if crowd.compared(one):
            desk.control_late("dark", crowd.profile_of(one), 1, crowd.site_of(one))
            crowd.flags[one] |= DARK
        elif crowd.state[one] == WELL:
            desk.late("dark", *self._place(one, 1), crowd.heard_at[one])
            crowd.state[one] = OVER
        elif crowd.state[one] == BACK:
            self._take_out(one)

    def _show(self, one: int) -> bool:
        """Remember who was heard in this tick and would be heard again in any hour: not updated, or updated for a day and alive.

        Returns:
            False when nobody more of the device's profile is remembered in this tick.
        """
        desk, crowd = self.watch.desk, self.crowd
        region, connectivity = crowd.cell_of(one)
        if connectivity != "always":
            return False
        state = crowd.state[one]
        if state != CONTROL and not (state == WELL and desk.now > crowd.granted_at[one] + DAY_S):
            return True
        tick_s = desk.harm.tick_s
        tick = desk.now // tick_s
        shown = self._shown.get(tick)
        if shown is None:
            due = (tick + 1) * tick_s + desk.harm.report_s + desk.harm.again_s - self._down_s
            shown = self._shown[tick] = (due, {})
        found = shown[1].setdefault(region, {})
        if len(found) < 4 * _SAMPLE:
            found[one] = None
        return len(found) < 4 * _SAMPLE

    def _tell_vanished(self) -> None:
        """For each tick whose cohorts are due, say how many of those heard in it were not heard in the time in which each of them could have answered.

        A device that is well answers, at the latest, at its first contact after the time that an answer takes. So it is silent only when it has no contact in
        `again_s`, and that is what is asked of those that it is compared with: an outage that begins a minute before answers are due takes both alike.
        """
        desk, crowd = self.watch.desk, self.crowd
        up = desk.now - self._down_s
        for tick in [one for one, (due, _) in self._shown.items() if due <= up]:
            begin = tick * desk.harm.tick_s
            due, regions = self._shown.pop(tick)
            for region, shown in regions.items():
                # Who got its permit since is no control any more: its silence must not excuse that of its cohort.
                staying = [
                    one
                    for one in shown
                    if crowd.state[one] == CONTROL
                    or (crowd.state[one] != LEFT and crowd.granted_at[one] <= begin - DAY_S)
                ]
                chosen = sorted(
                    staying, key=lambda one: (bucket(str(tick), crowd.names[one]), one)
                )[:_SAMPLE]
                gone = sum(crowd.heard_up[one] < due - desk.harm.again_s for one in chosen)
                desk.vanished(begin, region, len(chosen), gone)

    # ------------------------------------------------------------------ storing

    def dump(self) -> bytes:
        """Return everything as bytes from which `load` makes an equal roster; compressed already."""
        packed = _Packed(
            watch=self.watch.pack(),
            crowd=self.crowd.pack(),
            ignored=self.ignored,
            down_s=self._down_s,
            deadlines=[(tick, ones.tolist()) for tick, ones in self._deadlines.items()],
            shown=[
                (tick, due, [(region, list(ones)) for region, ones in regions.items()])
                for tick, (due, regions) in self._shown.items()
            ],
            pairs=self._pairs.pack(),
            habits=self.habits.pack(),
        )
        return bytes([_VERSION]) + zlib.compress(msgspec.msgpack.encode(packed), 1)

    @classmethod
    def load(cls, data: bytes, scheme: Scheme, harm: Harm, baseline: Baseline) -> "Roster":
        """Return the roster that was dumped.

        Args:
            data: of `dump`, of the same rollout.
            scheme: its strata.
            harm: its settings; they may have changed since, but for what was booked by them already: metrics, ticks, and the ages of earlier gates.
            baseline: what was normal before.

        Raises:
            ValueError: damaged, of another version or another rollout, or settings that would misread what is booked. Begin a new roster from the facts.
        """
        if data[:1] != bytes([_VERSION]):
            raise ValueError(
                f"a dump of version {data[:1].hex() or 'nothing'}, not of {_VERSION:02x}"
            )
        try:
            packed = msgspec.msgpack.decode(zlib.decompress(data[1:]), type=_Packed)
            if packed.watch.book.scheme != scheme:
                raise ValueError("a dump of other strata")
            roster = cls(Watch.unpack(packed.watch, harm, baseline))
            roster.crowd = columns.Crowd.unpack(packed.crowd, scheme)
            roster._pairs = ranks.Pairs(scheme, harm, roster.crowd)
            roster._pairs.restore(packed.pairs)
            roster.habits.restore(packed.habits, len(roster.crowd.names))
        except (zlib.error, msgspec.DecodeError, IndexError, OverflowError) as error:
            raise ValueError(f"a damaged dump: {error}") from error
        roster.ignored = dict(packed.ignored)
        roster._down_s = packed.down_s
        roster._deadlines = {tick: array("I", ones) for tick, ones in packed.deadlines}
        roster._shown = {
            tick: (due, {region: dict.fromkeys(ones) for region, ones in regions})
            for tick, due, regions in packed.shown
        }
        return roster
