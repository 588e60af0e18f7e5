"""What is offered again, when and how often."""

from typing import Any

import msgspec
import pytest

from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import presets, retry
from tidegate.rollout.model import Retry
from tidegate.rollout.retry import Ended, rule
from tidegate.rollout.terms import terms_of

NOW = 1_764_000_000
RETRY = Retry(tries=3, backoff_s=60, most_s=600, reasons={"download.hash": 2, "user.declined": 9})


def ended(reason: str, attempt: int = 1, state: str = "failed", ago: int = 0) -> Ended:
    return Ended(state, reason, attempt, NOW - ago, 0)


@pytest.mark.parametrize(
    ("one", "again", "wait_s", "attempt"),
    [
        (ended("download.timeout"), True, 60, 2),
        (ended("download.timeout", ago=59), True, 1, 2),
        (ended("download.timeout", ago=60), True, 0, 2),
        (ended("download.timeout", 2, ago=60), True, 60, 3),
        (ended("download.timeout", 3), False, 0, 3),
        (ended("download.hash", 1), True, 60, 2),
        (ended("download.hash", 2), False, 0, 2),
        (ended("sig.expired"), True, 60, 2),
        (ended("clock.untrusted"), True, 60, 2),
        (ended("activate.inhibited"), False, 0, 1),
        (ended("user.declined", 6, "declined"), True, 600, 7),
        (ended("install.write"), False, 0, 1),
        (ended("health.boot"), False, 0, 1),
        (ended("compat.hardware"), False, 0, 1),
        (ended("lost.start", 1, "lost"), True, 0, 1),
        (ended("lost.finish", 2, "lost"), True, 0, 2),
        (ended("lost.return", 1, "lost"), False, 0, 1),
        (ended("operator.cancelled", 1, "cancelled"), False, 0, 1),
    ],
)
def test_each_reason_has_its_rule(one: Ended, again: bool, wait_s: int, attempt: int) -> None:
    found = rule(RETRY, one, retried=0, offered=100, now=NOW)
    assert (found.again, found.wait_s, found.attempt) == (again, wait_s, attempt)
    assert found.text


def test_the_budget_bounds_further_attempts_but_never_the_first_ten() -> None:
    thrifty = Retry(budget_bp=1_000)
    one = ended("download.dns", ago=3600)
    assert rule(thrifty, one, retried=9, offered=20, now=NOW).again
    spent = rule(thrifty, one, retried=10, offered=20, now=NOW)
    assert not spent.again
    assert spent.text == "no further attempt: this rollout has offered 10 of 10 allowed"
    assert rule(thrifty, one, retried=99, offered=1_000, now=NOW).again


def test_devices_that_failed_together_do_not_come_back_together() -> None:
    pauses = {retry.pause_s(RETRY, 3, row) for row in range(100)}
    assert len(pauses) == 16
    assert min(pauses) == 240
    assert max(pauses) < 360


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"install.write": 2}, '"install.write" is not tried again'),
        ({"health": 2}, "what may be: activate, clock, download"),
        ({"download.nothing": 2}, '"download.nothing" is not tried again'),
        ({"backof": "1m"}, 'did you mean "backoff"'),
        ({"tries": 0}, "retry.tries: attempts in all, 1 to 100"),
        ({"download": True}, "retry.download: attempts in all"),
        ({"backoff": 5}, "retry.backoff"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(table: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        presets.policy_from_dict({"retry": table})
    assert part in caught.value.detail


def test_a_policy_is_read_with_its_presets_words() -> None:
    found = presets.policy_from_dict(
        {"retry": {"tries": 5, "most": "6h", "download.hash": 1}, "deadlines": {"start": "none"}}
    )
    assert found.retry == Retry(tries=5, most_s=6 * 3600, reasons={"download.hash": 1})
    assert (found.deadlines.start_s, found.deadlines.finish_s) == (0, 7 * 86_400)


def test_the_terms_do_not_say_that_a_budget_of_nothing_stops_the_first_ten() -> None:
    policy = msgspec.structs.replace(presets.preset("normal"), retry=Retry(budget_bp=0))
    told = " ".join(one.text for one in terms_of(policy, DeliveryPolicy()))
    assert "further ones: 10, or 0 % of the devices where that is more" in told
