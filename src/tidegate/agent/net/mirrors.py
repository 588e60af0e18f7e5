"""Which mirrors are asked for a payload, in what order, and which are left alone for a while. Light: the loop decides, the worker does as it is told.

First the site's own (`[download] mirrors`: a cache next door), then those that the release's signers name, in their order; the server comes last. A mirror is
trusted with nothing (`agent.net.delivery`), so one that lies or is away costs time, and ever less of it.
"""

from typing import Final

import msgspec

from tidegate.agent.jobs import Struck
from tidegate.agent.settings import Settings
from tidegate.core.release import ReleaseTarget

#: How long a mirror is left alone after a failure, in seconds: doubled from the first to the last. One that gave wrong bytes waits longest at once.
PAUSE_FIRST_S: Final = 60
PAUSE_MAX_S: Final = 3600


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong with a mirror, how often in a row, and until when it is left alone (seconds of the monotonic clock)."""

    why: str
    failures: int
    until_mono: float


class Mirrors:
    """What one agent knows of its mirrors, since it started."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self._asked: frozenset[str] = frozenset()

    def order(self, settings: Settings, release: ReleaseTarget, mono: float) -> tuple[str, ...]:
        """Return the mirrors to be asked now for a payload of `release`, the first one first."""
        signed = release.mirrors if settings.release_mirrors else ()
        every = dict.fromkeys((*settings.mirrors, *signed))
        free = tuple(one for one in every if self._wait_s(one, mono) <= 0)
        self._asked = frozenset(free)
        return free

    def struck(self, struck: Struck, mono: float) -> None:
        """Leave a mirror alone for a while: longer each time, and not shorter than it asked for itself."""
        before = self._pauses.get(struck.mirror)
        failures = 1 if before is None else before.failures + 1
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S << min(failures - 1, 10))
        if struck.reason == "download.hash":
            pause_s = PAUSE_MAX_S
        self._asked -= {struck.mirror}
        self._pauses[struck.mirror] = Pause(
            why=f"{struck.reason}: {struck.detail}",
            failures=failures,
            until_mono=mono + max(pause_s, struck.retry_after_s),
        )

    @property
    def serving(self) -> bool:
        """Say whether a mirror is left that bytes come from."""
        return bool(self._asked)

    def served(self) -> None:
        """Forget what was wrong with those that were asked for a payload which is whole now, and did not fail."""
        for one in self._asked:
            self._pauses.pop(one, None)

    def told(self, mono: float) -> dict[str, str]:
        """Return those that are left alone, with what was wrong and for how long yet."""
        left = {one: self._wait_s(one, mono) for one in self._pauses}
        return {
            one: f"{self._pauses[one].why}; asked again in {int(wait_s) + 1} s"
            for one, wait_s in left.items()
            if wait_s > 0
        }

    def _wait_s(self, mirror: str, mono: float) -> float:
        pause = self._pauses.get(mirror)
        return 0.0 if pause is None else pause.until_mono - mono
