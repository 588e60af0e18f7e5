"""A part of the fleet with odds against it gets few permits; where amber has taken all, one an hour, until it is isolated or goes on."""

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import divide
from tidegate.rollout.evidence.watch import Watch

NAMES = ("variant", "region", "class", "site_kind")
SHOP, PLANT = ("v1", "west", "always", "shop"), ("v1", "west", "always", "plant")
TICK_S = 900


def _pass(watch: Watch, now: int, ticks: int) -> int:
    """Let time go by, tick by tick: a desk that nobody asks for longer believes that the server was down."""
    for _ in range(ticks):
        now += TICK_S
        watch.step(now)
    return now


def _at_amber(amber_pct: int = 60) -> tuple[Watch, int, Decision]:
    """Let shops fail until amber has taken all of their permits and nobody is to blame yet."""
    scheme = divide({SHOP: 4_000, PLANT: 16_000}, NAMES)
    watch = Watch(scheme, Harm(amber_pct=amber_pct), Baseline(failure_ppm={"v1": 10_000}), 0)
    now = 0
    for _ in range(60):
        now += TICK_S
        watch.desk.advance(now)
        watch.desk.permit(PLANT, 8)
        watch.desk.confirmed(PLANT, now, 8)
        watch.step(now)
    for _ in range(12):
        now = _pass(watch, now, 7) + TICK_S
        watch.desk.advance(now)
        watch.desk.permit(SHOP, 2)
        watch.desk.failed(SHOP, now, 1)
        watch.desk.confirmed(SHOP, now, 1)
        decision = watch.step(now)
        shop = scheme.index[(("site_kind",), ("shop",))]
        if decision.verdict != "go":
            break
        if decision.caps.get(shop) == 0:
            return watch, now, decision
    raise AssertionError("never at amber")


def test_a_part_at_amber_gets_one_permit_an_hour_and_none_while_one_is_out() -> None:
    watch, now, _ = _at_amber(amber_pct=1)
    shop = watch.book.scheme.index[(("site_kind",), ("shop",))]
    now = _pass(watch, now, 8)  # what is out has answered
    probes = []
    for _ in range(8):
        now += TICK_S
        decision = watch.step(now)
        probes.append(decision.caps[shop])
    assert sum(probes) == 2
    watch.desk.permit(SHOP, 1)
    for _ in range(4):
        now += TICK_S
        assert watch.step(now).caps[shop] == 0


def test_the_question_ends_when_probes_are_well() -> None:
    watch, now, _ = _at_amber()
    shop = watch.book.scheme.index[(("site_kind",), ("shop",))]
    for _ in range(400):
        now += TICK_S
        watch.desk.advance(now)
        decision = watch.step(now)
        if shop not in decision.caps:
            return
        if decision.caps[shop]:
            watch.desk.permit(SHOP, decision.caps[shop])
            watch.desk.confirmed(SHOP, now, decision.caps[shop])
    raise AssertionError("held for ever")


def test_a_part_with_odds_against_it_gets_what_its_own_outcomes_allow_and_others_what_theirs_do() -> (
    None
):
    watch, now, _ = _at_amber()
    shop = watch.book.scheme.index[(("site_kind",), ("shop",))]
    now = _pass(watch, now, 8)
    for _ in range(8):
        now += TICK_S
        decision = watch.step(now)
        assert 0 <= decision.caps.get(shop, 0) <= watch.book.harm.first_variant
        assert decision.permits["v1"] > watch.book.harm.first_variant
