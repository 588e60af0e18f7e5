"""What every gate keeps, shipped or added later: pure, explains itself, more harm never lets it pass, settings by name."""

import dataclasses
import importlib
import re

import pytest
from tests.unit.rollout.stage import known, metrics, more

from tidegate.core.errors import RequestError
from tidegate.rollout import gates
from tidegate.rollout.gates import Gate
from tidegate.rollout.limits import Setting
from tidegate.rollout.model import Evidence, RingProgress
from tidegate.rollout.tally import What
from tidegate.rollout.view import View

NAMES = gates.names()
HARM: list[tuple[What, str]] = [
    ("reverted", "health.boot"),
    ("failed_after", "activate.bootloader"),
    ("lost", "lost.return"),
]


def _view(evidence: Evidence) -> View:
    progress = RingProgress(state="open", step=0, opened_at=0)
    return View(evidence=evidence, ring="pilot", progress=progress, audience_known=True)


def _samples() -> list[Evidence]:
    """Evidence from nothing to a lot, well and unwell."""
    found = [Evidence(), known(("matched", "pilot", "r3", 60))]
    for exposed in (1, 5, 30, 60):
        base = known(("matched", "pilot", "r3", 60), ("permitted", "pilot", "r3", exposed), at=100)
        found += [more(base, ("confirmed", "pilot", "r3", ok)) for ok in {0, exposed // 2, exposed}]
        found.append(
            metrics(more(base, ("confirmed", "pilot", "r3", exposed)), (9, 50.0), (9, 60.0))
        )
    return found


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gate(name: str) -> Gate:
    return gates.load(name, {})


def test_the_gates_of_the_design_are_there() -> None:
    assert {"approval", "failure_rate", "metric", "minimum_sample", "soak"} <= set(NAMES)


def test_a_gate_is_a_frozen_dataclass_of_limits(gate: Gate) -> None:
    assert isinstance(gate, Gate)
    assert dataclasses.is_dataclass(gate)
    first = dataclasses.fields(gate)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(gate, first, 1)


def test_a_gate_gives_the_same_finding_for_the_same_view(gate: Gate) -> None:
    for evidence in _samples():
        assert gate.judge(_view(evidence), 5000) == gate.judge(_view(evidence), 5000)


def test_a_gate_explains_itself_in_one_sentence(name: str, gate: Gate) -> None:
    for evidence in _samples():
        for now in (0, 500, 10**7):
            finding = gate.judge(_view(evidence), now)
            assert finding.gate == name
            assert finding.ring == "pilot"
            assert 10 < len(finding.text) < 300
            assert "\n" not in finding.text
            assert finding.limit is not None


def test_a_gate_names_the_scope_that_it_judged(gate: Gate) -> None:
    view = View(evidence=known(("permitted", "pilot", "r3", 3)), label="gw1-r3", variant="gw1-r3")
    finding = gate.judge(view, 10)
    assert finding.text.startswith("gw1-r3: ")
    assert finding.variant == "gw1-r3"


def test_more_harm_never_lets_a_gate_that_finds_harm_pass(gate: Gate) -> None:
    if not gate.stops:
        assert gate.judge(_view(Evidence()), 0).gate in NAMES
        return
    for sample in _samples():
        for what, reason in HARM:
            worse = sample
            passed = gate.judge(_view(worse), 10).passed
            for _ in range(4):
                worse = more(worse, (what, "pilot", "r3", 1, reason))
                now_passed = gate.judge(_view(worse), 10).passed
                assert passed or not now_passed
                passed = now_passed


def test_without_any_outcome_harm_is_not_found_and_waiting_gates_wait(gate: Gate) -> None:
    nobody_yet = known(("matched", "pilot", "r3", 60))
    assert gate.judge(_view(nobody_yet), 0).passed is gate.stops


def test_a_gate_is_calm_only_with_proof(gate: Gate) -> None:
    assert not gate.calm(_view(Evidence()))


def test_a_gate_that_waits_for_time_names_a_time_in_the_future(gate: Gate) -> None:
    for evidence in _samples():
        finding = gate.judge(_view(evidence), 500)
        if finding.opens_at is not None:
            assert not finding.passed
            assert finding.opens_at > 500
            assert gate.judge(_view(evidence), finding.opens_at).passed


def test_settings_have_a_kind_a_default_that_reads_and_a_help(name: str) -> None:
    for key, setting in gates.settings_of(name).items():
        assert isinstance(setting, Setting)
        setting.read(setting.default, key)
        assert 5 < len(setting.help) < 80


def test_an_unknown_setting_is_refused_with_the_nearest(name: str) -> None:
    known_key = next(iter(gates.settings_of(name)))
    with pytest.raises(RequestError, match=f'did you mean "{known_key}"'):
        gates.load(name, {known_key + "x": 1}, "ring pilot")


def test_a_bare_number_where_an_amount_belongs_is_refused(name: str) -> None:
    for key, setting in gates.settings_of(name).items():
        if setting.kind in {"share", "duration"}:
            with pytest.raises(RequestError, match="has no unit"):
                gates.load(name, {key: 5})


def test_a_gate_is_its_own_reference_page(name: str) -> None:
    page = importlib.import_module(f"tidegate.rollout.gates.{name}").__doc__
    assert page is not None
    assert page.startswith(f"`{name}`: ")
    assert len(page) > 200


@pytest.mark.parametrize("hostile", ["os", "os.path", "", "../soak", "soak\n", "__init__", "Soak"])
def test_only_a_file_of_the_folder_is_a_gate(hostile: str) -> None:
    with pytest.raises(RequestError, match="no such gate"):
        gates.load(hostile, {})


def test_a_misspelt_gate_names_the_nearest() -> None:
    with pytest.raises(RequestError, match=re.escape('did you mean "minimum_sample"?')):
        gates.load("minimum_sampel", {})
