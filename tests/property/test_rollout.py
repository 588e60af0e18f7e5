"""What holds for every rollout, every evidence and every order of events."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.rollout.stage import begun, policy

from tidegate.core.errors import RequestError
from tidegate.rollout import cohort, engine, query
from tidegate.rollout.model import (
    Evidence,
    Exposure,
    Plan,
    RingProgress,
    RingState,
    Rollout,
    RolloutState,
    Tally,
)
from tidegate.rollout.tally import Outcome, What, fold

VARIANTS = ("r3", "r4", "r6", "r7", "r9")
RINGS = ("pilot", "fleet")
POLICIES = (
    policy(),
    policy(flow={"first": 4, "in_flight": 30}, guards=["failure_rate", "metric"]),
    policy(
        guards=[{"type": "failure_rate", "max": "20%", "sample": 5, "healthy": 1}, "metric"],
        ring=[
            {"name": "pilot", "audience": "group:pilot", "soak": "1h"},
            {
                "name": "fleet",
                "steps": ["5%", "100%"],
                "soak": "2h",
                "gates": ["minimum_sample", "approval"],
            },
        ],
    ),
)
ORDER = {"waiting": 0, "open": 1, "soaking": 1, "failed": 1, "passed": 2, "skipped": 2}


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    exposed = draw(st.integers(0, 60))
    confirmed = draw(st.integers(0, exposed))
    reverted = draw(st.integers(0, exposed - confirmed))
    lost = draw(st.integers(0, exposed - confirmed - reverted))
    install = draw(st.sampled_from((0, 0, 0, 1, 5)))
    return Tally(
        audience=draw(st.sampled_from((0, 60, 400))),
        offered=exposed,
        exposed=exposed,
        confirmed=confirmed,
        reverted=reverted,
        lost=lost,
        install=install,
        failed_before=install + draw(st.integers(0, 3)),
        last_permit_at=draw(st.integers(0, 50_000)),
        reasons={"lost.return": lost} if lost else {},
    )


exposures = st.builds(
    Exposure,
    errors=st.integers(0, 500),
    device_s=st.integers(0, 3_600_000),
    devices=st.integers(0, 30),
)
known = st.builds(
    Evidence,
    position=st.integers(0, 1000),
    tallies=st.dictionaries(
        st.tuples(st.sampled_from(RINGS), st.sampled_from(VARIANTS)), tallies(), max_size=10
    ),
    updated=st.dictionaries(st.sampled_from(VARIANTS), exposures, max_size=5),
    control=st.dictionaries(st.sampled_from(VARIANTS), exposures, max_size=5),
)
states: st.SearchStrategy[RolloutState] = st.sampled_from(
    ["draft", "active", "active", "active", "paused", "halted", "completed", "falling_back"]
)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    chosen = draw(st.sampled_from(POLICIES))
    present = draw(st.integers(0, 2))
    step = draw(st.integers(0, len(chosen.rings[1].shares) - 1)) if present == 1 else 0
    state: RingState = draw(st.sampled_from(("waiting", "open", "soaking")))
    opened = draw(st.integers(0, 50_000))
    rings = [RingProgress(state="passed", step=0) for _ in range(present)]
    if present < 2:
        waiting = state == "waiting"
        rings.append(RingProgress(state=state, step=-1 if waiting else step, opened_at=opened))
    rings += [RingProgress() for _ in range(2 - len(rings))]
    return msgspec.structs.replace(
        begun(chosen, draw(states)),
        rings=tuple(rings),
        isolated=tuple(draw(st.sets(st.sampled_from(VARIANTS), max_size=1))),
    )


def _reach(rollout: Rollout, rings: tuple[RingProgress, ...]) -> int:
    """Basis points open, over all rings: the measure of widening."""
    shown = msgspec.structs.replace(rollout, rings=rings)
    return sum(cohort.share_of(shown, ring) for ring in range(len(rings)))


def _opened(rollout: Rollout, plan: Plan) -> int:
    """How many steps a plan opened."""
    pairs = zip(rollout.rings, plan.rings, strict=True)
    return sum(
        after.state in {"open", "soaking"} and (after.step > before.step) for before, after in pairs
    )


@settings(max_examples=250, deadline=None)
@given(rollout=rollouts(), evidence_now=known, now=st.integers(0, 10**6))
def test_every_plan_keeps_the_promises_of_the_planner(
    rollout: Rollout, evidence_now: Evidence, now: int
) -> None:
    plan = engine.plan(rollout, evidence_now, now)
    assert plan == engine.plan(rollout, evidence_now, now), "deterministic"
    assert plan.because, "every plan says why"
    assert all(finding.text for finding in plan.because)
    assert plan.parent_generation == rollout.generation
    assert plan.room is None or plan.room >= 0
    widened = _reach(rollout, plan.rings) > _reach(rollout, rollout.rings)
    if plan.verdict in {"halt", "isolate"} or rollout.state != "active":
        assert not widened, "a plan never widens where it halts, isolates or rests"
    assert _opened(rollout, plan) <= 1, "never more than one step in one plan"
    if plan.state not in {"active", "completed"}:
        assert plan.room == 0, "no permit where nothing runs"
    if plan.verdict == "halt":
        assert plan.state == "halted"
        assert not any(ring.state in {"open", "soaking"} for ring in plan.rings)
        assert any(not finding.passed for finding in plan.because)
    assert set(plan.isolate).isdisjoint(rollout.isolated)
    changed = (plan.state, plan.rings) != (rollout.state, rollout.rings) or bool(plan.isolate)
    assert plan.changed is changed


@settings(max_examples=150, deadline=None)
@given(
    rollout=rollouts(),
    evidence_now=known,
    now=st.integers(0, 10**6),
    ring=st.sampled_from(RINGS),
    variant=st.sampled_from(VARIANTS),
    count=st.integers(1, 20),
)
def test_more_harm_never_takes_a_halt_back(
    rollout: Rollout, evidence_now: Evidence, now: int, ring: str, variant: str, count: int
) -> None:
    if engine.plan(rollout, evidence_now, now).verdict != "halt" or variant in rollout.isolated:
        return
    tally = evidence_now.tallies.get((ring, variant), Tally())
    # Devices whose outcome was open turn out badly: attempts stay what they were.
    failing = min(count, tally.pending)
    worse = msgspec.structs.replace(tally, lost=tally.lost + failing)
    after = msgspec.structs.replace(
        evidence_now, tallies={**evidence_now.tallies, (ring, variant): worse}
    )
    plan = engine.plan(rollout, after, now)
    assert plan.verdict in {"halt", "isolate"} or plan.room == 0
    assert _reach(rollout, plan.rings) <= _reach(rollout, rollout.rings)


@settings(max_examples=100, deadline=None)
@given(evidence_now=known, audience=st.integers(0, 10**6))
def test_the_size_of_a_ring_never_changes_a_verdict_about_harm(
    evidence_now: Evidence, audience: int
) -> None:
    rollout = msgspec.structs.replace(
        begun(), rings=(RingProgress(state="passed"), RingProgress(state="open", step=0))
    )
    resized = msgspec.structs.replace(
        evidence_now,
        tallies={
            key: msgspec.structs.replace(tally, audience=audience)
            for key, tally in evidence_now.tallies.items()
        },
    )
    one, two = engine.plan(rollout, evidence_now, 0), engine.plan(rollout, resized, 0)
    assert (one.verdict in {"halt", "isolate"}) is (two.verdict in {"halt", "isolate"})
    assert one.isolate == two.isolate


@given(
    low=st.integers(0, 10_000),
    high=st.integers(0, 10_000),
    release=st.text(max_size=8),
    device=st.text(max_size=20),
)
def test_raising_a_share_only_adds(low: int, high: int, release: str, device: str) -> None:
    if cohort.step_admits(min(low, high), release, device):
        assert cohort.step_admits(max(low, high), release, device)


names = st.sampled_from(["model", "site", "revision", "seen", "attr.x", "a.b"])
words = st.text("abz059.-* \"'\\", max_size=6)


@st.composite
def queries(draw: st.DrawFn, depth: int = 3) -> str:
    kind = draw(st.integers(0, 6)) if depth else draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.sampled_from(["tag:lab", "group:a", "has(attr.x)", "has(site)"]))
    if kind <= 3:
        name = draw(names)
        number = name in query.NUMERIC
        value = "3" if number else str(query.Compare("site", "=", (draw(words),)))[len("site = ") :]
        operator = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]))
        return f"{name} {operator} {value}" if kind < 3 else f"{name} in ({value}, {value})"
    if kind == 4:
        return f"not ({draw(queries(depth - 1))})"
    joint = " and " if kind == 5 else " or "
    return joint.join(f"({draw(queries(depth - 1))})" for _ in range(2))


@given(
    text=queries(),
    own=st.dictionaries(st.just("x"), st.one_of(words, st.integers(), st.booleans())),
)
def test_a_query_means_the_same_after_it_was_written_and_read(
    text: str, own: dict[str, str | int | bool]
) -> None:
    parsed = query.parse(text)
    again = query.parse(str(parsed))
    attrs = cohort.attributes_of(
        model="abz", revision=3, variant="v", site="a.b", seen=3, tags=["lab"], own={**own}
    )
    assert parsed.matches(attrs) is again.matches(attrs)
    assert str(again) == str(parsed)


@given(text=st.text("modelrevision ()=<>~!,;:'\"\\andornt.*0123456789", max_size=60))
def test_any_text_is_a_query_or_a_clear_refusal(text: str) -> None:
    refused = ""
    try:
        assert isinstance(query.parse(text).matches({}), bool)
    except RequestError as error:
        refused = f"{error.code} {error.detail}"
    assert refused == "" or refused.startswith("request.invalid query, position ")


class Rolling(RuleBasedStateMachine):
    """A server that folds outcomes and applies plans, in any order: no way leads past a gate."""

    @initialize(chosen=st.sampled_from(POLICIES))
    def begin(self, chosen: object) -> None:
        self.now = 0
        self.rollout = msgspec.structs.replace(begun(), policy=chosen)
        self.known = Evidence()
        for ring in RINGS:
            for variant in VARIANTS:
                self._fold("matched", ring, variant, 40)

    def _fold(self, what: What, ring: str, variant: str, count: int, reason: str = "") -> None:
        outcome = Outcome(
            ring=ring, variant=variant, what=what, count=count, reason=reason, at=self.now
        )
        self.known = fold(self.known, outcome)

    @rule(variant=st.sampled_from(VARIANTS), ring=st.integers(0, 1), count=st.integers(1, 10))
    def permit(self, variant: str, ring: int, count: int) -> None:
        """As the server does: only where the ring is open, the variant is in, and there is room."""
        plan = engine.plan(self.rollout, self.known, self.now)
        open_now = cohort.share_of(self.rollout, ring) > 0 and variant not in self.rollout.isolated
        room = count if plan.room is None else min(count, plan.room)
        if open_now and room and self.rollout.state in {"active", "completed"}:
            self._fold("permitted", RINGS[ring], variant, room)

    @rule(
        variant=st.sampled_from(VARIANTS),
        ring=st.sampled_from(RINGS),
        what=st.sampled_from(["confirmed", "confirmed", "confirmed", "reverted", "lost"]),
        count=st.integers(1, 10),
    )
    def outcome(self, variant: str, ring: str, what: What, count: int) -> None:
        pending = self.known.tallies[(ring, variant)].pending
        if pending:
            self._fold(what, ring, variant, min(count, pending))

    @rule(seconds=st.sampled_from((1, 600, 3600, 86_400)))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def plan(self) -> None:
        before = self.rollout
        plan = engine.plan(before, self.known, self.now)
        self.rollout = msgspec.structs.replace(
            before,
            state=plan.state,
            rings=plan.rings,
            isolated=(*before.isolated, *plan.isolate),
            generation=before.generation + plan.changed,
        )
        for old, new in zip(before.rings, plan.rings, strict=True):
            assert ORDER[new.state] >= ORDER[old.state], "a ring never goes back by itself"
        if before.state == "halted":
            assert self.rollout == before, "nothing leaves a halt by itself"

    @rule()
    def planning_again_without_news_settles(self) -> None:
        rollout = self.rollout
        for _ in range(12):
            plan = engine.plan(rollout, self.known, self.now)
            if not plan.changed:
                return
            rollout = msgspec.structs.replace(
                rollout,
                state=plan.state,
                rings=plan.rings,
                isolated=(*rollout.isolated, *plan.isolate),
            )
        raise AssertionError("plans go on changing without any news")

    @invariant()
    def a_later_ring_opens_only_after_the_one_before(self) -> None:
        first, second = self.rollout.rings
        if second.state != "waiting":
            assert first.state in {"passed", "skipped"}

    @invariant()
    def permits_add_up(self) -> None:
        for tally in self.known.tallies.values():
            assert tally.exposed == tally.confirmed + tally.reverted + tally.lost + tally.pending


Rolling.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_no_order_of_events_leads_past_a_gate = Rolling.TestCase
