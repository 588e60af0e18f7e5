"""Windows: how they are written, and what happens when clocks change."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tidegate.core import schedule
from tidegate.core.errors import ConfigError

PARIS = ZoneInfo("Europe/Paris")
UTC = ZoneInfo("UTC")
APIA = ZoneInfo("Pacific/Apia")


def _at(text: str, zone: ZoneInfo = PARIS, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("02:00-05:00", "02:00-05:00"),
        ("Mon-Fri 22:00-04:00", "Mon,Tue,Wed,Thu,Fri 22:00-04:00"),
        ("Sat,Sun", "Sat,Sun"),
        ("fri-mon 00:00-24:00", "Mon,Fri,Sat,Sun"),
        ("Mon-Sun", "00:00-24:00"),
        ("Mon,Wed-Thu 01:00-02:30", "Mon,Wed,Thu 01:00-02:30"),
    ],
)
def test_a_window_is_read_and_written_back(text: str, shown: str) -> None:
    window = schedule.parse_window(text)
    assert shown == str(window)
    assert window == schedule.parse_window(str(window))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("2-5", '"2-5" is not a window: "02:00-05:00"?'),
        ("2:30-5", '"02:30-05:00"?'),
        ("Mon 2-5", '"02:00-05:00"?'),
        ("Mo 02:00-05:00", 'did you mean "Mon"'),
        ("02:00-25:00", "25:00 is not a time of day"),
        ("02:60-05:00", "02:60 is not a time of day"),
        ("02:00-02:00", "whole day"),
        ("24:00-05:00", "whole day"),
        ("", "as in"),
        ("a b c", "as in"),
    ],
)
def test_what_is_no_window_is_refused_with_the_likely_reading(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schedule.parse_window(text, "activate.window")
    assert caught.value.detail.startswith("activate.window: ")
    assert part in caught.value.detail


def test_no_window_or_any_is_always_open() -> None:
    assert schedule.parse_windows(["any"]) == ()
    assert schedule.is_open((), PARIS, 0)
    assert schedule.next_open((), PARIS, 17) == 17
    assert schedule.next_close((), PARIS, 17) is None


def test_an_unknown_zone_names_the_nearest() -> None:
    assert schedule.load_zone("Europe/Paris").key == "Europe/Paris"
    with pytest.raises(ConfigError, match="Europe/Paris"):
        schedule.load_zone("Europe/Pariss", "zone")
    for hostile in ("../../etc/passwd", "", "/etc/localtime", "a\0b"):
        with pytest.raises(ConfigError):
            schedule.load_zone(hostile)


def test_a_window_past_midnight_belongs_to_the_day_it_opens_on() -> None:
    windows = schedule.parse_windows(["Fri 22:00-04:00"])
    assert not schedule.is_open(windows, PARIS, _at("2026-11-27 03:00"))  # Friday, before dawn
    assert schedule.is_open(windows, PARIS, _at("2026-11-27 22:00"))
    assert schedule.is_open(windows, PARIS, _at("2026-11-28 03:59"))
    assert not schedule.is_open(windows, PARIS, _at("2026-11-28 04:00"))
    assert _at("2026-12-04 22:00") == schedule.next_open(windows, PARIS, _at("2026-11-28 04:00"))
    assert _at("2026-11-28 04:00") == schedule.next_close(windows, PARIS, _at("2026-11-27 23:00"))


def test_adjoining_windows_close_only_where_the_last_one_ends() -> None:
    windows = schedule.parse_windows(["Sat", "Sun 00:00-06:00"])
    assert _at("2026-11-29 06:00") == schedule.next_close(windows, PARIS, _at("2026-11-28 12:00"))


def test_an_always_open_week_never_closes() -> None:
    windows = schedule.parse_windows(["Mon-Sun"])
    assert schedule.next_close(windows, PARIS, _at("2026-11-28 12:00")) is None


def test_an_hour_that_does_not_exist_is_skipped() -> None:
    # Paris, 2026-03-29: 02:00 becomes 03:00.
    inside = schedule.parse_windows(["02:00-03:00"])
    assert _at("2026-03-30 02:00") == schedule.next_open(
        inside, PARIS, _at("2026-03-28 12:00") + 86_400
    )
    begins_inside = schedule.parse_windows(["02:30-05:00"])
    assert _at("2026-03-29 03:00") == schedule.next_open(
        begins_inside, PARIS, _at("2026-03-29 01:00")
    )
    spans = schedule.parse_windows(["01:00-04:00"])
    opens = _at("2026-03-29 01:00")
    assert schedule.next_close(spans, PARIS, opens) == opens + 2 * 3600


def test_a_weekly_window_in_a_skipped_hour_opens_a_week_later() -> None:
    windows = schedule.parse_windows(["Sun 02:00-03:00"])
    assert _at("2026-04-05 02:00") == schedule.next_open(windows, PARIS, _at("2026-03-23 00:00"))


def test_an_hour_that_comes_twice_counts_twice() -> None:
    # Paris, 2026-10-25: 03:00 becomes 02:00.
    windows = schedule.parse_windows(["02:00-03:00"])
    first = _at("2026-10-25 02:00")
    assert schedule.next_close(windows, PARIS, first) == first + 2 * 3600
    half = schedule.parse_windows(["02:30-02:45"])
    assert schedule.is_open(half, PARIS, _at("2026-10-25 02:30", fold=0))
    assert schedule.is_open(half, PARIS, _at("2026-10-25 02:30", fold=1))
    again = schedule.next_open(half, PARIS, _at("2026-10-25 02:45", fold=0))
    assert _at("2026-10-25 02:30", fold=1) == again


def test_a_day_that_a_zone_skips_is_skipped() -> None:
    # Apia had no 2011-12-30: the Friday.
    windows = schedule.parse_windows(["Fri 10:00-11:00"])
    after = schedule.next_open(windows, APIA, _at("2011-12-29 00:00", APIA))
    assert _at("2012-01-06 10:00", APIA) == after


def test_spread_is_stable_even_and_inside() -> None:
    delays = [schedule.spread(f"gw1-{n:05}", 600, "poll") for n in range(6_000)]
    assert delays == [schedule.spread(f"gw1-{n:05}", 600, "poll") for n in range(6_000)]
    assert min(delays) >= 0
    assert max(delays) < 600
    tenths = [sum(1 for d in delays if low <= d < low + 60) for low in range(0, 600, 60)]
    assert min(tenths) > 480  # 600 expected; 5 standard deviations are 116
    assert schedule.spread("gw1", 600, "a") != schedule.spread("gw1", 600, "b")
    assert schedule.spread("gw1", 0) == 0
