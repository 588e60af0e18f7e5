"""What befalls many sites at once is no choice among sites: one of each, or all of them, whichever speaks less. And a site is one voice a day to the rate."""

import itertools
import math
import random
from collections.abc import Iterator

import msgspec
import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.facts import Late, Shaken, Shock
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, MILLION, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Packed, Watch

EU: Profile = ("v1", "eu", "always")
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})
RACES = slice(at.RACE + 5, at.RACE + 10)


def watch_of(devices: int) -> Watch:
    watch = Watch(divide({EU: devices}), PRESETS["fast"], BASE, 0)
    watch.desk.control(EU, devices)
    return watch


def pass_(watch: Watch, until: int) -> None:
    while watch.desk.now < until:
        watch.desk.advance(watch.desk.now + 900)
        watch.step(watch.desk.now)


def updated(watch: Watch, alone: int, sites: dict[str, int]) -> None:
    """Update so many devices that stand alone, and so many at each site; all are well, and under watch six hours later."""
    watch.desk.permit(EU, alone)
    watch.desk.confirmed(EU, 0, alone)
    for site, count in sites.items():
        watch.desk.permit(EU, count, site)
        watch.desk.confirmed(EU, 0, count, site)
    pass_(watch, 6 * HOUR_S)


def races(watch: Watch) -> list[int]:
    watch.book.settle()
    return watch.book.rows[0][RACES]


def dark(watch: Watch, site: str, updated_ones: int, others: int) -> None:
    if updated_ones:
        watch.desk.late("dark", EU, 0, updated_ones, site, heard_at=0)
    if others:
        watch.desk.control_late("dark", EU, others, site)


def test_a_region_that_falls_silent_condemns_nobody_though_sites_were_updated_last() -> None:
    watch = watch_of(1_000)
    updated(watch, 450, {f"site-{one}": 1 for one in range(10)})
    dark(watch, "", 450, 50)
    for one in range(50):
        dark(watch, f"site-{one}", 1 if one < 10 else 0, 9 if one < 10 else 10)
    pass_(watch, 7 * HOUR_S)
    assert max(races(watch)) < 0
    assert watch.step(watch.desk.now).verdict == "go"


def test_a_release_that_darkens_what_it_reached_at_many_sites_is_halted_all_the_same() -> None:
    watch = watch_of(1_000)
    updated(watch, 0, {f"site-{one}": 3 for one in range(40)})
    for one in range(40):
        dark(watch, f"site-{one}", 3, 0)
    pass_(watch, 7 * HOUR_S)
    assert max(races(watch)) > 40 * math.log(2) * MILLION
    assert watch.step(watch.desk.now).verdict == "halt"


def test_two_sites_are_no_region_and_pay_one_device_each() -> None:
    alone, two = watch_of(1_000), watch_of(1_000)
    for watch, sites in ((alone, ("a", "b")), (two, ("a", "b"))):
        updated(watch, 100, dict.fromkeys(sites, 5))
    for site in ("a", "b"):
        dark(alone, site, 1, 0)
        dark(two, site, 5, 0)
    for watch in (alone, two):
        pass_(watch, 7 * HOUR_S)
    assert races(alone) == races(two)


def test_the_lesser_count_is_believed_for_each_alternative_by_itself() -> None:
    watch = watch_of(1_000)
    shaken: Shaken = (0, 100, 400, 3, 1, 6, 24)
    watch.book.fold(Shock(at=0, kind="dark", shaken=(shaken,)))
    found = races(watch)

    def late(won: int, lost: int) -> list[int]:
        fresh = watch_of(1_000)
        for count, one in ((won, True), (lost, False)):
            risks = ((0, 100, 400),)
            fact = Late(at=0, profile=EU, kind="dark", updated=one, count=count, risks=risks)
            fresh.book.fold(fact)
        return races(fresh)

    few, many = late(3, 1), late(6, 24)
    assert found == [min(pair) for pair in zip(few, many, strict=True)]
    assert few != many


def _region(rng: random.Random, share: float) -> tuple[int, int, int, int, int, int]:
    """Strike a region whose sites were updated less than who stands alone: each device with the same chance. Returns risk sets and both counts."""
    sites = [[one < rng.randint(0, 1) for one in range(rng.randint(2, 8))] for _ in range(12)]
    lone = [rng.random() < 0.8 for _ in range(40)]
    at_risk = list(itertools.chain(lone, *sites))
    every, drawn = [], []
    for one in lone:
        if rng.random() < share:
            every.append(one)
            drawn.append(one)
    for site in sites:
        struck = [one for one in site if rng.random() < share]
        every += struck
        drawn += [rng.choice(struck)] if struck else []
    return (
        sum(at_risk),
        len(at_risk) - sum(at_risk),
        sum(drawn),
        len(drawn) - sum(drawn),
        sum(every),
        len(every) - sum(every),
    )


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_region_struck_by_chance_has_a_mean_worth_of_one_at_most(share: float) -> None:
    """The bet's own claim: what is believed of a shock that takes every device with the same chance pays no more than its stake, on average."""
    rng = random.Random(7)
    worth: list[list[float]] = []
    for _ in range(1_500):
        found = _region(rng, share)
        watch = watch_of(200)
        watch.book.fold(Shock(at=0, kind="dark", shaken=((0, *found),)))
        worth.append([math.exp(one / MILLION) for one in races(watch)])
    for column in zip(*worth, strict=True):
        assert sum(column) / len(column) < 1.0


def _seen(watch: Watch) -> int:
    watch.book.settle()
    return watch.book.rows[0][at.SEEN + 1]


def _power_cut(watch: Watch, site: str, hours: int) -> Iterator[int]:
    """Let one updated device an hour go dark, as of devices that come a few hours a day; give what counts against the rate."""
    for _ in range(hours):
        dark(watch, site, 1, 0)
        pass_(watch, watch.desk.now + HOUR_S)
        yield _seen(watch)


def test_a_site_without_power_speaks_once_a_day_against_the_rate() -> None:
    watch = watch_of(300)
    updated(watch, 20, {"mill": 20})
    assert list(_power_cut(watch, "mill", 6)) == [1] * 6
    pass_(watch, watch.desk.now + DAY_S)
    assert next(_power_cut(watch, "mill", 1)) == 2


def test_devices_that_stand_alone_speak_once_an_hour_as_before() -> None:
    watch = watch_of(300)
    updated(watch, 20, {"mill": 20})
    assert list(_power_cut(watch, "", 4)) == [1, 2, 3, 4]


def test_who_spoke_is_stored_and_a_book_of_before_knows_of_nobody() -> None:
    watch = watch_of(300)
    updated(watch, 20, {"mill": 20})
    assert next(_power_cut(watch, "mill", 1)) == 1
    packed = msgspec.json.decode(msgspec.json.encode(watch.pack()), type=Packed)
    again = Watch.unpack(packed, watch.book.harm, watch.book.baseline)
    assert next(_power_cut(again, "mill", 1)) == 1
