"""Single devices in front of the desk: who they are, what they say for the first time, and when silence means that they are gone.

Devices and logs repeat themselves, come late, out of order or from the future, and lie. So a device has one permit, one outcome and one late event that count,
whatever it says later; time is the server's and never goes back; who is not known is not heard. What is not taken is counted in `ignored`, by reason. Retries
are never evidence.

In memory: one small record a device. A server keeps the same in its database.
"""

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Final, Literal, TypeAlias

from tidegate.core.bucket import bucket
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.desk import PERSONAL_S
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.settings import DAY_S
from tidegate.rollout.evidence.strata import OTHER, Profile
from tidegate.rollout.evidence.watch import Watch

#: `control` not updated · `out` has its permit · `well` · `back` confirmed after its deadline · `over` failed, crashed or went dark: says no more.
State: TypeAlias = Literal["control", "out", "well", "back", "over"]
Ignored: TypeAlias = Literal["unknown", "twice", "future", "unasked"]

#: Always-connected devices that are looked at for what befalls a region, per tick.
_SAMPLE: Final = 150


class Device:
    """What is remembered of one device."""

    __slots__ = (
        "crashed",
        "dark",
        "gates",
        "granted_at",
        "heard_at",
        "heard_up",
        "profile",
        "site",
        "state",
    )

    def __init__(self, profile: Profile, site: str, heard_at: int) -> None:
        self.profile = profile
        self.site = site
        self.heard_at = heard_at
        #: The same in time during which the server was up.
        self.heard_up = heard_at
        self.state: State = "control"
        self.granted_at = 0
        #: Soak gates that it has passed.
        self.gates = 0
        self.dark = False
        #: Crashed while it was not updated: it is compared with no more.
        self.crashed = False

    @property
    def compared(self) -> bool:
        """Say whether it is one of those that updated devices are compared with."""
        return self.state == "control" and not self.dark and not self.crashed


class Roster:
    """The devices of one rollout. `step` once a tick; between, what happens, in the order in which the server saw it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.devices: dict[str, Device] = {}
        self.ignored: dict[Ignored, int] = {}
        self._down_s = 0
        self._deadlines: list[tuple[int, str]] = []
        self._shown: dict[int, tuple[int, dict[str, list[str]]]] = {}

    def meet(self, device: str, values: Mapping[str, str], at: int, site: str = "") -> None:
        """Take in a device that is not updated. Known ones keep their profile: evidence does not move between strata.

        Args:
            device: its name.
            values: its attributes; untrusted.
            at: when it was seen, unix seconds.
            site: where it stands, if its devices share their fate.
        """
        if not self._in_time(at):
            return
        if device in self.devices:
            self.seen(device, at)
            return
        profile = self.watch.book.scheme.profile(values)
        known = self.devices[device] = Device(profile, site, self.watch.desk.now)
        self.watch.desk.control(profile, 1)
        self._alive(device, known)
        heappush(self._deadlines, (known.heard_up + self._wait_s(known), device))

    def seen(self, device: str, at: int) -> None:
        """Take a sign of life."""
        known = self._known(device, at)
        if known is not None:
            self._alive(device, known)

    def permit(self, device: str, at: int) -> bool:
        """Book a permit. Return whether it counts: it is the device's first of this release."""
        known = self._known(device, at)
        if known is None or not self._is(known, "control"):
            return False
        self._alive(device, known)
        if known.crashed:
            self.watch.desk.control(known.profile, 1)
            known.crashed = False
        known.state, known.granted_at = "out", self.watch.desk.now
        self.watch.desk.permit(known.profile, 1, known.site)
        return True

    def refund(self, device: str, at: int) -> None:
        """Take back a permit that was not used, and not because something failed. The next one counts."""
        known = self._known(device, at)
        if known is not None and self._is(known, "out"):
            self.watch.desk.refund(known.profile, known.granted_at, 1, known.site)
            known.state = "control"
            self._alive(device, known)

    def failed(self, device: str, at: int) -> None:
        """Book that its first attempt failed; also long after its deadline."""
        known = self._known(device, at)
        if known is not None and self._is(known, "out"):
            self.watch.desk.failed(known.profile, known.granted_at, 1, known.site)
            known.state = "over"

    def confirmed(self, device: str, at: int) -> None:
        """Book that its first attempt succeeded."""
        known = self._known(device, at)
        if known is None or not self._is(known, "out"):
            return
        desk = self.watch.desk
        well = desk.in_time(known.profile, known.granted_at, 1, known.site)
        known.state = "well" if well else "back"
        self._alive(device, known)

    def crashed(self, device: str, at: int) -> None:
        """Book a crash, or that it went back by itself: in the warm-up it is a failure, later a late event, before a permit one of the control."""
        known = self._known(device, at)
        if known is None:
            return
        desk = self.watch.desk
        if known.state == "out":
            self.failed(device, at)
        elif known.state == "well":
            self._alive(device, known)
            desk.late("crash", known.profile, known.granted_at, 1, known.site)
            known.state = "over"
        elif known.compared:
            desk.control_late("crash", known.profile, 1, known.site)
            desk.control(known.profile, -1)
            known.crashed = True
            self._alive(device, known)
        else:
            self._ignore("twice")

    def step(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Let time go on: who is overdue has gone dark, cohorts whose deadline has passed are judged, and it is decided what follows."""
        desk = self.watch.desk
        self._down_s += desk.missed(now)
        desk.advance(now)
        self._darken()
        self._tell_vanished()
        return self.watch.step(now, keep)

    # ------------------------------------------------------------------ who speaks

    def _known(self, device: str, at: int) -> Device | None:
        if not self._in_time(at):
            return None
        known = self.devices.get(device)
        if known is None:
            self._ignore("unknown")
        return known

    def _in_time(self, at: int) -> bool:
        """Say whether an event is not from the future; one that is late counts as of now."""
        desk = self.watch.desk
        if at > desk.now + desk.harm.tick_s:
            self._ignore("future")
            return False
        desk.advance(at)
        return True

    def _is(self, known: Device, state: State) -> bool:
        if known.state == state:
            return True
        self._ignore("unasked" if known.state == "control" else "twice")
        return False

    def _ignore(self, why: Ignored) -> None:
        self.ignored[why] = self.ignored.get(why, 0) + 1

    # ------------------------------------------------------------------ life and silence

    def _alive(self, device: str, known: Device) -> None:
        """Note a contact: the soak gates that it passes, and that it is not dark."""
        desk = self.watch.desk
        known.heard_at = max(known.heard_at, desk.now)
        known.heard_up = known.heard_at - self._down_s
        if known.dark:
            known.dark = False
            if known.compared:
                desk.control(known.profile, 1)
        self._show(device, known)
        if known.state not in {"well", "back"}:
            return
        soaks = desk.harm.soaks
        while known.gates < len(soaks) and desk.now >= known.granted_at + soaks[known.gates].age_s:
            desk.heard(known.profile, known.granted_at, known.gates, 1, known.site)
            known.gates += 1

    def _wait_s(self, known: Device) -> int:
        return PERSONAL_S.get(self._class(known), PERSONAL_S[OTHER])

    def _darken(self) -> None:
        """Take for dark who was not heard within its personal deadline of time in which the server was up."""
        desk = self.watch.desk
        up = desk.now - self._down_s
        while self._deadlines and self._deadlines[0][0] <= up:
            _, device = heappop(self._deadlines)
            known = self.devices[device]
            due = known.heard_up + self._wait_s(known)
            if known.state == "over":
                continue
            if due <= up and not known.dark:
                self._gone(known)
            heappush(self._deadlines, (max(due, up + desk.harm.tick_s), device))

    def _gone(self, known: Device) -> None:
        desk = self.watch.desk
        if known.compared:
            desk.control_late("dark", known.profile, 1, known.site)
            known.dark = True
        elif known.state == "well":
            desk.late("dark", known.profile, known.granted_at, 1, known.site, known.heard_at)
            known.state = "over"

    def _show(self, device: str, known: Device) -> None:
        """Remember who was heard in this tick and would be heard again in any hour: not updated, or updated for a day and alive."""
        desk = self.watch.desk
        proven = known.state == "well" and desk.now > known.granted_at + DAY_S
        if self._class(known) != "always" or not (known.state == "control" or proven):
            return
        tick_s = desk.harm.tick_s
        tick = desk.now // tick_s
        due = (tick + 1) * tick_s + desk.harm.report_s - self._down_s
        found = self._shown.setdefault(tick, (due, {}))[1].setdefault(self._region(known), [])
        if len(found) < 4 * _SAMPLE and (not found or found[-1] != device):
            found.append(device)

    def _tell_vanished(self) -> None:
        """For each tick whose cohorts are due, say how many of those heard in it were not heard since."""
        desk = self.watch.desk
        up = desk.now - self._down_s
        for tick in [one for one, (due, _) in self._shown.items() if due <= up]:
            end = (tick + 1) * desk.harm.tick_s
            for region, names in self._shown.pop(tick)[1].items():
                chosen = sorted(set(names), key=lambda one: bucket(str(tick), one))[:_SAMPLE]
                gone = sum(self.devices[one].heard_at < end for one in chosen)
                desk.vanished(end - desk.harm.tick_s, region, len(chosen), gone)

    def _class(self, known: Device) -> str:
        return self.watch.book.scheme.cell_of(known.profile)[1]

    def _region(self, known: Device) -> str:
        return self.watch.book.scheme.cell_of(known.profile)[0]
