"""Each gate at its edges; what all gates share is in `tests/contract/test_gate.py`."""

import pytest
from tests.unit.rollout.stage import HOUR, known, metrics, more

from tidegate.rollout import gates
from tidegate.rollout.model import ALL_BP, Evidence, Finding, RingProgress
from tidegate.rollout.view import View


def _judge(
    name: str,
    evidence: Evidence,
    now: int = 0,
    *,
    progress: RingProgress | None = None,
    added_bp: int = ALL_BP,
    audience_known: bool = True,
    **settings: object,
) -> Finding:
    shown = View(
        evidence=evidence,
        ring="pilot",
        progress=progress or RingProgress(state="open", step=0),
        added_bp=added_bp,
        audience_known=audience_known,
    )
    return gates.load(name, settings).judge(shown, now)


# --- failure_rate -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harmed", "attempts", "passed"),
    [
        (0, 0, True),
        (1, 1, True),  # 1 in 20 at the limit
        (2, 2, True),  # 1 in 400
        (3, 3, False),  # 1 in 8,000
        (3, 8, True),  # 1 in 173
        (4, 8, False),  # 1 in 2,695
        (5, 19, True),  # 1 in 556
        (6, 19, False),  # 1 in 4,233
        (1, 20, True),
        (2, 20, False),
        (5, 100, True),
        (6, 100, False),
    ],
)
def test_a_handful_stops_only_when_chance_would_not(
    harmed: int, attempts: int, *, passed: bool
) -> None:
    evidence = known(("permitted", "pilot", "r3", attempts), ("reverted", "pilot", "r3", harmed))
    assert passed is _judge("failure_rate", evidence).passed


def test_odds_of_nought_judge_full_samples_only() -> None:
    evidence = known(("permitted", "pilot", "r3", 19), ("reverted", "pilot", "r3", 19))
    assert _judge("failure_rate", evidence, odds=0).passed
    assert not _judge(
        "failure_rate", more(evidence, ("permitted", "pilot", "r3", 1)), odds=0
    ).passed


def test_a_limit_of_nothing_stops_at_the_first_failure() -> None:
    evidence = known(("permitted", "pilot", "r3", 5), ("lost", "pilot", "r3", 1, "lost.return"))
    assert not _judge("failure_rate", evidence, max="0%").passed


def test_a_counter_that_went_wrong_is_read_to_the_safe_side() -> None:
    evidence = known(("reverted", "pilot", "r3", 4, "health.boot"))
    assert not _judge("failure_rate", evidence).passed


def test_the_finding_carries_its_figures() -> None:
    evidence = known(
        ("permitted", "pilot", "r3", 40), ("reverted", "pilot", "r3", 5, "health.boot"), ("lost", "pilot", "r3", 3, "lost.return"),
    )  # fmt: skip
    found = _judge("failure_rate", evidence)
    assert (found.observed, found.limit, found.sample) == (0.2, 0.05, 40)
    assert (
        "8 of 40 attempts ended badly (20 %), limit 5 %; most often health.boot (5)" in found.text
    )


# --- minimum_sample -----------------------------------------------------------------------------


def test_a_small_ring_is_enough_when_all_of_it_has_had_its_say() -> None:
    evidence = known(
        ("matched", "pilot", "r3", 6), ("permitted", "pilot", "r3", 5), ("confirmed", "pilot", "r3", 3),
        ("declined", "pilot", "r3", 1),
    )  # fmt: skip
    assert not _judge("minimum_sample", evidence).passed
    evidence = more(evidence, ("confirmed", "pilot", "r3", 1), ("reverted", "pilot", "r3", 1))
    found = _judge("minimum_sample", evidence)
    assert found.passed
    assert (found.observed, found.limit) == (4, 4)


def test_at_least_one_device_must_be_confirmed() -> None:
    evidence = known(("matched", "pilot", "r3", 2), ("declined", "pilot", "r3", 2))
    assert not _judge("minimum_sample", evidence).passed


def test_those_who_came_are_enough_when_patience_is_out_and_nothing_is_open() -> None:
    evidence = known(
        ("matched", "pilot", "r3", 6),
        ("permitted", "pilot", "r3", 3),
        ("confirmed", "pilot", "r3", 2),
    )
    opened = RingProgress(state="open", step=0, opened_at=1000)
    late = 1000 + 24 * HOUR
    assert not _judge("minimum_sample", evidence, late, progress=opened).passed
    settled = more(evidence, ("confirmed", "pilot", "r3", 1))
    waits = _judge("minimum_sample", settled, late - 1, progress=opened)
    assert (waits.passed, waits.opens_at) == (False, late)
    assert _judge("minimum_sample", settled, late, progress=opened).passed
    assert not _judge("minimum_sample", settled, 10**9, progress=opened, patience="0s").passed


def test_a_step_that_may_add_nobody_is_not_waited_for() -> None:
    handful = known(("matched", "pilot", "r3", 12))
    assert _judge("minimum_sample", handful, added_bp=500).passed
    many = known(("matched", "pilot", "r3", 400))
    found = _judge("minimum_sample", many, added_bp=500)
    # 20 on average, at least 11 but for one time in 40.
    assert (found.passed, found.limit) == (False, 10)


def test_a_ring_that_was_not_counted_needs_the_whole_number() -> None:
    evidence = known(("permitted", "pilot", "r3", 9), ("confirmed", "pilot", "r3", 9))
    assert not _judge("minimum_sample", evidence, audience_known=False).passed


# --- soak ---------------------------------------------------------------------------------------


def test_a_soak_begins_with_its_opening_or_its_last_permit() -> None:
    opened = RingProgress(state="open", step=0, opened_at=1000)
    evidence = known(("matched", "pilot", "r3", 9), ("permitted", "pilot", "r3", 1), at=2000)
    found = _judge("soak", evidence, 3000, progress=opened, time="2h")
    assert (found.passed, found.opens_at, found.observed) == (False, 2000 + 2 * HOUR, 1000)
    assert _judge("soak", evidence, 2000 + 2 * HOUR, progress=opened, time="2h").passed


def test_stragglers_prolong_a_soak_by_once_over_at_most() -> None:
    opened = RingProgress(state="open", step=0, opened_at=1000)
    evidence = known(
        ("matched", "pilot", "r3", 99), ("permitted", "pilot", "r3", 1), at=1000 + 2 * HOUR
    )
    late = more(evidence, ("permitted", "pilot", "r3", 1), at=1000 + 4 * HOUR - 5)
    found = _judge("soak", late, 1000 + 4 * HOUR - 1, progress=opened, time="2h")
    assert (found.passed, found.opens_at) == (False, 1000 + 4 * HOUR)
    assert _judge("soak", late, 1000 + 4 * HOUR, progress=opened, time="2h").passed


def test_a_ring_in_which_nobody_has_activated_does_not_soak() -> None:
    evidence = known(("matched", "pilot", "r3", 9))
    found = _judge("soak", evidence, 10**9)
    assert (found.passed, found.opens_at) == (False, None)
    assert "nobody has activated" in found.text


def test_permits_of_the_step_before_do_not_soak_the_next() -> None:
    before = {"r3": (40, 40, 40)}
    opened = RingProgress(state="open", step=1, opened_at=1000, before=before)
    evidence = known(
        ("matched", "pilot", "r3", 400),
        ("permitted", "pilot", "r3", 40),
        ("confirmed", "pilot", "r3", 40),
    )
    assert not _judge("soak", evidence, 10**9, progress=opened, added_bp=4_000).passed
    assert _judge(
        "soak", more(evidence, ("permitted", "pilot", "r3", 1)), 10**9, progress=opened
    ).passed


# --- metric -------------------------------------------------------------------------------------


def test_small_counts_stop_when_they_are_gross() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    assert _judge("metric", metrics(quiet, (6, 20.0), (0, 40.0))).passed
    assert not _judge("metric", metrics(quiet, (14, 20.0), (0, 40.0))).passed


def test_too_little_time_or_too_few_devices_are_not_judged() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    gross = metrics(quiet, (900, 9.9), (0, 40.0))
    assert _judge("metric", gross).passed
    assert "judged from 10 device-hours" in _judge("metric", gross).text
    assert not _judge("metric", gross, exposure="9h").passed
    assert _judge("metric", gross, exposure="9h", devices=11).passed
    assert _judge("metric", metrics(quiet, (900, 90.0), (0, 9.0))).passed


def test_errors_that_come_together_weigh_less() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    bad = metrics(quiet, (120, 100.0), (30, 100.0))
    assert not _judge("metric", bad).passed
    assert _judge("metric", bad, clump=5).passed


def test_a_noisy_variant_is_compared_with_itself() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    mixed = metrics(metrics(quiet, (500, 100.0), (50, 10.0), "r3"), (1, 10.0), (10, 100.0), "r4")
    assert _judge("metric", mixed).passed


def test_a_variant_without_control_says_nothing() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    alone = metrics(metrics(quiet, (500, 100.0), (0, 0.0), "r3"), (10, 100.0), (10, 100.0), "r4")
    assert _judge("metric", alone).passed


def test_its_text_gives_both_rates_the_ratio_and_the_odds() -> None:
    text = _judge("metric", metrics(Evidence(), (60, 100.0), (15, 100.0))).text
    assert text.startswith("60 errors in 100.0 device-hours after the update, 15 errors in 100.0")
    assert "4 times, limit 1.5" in text
    assert "halts at 1,000 : 1" in text


def test_a_wider_tolerance_lets_it_pass() -> None:
    quiet = known(("confirmed", "pilot", "r3", 20))
    bad = metrics(quiet, (120, 100.0), (30, 100.0))
    assert not _judge("metric", bad).passed
    assert _judge("metric", bad, ratio=4).passed
