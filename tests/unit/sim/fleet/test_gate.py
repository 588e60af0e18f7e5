"""The real gate in the batched simulator: what it is told, and what comes of it."""

import numpy as np

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.sim.fleet.gate import Gate
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.population import NEVER
from tidegate.sim.fleet.spec import Fault, FleetSpec, Nuisance, Scenario, Sites

SMALL = FleetSpec(devices=3_000)


def _played(scenario: Scenario, seed: int = 1) -> tuple[Play, Gate, Outcome]:
    gate = Gate(PRESETS["normal"])
    play = Play(scenario, gate, "normal", seed)
    return play, gate, play.run()


def test_a_brick_stops_after_a_dozen_devices_and_says_why() -> None:
    _, _, outcome = _played(Scenario("x", fleet=SMALL, faults=(Fault("brick", 1.0),)))
    assert outcome.state == "halted"
    assert outcome.exposed_end <= 12
    assert "silence" in outcome.why


def test_the_book_holds_what_is_true() -> None:
    sites = Sites(0.3, 40)
    fleet = FleetSpec(devices=3_000, sites=sites)
    nuisances = (Nuisance("server_outage", at_h=20, lasts_h=2),)
    play, gate, _ = _played(Scenario("x", days=10, fleet=fleet, nuisances=nuisances))
    gate.watch.book.settle()
    row = gate.watch.book.rows[0]
    permitted = int((play.activated < NEVER).sum())
    assert row[at.EXPOSED] in range(
        permitted - 20, permitted + 1
    )  # the last tick's are not booked yet
    assert permitted > 2_000
    resolved = row[at.FAILED] + row[at.SILENT] + row[at.HEALTHY] + row[at.VOID]
    assert 0 <= row[at.EXPOSED] - resolved <= 60
    assert row[at.HEALTHY] > 0.95 * permitted
    assert row[at.ALIVE] > 0.9 * permitted


def test_one_variant_is_isolated_and_the_rest_goes_on() -> None:
    faults = (Fault("boot_failure", 0.3, {"variant": "v3"}),)
    play, _, outcome = _played(Scenario("x", days=8, fleet=SMALL, faults=faults))
    assert outcome.state == "isolated"
    assert outcome.isolated == ("variant=v3",)
    assert outcome.caught
    mine = play.fleet.where({"variant": "v3"})
    assert (play.activated[mine] < NEVER).sum() < 60
    assert (play.activated[~mine] < NEVER).mean() > 0.8


def test_a_doubled_error_rate_is_seen_by_rank() -> None:
    spec = FleetSpec(devices=8_000, classes={"always": 1.0})
    doubled = Scenario("x", fleet=spec, faults=(Fault("metric_shift", 1.5),))
    outcome = _played(doubled)[2]
    assert outcome.state == "halted"
    assert "metric" in outcome.why


def test_nobody_is_permitted_who_does_not_ask() -> None:
    fleet = FleetSpec(devices=2_000, classes={"daily": 0.5, "night": 0.5})
    play, _, _ = _played(Scenario("x", days=7, fleet=fleet))
    got = np.flatnonzero(play.activated < NEVER)
    for tick in np.unique(play.activated[got]).tolist():
        mine = got[play.activated[got] == tick]
        assert play.fleet.asking(mine, tick).all()
        assert (play.fleet.left(mine, tick) >= 6).all()


def test_one_seed_is_one_digest_with_the_gate_too() -> None:
    scenario = Scenario("x", days=4, fleet=FleetSpec(devices=1_000))
    assert len({_played(scenario)[2].digest() for _ in range(2)}) == 1
