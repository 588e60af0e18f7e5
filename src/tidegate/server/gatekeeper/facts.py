"""What people are told of the evidence against a rollout: the last decision, what it rests on, and what is left of it."""

import msgspec

from tidegate.rollout.evidence import baseline as baselines
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.decide import Blame, Decision, Needle
from tidegate.rollout.evidence.held import Held
from tidegate.rollout.evidence.room import Age
from tidegate.rollout.evidence.settings import Harm, SoakGate
from tidegate.rollout.evidence.strata import FLEET, VARIANT, Scheme
from tidegate.server.gatekeeper.kept import decision_of
from tidegate.server.store import Connection, gate_rows


class PartFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How many more permits a part of the devices may get now. `because`: what a device is told when there are none."""

    name: str
    room: int
    because: str


class BaselineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is normal, as shares in parts per million; `other` for all that is not named. `assumed`: the product has no history.

    `extra_failure_ppm`, `extra_silence_ppm`: so many more are tolerated.
    """

    failure_ppm: dict[str, int]
    silence_ppm: dict[str, int]
    assumed: bool
    extra_failure_ppm: int
    extra_silence_ppm: int


class GateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence against a rollout.

    `at`: when it was decided; `stepped_at`: when time was let go on last. `odds` to 1, and `halts_at`; permits end `permits_end_pct` per cent of the way
    there, on a logarithmic scale. `soaks`: the gates that `ages` are told of, in their order. `needles` of the meter, the highest first. `limits`:
    what limits the speed. `ages`: proof of health by age. `at_worst`: devices out of those exposed that could still be lost. `devices`: that the gate
    opened with; `answer_s`: how long an answer is waited for before it is silence, `away_s` the same of classes that are not always there.
    `least_visible_ppm`: the smallest share of failures that would stop a release before everybody has it; None = none would, the fleet is too small.
    `held`: a person has to decide, since the evidence neither stops the rollout nor lets it go on. `position`, `facts`, `digest`: of what is kept, for a
    replay.
    """

    at: int
    stepped_at: int
    opened_at: int
    verdict: str
    odds: float
    halts_at: int
    permits_end_pct: int
    needles: tuple[Needle, ...]
    blame: Blame | None
    streams: dict[str, float]
    permits: dict[str, int]
    parts: tuple[PartFacts, ...]
    limits: str
    room_fleet: float
    room_soak: float | None
    amber: float
    ages: tuple[Age, ...]
    soaks: tuple[SoakGate, ...]
    at_worst: int
    baseline: BaselineFacts
    devices: int
    strata: int
    answer_s: int
    away_s: dict[str, int]
    watch_s: int
    least_visible_ppm: int | None
    position: int
    facts: int
    digest: str
    held: Held | None = None


def gate_facts(conn: Connection, rollout_id: int) -> GateFacts | None:
    """Return what is known of the evidence against a rollout; None = none is weighed."""
    told = gate_rows.told(conn, rollout_id)
    if told is None or not told.decision:
        return None
    decision = decision_of(told.decision)
    harm = msgspec.json.decode(told.harm, type=Harm)
    scheme = msgspec.json.decode(told.scheme, type=Scheme)
    baseline = msgspec.json.decode(told.baseline, type=Baseline)
    left = gate_rows.rooms(conn, rollout_id, gate_rows.PART)
    devices = scheme.strata[FLEET].size
    return GateFacts(
        at=told.decided_at,
        stepped_at=told.stepped_at,
        opened_at=told.opened_at,
        verdict=decision.verdict,
        odds=round(decision.odds, 3),
        halts_at=harm.odds,
        permits_end_pct=harm.amber_pct,
        needles=decision.needles,
        blame=decision.blame,
        streams={name: round(one, 4) for name, one in decision.streams.items()},
        permits=_left(decision, left),
        parts=tuple(
            PartFacts(name=one.name, room=max(0, one.room), because=one.because) for one in left
        ),
        limits=decision.limits,
        room_fleet=decision.room_fleet,
        room_soak=decision.room_soak,
        amber=decision.amber,
        ages=decision.ages,
        soaks=harm.soaks,
        at_worst=decision.at_worst,
        baseline=BaselineFacts(
            failure_ppm=baseline.failure_ppm or {"other": baselines.ASSUMED_FAILURE_PPM},
            silence_ppm=baseline.silence_ppm or {"other": baselines.ASSUMED_SILENCE_PPM},
            assumed=baseline.assumed,
            extra_failure_ppm=harm.extra_failure_ppm,
            extra_silence_ppm=harm.extra_silence_ppm,
        ),
        devices=devices,
        strata=len(scheme.strata),
        answer_s=harm.report_s,
        away_s={name: harm.answer_s(name) for name, _ in harm.away_s},
        watch_s=harm.watch_s,
        least_visible_ppm=least_visible(harm, scheme, baseline),
        position=told.position,
        facts=told.facts,
        digest=told.digest,
        held=decision.held,
    )


def least_visible(harm: Harm, scheme: Scheme, baseline: Baseline) -> int | None:
    """Return the smallest share of failures, ppm, that would stop a release before everybody has it; None = not even total failure would."""
    sizes = {name: scheme.strata[one].size for name, one in scheme.variants.items()}
    whole = max(1, sum(sizes.values()))
    mean = sum(baseline.failure(name) * size for name, size in sizes.items()) // whole
    return baselines.least_visible_ppm(harm, mean + harm.extra_failure_ppm, sum(sizes.values()))


def _left(decision: Decision, left: list[gate_rows.Room]) -> dict[str, int]:
    rooms = {one.name: max(0, one.room) for one in left}
    return {name: rooms.get(f"{VARIANT}={name}", 0) for name in decision.permits}
