"""Edits of a rollout that has begun: nothing is opened by one, and whatever becomes wider is named."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import cohort, edits, presets
from tidegate.rollout.model import Approval, Policy, RingProgress, RingSpec, Rollout

WHOLE: dict[str, Any] = {
    "preset": "normal",
    "guards": [
        {"type": "evidence", "odds": 1000},
        {"type": "failure_rate", "max": "5%", "sample": 20},
    ],
    "flow": {"in_flight": 100, "first": 8, "per": {"site": 5}},
    "ring": [
        {"name": "pilot", "audience": "group:pilot", "soak": "24h"},
        {
            "name": "fleet",
            "steps": ["1%", "10%", "100%"],
            "gates": [{"type": "approval", "people": 1}],
        },
    ],
}
WAY = DeliveryPolicy(
    activate_window=("Sat 02:00-05:00", "Sun 02:00-05:00"), activate="window", bps_max=50_000
)


def _policy(**changed: Any) -> Policy:
    return presets.policy_from_dict({**WHOLE, **changed})


def _fleet(**changed: Any) -> list[dict[str, Any]]:
    pilot, fleet = WHOLE["ring"]
    return [pilot, {**fleet, **changed}]


def _guards(**changed: Any) -> list[dict[str, Any]]:
    return [{"type": "evidence", "odds": 1000, **changed}, WHOLE["guards"][1]]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"ring": _fleet(steps=["1%", "10%", "50%", "100%"])},
        {"ring": _fleet(steps=["0.5%", "1%", "10%", "100%"])},
        {"ring": _fleet(gates=[{"type": "approval", "people": 2}])},
        {"ring": _fleet(gates=["minimum_sample", {"type": "approval", "people": 1}])},
        {"ring": [{**WHOLE["ring"][0], "soak": "48h"}, WHOLE["ring"][1]]},
        {"guards": _guards(odds=100)},
        {"guards": _guards(failures="0.5%")},
        {"guards": _guards(preset="careful")},
        {"guards": [*WHOLE["guards"], "metric"]},
        {"flow": {**WHOLE["flow"], "in_flight": 10}},
        {"flow": {**WHOLE["flow"], "per": {"site": 2, "attr.line": 1}}},
        {"flow": {**WHOLE["flow"], "holdback": "2%"}, "ring": _fleet()},
        {"priority": -1},
        {"deadlines": {"return": "30m"}},
    ],
)
def test_what_only_narrows_is_wider_in_no_way(changed: dict[str, Any]) -> None:
    assert edits.wider((_policy(), WAY), (_policy(**changed), WAY)) == ()


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"ring": _fleet(steps=["10%", "100%"])}, "begins at 10%, not 1%"),
        ({"ring": _fleet(steps=["1%", "100%"])}, "no step at 10%"),
        ({"ring": _fleet(audience="site = north")}, "another audience"),
        ({"ring": _fleet(gates=["minimum_sample"])}, "gate approval is gone"),
        (
            {"ring": [{**WHOLE["ring"][0], "soak": "1h"}, WHOLE["ring"][1]]},
            "gate soak asks for less",
        ),
        ({"guards": _guards(odds=2000)}, "gate evidence asks for less"),
        ({"guards": _guards(preset="fast")}, "gate evidence asks for less"),
        ({"guards": [{"type": "evidence"}]}, "gate failure_rate is gone"),
        (
            {"guards": [WHOLE["guards"][0], {"type": "failure_rate", "max": "9%", "sample": 20}]},
            "less",
        ),
        ({"flow": {**WHOLE["flow"], "in_flight": "none"}}, "at once: no bound, not 100"),
        ({"flow": {**WHOLE["flow"], "first": 80}}, "before anything is proved: 80"),
        ({"flow": {**WHOLE["flow"], "per": {}}}, "by site: no bound, not 5"),
        ({"priority": 3}, "priority 3"),
        ({"deadlines": {"return": "3h"}}, "silence counts later: return"),
        ({"retry": {"tries": 9}}, "retries"),
    ],
)
def test_whatever_widens_is_named(changed: dict[str, Any], word: str) -> None:
    found = edits.wider((_policy(), WAY), (_policy(**changed), WAY))
    assert len(found) == 1
    assert word in re.sub(r"\s%", "%", found[0])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"activate_window": ()}, "any time"),
        ({"activate_window": ("Mon 02:00-05:00",)}, "other windows"),
        ({"zone": "Europe/Berlin"}, "other windows"),
        ({"activate": "immediate"}, "activation is immediate"),
        ({"bps_max": 0}, "rate no bound"),
        ({"deadline": 1_900_000_000}, "sooner"),
        ({"tries": 9}, "9 tries"),
        ({"offline_permit_s": 60}, "longer"),
        ({"retry_refused": True}, "try it again"),
    ],
)
def test_ways_of_delivery_that_widen_are_named(changed: dict[str, Any], word: str) -> None:
    new = msgspec.structs.replace(WAY, **changed)
    found = edits.wider((_policy(), WAY), (_policy(), new))
    assert len(found) == 1
    assert word in found[0]
    if not {"zone", "activate_window"} & set(changed):
        assert edits.wider((_policy(), new), (_policy(), WAY)) == ()


_SHARES = st.lists(st.integers(1, 10_000), min_size=1, max_size=6, unique=True).map(
    lambda found: tuple(sorted(found))
)


@given(old=_SHARES, new=_SHARES, step=st.integers(0, 5), state=st.sampled_from(["open", "soaking"]))
def test_an_edit_opens_nothing_by_itself(
    old: tuple[int, ...], new: tuple[int, ...], step: int, state: Any
) -> None:
    before, after = (Policy(rings=(RingSpec(name="all", shares=one),)) for one in (old, new))
    rings = (RingProgress(state=state, step=min(step, len(old) - 1), opened_at=7),)
    was = _share(before, rings)
    if new[0] > was:
        with pytest.raises(RequestError, match="its steps begin there or below"):
            edits.refitted(before, after, rings)
        return
    found = edits.refitted(before, after, rings)
    is_now = _share(after, found)
    assert is_now == max(one for one in new if one <= was)
    assert found[0].opened_at == 7


def _share(policy: Policy, rings: tuple[RingProgress, ...]) -> int:
    rollout = Rollout(
        name="x", release_sha256="", state="active", generation=1, policy=policy, rings=rings
    )
    return cohort.share_of(rollout, 0)


def test_an_approval_stays_with_the_steps_that_it_was_given_for() -> None:
    mine = (
        Approval(ring="pilot", step=0, by="pia", at=1),
        Approval(ring="fleet", step=1, by="pia", at=2),
    )
    other = _policy(ring=_fleet(steps=["1%", "5%", "10%", "100%"]))
    assert edits.kept(_policy(), other, mine) == mine[:1]
    assert edits.kept(_policy(), _policy(priority=-1), mine) == mine


def test_rings_that_have_begun_keep_their_names_and_order() -> None:
    pilot, fleet = WHOLE["ring"]
    for rings in ([fleet, pilot], [pilot], [pilot, {**fleet, "name": "all"}]):
        with pytest.raises(RequestError, match="keep their names"):
            edits.refitted(_policy(), _policy(ring=rings), ())
