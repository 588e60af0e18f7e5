"""What the simulator knows is counted by devices, whatever they tried how often."""

from tidegate.sim.report import DeviceTruth, digest, outcomes, running


def _truth(name: str, counter: int, *trials: tuple[int, int, str]) -> DeviceTruth:
    return DeviceTruth(
        device_id=name,
        variant="gw1-r3",
        stage="fleet",
        counter=counter,
        sha256="00",
        version="1",
        primary_counter=counter,
        dead=False,
        boots=1,
        failed_boots=0,
        torn_boots=0,
        cuts=(),
        trials=trials,
    )


FLEET = [
    _truth("a", 2, (2, 1, "confirmed")),
    _truth("b", 2, (2, 1, "reverted"), (2, 1, "confirmed")),
    _truth("c", 1, (2, 1, "reverted")),
    _truth("d", 1, (2, 1, "open")),
    _truth("e", 1, (2, 1, "confirmed"), (1, 2, "confirmed")),
    _truth("f", 1),
]


def test_a_device_counts_once_by_the_best_of_its_trials() -> None:
    found = outcomes(FLEET, 2)
    counted = (found.tried, found.confirmed, found.reverted, found.open, found.fallen_back)
    assert counted == (5, 3, 1, 1, 1)


def test_a_way_back_is_no_update_to_the_older_release() -> None:
    assert outcomes(FLEET, 1).tried == 0


def test_the_fleet_is_counted_by_what_really_runs() -> None:
    assert running(FLEET) == {1: 4, 2: 2}


def test_a_digest_tells_stories_apart() -> None:
    assert digest(FLEET) == digest(list(FLEET))
    assert digest(FLEET) != digest(FLEET[1:])
    assert digest(FLEET, [b"x"]) != digest(FLEET)
