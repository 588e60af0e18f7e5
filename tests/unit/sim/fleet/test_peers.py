"""The peers' rules on small cases worked by hand."""

import numpy as np
import pytest

from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.catalog import make_policy, peers
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.policy import Orders, Policy
from tidegate.sim.fleet.spec import Fault, FleetSpec, Scenario, WorldSpec

CALM = WorldSpec(failures={"*": 0.0}, silence={"*": 0.0}, drift=0.0, crash_day=0, dark_day=0)


def _begun(name: str, devices: int) -> Policy:
    scenario = Scenario("x", fleet=FleetSpec(devices=devices), world=CALM)
    policy = make_policy(name)
    Play(scenario, policy, name, 1)  # which introduces them
    return policy


def _step(policy: Policy, tick: int, *, failed: object = (), ok: object = ()) -> Orders:
    news = {"failed": np.asarray(failed, np.int64), "ok": np.asarray(ok, np.int64)}
    return policy.step(tick, {kind: idx for kind, idx in news.items() if idx.size})


def test_hawkbit_divides_by_the_whole_group_also_by_devices_never_heard_of() -> None:
    policy = _begun("hawkbit:10/100:error=5:success=80", 1_000)
    group = _step(policy, 0).assign
    assert group.size == 100
    # Five of five polled have failed: 5 of 100 is not over 5 %, as nobody has heard of the other 95.
    assert not _step(policy, 1, failed=group[:5]).stop
    stopped = _step(policy, 2, failed=group[5:6])
    assert stopped.stop == "paused"
    assert "6 of 100" in stopped.why


def test_hawkbit_starts_the_next_group_at_its_success_share_or_when_all_have_ended() -> None:
    policy = _begun("hawkbit:10/100:error=50:success=80", 1_000)
    group = _step(policy, 0).assign
    assert _step(policy, 1, ok=group[:79]).assign.size == 0
    assert _step(policy, 2, ok=group[79:80]).assign.size == 900
    ended = _begun("hawkbit:10/100:error=50:success=80", 1_000)
    group = _step(ended, 0).assign
    # 70 finished and 30 errors: never 80 %, and yet a group that merely ended counts as success.
    assert _step(ended, 1, ok=group[:70], failed=group[70:]).assign.size == 900


def test_a_paused_hawkbit_rollout_lets_its_group_complete() -> None:
    scenario = Scenario(
        "x", fleet=FleetSpec(devices=10_000), world=CALM, faults=(Fault("boot_failure", 0.3),)
    )
    found = Play(scenario, make_policy("hawk80"), "hawk80", 1).run()
    assert found.state == "halted"
    assert found.exposed < 100
    assert 98 <= found.exposed_end <= 100


def test_aws_grows_by_its_factor_and_divides_by_what_has_ended() -> None:
    policy = _begun("aws:2:factor=2:every=60:percent=10:least=20", 10_000)
    given = [_step(policy, tick).assign.size for tick in range(4)]
    # 2 a minute are 30 a tick; after 60 notified 4 a minute, after 120 notified 8.
    assert given == [30, 30, 60, 120]
    everybody = np.arange(10_000)
    assert not _step(policy, 4, failed=everybody[:2], ok=everybody[2:19]).stop
    assert _step(policy, 5, ok=everybody[19:20]).stop == "halted"


def test_aws_refuses_rates_that_the_service_does_not_take() -> None:
    with pytest.raises(ConfigError, match="1 to 1000"):
        make_policy("aws:0.5:factor=2:every=60:percent=10:least=20")


def test_mender_has_nothing_but_times_and_somebody_who_looks_twice_a_day() -> None:
    policy = _begun("mender:1@0/10@2/100@4", 1_000)
    everybody = np.arange(1_000)
    assert _step(policy, 0).assign.size == 10
    assert _step(policy, 7, failed=everybody[:60]).assign.size == 0
    assert _step(policy, 8).assign.size == 90
    assert not _step(policy, 47).stop
    assert _step(policy, 48).stop == "halted"
    unseen = _begun("bigbang", 1_000)
    assert _step(unseen, 0).assign.size == 1_000
    assert not _step(unseen, 48, failed=everybody).stop


def test_people_stop_a_peer_twelve_hours_after_the_harm_is_plain() -> None:
    scenario = Scenario(
        "x", fleet=FleetSpec(devices=10_000), world=CALM, faults=(Fault("brick", 1.0),)
    )
    found = Play(scenario, make_policy("bigbang"), "bigbang", 1).run()
    assert found.stopped_h is not None
    assert 12 < found.stopped_h <= 14
    assert found.harmed_end == found.exposed_end


@pytest.mark.parametrize("name", peers())
def test_every_named_peer_finishes_a_calm_rollout(name: str) -> None:
    scenario = Scenario("x", fleet=FleetSpec(devices=2_000, classes={"always": 1.0}), world=CALM)
    found = Play(scenario, make_policy(name), name, 1).run()
    assert found.state == "completed"
    assert found.exposed_end == 2_000


@pytest.mark.parametrize("name", ["hawk8", "hawkbit:100/10", "aws:x", "mender:1", "aws:2:eror=5"])
def test_a_policy_that_is_not_known_or_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_policy(name)
    assert error.value.code == "config.invalid"
