"""What befalls everybody, or one place, is not the release's fault; and fleets too small for proof are told so."""

import pytest

from tidegate.rollout.evidence.baseline import (
    Baseline,
    devices_needed,
    from_history,
    least_visible_ppm,
)
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

EU: Profile = ("v1", "eu", "always")
US: Profile = ("v1", "us", "always")
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})


def watch_of(census: dict[Profile, int], preset: str = "fast") -> Watch:
    watch = Watch(divide(census), PRESETS[preset], BASE, 0)
    for profile, devices in census.items():
        watch.desk.control(profile, devices)
    return watch


def steps(watch: Watch, until: int) -> Decision:
    """Let time go on to a multiple of a tick."""
    decision = watch.step(watch.desk.now)
    while watch.desk.now < until:
        watch.desk.advance(watch.desk.now + 900)
        decision = watch.step(watch.desk.now)
        if decision.verdict != "go":
            break
    return decision


def test_an_outage_of_a_region_condemns_nobody() -> None:
    watch = watch_of({EU: 1_000, US: 1_000})
    watch.desk.permit(EU, 100)
    watch.desk.permit(US, 100)
    watch.desk.vanished(0, "eu", 150, 60)
    watch.desk.vanished(0, "us", 150, 0)
    watch.desk.confirmed(EU, 0, 60)
    watch.desk.confirmed(US, 0, 100)
    assert steps(watch, 2 * HOUR_S).verdict == "go"


def test_the_same_silence_without_an_outage_halts() -> None:
    watch = watch_of({EU: 1_000, US: 1_000})
    watch.desk.permit(EU, 100)
    watch.desk.vanished(0, "eu", 150, 0)
    watch.desk.confirmed(EU, 0, 60)
    assert steps(watch, 2 * HOUR_S).verdict == "halt"


def test_an_outage_that_darkens_both_sides_alike_condemns_nobody() -> None:
    watch = watch_of({EU: 2_000})
    watch.desk.permit(EU, 400)
    watch.desk.confirmed(EU, 0, 400)
    steps(watch, 6 * HOUR_S)
    watch.desk.late("dark", EU, 0, 60, heard_at=HOUR_S)
    watch.desk.control_late("dark", EU, 240)
    assert steps(watch, 7 * HOUR_S).verdict == "go"
    watch.desk.late("dark", EU, 0, 200, heard_at=HOUR_S)
    assert steps(watch, 8 * HOUR_S).verdict == "halt"


def test_one_bad_site_condemns_nobody() -> None:
    watch = watch_of({EU: 5_000})
    watch.desk.permit(EU, 100)
    watch.desk.permit(EU, 60, "mill")
    watch.desk.confirmed(EU, 0, 100)
    watch.desk.failed(EU, 0, 60, "mill")
    assert steps(watch, 2 * HOUR_S).verdict == "go"


def test_failures_at_many_sites_do() -> None:
    watch = watch_of({EU: 5_000})
    for site in range(60):
        watch.desk.permit(EU, 2, f"site-{site}")
        watch.desk.failed(EU, 0, 1, f"site-{site}")
        watch.desk.confirmed(EU, 0, 1, f"site-{site}")
    assert steps(watch, 2 * HOUR_S).verdict == "halt"


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_handful_of_devices_is_updated_one_feedback_at_a_time(size: int) -> None:
    watch = watch_of({EU: size}, "normal")
    decision = watch.step(0)
    left, exposed, out = size, 0, 0
    while left and watch.desk.now < 30 * DAY_S:
        granted = min(left, sum(decision.permits.values()))
        out = max(out, granted)
        if granted:
            watch.desk.permit(EU, granted)
            left, exposed = left - granted, exposed + granted
        at = watch.desk.now
        decision = steps(watch, at + 900)
        watch.desk.confirmed(EU, at, granted)
        decision = steps(watch, at + 2 * HOUR_S)
        for gate, spec in enumerate(watch.book.harm.soaks):
            if watch.desk.now >= spec.age_s:
                for granted_at in range(0, watch.desk.now, 900):
                    watch.desk.heard(EU, granted_at, gate, size)
    assert decision.verdict == "go"
    assert exposed == size
    assert out <= 12


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_handful_that_bricks_is_left_to_a_person(size: int) -> None:
    watch = watch_of({EU: size}, "normal")
    exposed, decision = 0, watch.step(0)
    while decision.verdict == "go" and watch.desk.now < 4 * DAY_S:
        granted = sum(decision.permits.values())
        watch.desk.permit(EU, granted)
        exposed += granted
        decision = steps(watch, watch.desk.now + 900)
    assert exposed <= 2
    assert decision.verdict == "halt" or "a person decides" in decision.limits or size == 1


def test_small_fleets_are_told_what_cannot_be_proved() -> None:
    harm = PRESETS["normal"]
    assert least_visible_ppm(harm, 30_000, 1) is None
    small = least_visible_ppm(harm, 30_000, 20)
    large = least_visible_ppm(harm, 30_000, 20_000)
    assert small is not None
    assert large is not None
    assert small > 300_000
    assert large < 60_000
    assert devices_needed(harm, 30_000, 30_000) is None
    assert devices_needed(harm, 30_000, 1_000_000) in {3, 4}


def test_everybody_offline_opens_nothing_and_blames_nobody() -> None:
    watch = watch_of({EU: 100})
    decision = steps(watch, 10 * DAY_S)
    assert decision.verdict == "go"
    assert sum(decision.permits.values()) <= 8
    assert decision.log_odds == 0.0


def test_baselines_are_drawn_to_the_mean_and_raised_by_what_is_not_known() -> None:
    past = [{"v1": (100, 10_000), "v2": (1, 40)}] * 3
    found = from_history(past)
    assert 10_000 < found.failure("v1") < 13_000
    assert found.failure("v1") < found.failure("v2") < 30_000
    assert found.failure("v1") < found.failure("new")
    assert not found.assumed


def test_drift_from_release_to_release_raises_a_baseline() -> None:
    steady = from_history([{"v1": (100, 10_000)}] * 4)
    wild = from_history([{"v1": (one, 10_000)} for one in (40, 160, 60, 140)])
    assert wild.failure("v1") > steady.failure("v1")


def test_without_history_the_baseline_is_assumed_and_says_so() -> None:
    found = from_history([])
    assert found.assumed
    assert found.failure("v1") == 20_000
    assert found.silence("always") == 10_000
    assert from_history([{"v1": (0, 0)}]).assumed


@pytest.mark.parametrize(
    ("klass", "verdict"), [("weekly", "go"), ("monthly", "go"), ("daily", "halt")]
)
def test_crashes_of_devices_that_come_once_a_week_are_no_race(klass: str, verdict: str) -> None:
    """Those not updated come on other days: all that is heard for days, and would befall anybody, is of updated ones."""
    like: Profile = ("v1", "eu", klass)
    watch = watch_of({like: 20_000})
    watch.desk.permit(like, 15_000)
    watch.desk.confirmed(like, 0, 15_000)
    steps(watch, 2 * HOUR_S)
    decision = steps(watch, 3 * HOUR_S)
    for _ in range(4 * 24):
        watch.desk.advance(watch.desk.now + 900)
        watch.desk.late("crash", like, 0, 1)
        decision = watch.step(watch.desk.now)
        if decision.verdict != "go":
            break
    assert decision.verdict == verdict
