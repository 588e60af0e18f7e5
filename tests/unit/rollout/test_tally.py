"""What each outcome does to the counters, and the sums that gates look at."""

import pytest
from tests.unit.rollout.stage import known, metrics, more

from tidegate.rollout import tally as sums
from tidegate.rollout.model import Evidence, Exposure, Tally


@pytest.mark.parametrize(
    ("what", "reason", "expected"),
    [
        ("matched", "", Tally(audience=3)),
        ("offered", "", Tally(offered=3)),
        ("permitted", "", Tally(exposed=3, last_permit_at=9)),
        ("confirmed", "", Tally(confirmed=3, last_confirmed_at=9)),
        ("reverted", "health.boot", Tally(reverted=3, reasons={"health.boot": 3})),
        ("failed_after", "activate.bootloader", Tally(failed_after=3, reasons={"activate.bootloader": 3})),
        ("failed_before", "install.write", Tally(failed_before=3, install=3, reasons={"install.write": 3})),
        ("failed_before", "download.slow", Tally(failed_before=3, transfer=3, reasons={"download.slow": 3})),
        ("failed_before", "compat.floor", Tally(failed_before=3, reasons={"compat.floor": 3})),
        ("declined", "user.declined", Tally(declined=3, reasons={"user.declined": 3})),
        ("lost", "lost.return", Tally(lost=3, reasons={"lost.return": 3})),
    ],
)  # fmt: skip
def test_an_outcome_counts_in_its_place(what: sums.What, reason: str, expected: Tally) -> None:
    folded = known((what, "pilot", "r3", 3, reason), at=9)
    assert {("pilot", "r3"): expected} == folded.tallies
    assert folded.position == 1


def test_who_was_lost_and_returns_is_confirmed_and_no_longer_lost() -> None:
    folded = known(("permitted", "a", "r3", 2), ("lost", "a", "r3", 2), ("returned", "a", "r3", 1))
    tally = sums.total(folded)
    assert (tally.exposed, tally.lost, tally.confirmed, tally.pending) == (2, 1, 1, 0)


def test_who_fails_after_confirming_is_harmed_and_no_longer_confirmed() -> None:
    folded = known(("permitted", "a", "r3", 4), ("confirmed", "a", "r3", 4))
    folded = more(folded, ("reverted_late", "a", "r3", 1), ("lost_late", "a", "r3", 1))
    tally = sums.total(folded)
    assert (tally.confirmed, tally.reverted, tally.lost, tally.harmed) == (2, 1, 1, 2)
    assert tally.attempts == 4


def test_a_refund_takes_the_attempt_back() -> None:
    tally = sums.total(known(("permitted", "a", "r3", 4), ("refunded", "a", "r3", 1)))
    assert (tally.exposed, tally.attempts, tally.pending) == (3, 3, 3)


def test_sums_are_over_the_rings_and_variants_named() -> None:
    folded = known(
        ("confirmed", "a", "r3", 1), ("confirmed", "a", "r4", 2), ("confirmed", "b", "r3", 4),
        ("lost", "b", "r4", 8, "lost.return"), ("lost", "a", "r4", 1, "lost.return"), at=50,
    )  # fmt: skip
    assert sums.total(folded).confirmed == 7
    assert sums.total(folded, rings={"a"}).confirmed == 3
    assert sums.total(folded, variants={"r3"}).confirmed == 5
    assert sums.total(folded, rings={"b"}, variants={"r4"}) == Tally(
        lost=8, reasons={"lost.return": 8}
    )
    assert {"lost.return": 9} == sums.total(folded).reasons
    assert sums.total(folded).last_confirmed_at == 50
    assert sums.total(Evidence()) == Tally()


def test_a_part_of_the_evidence_keeps_the_metrics_of_its_variants() -> None:
    folded = metrics(
        known(("confirmed", "a", "r3", 1), ("confirmed", "b", "r4", 1)), (1, 2.0), (3, 4.0)
    )
    assert sums.variants_of(folded) == ("r3", "r4")
    part = sums.only(folded, rings={"a"}, variants={"r3"})
    assert list(part.tallies) == [("a", "r3")]
    assert part.updated == {"r3": Exposure(errors=1, device_s=7200, devices=10)}
    assert sums.only(folded, variants={"r4"}).control == {}
    assert sums.exposure(folded.control) == Exposure(errors=3, device_s=14_400, devices=10)
    assert sums.exposure(folded.control, {"r4"}) == Exposure()
