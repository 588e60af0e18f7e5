"""Whether the windows of the device and of the order are open, and when that changes. `core.schedule` is loaded only where there is a window at all."""

from collections.abc import Sequence

from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Downloading,
    Staged,
    State,
)
from tidegate.core.errors import ConfigError

#: A window that never opens is looked at again after this, in seconds.
NEVER_S = 3600


def opens_in(windows: Sequence[str], zone: str, now: int) -> int:
    """Return 0 when open, else seconds until it opens (at most an hour: clocks are set, too).

    A window or zone that cannot be read is closed: an order may narrow, and a typing error must not widen.
    """
    if not windows:
        return 0
    from tidegate.core import schedule

    try:
        parsed = schedule.parse_windows(windows)
        if not parsed:
            return 0
        at = schedule.next_open(parsed, schedule.load_zone(zone), now)
    except ConfigError:
        return NEVER_S
    return NEVER_S if at is None else min(max(at - now, 0), NEVER_S)


def trouble(windows: Sequence[str], zone: str) -> str:
    """Return why windows cannot be judged on this device, "" where they can: a zone that it does not know, say."""
    if not windows:
        return ""
    from tidegate.core import schedule

    try:
        schedule.parse_windows(windows)
        schedule.load_zone(zone)
    except ConfigError as error:
        return error.detail
    return ""


def order_trouble(state: State, settings: Settings) -> str:
    """Return why the windows of the present order cannot be judged here; "" where they can."""
    phase = state.phase
    if not isinstance(phase, Downloading | Staged):
        return ""
    policy = phase.update.policy
    windows = policy.download_window if isinstance(phase, Downloading) else policy.activate_window
    return trouble(windows, _zone(policy.zone, settings))


def download_in(state: State, settings: Settings, now: int) -> int:
    """Return in how many seconds the present download may go on; 0 = now."""
    phase = state.phase
    if not isinstance(phase, Downloading):
        return 0
    policy = phase.update.policy
    own = opens_in(settings.download_windows, settings.download_zone, now)
    return max(own, opens_in(policy.download_window, _zone(policy.zone, settings), now))


def activate_in(state: State, settings: Settings, now: int) -> int:
    """Return in how many seconds the staged image may be activated; 0 = now."""
    phase = state.phase
    if not isinstance(phase, Staged):
        return 0
    policy = phase.update.policy
    own = opens_in(settings.activate_windows, settings.activate_zone, now)
    return max(own, opens_in(policy.activate_window, _zone(policy.zone, settings), now))


def _zone(name: str, settings: Settings) -> str:
    return settings.zone if name == "device" else name
