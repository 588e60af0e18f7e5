"""The nearest known word, for messages."""

import pytest

from tidegate.core.nearest import did_you_mean, nearest

KNOWN = ("failure_rate", "minimum_sample", "soak", "approval", "metric")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("soack", "soak"),
        ("failurerate", "failure_rate"),
        ("SOAK", "soak"),
        ("metrics", "metric"),
        ("zzzz", None),
        ("", None),
        ("s" * 10_000, None),
    ],
)
def test_a_slip_finds_its_word_and_nonsense_none(word: str, expected: str | None) -> None:
    assert expected == nearest(word, KNOWN)


def test_a_message_names_the_nearest_or_all_when_they_are_few() -> None:
    assert did_you_mean("soack", KNOWN) == '; did you mean "soak"?'
    assert did_you_mean("zzzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzzz", [str(n) for n in range(40)]) == ""
    assert did_you_mean("zzzz", []) == ""
