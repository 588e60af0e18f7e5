"""The contract in force: a device may ask for more than its release, never for less."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tidegate.agent.checkup.contract import HealthPolicy, in_force
from tidegate.core.release import HealthCheck, HealthContract

CORE = HealthCheck(name="core", kind="services", settings={"units": ["app"]})
EXTRA = HealthCheck(name="cloud", kind="tcp", settings={}, optional=True)
SIGNED = HealthContract(
    warmup_s=60, timeout_s=300, interval_s=5, error_rate_per_hour=10, checks=(CORE, EXTRA)
)


def test_without_a_policy_the_contract_is_what_was_signed() -> None:
    found = in_force(SIGNED, HealthPolicy())
    assert (found.contract, found.own, found.dropped, found.kept) == (SIGNED, (), (), ())


def test_a_check_that_the_release_does_not_call_optional_stays() -> None:
    found = in_force(SIGNED, HealthPolicy(drop=("core", "cloud", "nothing")))
    assert found.contract.checks == (CORE,)
    assert (found.dropped, found.kept) == (("cloud",), ("core",))


def test_a_longer_warm_up_leaves_as_much_time_to_come_up() -> None:
    longer = in_force(SIGNED, HealthPolicy(warmup_s=100)).contract
    assert (longer.warmup_s, longer.timeout_s) == (100, 340)
    shorter = in_force(SIGNED, HealthPolicy(warmup_s=10)).contract
    assert (shorter.warmup_s, shorter.timeout_s) == (60, 300)


def test_the_lower_error_rate_holds() -> None:
    assert in_force(SIGNED, HealthPolicy(error_rate_per_hour=3)).contract.error_rate_per_hour == 3
    assert in_force(SIGNED, HealthPolicy(error_rate_per_hour=30)).contract.error_rate_per_hour == 10
    none = msgspec.structs.replace(SIGNED, error_rate_per_hour=None)
    assert in_force(none, HealthPolicy(error_rate_per_hour=3)).contract.error_rate_per_hour == 3


def test_a_check_of_the_device_never_stands_for_one_of_the_release() -> None:
    mine = HealthCheck(name="core", kind="command", settings={"run": ["true"]})
    found = in_force(SIGNED, HealthPolicy(checks=(mine,)))
    assert found.contract.checks == (CORE, EXTRA)
    assert [one.name for one in found.own] == ["device.core"]


def test_the_word_optional_is_signed_only_where_it_was_said() -> None:
    assert msgspec.json.decode(msgspec.json.encode(CORE)) == {
        "name": "core",
        "kind": "services",
        "settings": {"units": ["app"]},
    }
    assert msgspec.json.decode(msgspec.json.encode(EXTRA))["optional"] is True


@given(
    st.builds(
        HealthPolicy,
        warmup_s=st.integers(0, 10_000),
        error_rate_per_hour=st.none() | st.integers(0, 100),
        drop=st.sets(st.sampled_from(("core", "cloud", "x"))).map(tuple),
    )
)
def test_no_policy_is_laxer_than_the_release(policy: HealthPolicy) -> None:
    found = in_force(SIGNED, policy).contract
    assert found.warmup_s >= SIGNED.warmup_s
    assert found.timeout_s - found.warmup_s == SIGNED.timeout_s - SIGNED.warmup_s
    assert found.error_rate_per_hour is not None
    assert found.error_rate_per_hour <= 10
    assert CORE in found.checks
