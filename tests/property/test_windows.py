"""Windows against a reference that walks the wall clock minute by minute, around changes of clocks in odd zones."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core import schedule

#: Near changes of clocks: an hour in Paris, half an hour on Lord Howe, Newfoundland's half-hour zone, a skipped day in Apia.
CHANGES = {
    "Europe/Paris": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00", "2026-10-03T15:30"),
    "America/St_Johns": ("2026-03-08T05:30", "2026-11-01T04:30"),
    "Pacific/Apia": ("2011-12-30T10:00", "2012-03-31T14:00"),
    "Africa/Casablanca": ("2026-02-15T02:00", "2026-03-22T02:00"),
}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SPAN_MIN = 2 * 1440


@st.composite
def windows(draw: st.DrawFn) -> schedule.Window:
    start = draw(st.integers(0, 95)) * 15
    end = draw(st.integers(1, 96).map(lambda n: n * 15).filter(lambda m: m != start))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    return schedule.Window(days=days, start_min=start, end_min=end)


def _walled(window: schedule.Window, zone: ZoneInfo, at: int) -> bool:
    """Say by strings of the wall clock, not by the code under test, whether the window is open."""
    wall = datetime.fromtimestamp(at, UTC).astimezone(zone)
    clock, day = wall.strftime("%H:%M"), int(wall.strftime("%u")) - 1
    start, end = (f"{m // 60:02}:{m % 60:02}" for m in (window.start_min, window.end_min))
    if start < end:
        return day in window.days and start <= clock < end
    return (day in window.days and clock >= start) or ((day + 6) % 7 in window.days and clock < end)


@pytest.mark.parametrize("name", sorted(CHANGES))
@settings(max_examples=25, deadline=None)
@given(
    chosen=st.lists(windows(), min_size=1, max_size=3),
    change=st.integers(0, 1),
    offset_min=st.integers(-1440, 600),
)
def test_next_open_and_next_close_agree_with_a_walk_over_the_wall_clock(
    name: str, chosen: list[schedule.Window], change: int, offset_min: int
) -> None:
    zone = ZoneInfo(name)
    moment = datetime.fromisoformat(CHANGES[name][change]).replace(tzinfo=UTC)
    at = int(moment.timestamp()) + offset_min * 60
    walk = [any(_walled(w, zone, at + m * 60) for w in chosen) for m in range(_SPAN_MIN)]
    for found, wanted in (
        (schedule.next_open(chosen, zone, at), True),
        (schedule.next_close(chosen, zone, at), False),
    ):
        expected = next((at + m * 60 for m, now in enumerate(walk) if now is wanted), None)
        if expected is None:
            assert found is None or found >= at + _SPAN_MIN * 60
        else:
            assert expected == found


@given(window=windows())
def test_a_window_survives_being_written_and_read(window: schedule.Window) -> None:
    assert window == schedule.parse_window(str(window))


@given(device=st.text(), width=st.integers(1, 10**6), salt=st.text(max_size=8))
def test_a_spread_stays_inside_its_width(device: str, width: int, salt: str) -> None:
    assert 0 <= schedule.spread(device, width, salt) < width
