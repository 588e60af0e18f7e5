"""The timeline of an incident: short however many devices there are, in the order of what caused what, and complete."""

import pytest

from tidegate.rollout.incident import DeviceOutcome, Entry
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


def test_offers_and_staged_images_are_told_and_a_way_back_says_whose_they_are() -> None:
    one = DeviceOutcome(
        device="d1", variant="r1", ring="all", state="confirmed", at=60, permitted_at=40,
        offered_at=10, staged_at=20,
    )  # fmt: skip
    found = incident_story.steps([one], "", partial=False, of="back1")
    assert [(line.at, line.who, line.text) for line in found] == [
        (10, "the server", "back1 offered to 1: d1"),
        (20, "device", "back1 staged by 1: d1"),
        (40, "the gate", "back1 permit for 1: d1"),
        (60, "device", "back1 confirmed by 1: d1"),
    ]


def test_within_one_second_both_logs_keep_their_order() -> None:
    def line(text: str, at: int = 9) -> Entry:
        return Entry(at=at, who="olga", text=text)

    decided = [line("create: six go back"), line("fallback: six go back"), line("advance: a")]
    decided += [line("complete: x", 20)]
    written = [
        line("opened", 5),
        line("seen: nothing"),
        line("six go back"),
        line("cause"),
        line("closed", 20),
    ]
    found = [one.text for one in incident_story.woven(decided, written)]
    assert found[:3] == ["opened", "seen: nothing", "create: six go back"]
    assert (
        found.index("seen: nothing")
        < found.index("fallback: six go back")
        < found.index("advance: a")
        < found.index("cause")
    )
    assert found[-2:] == ["complete: x", "closed"]
    assert sorted(found) == sorted(one.text for one in (*decided, *written))
