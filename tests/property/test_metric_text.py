"""The Prometheus text format: what was written is read, and nothing else breaks it."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.agent.checkup.metric_text import Wanted, parse_wanted, total
from tidegate.core.errors import ConfigError

NAMES = st.from_regex(r"[a-z_:][a-z0-9_:]{0,20}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
    max_size=4,
)
VALUES = st.floats(-1e12, 1e12, allow_nan=False)


def line(name: str, labels: dict[str, str], value: float, stamp: str = "") -> bytes:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    inside = ",".join(f'{key}="{escaped(one)}"' for key, one in labels.items())
    return f"{name}{'{' + inside + '}' if labels else ''} {value!r}{stamp}".encode()


@given(NAMES, LABELS, VALUES, st.sampled_from(("", " 1395066363000", "\r")))
def test_a_sample_is_read_as_it_was_written(
    name: str, labels: dict[str, str], value: float, stamp: str
) -> None:
    wanted = Wanted(name, tuple(sorted(labels.items())))
    assert total([b"# TYPE x counter", line(name, labels, value, stamp)], wanted) == value
    assert total([line(name + "x", labels, value)], wanted) is None


@given(NAMES, LABELS, st.lists(VALUES, min_size=1, max_size=5))
def test_samples_that_bear_the_labels_are_added(
    name: str, labels: dict[str, str], values: list[float]
) -> None:
    lines = [line(name, {**labels, "own": str(at)}, one) for at, one in enumerate(values)]
    found = total(lines, Wanted(name, tuple(sorted((labels | {}).items()))))
    if "own" not in labels:
        assert found is not None
        assert math.isclose(found, sum(values), rel_tol=1e-9, abs_tol=1e-6)


@given(st.lists(st.binary(max_size=60), max_size=8), NAMES)
def test_nothing_that_is_no_metric_breaks_it(lines: list[bytes], name: str) -> None:
    found = total(lines, Wanted(name))
    assert found is None or math.isfinite(found)


@given(st.text(max_size=40))
def test_a_selector_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_wanted(text).name


@pytest.mark.parametrize(
    "broken",
    [
        b"x",
        b"x{",
        b'x{a="b',
        b'x{a="b"',
        b'x{a="b"}',
        b"x{a=b} 1",
        b"x NaN",
        b"x +Inf",
        b"x one",
        b"1x 5",
        b"",
        b"xy 1",
        b'x{="b"} 1',
    ],
)
def test_a_broken_line_is_passed_over(broken: bytes) -> None:
    assert total([broken, b"x 2"], parse_wanted("x")) == 2


def test_words_of_the_format_are_read() -> None:
    text = b'http_requests_total{method="post",code="200"} 1027 1395066363000\n'
    text += b'msdos_file_access_time_seconds{path="C:\\\\DIR\\\\FILE.TXT",'
    text += b'error="Cannot find file:\\n\\"FILE.TXT\\""} 1.458255915e9\n'
    lines = text.split(b"\n")
    assert total(lines, parse_wanted('http_requests_total{code="200"}')) == 1027
    path = parse_wanted('msdos_file_access_time_seconds{path="C:\\\\DIR\\\\FILE.TXT"}')
    assert total(lines, path) == 1.458255915e9
    assert total(lines, parse_wanted('http_requests_total{code="500"}')) is None
