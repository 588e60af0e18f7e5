"""A small rollout, and outcomes written briefly, for the tests of this folder."""

from typing import Any

import msgspec

from tidegate.rollout import engine, presets
from tidegate.rollout.model import Evidence, Exposure, Plan, Policy, Rollout, RolloutState
from tidegate.rollout.tally import Outcome, What, fold

HOUR = 3600


def policy(**said: Any) -> Policy:
    """Two rings: pilot (5 healthy) and fleet (10, 50, 100 %; 10 healthy each), guard failure_rate 5 % from 20 attempts."""
    plain = {
        "guards": [{"type": "failure_rate", "max": "5%", "sample": 20, "healthy": 5}],
        "deadlines": {"return": "1h", "confirm": "1h"},
        "flow": {"first": 0},
        "ring": [
            {
                "name": "pilot",
                "audience": "group:pilot",
                "gates": [{"type": "minimum_sample", "healthy": 5}],
            },
            {
                "name": "fleet",
                "steps": ["10%", "50%", "100%"],
                "gates": [{"type": "minimum_sample", "healthy": 10}],
            },
        ],
    }
    return presets.policy_from_dict({**plain, **said})


def begun(with_policy: Policy | None = None, state: RolloutState = "active") -> Rollout:
    """A rollout whose rings all wait."""
    chosen = with_policy or policy()
    return Rollout(
        name="gw1-2.5.0",
        release_sha256="ab" * 32,
        state=state,
        generation=7,
        policy=chosen,
        rings=engine.first_rings(chosen),
    )


def known(
    *outcomes: tuple[What, str, str, int] | tuple[What, str, str, int, str], at: int = 0
) -> Evidence:
    """Fold (what, ring, variant, count[, reason]) into evidence."""
    return more(Evidence(), *outcomes, at=at)


def more(
    evidence: Evidence,
    *outcomes: tuple[What, str, str, int] | tuple[What, str, str, int, str],
    at: int = 0,
) -> Evidence:
    """Fold further outcomes into evidence."""
    for what, ring, variant, count, *reason in outcomes:
        outcome = Outcome(
            ring=ring,
            variant=variant,
            what=what,
            count=count,
            reason=reason[0] if reason else "",
            at=at,
        )
        evidence = fold(evidence, outcome)
    return evidence


def metrics(
    evidence: Evidence, updated: tuple[int, float], control: tuple[int, float], variant: str = "r3"
) -> Evidence:
    """Add (errors, device-hours) of both sides, ten devices each."""

    def side(pair: tuple[int, float]) -> Exposure:
        return Exposure(errors=pair[0], device_s=int(pair[1] * HOUR), devices=10)

    return msgspec.structs.replace(
        evidence,
        updated={**evidence.updated, variant: side(updated)},
        control={**evidence.control, variant: side(control)},
    )


def carried_out(rollout: Rollout, plan: Plan) -> Rollout:
    """The rollout after its plan."""
    return msgspec.structs.replace(
        rollout,
        state=plan.state,
        rings=plan.rings,
        isolated=(*rollout.isolated, *plan.isolate),
        generation=rollout.generation + 1,
    )


def states(plan: Plan) -> list[tuple[str, int]]:
    """Ring states and steps."""
    return [(ring.state, ring.step) for ring in plan.rings]


def said(plan: Plan) -> str:
    """All findings, one a line."""
    return "\n".join(finding.text for finding in plan.because)
