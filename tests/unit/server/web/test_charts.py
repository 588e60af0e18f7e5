import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.server.web import charts
from tidegate.server.web.charts import Kind

KINDS: tuple[Kind, ...] = ("ok", "go", "go2", "wait", "iso", "bad", "lost")


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2_000_000)), min_size=1, max_size=9)
)
def test_the_widths_of_a_bar_are_the_whole_bar(parts: list[tuple[Kind, int]]) -> None:
    widths = charts.widths(parts)
    if any(count for _, count in parts):
        assert abs(sum(width for _, width in widths) - 100) < 0.2
    else:
        assert widths == []


def test_nine_lost_of_a_hundred_thousand_are_still_seen() -> None:
    widths = dict(charts.widths([("ok", 126_839), ("lost", 9)]))
    assert widths["lost"] == charts.LEAST_BAD
    assert widths["ok"] == round(100 - charts.LEAST_BAD, 2)


def test_a_small_share_that_is_not_bad_keeps_its_true_width() -> None:
    widths = dict(charts.widths([("ok", 99_900), ("wait", 100)]))
    assert widths["wait"] == 0.1


def test_the_parts_of_a_bar_touch_and_none_overlaps() -> None:
    svg = str(charts.bar([("ok", 5), ("go", 3), ("bad", 2)]))
    found = re.findall(r'class="f-(?:ok|go|bad)" x="([\d.]+)%" width="([\d.]+)%"', svg)
    assert found == [("0", "50"), ("50", "30"), ("80", "20")]


def test_an_empty_bar_is_an_empty_track() -> None:
    assert 'class="f-sunken"' in charts.bar([("ok", 0)])


def test_the_open_step_of_a_ring_is_marked_where_it_is() -> None:
    assert 'x="40%"' in charts.bar([("ok", 1)], 14, 4_000)
    assert 'class="f-text"' not in charts.bar([("ok", 1)], 14, 10_000)


def test_a_bullet_turns_red_only_past_its_limit() -> None:
    assert 'f-ok"' in charts.bullet(0.1, 5)
    assert 'f-warn"' in charts.bullet(4, 5)
    assert 'f-bad"' not in charts.bullet(5, 5)
    assert 'f-bad"' in charts.bullet(5.01, 5)


def test_a_bullet_of_something_that_must_be_reached_is_good_past_its_limit() -> None:
    assert 'f-go2"' in charts.bullet(30, 100, fails_above=False)
    assert 'f-ok"' in charts.bullet(100, 100, fails_above=False)


def test_a_sparkline_has_its_own_scale() -> None:
    svg = str(charts.spark([0, 1, 2], "ok", 20))
    assert re.findall(r'height="([\d.]+)"/>', svg) == ["1", "10", "20"]


def test_no_class_comes_from_outside_the_closed_list() -> None:
    hostile = 'ok"><script>'
    with pytest.raises(ValueError, match="script"):
        charts.bar([(hostile, 1)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="script"):
        charts.swatch(hostile)  # type: ignore[arg-type]


def test_geometry_is_in_attributes_because_inline_styles_are_forbidden() -> None:
    drawn = [
        charts.bar([("ok", 1), ("bad", 2)], 10, 500),
        charts.portion("bad", 0.3),
        charts.bullet(1, 2),
        charts.spark([1, 2, 3]),
    ]
    assert not [svg for svg in drawn if "style" in svg]


@given(st.floats(1.0001, 1e9), st.floats(1.0001, 1e9), st.integers(2, 10**6))
def test_a_meter_never_shows_more_against_a_release_as_less(
    one: float, other: float, halts_at: int
) -> None:
    low, high = sorted((one, other))
    assert 0 <= charts.on_meter(low, halts_at) <= charts.on_meter(high, halts_at) <= 100


def test_the_marks_of_a_meter_stand_where_it_halts_and_where_permits_end() -> None:
    assert charts.on_meter(1, 1000) == 0
    assert charts.on_meter(1000, 1000) == charts.HALT_AT
    assert charts.on_meter(63.1, 1000) == pytest.approx(52.8, abs=0.01)
    svg = str(charts.meter(2.1, 1000, 60))
    assert 'class="f-bad" x="88%"' in svg
    assert 'class="f-warn" x="52.8%"' in svg


def test_a_meter_is_slate_then_amber_then_red_and_a_stub_below_even_odds() -> None:
    assert 'f-text3"' in charts.meter(2.9, 1000)
    assert 'f-warn" x="0%"' in charts.meter(3, 1000)
    assert 'f-warn" x="0%"' in charts.meter(999, 1000)
    assert 'f-bad" x="0%"' in charts.meter(1000, 1000)
    assert 'class="f-line" width="3"' in charts.meter(1, 1000)
    assert 'f-text3"' not in charts.meter(0.2, 1000)


def test_a_bound_fills_its_bar_when_it_is_as_bad_as_is_let_pass() -> None:
    assert 'f-ok" x="0%" width="14%"' in charts.bound(0.0021, 0.015)
    assert 'f-go2" x="0%" width="100%"' in charts.bound(0.2, 0.015)
