"""Rounds of checks in a process of their own: whatever a check does, the loop never waits and nothing is left running."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate.agent.checkup.examiner import ROUND_MAX_S, Apart, budget_of, timeout_of
from tidegate.agent.ports import Checkup, Findings
from tidegate.core.release import HealthCheck

LIMIT_S = 60.0


def check(name: str, run: list[str], **settings: Any) -> HealthCheck:
    return HealthCheck(name=name, kind="command", settings={"run": run, **settings})


@pytest.fixture
def examiner() -> Iterator[Apart]:
    made = Apart("http://127.0.0.1:1")
    yield made
    made.close()


def answer(examiner: Apart, limit_s: float = LIMIT_S) -> Findings:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        began = time.monotonic()
        found = examiner.answer()
        assert time.monotonic() - began < 2, "the loop waited"
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("no answer")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not lives(pid):
            return True
        time.sleep(0.05)
    return False


def test_a_round_tells_every_check_in_its_order_and_who_asked(examiner: Apart) -> None:
    checkup = Checkup(
        signed=(check("a", ["true"]), check("b", ["false"])), own=(check("c", ["true"]),)
    )
    examiner.begin(checkup)
    found = answer(examiner).results
    assert [(one.name, one.ok, one.reason, one.own) for one in found] == [
        ("a", True, "health.command", False),
        ("b", False, "health.command", False),
        ("c", True, "health.command", True),
    ]
    assert examiner.answer() is None


def test_a_check_that_hangs_fails_and_leaves_nothing_running(
    examiner: Apart, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    # Its own child and grandchild, and one that took leave of both.
    script = (
        f"sleep 600 & echo $! >> {pids}; (sleep 600 & echo $! >> {pids}); echo $$ >> {pids}; wait"
    )
    hang = check("hangs", ["sh", "-c", script], timeout_s=1)
    examiner.begin(Checkup(signed=(hang, check("fine", ["true"]))))
    found = {one.name: one for one in answer(examiner).results}
    assert (found["hangs"].ok, found["fine"].ok) == (False, True)
    assert "no answer in 1 s" in found["hangs"].detail
    for pid in map(int, pids.read_text().split()):
        assert gone(pid), pid


def test_a_round_that_is_given_up_takes_its_programs_with_it(
    examiner: Apart, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; sleep 600"
    examiner.begin(Checkup(signed=(check("hangs", ["sh", "-c", script], timeout_s=60),)))
    until = time.monotonic() + LIMIT_S
    while not (pids.exists() and pids.read_text().strip()) and time.monotonic() < until:
        assert examiner.answer() is None
        time.sleep(0.02)
    examiner.close()
    assert gone(int(pids.read_text()))


def test_a_process_that_dies_is_an_answer(examiner: Apart) -> None:
    examiner.begin(Checkup(signed=(check("kills", ["sh", "-c", "kill -9 $PPID; sleep 5"]),)))
    (found,) = answer(examiner).results
    # Its reason was told before it ran.
    assert (found.ok, found.reason) == (False, "health.command")
    assert "ended by signal 9" in found.detail


def test_a_round_has_one_budget_whatever_its_contract_says() -> None:
    many = tuple(check(f"c{index}", ["true"], timeout_s=60) for index in range(64))
    assert budget_of(Checkup(signed=many)) == ROUND_MAX_S
    usual = tuple(check(f"c{index}", ["true"]) for index in range(64))
    assert budget_of(Checkup(signed=usual)) < 45
    assert budget_of(Checkup(signed=())) > 0
    assert (
        timeout_of(check("a", [], timeout_s=9999)),
        timeout_of(check("a", [], timeout_s=0)),
    ) == (60, 1)


def test_sixty_four_checks_are_done_side_by_side(examiner: Apart) -> None:
    many = tuple(check(f"c{index}", ["sleep", "0.5"]) for index in range(64))
    began = time.monotonic()
    examiner.begin(Checkup(signed=many))
    found = answer(examiner)
    assert all(one.ok for one in found.results)
    assert time.monotonic() - began < 64 * 0.5


def test_what_checks_compare_with_comes_back_round_after_round(
    examiner: Apart, tmp_path: Path
) -> None:
    path = tmp_path / "errors"
    rate = HealthCheck(
        name="rate", kind="error_rate", settings={"file": str(path), "max_per_hour": 2}
    )
    bases: dict[str, int | str] = {}
    results = []
    # It begins anew in between, as a service does that was restarted: two before and one after are three.
    for value in (100, 102, 1):
        path.write_text(str(value))
        examiner.begin(Checkup(signed=(rate,), bases=bases))
        found = answer(examiner)
        bases = found.bases
        results.append(found.results[0].ok)
    assert results == [True, True, False]
    assert set(bases) == {"rate/last", "rate/grown", "rate/began"}


def test_a_check_that_passed_may_blink_as_far_as_its_contract_allows(
    examiner: Apart, tmp_path: Path
) -> None:
    path = tmp_path / "up"
    blinks = check("link", ["test", "-e", str(path)], fails_max=1)
    bases: dict[str, int | str] = {}
    results = []
    for up in (False, True, False, True, False, False, True):
        path.touch() if up else path.unlink(missing_ok=True)
        examiner.begin(Checkup(signed=(blinks,), bases=bases))
        found = answer(examiner)
        bases = found.bases
        results.append(found.results[0].ok)
    # Not before it has passed once, and not twice in a row.
    assert results == [False, True, True, True, True, False, True]
