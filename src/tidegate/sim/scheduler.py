"""Many devices in one thread: a heap of who wants to be woken when. The same seed, the same order, the same story."""

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final

from tidegate.sim.clock import Timeline
from tidegate.sim.device import SimDevice

#: A task: does something and says when to be called again, on the timeline; inf = never.
Task = Callable[[], float]
#: Never spin: a task that wants to be called at once is called after this, in seconds.
LEAST_S: Final = 0.001


class Scheduler:
    """Calls tasks in the order of their times; equal times in the order in which they were asked for."""

    def __init__(self, timeline: Timeline) -> None:
        """Begin with nothing to do."""
        self.timeline = timeline
        self._order = count()
        self._heap: list[tuple[float, int, Task]] = []

    def add(self, at: float, task: Task) -> None:
        """Call `task` at `at`."""
        if at != float("inf"):
            heapq.heappush(self._heap, (at, next(self._order), task))

    def every(self, interval_s: float, act: Callable[[], None]) -> None:
        """Call `act` again and again."""

        def task() -> float:
            act()
            return self.timeline.at() + interval_s

        self.add(self.timeline.at() + interval_s, task)

    def run_until(self, at: float, *, done: Callable[[], bool] | None = None) -> bool:
        """Run until `at` on the timeline, or until `done` says so; `done` is asked after each task. Returns what `done` said last."""
        while self._heap and self._heap[0][0] <= at:
            due = self._heap[0][0]
            self.timeline.wait_until(due)
            if self.timeline.at() < due:
                return done() if done is not None else False
            _, _, task = heapq.heappop(self._heap)
            self.add(max(task(), self.timeline.at() + LEAST_S), task)
            if done is not None and done():
                return True
        self.timeline.wait_until(at)
        return done() if done is not None else False


class Fleet:
    """The devices of a simulation, woken by a scheduler."""

    def __init__(self, scheduler: Scheduler, devices: Iterable[SimDevice]) -> None:
        """Take charge of `devices`; all of them wake within the first minute, one after the other."""
        self.devices = list(devices)
        self.by_id = {device.plan.device_id: device for device in self.devices}
        spread = 60.0 / max(1, len(self.devices))
        for number, device in enumerate(self.devices):
            scheduler.add(scheduler.timeline.at() + number * spread, device.wake)
