"""`soak`: a step stays open so long, from its opening and from its last permit, before anything more opens.

What breaks after a day cannot be seen in an hour. Time counts only when something was tried: a ring in which nobody has activated proves nothing (unless
its step may hold nobody: a few per cent of a handful). A few devices that come back one by one must not hold the ring for ever either, so a permit given
later than `time` after the opening no longer prolongs it by more than once over: at the latest the step has soaked after twice `time`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.amounts import format_duration
from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import Finding
from tidegate.rollout.view import View

NAME: Final = "soak"
SETTINGS: Final[Mapping[str, Setting]] = {
    "time": Setting("duration", "24h", "how long, from the opening and from the last permit"),
}


@dataclass(frozen=True, slots=True)
class Soak:
    """The limit, in seconds."""

    time_s: int
    stops: bool = field(default=False, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Compare the time since opening and last permit with the limit."""
        if view.audience_known and view.tally.audience == 0:
            return self._finding(
                view, None, passed=True, text="soak: no device is left to wait for"
            )
        if view.attempts_since == 0 and view.at_least != 0:
            text = f"soak {format_duration(self.time_s)}: not begun, nobody has activated yet"
            return self._finding(view, None, passed=False, text=text)
        due = self._due(view)
        done = format_duration(now - (due - self.time_s))
        soak = f"soak {format_duration(self.time_s)} since its last permit"
        if now >= due:
            return self._finding(view, now - due + self.time_s, passed=True, text=f"{soak}: done")
        left = format_duration(due - now)
        text = f"{soak}: {done} done, {left} left"
        return self._finding(view, now - due + self.time_s, passed=False, text=text, opens_at=due)

    def calm(self, view: View) -> bool:
        """Time never blames."""
        return view.tally.confirmed > 0

    def _due(self, view: View) -> int:
        opened = view.progress.opened_at
        last = max(opened, view.tally.last_permit_at)
        return min(last + self.time_s, opened + 2 * self.time_s)

    def _finding(
        self,
        view: View,
        soaked_s: int | None,
        *,
        passed: bool,
        text: str,
        opens_at: int | None = None,
    ) -> Finding:
        return Finding(
            gate=NAME,
            passed=passed,
            text=view.prefix + text,
            ring=view.ring,
            variant=view.variant,
            observed=None if soaked_s is None else max(0, soaked_s),
            limit=self.time_s,
            sample=view.tally.attempts,
            opens_at=opens_at,
        )


def create(**settings: Value) -> Soak:
    """Make the gate of read settings."""
    return Soak(time_s=int(settings["time"]))
