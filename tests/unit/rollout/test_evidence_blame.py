"""Who is to blame: a region whose night comes first is not, while the others have not had theirs; no part is, when the release is condemned without it."""

import math

import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.settings import MILLION, PRESETS, THETAS_PCT, Harm
from tidegate.rollout.evidence.strata import Profile, divide

CENSUS: dict[Profile, int] = {
    (variant, region, "always"): 4_000 for variant in ("v1", "v2") for region in ("mid", "west")
}


def _decided(
    part: tuple[tuple[str, ...], tuple[str, ...]],
    nats: float,
    whole: float,
    *,
    aged: int = 0,
    harm: Harm | None = None,
) -> Decision:
    """Decide where crashes speak against a part by so many nats at its weight, and against the fleet by `whole` at its own; `aged` others are a day old."""
    book = Book(divide(CENSUS), harm or Harm(), Baseline(failure_ppm={"other": 10_000}))
    scheme, row = book.scheme, book.rows
    guilty = scheme.index[part]
    crash = math.log(
        sum(book.layout.weights) / book.layout.weights[book.layout.streams.index("crash")]
    )
    for stratum, log in ((0, whole), (guilty, nats)):
        won = round((log - scheme.log_weights[stratum] + crash) * MILLION)
        row[stratum][at.RACE : at.RACE + len(THETAS_PCT)] = [won] * len(THETAS_PCT)
    for where, count in ((at.EXPOSED, 400), (at.HEALTHY, 400), (at.ALIVE, aged)):
        row[0][where] = count
    row[guilty][at.EXPOSED] = row[guilty][at.HEALTHY] = 200
    return decide(book, 0)


MID = (("region",), ("mid",))
V2 = (("variant",), ("v2",))
BEYOND = math.log(20_000)


def test_a_region_whose_night_comes_first_halts_all() -> None:
    decision = _decided(MID, BEYOND, 0.0)
    assert decision.blame is not None
    assert (decision.blame.name, decision.blame.stream) == ("region=mid", "crash")
    assert decision.blame.rest_healthy == 200
    assert decision.verdict == "halt"


@pytest.mark.parametrize(("aged", "verdict"), [(19, "halt"), (20, "isolate")])
def test_a_region_leaves_alone_when_the_others_were_well_for_a_day(aged: int, verdict: str) -> None:
    assert _decided(MID, BEYOND, 0.0, aged=aged).verdict == verdict


def test_a_variant_has_no_night_of_its_own() -> None:
    assert _decided(V2, BEYOND, 0.0).verdict == "isolate"


def test_without_soak_gates_nobody_waits_for_a_day() -> None:
    assert _decided(MID, BEYOND, 0.0, harm=PRESETS["emergency"]).verdict == "isolate"


@pytest.mark.parametrize(
    ("whole", "verdict"),
    [(math.log(900), "isolate"), (math.log(2_100), "halt"), (math.log(1_900), "isolate")],
    ids=["not by itself", "by itself, and nobody stands out", "by itself, but one stands out"],
)
def test_a_release_that_is_condemned_without_a_part_is_not_that_parts_fault(
    whole: float, verdict: str
) -> None:
    decision = _decided(MID, BEYOND, whole, aged=100)
    assert decision.verdict == verdict
    assert decision.blame is not None
    assert decision.blame.name == ("region=mid" if verdict == "isolate" else "")
    assert _decided(V2, BEYOND, whole).verdict == "isolate", "hardware differs"
