"""What the failed have in common: exact, corrected for looks, the hardware variant first, and nothing found where there is nothing."""

import math
from fractions import Fraction
from random import Random

import pytest

from tidegate.rollout.contrast import ROWS_MAX, Counts


def _exact(bad: int, count: int, every_bad: int, every: int) -> Fraction:
    ways = sum(
        math.comb(count, hit) * math.comb(every - count, every_bad - hit)
        for hit in range(bad, min(count, every_bad) + 1)
    )
    return Fraction(ways, math.comb(every, every_bad))


def test_a_bad_variant_is_found_with_the_exact_odds_over_the_looks() -> None:
    counts = Counts()
    counts.add({"variant": "r3"}, bad=False, devices=15)
    counts.add({"variant": "r7"}, bad=True, devices=5)
    table = counts.table()
    (found,) = table.rows
    assert (found.label, found.bad, found.count) == ("variant = r7", 5, 5)
    assert (found.other_bad, found.other_count) == (0, 15)
    # C(20, 5) = 15,504 to 1. Fifteen of twenty devices could at most have shown 1 in 5: no look.
    assert table.looks == 1
    assert found.odds == float(f"{15_504:.3g}")


@pytest.mark.parametrize(("bad", "count", "every_bad", "every"), [
    (4, 6, 5, 40), (30, 60, 40, 400), (9, 10, 9, 10_000), (400, 500, 600, 5_000),
])  # fmt: skip
def test_the_chance_is_fishers(bad: int, count: int, every_bad: int, every: int) -> None:
    counts = Counts()
    counts.add({"a": "x"}, bad=True, devices=bad)
    counts.add({"a": "x"}, bad=False, devices=count - bad)
    counts.add({"a": "y"}, bad=True, devices=every_bad - bad)
    counts.add({"a": "y"}, bad=False, devices=every - count - every_bad + bad)
    table = counts.table()
    assert table.rows[0].terms == (("a", "x"),)
    odds = float(min(Fraction(10**9), 1 / _exact(bad, count, every_bad, every) / table.looks))
    assert table.rows[0].odds == pytest.approx(odds, rel=0.006)


def test_a_pair_is_shown_where_neither_half_explains_it() -> None:
    counts = Counts()
    for variant in ("r3", "r7"):
        for modem in ("old", "new"):
            bad = variant == "r7" and modem == "old"
            counts.add({"variant": variant, "modem": modem}, bad=bad, devices=20)
    first, *others = counts.table().rows
    assert first.label == "modem = old and variant = r7"
    assert (first.bad, first.count, first.other_bad) == (20, 20, 0)
    assert {one.label for one in others} == {"variant = r7", "modem = old"}


def test_a_pair_that_is_only_another_name_for_its_half_is_not_shown() -> None:
    counts = Counts()
    counts.add({"variant": "r7", "region": "north"}, bad=True, devices=10)
    counts.add({"variant": "r3", "region": "north"}, bad=False, devices=40)
    counts.add({"variant": "r3", "region": "south"}, bad=False, devices=40)
    labels = [one.label for one in counts.table().rows]
    assert labels == ["variant = r7", "region = north"]


def test_values_of_the_same_devices_are_one_row_and_the_variant_leads() -> None:
    counts = Counts()
    counts.add({"variant": "r7", "board.modem": "EG25", "antenna": "b"}, bad=True, devices=8)
    counts.add({"variant": "r3", "board.modem": "SIM7", "antenna": "a"}, bad=False, devices=30)
    (found,) = counts.table().rows
    assert found.terms == (("variant", "r7"),)
    assert found.same == (("antenna", "b"), ("board.modem", "EG25"))


def test_what_all_have_and_what_names_devices_is_left_out() -> None:
    counts = Counts()
    for number in range(1_000):
        counts.add({"serial": f"s{number}", "all": "x", "a": str(number % 2)}, bad=number < 100)
    table = counts.table()
    assert table.left_out == ("serial",)
    assert table.rows == ()
    assert table.looks == 2
    assert Counts().table().rows == ()


def test_values_that_could_never_show_anything_are_no_looks() -> None:
    counts = Counts()
    for number in range(60):
        counts.add({"variant": "r3", "site": f"site{number}"}, bad=False)
    counts.add({"variant": "r7", "site": "site1"}, bad=True, devices=4)
    table = counts.table()
    assert table.rows[0].terms == (("variant", "r7"),)
    # sixty sites of one device each: with four failures of sixty-four, one device is 1 in 16 at the most
    assert table.looks <= 4


def test_where_failures_do_not_care_little_is_found() -> None:
    found = 0
    for seed in range(200):
        random = Random(seed)
        counts = Counts()
        for _ in range(300):
            attributes = {f"a{name}": random.choice("xyz") for name in range(6)}
            counts.add(attributes, bad=random.random() < 0.1)
        found += bool(counts.table().rows)
    # each table claims at most 1 in 10 by luck; 200 of them pass 33 with a chance below 1 in 1,000
    assert found <= 33


def test_one_device_that_invents_attributes_without_end_changes_nothing() -> None:
    counts = Counts(("variant",))
    counts.add({"variant": "r3"}, bad=False, devices=50)
    counts.add({"variant": "r7"}, bad=True, devices=9)
    counts.add({"variant": "r7", **{f"z{n}": "x" * 10_000 for n in range(500)}}, bad=True)
    table = counts.table()
    assert table.rows[0].terms == (("variant", "r7"),)
    assert len(table.attributes) <= 24
    assert len(table.rows) <= ROWS_MAX
    assert all(len(value) <= 80 for one in table.rows for _, value in one.terms)
