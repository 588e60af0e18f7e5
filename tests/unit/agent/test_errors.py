"""Counts of errors only grow: over restarts of the agent, and over sources that begin anew."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.agent.checkup.errors import Growth, counter
from tidegate.agent.ports import Reading
from tidegate.agent.settings import ErrorSource
from tidegate.core.errors import ConfigError


def test_what_a_source_held_before_the_first_look_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    path.write_text("100\n")
    found = counter(ErrorSource(file=str(path)))
    first = found.read(None)
    path.write_text("103\n")
    assert (first.count, found.read(first).count) == (0, 3)


def test_a_restarted_agent_goes_on_from_what_the_journal_holds(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    path.write_text("100\n")
    before = counter(ErrorSource(file=str(path))).read(None)
    path.write_text("107\n")
    kept = Reading(count=before.count, mark=before.mark)
    assert counter(ErrorSource(file=str(path))).read(kept).count == 7


def test_a_number_that_fell_began_anew_and_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    found = counter(ErrorSource(file=str(path)))
    path.write_text("10\n")
    reading = found.read(None)
    for value, count in ((15, 5), (2, 7), (3, 8), (0, 8)):
        path.write_text(f"{value}\n")
        reading = found.read(reading)
        assert reading.count == count


def test_a_source_that_cannot_be_read_keeps_its_count_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    found = counter(ErrorSource(file=str(path)))
    missing = found.read(None)
    assert missing.problem
    # What it holds once it is there was all written since.
    path.write_text("4\n")
    there = found.read(missing)
    assert (there.count, there.problem) == (4, "")
    path.write_text("nonsense")
    gone = found.read(there)
    assert (gone.count, gone.problem) == (4, f"{path} holds no number")


def test_nobody_counting_is_no_rate_of_nought() -> None:
    assert "set [errors]" in counter(ErrorSource()).read(None).problem


def test_a_metric_is_summed_over_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "app.prom"
    source = ErrorSource(metrics=str(path), metric='app_errors_total{level="error"}')
    found = counter(source)
    text = '# HELP app_errors_total x\napp_errors_total{{level="error",unit="{0}"}} {1}\n'
    path.write_text(text.format("a", 5) + text.format("b", 1.5e1))
    first = found.read(None)
    path.write_text(text.format("a", 6) + text.format("b", 17))
    assert (first.problem, found.read(first).count) == ("", 3)
    with pytest.raises(ConfigError):
        counter(ErrorSource(metrics="nowhere", metric="x"))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_a_count_is_what_was_added_in_all(values: list[int]) -> None:
    at = iter(values)
    found = Growth(lambda: (float(next(at)), ""))
    reading = found.read(None)
    wanted, last = 0, values[0]
    for value in values[1:]:
        reading = found.read(reading)
        wanted += value - last if value >= last else value
        last = value
    assert reading.count == wanted
