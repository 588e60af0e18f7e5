"""Looks at the world for one runner: what is allowed now, who says "not now", and for how long that has been so. Light."""

from typing import TYPE_CHECKING, Final

from tidegate.agent import windows
from tidegate.agent.events import LocalRules, Looked
from tidegate.agent.inhibit import Inhibitors
from tidegate.agent.net.uplink import RETRY_MAX_S
from tidegate.agent.settings import Settings
from tidegate.agent.state import Activating, Downloading, Staged, State
from tidegate.agent.waiting import overdue

if TYPE_CHECKING:
    from tidegate.agent.runner import Runner

#: How often inhibitors and windows are looked at again while something is staged, in seconds.
LOOK_AGAIN_S: Final = 30.0


class Lookout:
    """What one runner sees.

    Args:
        runner: whose.

    Attributes:
        inhibitors: all that says "not now".
    """

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner
        self.inhibitors = Inhibitors(runner.ports.clock, runner.ports.inhibitors)
        self._staged: tuple[str, int] | None = None
        self._staged_mono = 0.0
        self._overdue_mono: float | None = None

    def look(self) -> Looked:
        """Return what there is to see now."""
        runner = self._runner
        state, settings, clock = runner.state, runner.settings, runner.ports.clock
        now, mono, phase = runner.now(), clock.monotonic(), state.phase
        rules = _rules(settings)
        self._note(state, now, mono, rules)
        staged = isinstance(phase, Staged)
        return Looked(
            now=now,
            mono=mono,
            nonce=clock.random_bytes(16).hex() if staged else "",
            download_open=windows.download_in(state, settings, now) == 0,
            activate_open=windows.activate_in(state, settings, now) == 0,
            inhibitors=self.inhibitors.now() if isinstance(phase, Staged | Activating) else (),
            window_trouble=windows.order_trouble(state, settings),
            metered=isinstance(phase, Downloading) and runner.flow.barred_by_meter(phase.update),
            manual_confirm=settings.manual_confirm,
            online=runner.online,
            unreachable=runner.unreachable,
            staged_s=0.0 if self._staged is None else mono - self._staged_mono,
            overdue_s=0.0 if self._overdue_mono is None else mono - self._overdue_mono,
            rules=rules,
        )

    def again_s(self) -> float:
        """Return in how many seconds to look again while something is waited for."""
        runner = self._runner
        now = runner.now()
        opens = max(
            windows.download_in(runner.state, runner.settings, now),
            windows.activate_in(runner.state, runner.settings, now),
        )
        return min(float(opens), RETRY_MAX_S) if opens else LOOK_AGAIN_S

    def _note(self, state: State, now: int, mono: float, rules: LocalRules) -> None:
        """Keep count by this boot's clock, which nobody sets."""
        phase = state.phase
        if not isinstance(phase, Staged | Activating):
            self._staged = self._overdue_mono = None
            return
        found = (phase.update.release.digest, phase.staged_at)
        if found != self._staged:
            self._staged, self._staged_mono, self._overdue_mono = found, mono, None
        if not overdue(phase, now, rules):
            self._overdue_mono = None
        elif self._overdue_mono is None:
            self._overdue_mono = mono


def _rules(settings: Settings) -> LocalRules:
    return LocalRules(
        defer_max_s=settings.hold_max_s,
        security_deadline_s=settings.security_deadline_s,
        inhibitors_after_s=settings.inhibitors_after_s,
        give_up_s=settings.give_up_s,
        offline_permit_s=settings.offline_permit_s,
    )
