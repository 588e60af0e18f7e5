"""Our workflow beside python-tuf's own client: the same story, step for step, and the same outcome, unless the difference is meant.

Every attack is played against both; `test_scenarios.py` does the same with the suite's scenarios, where none may differ.
What is compared after each step: whether it succeeded, and which documents are
believed then. A difference that `DIFFERENCES` does not name fails, and so does a name in it that differs no more.
"""

from pathlib import Path

import pytest
from tests.conformance.attack_shapes import ATTACKS
from tests.conformance.clients import Ours, Theirs
from tests.conformance.scenario import Lab

from tidegate.core.errors import TidegateError

_KEYS = "thresholds count public keys, not key ids"
_LIMITS = (
    "a device reads 64 kB of root and 256 kB of a role, since a parser makes 60 times as much of it"
)
_RECOVERY = "a root that replaces an online key undoes all that online keys said (5.3.11), so that one ceremony is a way out"
_STRICT = "bytes are screened before a library sees them, also where no signature covers them: two parsers must not read two documents"

DIFFERENCES: dict[str, str] = {
    "1d one key under two ids meets a threshold of two": _KEYS,
    "one key in two spellings meets a threshold of two": _KEYS,
    "2c the same after timestamp and snapshot were lost in a power cut": "versions seen are kept apart from the documents, in two copies",
    "3e a product far ahead, root replaces the timestamp key": _RECOVERY,
    "3f a snapshot far ahead, root replaces the snapshot key": _RECOVERY,
    "6 a signed role of 300 kB": _LIMITS,
    "6 a signed root of 100 kB": _LIMITS,
    "6b a bomb of values, signed": _LIMITS,
    "17 a version of 10^30": "versions stay below 2^53, which SQLite and browsers keep",
    "19 the kept root is lost": "the image's own root is the anchor whenever the kept one is gone",
    "a threshold of True": "true is not a number",
    "a threshold of 1000000": "a root that cannot ever be met is refused itself, and not each document after it",
    "a timestamp with half a surrogate pair": _STRICT,
    "a timestamp with a float beside what is signed": _STRICT,
    "a timestamp with NaN beside what is signed": _STRICT,
    "a timestamp with a key twice": _STRICT,
    "a timestamp with lists 40 deep": _STRICT,
    "a timestamp with a huge number beside it": _STRICT,
}


def compare(name: str, ours: Lab, theirs: Lab) -> None:
    reason = DIFFERENCES.get(name)
    if reason is None:
        assert ours.trace == theirs.trace, f"ours: {ours.problem!r}, theirs: {theirs.problem!r}"
    else:
        assert ours.trace != theirs.trace, f"they do not differ any more: {reason}"


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_stopped_by_both_clients_or_the_difference_is_meant(
    name: str, folder: Path
) -> None:
    found = ATTACKS[name]
    ours, theirs = Lab(folder / "ours", Ours), Lab(folder / "theirs", Theirs)
    found.run(ours)
    problem = ours.problem
    assert problem is None or isinstance(problem, TidegateError)
    assert (problem.code if problem else None) == found.code
    found.run(theirs)
    compare(name, ours, theirs)


def test_every_listed_difference_is_of_an_attack_that_is_played() -> None:
    assert set(DIFFERENCES) <= set(ATTACKS)
