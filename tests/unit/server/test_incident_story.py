"""The timeline of an incident: short however many devices there are, in the order of what caused what, and complete."""

import pytest

from tidegate.rollout.incident import DeviceOutcome
from tidegate.rollout.model import Evidence
from tidegate.server import incident_story


def _devices(count: int, *, apart_s: int = 7) -> list[DeviceOutcome]:
    return [
        DeviceOutcome(
            device=f"d{n:06}",
            variant=f"r{n % 2}",
            ring="all",
            state="confirmed" if n % 3 else "reverted",
            at=1_000 + apart_s * n + 60,
            permitted_at=1_000 + apart_s * n,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 20, 21, 12_000])
def test_a_timeline_of_many_devices_is_short_and_leaves_no_permit_out(count: int) -> None:
    lines = incident_story.steps(_devices(count), "", partial=False)
    permits = [one.text for one in lines if one.text.startswith("permit")]
    assert sum(int(one.split()[2].rstrip(":").replace(",", "")) for one in permits) == count
    assert len(lines) <= 50
    assert all(len(one.text) < 200 for one in lines)
    if 0 < count <= 20:
        assert len(permits) == count


def test_a_timeline_of_one_moment_and_of_one_variant_is_told_as_well() -> None:
    one_moment = incident_story.steps(_devices(500, apart_s=0), "", partial=False)
    assert [one.at for one in one_moment] == [1_000, 1_060]
    mine = incident_story.steps(_devices(8), "r1", partial=True)
    named = [one.text for one in mine if one.text.startswith("permit")]
    assert len(named) == 4
    assert all("of the devices that this report looks at" in one for one in named)


def test_those_that_ended_badly_are_named_first_and_then_counted() -> None:
    found = incident_story.outcomes(_devices(90), "", Evidence(), partial=False)
    assert len(found) == 21
    assert found[-1].text == "and 10 more devices up to here"
