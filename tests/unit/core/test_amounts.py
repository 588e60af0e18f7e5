"""Amounts: every unit, every mistake a person makes."""

import pytest

from tidegate.core import amounts
from tidegate.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("24h", 86_400),
        ("4d", 345_600),
        ("1h30m", 5_400),
        ("1.5h", 5_400),
        ("1 h", 3_600),
        ("2000ms", 2),
        ("0s", 0),
        ("1w", 604_800),
    ],
)
def test_a_duration_is_read_as_whole_seconds(text: str, seconds: int) -> None:
    assert seconds == amounts.parse_duration(text)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (30, '30 has no unit: "30s", "30m", "30h"?'),
        ("30", '"30" has no unit: "30s", "30m", "30h"?'),
        ("30x", 'has no unit "x"'),
        ("500ms", "not a whole number of seconds"),
        ("h", "is not a duration"),
        ("10m lots", "is not a duration"),
        ("", "is not a duration"),
        (None, "is not a duration"),
        (True, "is not a duration"),
        ("-5s", "is not a duration"),
        ("9" * 18 + "w", "too large"),
        ("9" * 40 + "s", "is not a duration"),
        ("0.0001ms", "finer than"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(value: object, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        amounts.parse_duration(value, "soak")
    assert caught.value.code == "config.invalid"
    assert caught.value.detail.startswith("soak: ")
    assert part in caught.value.detail


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("20GB", 20_000_000_000), ("1KB", 1000), ("1KiB", 1024), ("7B", 7)],
)
def test_a_size_tells_thousands_from_1024(text: str, size: int) -> None:
    assert size == amounts.parse_size(text)


def test_a_size_names_the_nearest_unit() -> None:
    with pytest.raises(ConfigError, match='did you mean "MiB"'):
        amounts.parse_size("64mib")


def test_a_rate_ends_in_a_second() -> None:
    assert 2 << 20 == amounts.parse_rate("2MiB/s")
    with pytest.raises(ConfigError, match="/s"):
        amounts.parse_rate("2MiB")
    with pytest.raises(ConfigError, match='"2MiB/s"'):
        amounts.parse_rate(2)


def test_shares_are_basis_points_and_never_over_the_whole() -> None:
    assert 1_000 == amounts.parse_share("10%")
    assert 25 == amounts.parse_share("0.25 %")
    assert 10_000 == amounts.parse_share("100%")
    assert 25 == amounts.parse_difference("0.25pp")
    for bad in ("101%", "1pp", "%", "0.001%", "1e3%", 0.1):
        with pytest.raises(ConfigError):
            amounts.parse_share(bad)


def test_off_is_a_word_and_never_zero() -> None:
    assert amounts.is_off("none")
    assert amounts.is_off("off")
    assert not amounts.is_off(0)
    assert not amounts.is_off("0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (11_400, "3 h 10 min"),
        (345_600, "4 d"),
        (86_401, "1 d"),
        (90_000, "1 d 1 h"),
        (3_605, "1 h"),
        (-3, "0 s"),
    ],
)
def test_durations_are_written_in_at_most_two_units(seconds: int, text: str) -> None:
    assert text == amounts.format_duration(seconds)


def test_shares_and_sizes_are_written_for_people() -> None:
    assert amounts.format_share(1_000) == "10 %"
    assert amounts.format_share(25) == "0.25 %"
    assert amounts.format_share(10_000) == "100 %"
    assert amounts.format_size(6_800_000) == "6.8 MB"
    assert amounts.format_size(10_000_000) == "10 MB"
    assert amounts.format_size(12) == "12 B"
