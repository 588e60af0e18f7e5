"""What is turned away, and in which order, when more comes than this process can do.

| step | when | who |
|---|---|---|
| 1 | half of `[events] queue` waits for the database, or the loop is late by `LATE_S` | polls are told twice the time; devices' logs are refused |
| 2 | all of it, or the loop is late by `LATE_MAX_S` | four times the time; events are refused: devices hold them |
| 3 | one and a half of it | who joins (enrol, session, new key) is refused |
| 4 | twice that | assignments and permits are refused: what was begun goes on to its end before anything new begins |
| never | | people and their programs: what they write goes before what devices wait for, and a halt counts at the permit, not at the poll |

Who is refused hears 503 with `Retry-After`. A poll is never refused: it costs less than the refusal, and nothing waits for the database in it.
"""

import asyncio
from typing import Final

from tidegate.core.errors import BusyError
from tidegate.server.services import Services

#: How late the loop may be, in seconds, before polls are spread: over several looks in a row, since a planner that counts a large fleet makes it late once.
LATE_S: Final = 0.25
LATE_MAX_S: Final = 1.0
LOOK_S: Final = 1.0
LOOKS: Final = 3
#: From which share of the queue on each is refused, in percent, the first to go first.
ORDER: Final = {"log": 50, "events": 100, "joining": 150, "assignment": 200, "permit": 200}
#: By how much polls are spread at each step.
SPREADS: Final = (1, 2, 4)


class Load:
    """Knows how much waits in this process, and refuses what has no room."""

    def __init__(self, services: Services) -> None:
        """Look at these parts."""
        self._services = services
        self._late: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        #: By how much longer than usual devices are to stay away, as of the last look: a number of `SPREADS`.
        self.spread = SPREADS[0]

    def require_room(self, what: str) -> None:
        """Refuse what has no room any more, and count it. `what`: a name of `ORDER`.

        Raises:
            BusyError: `server.busy`.
        """
        services = self._services
        if services.store.waiting * 100 < services.settings.events_queue * ORDER[what]:
            return
        services.counters.shed[what] += 1
        raise BusyError("server.busy", "more is waiting for the database than can be done soon")

    def look(self, late_s: float) -> None:
        """See how much waits; `late_s` is how late the loop was for that, in seconds."""
        self._late = [*self._late, late_s][-LOOKS:]
        late = min(self._late) if len(self._late) == LOOKS else 0.0
        waiting, queue = self._services.store.waiting, self._services.settings.events_queue
        if waiting >= queue or late >= LATE_MAX_S:
            self.spread = SPREADS[2]
        elif waiting * 2 >= queue or late >= LATE_S:
            self.spread = SPREADS[1]
        else:
            self.spread = SPREADS[0]

    def watch(self) -> None:
        """Look once a second, on the running loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_S

        def look() -> None:
            self.look(loop.time() - due)
            self.watch()

        self._timer = loop.call_at(due, look)

    def close(self) -> None:
        """Look no more. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()
