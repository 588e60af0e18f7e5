"""One device of a batched scenario as a real agent: a simulated board that meets its fate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

import msgspec

from tidegate.agent.ports import SlotName
from tidegate.agent.state import Staged
from tidegate.core import codec
from tidegate.core.protocol import PollAnswer
from tidegate.sim.board import Catalogue
from tidegate.sim.clock import Timeline
from tidegate.sim.device import NEVER, Factory, SimDevice
from tidegate.sim.exact.fate import Blow, OwnTruth
from tidegate.sim.exact.presence import TICK_S, Habit, second
from tidegate.sim.link import Answer, Wire
from tidegate.sim.population import DevicePlan

#: A board reboots into a crash, or is dead from then on.
_CRASH: Final = "crash"
_DARK: Final = "dark"


class Patient:
    """A wire that spares a device one question: what it is to do, asked again at each poll while it is staged and the plan has not changed.

    The answer would be the same, and it is most of what a waiting device costs. All else passes as it is.
    """

    def __init__(self, wire: Wire) -> None:
        """Sit before `wire`."""
        self._wire = wire
        self._plan = self._known = ""
        self.staged: Callable[[], bool] = lambda: False

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Exchange one request."""
        if not path.startswith("/d/v1/poll"):
            answer = self._wire.send(method, path, headers, body)
            if path.startswith("/d/v1/assignment") and answer.status == 200:
                self._known = self._plan
            return answer
        whole = {name: one for name, one in headers.items() if name.lower() != "if-none-match"}
        answer = self._wire.send(method, path, whole, body)
        self._plan = answer.headers.get("etag", "")
        if answer.status != 200 or self._plan != self._known or not self.staged():
            return answer
        told = msgspec.structs.replace(codec.decode(answer.body, PollAnswer), work=False)
        plain = {name: one for name, one in answer.headers.items() if name != "etag"}
        return Answer(answer.status, plain, codec.encode(told))


@dataclass(frozen=True, kw_only=True)
class Lot:
    """What falls to one device.

    Attributes:
        habit: when it is online.
        truth: how images behave on it.
        release: counter of the release that is rolled out.
        meet: says what it meets when it sets the boot flag at a tick.
        crash_at, dark_at: when it crashes, and falls silent for ever, without any update; infinite = never.
        activate_windows: of the day, UTC.
    """

    habit: Habit
    truth: OwnTruth
    release: int
    meet: Callable[[int], Blow]
    crash_at: float
    dark_at: float
    activate_windows: tuple[str, ...] = ()


class FatedDevice(SimDevice):
    """A device that crashes, falls silent and takes the release as the scenario's truth has it.

    Attributes:
        activated_at: when it first set the boot flag for the release, in seconds of the simulation; None = never.
    """

    def __init__(
        self,
        plan: DevicePlan,
        factory: Factory,
        *,
        timeline: Timeline,
        wire: Wire,
        catalogue: Catalogue,
        lot: Lot,
    ) -> None:
        """Make the device and switch it on."""
        patient = Patient(wire)
        patient.staged = self._is_staged
        super().__init__(
            plan, factory, timeline=timeline, wire=patient, catalogue=catalogue, truth=lot.truth
        )
        # Downloads are as slow as the scenario says; nobody gives up on them.
        self.settings = msgspec.structs.replace(
            self.settings, rate_min=0, activate_windows=lot.activate_windows
        )
        self.activated_at: float | None = None
        self._lot = lot
        self._fates: list[tuple[float, str]] = []
        self._befall(lot.crash_at, _CRASH)
        self._befall(lot.dark_at, _DARK)
        record = self.board.loader.on_change

        def changed(action: str, slot: SlotName) -> None:
            record(action, slot)
            if action == "arm" and self.activated_at is None:
                self._activated(slot)

        self.board.loader.on_change = changed

    def wake(self) -> float:
        """Let the agent work for a turn, or its fate befall it. Return when it wants to be woken next."""
        self.clock.wake()
        self._lot.truth.at = self.clock.at()
        while self._fates and self._fates[0][0] <= self.clock.at():
            _, what = heappop(self._fates)
            if self.board.dead:
                continue
            if what == _DARK:
                self.runner, self.board.dead = None, True
            else:
                self.board.panicked = True
                self.restart()
        if self.board.dead:
            return NEVER
        wanted = super().wake()
        return min(wanted, self._fates[0][0]) if self._fates else wanted

    def _is_staged(self) -> bool:
        return self.runner is not None and isinstance(self.runner.state.phase, Staged)

    def _befall(self, at: float, what: str) -> None:
        if at < NEVER:
            heappush(self._fates, (at, what))

    def _activated(self, slot: SlotName) -> None:
        image = self.board.image_in(slot)
        if image is None or image.counter != self._lot.release:
            return
        at = self.activated_at = self.clock.at()
        met = self._lot.meet(max(0, int((at - self._lot.habit.zero) // TICK_S)))
        self._lot.truth.blow, self._lot.truth.since = met, at
        self._befall(second(at, met.crash), _CRASH)
        self._befall(second(at, met.dark), _DARK)
        if met.mute:
            self._lot.habit.cut(at, at + met.mute * TICK_S)
