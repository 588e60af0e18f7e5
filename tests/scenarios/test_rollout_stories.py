"""Stories of whole rollouts, told to the planner alone: `rollout/*.txt`, each with the expected telling beside it in `*.expected`.

A story is one command a line; `#` begins a comment. `now` is shown as minutes since the start.

    preset NAME                         the policy, before anything else; or `policy` followed by TOML up to `end`
    matched RING VARIANT COUNT          devices that belong there
    permit|refund|confirm|revert|fail|lose|return|decline RING VARIANT COUNT [REASON]
    metric updated|control VARIANT ERRORS HOURS DEVICES
    after DURATION                      time passes
    plan                                the planner is asked, its plan is carried out and told
    quiet plan                          … carried out, told in one line only
    until DURATION every DURATION       as `plan`, again and again, told only when something changes
    verb VERB                           a person acts (start, pause, resume, halt …)
    approve NAME                        a person approves the present step of the ring that is open
    explain [RING]                      as `tidegate rollout explain`

To write what is expected anew after a wanted change: `python tests/scenarios/test_rollout_stories.py`.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from tidegate.core import amounts
from tidegate.rollout import engine, explain, presets
from tidegate.rollout import tally as sums
from tidegate.rollout.model import Approval, Evidence, Exposure, Plan, Rollout

HERE = Path(__file__).parent / "rollout"
STORIES = sorted(path.stem for path in HERE.glob("*.txt"))
_WHAT: dict[str, sums.What] = {
    "matched": "matched",
    "permit": "permitted",
    "refund": "refunded",
    "confirm": "confirmed",
    "revert": "reverted",
    "fail": "failed_after",
    "fail-before": "failed_before",
    "lose": "lost",
    "return": "returned",
    "decline": "declined",
    "revert-late": "reverted_late",
}


class Story:
    """One rollout, its evidence and the time."""

    def __init__(self) -> None:
        self.now = 0
        self.told: list[str] = []
        self.known = Evidence()
        self.rollout = self._begin({"preset": "normal"})
        self.last: Plan | None = None

    def run(self, text: str) -> str:
        lines = iter(text.splitlines())
        for line in lines:
            words = line.partition("#")[0].split()
            if not words:
                continue
            if words[0] == "policy":
                written = "\n".join(iter(lambda: next(lines), "end"))
                self.rollout = self._begin(tomllib.loads(written))
                continue
            self._command(words)
        return "\n".join(self.told) + "\n"

    def _begin(self, policy: dict[str, object]) -> Rollout:
        read = presets.policy_from_dict(policy)
        return Rollout(
            name="gw1-2.5.0",
            release_sha256="ab" * 32,
            state="active",
            generation=1,
            policy=read,
            rings=engine.first_rings(read),
        )

    def _command(self, words: list[str]) -> None:
        if words[0] in _WHAT:
            self._outcome(words)
            return
        commands: dict[str, Callable[[list[str]], None]] = {
            "preset": self._preset,
            "metric": self._metric,
            "after": self._after,
            "plan": lambda _: self._tell(self._plan()),
            "quiet": lambda _: self._tell_state(self._plan()),
            "until": self._until,
            "verb": self._verb,
            "approve": self._approve,
            "explain": self._explain,
        }
        commands[words[0]](words[1:])

    def _preset(self, words: list[str]) -> None:
        self.rollout = self._begin({"preset": words[0]})

    def _outcome(self, words: list[str]) -> None:
        what, ring, variant, count, *reason = words
        outcome = sums.Outcome(
            ring=ring,
            variant=variant,
            what=_WHAT[what],
            count=int(count),
            reason=reason[0] if reason else "",
            at=self.now,
        )
        self.known = sums.fold(self.known, outcome)

    def _metric(self, words: list[str]) -> None:
        arm, variant, errors, hours, devices = words
        exposure = Exposure(
            errors=int(errors), device_s=int(float(hours) * 3600), devices=int(devices)
        )
        sides = {"updated": dict(self.known.updated), "control": dict(self.known.control)}
        sides[arm][variant] = exposure
        self.known = msgspec.structs.replace(self.known, **sides)

    def _after(self, words: list[str]) -> None:
        self.now += amounts.parse_duration(words[0])

    def _until(self, words: list[str]) -> None:
        end = self.now + amounts.parse_duration(words[0])
        while self.now < end:
            self.now += amounts.parse_duration(words[2])
            plan = self._plan()
            if plan.changed:
                self._tell(plan)

    def _verb(self, words: list[str]) -> None:
        state = engine.transition(self.rollout.state, words[0])
        rings = self.rollout.rings
        if words[0] == "resume":
            rings = engine.reopened(rings, self.now)
        self.told.append(f"[{self.now / 60:g} min] a person: {words[0]} -> {state}")
        self.rollout = msgspec.structs.replace(self.rollout, state=state, rings=rings)

    def _approve(self, words: list[str]) -> None:
        pairs = zip(self.rollout.policy.rings, self.rollout.rings, strict=True)
        spec, progress = next(pair for pair in pairs if pair[1].state in {"open", "soaking"})
        given = Approval(ring=spec.name, step=progress.step, by=words[0], at=self.now)
        self.told.append(f"[{self.now / 60:g} min] {words[0]} approves {spec.name}")
        self.rollout = msgspec.structs.replace(
            self.rollout, approvals=(*self.rollout.approvals, given)
        )

    def _plan(self) -> Plan:
        plan = engine.plan(self.rollout, self.known, self.now)
        assert plan == engine.plan(self.rollout, self.known, self.now)
        self.last = plan
        self.rollout = msgspec.structs.replace(
            self.rollout,
            state=plan.state,
            rings=plan.rings,
            isolated=(*self.rollout.isolated, *plan.isolate),
            generation=self.rollout.generation + plan.changed,
        )
        return plan

    def _tell_state(self, plan: Plan) -> None:
        names = [ring.name for ring in self.rollout.policy.rings]
        rings = ", ".join(
            f"{name} {one.state}" + (f" {one.step + 1}" if one.state in {"open", "soaking"} else "")
            for name, one in zip(names, plan.rings, strict=True)
        )
        room = "no bound" if plan.room is None else f"{plan.room}"
        isolated = f"; isolated {', '.join(plan.isolate)}" if plan.isolate else ""
        head = f"[{self.now / 60:g} min] {plan.verdict}: {plan.state}; {rings}; room {room}"
        self.told.append(head + isolated)

    def _tell(self, plan: Plan) -> None:
        self._tell_state(plan)
        self.told += [f"    {'+' if one.passed else '-'} {one.text}" for one in plan.because]

    def _explain(self, words: list[str]) -> None:
        plan = cast("Plan", self.last)
        self.told += [
            f"    | {line}".rstrip()
            for line in explain.explain(
                self.rollout,
                plan.because,
                now=self.now,
                ring=words[0] if words else "",
                room=plan.room,
                decided_at=self.now,
                position=self.known.position,
            )
        ]


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_told_as_expected(name: str) -> None:
    told = Story().run((HERE / f"{name}.txt").read_text())
    assert (HERE / f"{name}.expected").read_text() == told


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8


if __name__ == "__main__":
    for story in STORIES:
        (HERE / f"{story}.expected").write_text(Story().run((HERE / f"{story}.txt").read_text()))
