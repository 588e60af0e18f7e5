"""The incident rehearsed: a release that does not boot on most revisions, in a whole simulated world, from the first bad boot to the published report.

Server, agents, gate, outbox and status page are the real ones; boards, links and the clock are simulated, and so is the operator: people's time is made up,
some minutes between two acts. Each step is held against the truth on the boards, and fails when it did not happen.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tidegate.core import codec
from tidegate.core.errors import TidegateError
from tidegate.core.protocol import EventBody
from tidegate.rollout import incident as story
from tidegate.rollout.incident import IncidentReport, Rhythm
from tidegate.server import (
    cohort_lists,
    followups,
    incidents,
    outbox,
    outcomes,
    publication,
    recalls,
    reports,
)
from tidegate.server.auth import Actor
from tidegate.server.messages import Message
from tidegate.server.publication import Texts
from tidegate.server.store import Connection, admin_rollouts
from tidegate.server.store import admin_incidents as incident_rows
from tidegate.sim.faults import Behaviour
from tidegate.sim.population import PopulationSpec
from tidegate.sim.world import HOUR_S, World, WorldSpec

T = TypeVar("T")
BAD: Final = 2
_BACK: Final = "gw-1.0.0"
_REVISIONS: Final = ("gw1-r4", "gw1-r5", "gw1-r6", "gw1-r7")
_FOLLOW_UPS: Final = (
    "take a device of every revision into ring internal",
    "find what gw1-r4 to gw1-r7 need to boot it, and name in the manifest only hardware that was tried",
)
_OPERATOR: Final = Actor(name="operator", role="admin")
_PATIENCE_S: Final = 48 * HOUR_S
_POLICY: Final[Mapping[str, Any]] = {
    "preset": "lab",
    "flow": {"in_flight": 2},
    "guards": [{"type": "failure_rate", "max": "30%", "sample": 4, "healthy": 3}],
    "deadlines": {"return": "4h", "confirm": "4h"},
    "ring": [
        {"name": "internal", "audience": "stage = internal", "soak": "1h"},
        {"name": "pilot", "audience": "stage = pilot", "soak": "2h"},
        {"name": "fleet", "audience": "rest", "soak": "1h"},
    ],
}


#: Simulated seconds between two acts of the operator, who needs none.
_PACE_S: Final = 600
#: What the status page says: at once, and with figures and what is done in the end.
_SAID: Final = Texts(
    title="DRILL: Update stopped: gw-1.1.0",
    summary="This is a drill: all devices in it are simulated, and the numbers below are theirs.\n"
    "An update did not start on some devices; they went back by themselves. There is nothing that you have to do.",
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the protocol. `at_s`: simulated seconds since the first bad boot; `took_ms`: what the machine took for it, simulated time included."""

    what: str
    ok: bool
    text: str
    at_s: int
    took_ms: int


class IncidentDrill(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `report` is the whole report as Markdown; `simulated_s` from the first bad boot to the end.

    `enrolled`: of `devices`, those that the server knew at the end; the report counts no others.
    """

    seed: int
    devices: int
    enrolled: int = 0
    steps: tuple[Step, ...]
    simulated_s: int
    took_ms: int
    report: str

    @property
    def failed(self) -> bool:
        """Say whether a step did not happen."""
        return not all(one.ok for one in self.steps)


@dataclass
class _Told:
    """A channel that keeps what it is told."""

    messages: list[Message] = field(default_factory=list)
    name: str = "drill"
    kind: str = "webhook"
    place: str = "here"
    events: tuple[str, ...] = ()

    def deliver(self, message: Message, now: int) -> None:
        """Keep it."""
        del now
        self.messages.append(message)


def rehearse_incident(
    folder: Path,
    *,
    seed: int = 1,
    devices: int = 48,
    clock: Callable[[], float] = time.monotonic,
) -> IncidentDrill:
    """Rehearse an incident.

    Args:
        folder: empty; the simulated server keeps its data there.
        seed: of the world; the same seed tells the same story.
        devices: of the fleet, at least 24.
        clock: measures, in seconds.
    """
    spec = WorldSpec(
        population=PopulationSpec(size=devices, internal=6, pilot=12, weekly=0.0),
        seed=seed,
        poll_s=900,
    )
    began = clock()
    with World(spec, folder) as world:
        return _Drill(world, clock).play(began)


def _came(up: bool) -> str:
    return "comes up" if up else "does not come up"


def _written(report: IncidentReport) -> str:
    return story.to_markdown(story.lay_out(msgspec.structs.replace(report, drill=True)))


class _Drill:
    """One rehearsal in one world."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._world = world
        self._clock = clock
        self._steps: list[Step] = []
        self._zero = self._last = 0
        self._told = _Told()
        self._name = ""
        self._incident = ""
        services = world.app.services
        services.settings = msgspec.structs.replace(services.settings, status_public=True)

    def play(self, began: float) -> IncidentDrill:
        """Play the whole protocol; what does not happen ends it."""
        world = self._world
        world.run(HOUR_S)
        failing = dict.fromkeys(_REVISIONS, Behaviour(boots=False))
        release = world.publish(BAD, "1.1.0", "queue.py", failing)
        asked = {**_POLICY, "release": release, "name": release}
        self._name = world.roll_out(asked, "the drill's release, ring by ring")
        steps: tuple[tuple[str, Callable[[], tuple[bool, int, str]]], ...] = (
            ("first bad boot", self._first_bad_boot),
            ("evidence", self._evidence),
            ("halt effective", self._halted),
            ("world told", self._notified),
            ("un-started cancelled", self._cancelled),
            ("cohort known", self._cohort),
            ("fallback ordered", self._fallback),
            ("cause shown", self._shown),
            ("release recalled", self._recalled),
            ("last device back", self._back),
            ("report published", self._published),
        )
        for what, work in steps:
            if not self._step(what, work):
                break
        report = self._report() if self._incident else None
        return IncidentDrill(
            seed=world.spec.seed,
            devices=len(world.fleet.devices),
            enrolled=report.fleet.devices if report and report.fleet else 0,
            steps=tuple(self._steps),
            simulated_s=max(0, world.now - self._zero) if self._zero else 0,
            took_ms=int((self._clock() - began) * 1000),
            report=_written(report) if report else "",
        )

    def _step(self, what: str, work: Callable[[], tuple[bool, int, str]]) -> bool:
        began = self._clock()
        try:
            ok, at, text = work()
        except TidegateError as error:
            ok, at, text = False, self._world.now, f"{error.code}: {error.detail}"
        took = int((self._clock() - began) * 1000)
        self._zero = self._zero or at
        # A simulated device lives through its boots in one go, ahead of the server's clock by minutes: what follows from them is not earlier.
        self._last = at = max(self._last, at)
        self._steps.append(Step(what=what, ok=ok, text=text, at_s=at - self._zero, took_ms=took))
        return ok

    # --- the steps: (did it happen, when in unix seconds, what there is to say) ---

    def _first_bad_boot(self) -> tuple[bool, int, str]:
        self._world.run(_PATIENCE_S, until=lambda: bool(self._bad_boots()))
        found = sorted(self._bad_boots())
        if not found:
            return False, self._world.now, "no device tried to boot the bad release"
        at, device = found[0]
        return True, at, f"{device} does not come up (truth on the board)"

    def _bad_boots(self) -> list[tuple[int, str]]:
        """Return when each device first tried to boot the release that does not boot there."""
        ahead = self._world.timeline.wall() - self._world.timeline.at()
        found = []
        for device in self._world.fleet.devices:
            tried = [at for at, name in device.board.history.trail if name.endswith(":1.1.0")]
            if tried and device.plan.variant in _REVISIONS:
                found.append((int(tried[0] + ahead), device.plan.device_id))
        return found

    def _evidence(self) -> tuple[bool, int, str]:
        view = self._world.desk.rollout
        self._world.run(
            _PATIENCE_S, until=lambda: view(self._name).count("reverted") > 0 or self._is_halted()
        )
        first = self._read(self._first_outcome)
        if first is None:
            return False, self._world.now, "no device reported"
        return True, first[0], f"{first[1]} reports {first[2]}, signed with its key"

    def _first_outcome(self, conn: Connection) -> tuple[int, str, str] | None:
        row = self._row(conn)
        for device, _, received_at, body in incident_rows.reported(conn, int(row["id"])):
            event = codec.decode(body.encode(), EventBody)
            return max(received_at, event.at), device, event.reason or ""
        return None

    def _halted(self) -> tuple[bool, int, str]:
        self._wait(self._is_halted)
        row = self._read(self._row)
        if row["state"] != "halted":
            return False, self._world.now, f"the rollout is {row['state']}"
        found = self._read(lambda conn: incidents.of_rollout(conn, int(row["id"])))
        self._incident = next(one.name for one in found if one.kind == "halt")
        at = int(row["halted_at"])
        name, now = self._incident, self._world.now
        self._write(lambda conn: incidents.edit(conn, name, _OPERATOR, now, owner="operator"))
        self._write(lambda conn: publication.publish(conn, name, _SAID, _OPERATOR, now))
        self._deliver()
        self._note("the drill waits 2 h now to see that nobody gets a permit after the halt")
        self._world.run(2 * HOUR_S)  # everybody who is awake asks at least once more
        later = self._read(lambda conn: self._permitted_since(conn, at))
        self._note(
            f"seen: {later} permits in these 2 h; next the drill waits, if it must, until nobody is left who had not begun, and nobody without an outcome"
        )
        text = f"{self._incident} by {row['halted_by']}: {row['halt_reason']}; {later} permits in the 2 h after it"
        return later == 0, at, text

    def _notified(self) -> tuple[bool, int, str]:
        """Say what was delivered as soon as the halt owed it."""
        mine = [one for one in self._told.messages if one.data.get("incident") == self._incident]
        events = sorted({one.event for one in mine})
        at = mine[0].at if mine else self._world.now
        return "incident.opened" in events, at, f"owed since the halt: {', '.join(events)}"

    def _cohort(self) -> tuple[bool, int, str]:
        self._wait(lambda: self._report().reach.counts.open == 0)
        listed, _ = self._read(
            lambda conn: cohort_lists.page(conn, self._incident, "affected", (0, ""), 10_000)
        )
        affected = {one.device for one in listed}
        truth = {device for _, device in self._bad_boots()}
        report = self._report()
        self._note(
            "seen: nobody is left who had not begun, and nobody without an outcome; the operator acts now"
        )
        best = report.contrast.rows[0] if report.contrast.rows else None
        said = (
            f"most telling: {best.label} ({best.odds:,.0f} : 1)"
            if best
            else "nothing sets them apart"
        )
        text = f"{len(affected)} affected, {len(truth)} in truth; {report.reach.counts.confirmed} run it; {said}"
        return affected == truth and bool(truth), self._world.now, text

    def _fallback(self) -> tuple[bool, int, str]:
        why = f"whoever runs {self._name} is well so far, but what fails elsewhere is not understood yet"
        self._child = self._world.desk.fall_back(self._name, _BACK, why)
        return True, self._world.now, f"{self._child}: everybody who runs it goes back to {_BACK}"

    def _cancelled(self) -> tuple[bool, int, str]:
        """Wait until everybody who had not begun to activate has asked once more."""
        self._wait(lambda: self._updates(outcomes.BEFORE) == 0)
        left, cancelled = self._updates(outcomes.BEFORE), self._updates({"cancelled"})
        text = f"{cancelled} cancelled as they asked again, {left} left"
        return cancelled > 0 and left == 0, self._world.now, text

    def _back(self) -> tuple[bool, int, str]:
        def gone() -> bool:
            return not any(one.counter == BAD for one in self._world.truths()) and (
                self._world.desk.rollout(self._child).state == "completed"
            )

        back = self._world.run(_PATIENCE_S, until=gone)
        found = self._read(self._returned)
        running = sum(one.counter == BAD for one in self._world.truths())
        text = f"{len(found)} went back, the last {found[-1][1] if found else '-'}; {running} still run it"
        return back and bool(found), found[-1][0] if found else self._world.now, text

    def _returned(self, conn: Connection) -> list[tuple[int, str]]:
        child = admin_rollouts.rollout(conn, self._child)
        assert child is not None  # noqa: S101 - it was ordered just now
        rows = admin_rollouts.updates_in(conn, int(child["id"]), {"confirmed"})
        return sorted((int(one["state_at"]), str(one["device"])) for one in rows)

    def _shown(self) -> tuple[bool, int, str]:
        """Show the cause otherwise than by the counts: on a bench, with boards that are in no ring, so that ring and hardware cannot be mixed up."""
        booted = {
            variant: (
                self._world.comes_up("1.1.0", variant),
                self._world.comes_up("1.0.0", variant),
            )
            for variant in sorted({one.plan.variant for one in self._world.fleet.devices})
        }
        self._later()
        self._note(self._guess(), "hypothesis")
        bad = [name for name, (new, old) in booted.items() if old and not new]
        well = [name for name, (new, _) in booted.items() if new]
        said = [
            f"{name}: 1.1.0 {_came(new)}, 1.0.0 {_came(old)}" for name, (new, old) in booted.items()
        ]
        self._later()
        self._note(
            f"one simulated board of every revision on the drill's bench, in no ring, booted with either release: {'; '.join(said)}",
            "evidence",
            means="bench",
            kept=f"tidegate drill incident --seed {self._world.spec.seed} does it again, the same",
        )
        logs = self._report().logs
        if logs:
            self._note(
                f"{logs[0].device}: {logs[0].text.splitlines()[-1]}",
                "evidence",
                means="log",
                kept="in this report, under Logs",
            )
        self._later()
        self._note(
            f"1.1.0 does not boot on {', '.join(bad)}; it does on {', '.join(well)}. It went out all the same because nobody had tried it on those: "
            "ring internal has none of them",
            "cause",
        )
        text = f"on the bench 1.1.0 does not boot on {', '.join(bad)}, and does on {', '.join(well)}; 1.0.0 boots on all"
        told = set(bad) == set(_REVISIONS) and all(old for _, old in booted.values())
        return told, self._world.now, text

    def _follow(self, what: str, due: int, now: int) -> None:
        name = self._incident
        self._write(lambda conn: followups.add(conn, name, what, "operator", due, _OPERATOR, now))

    def _recalled(self) -> tuple[bool, int, str]:
        name, now = self._name, self._later()
        why = f"it does not boot on {', '.join(_REVISIONS)}: shown on the bench"
        found = self._write(lambda conn: recalls.recall(conn, name, why, _OPERATOR, now))
        return self._report().recalled_at == now, now, found.text

    def _published(self) -> tuple[bool, int, str]:
        name, now = self._incident, self._world.now
        running = self._report().running
        reason = f"all that were ordered back are back, {running} devices run {self._name}, and it is recalled"
        self._write(lambda conn: incidents.move(conn, name, "mitigate", _OPERATOR, reason, now))
        self._deliver()
        now = self._later()
        self._note(
            "from now on a release is booted on a board of every revision before a rollout of it is started",
            "action",
        )
        due = now + 14 * 86_400
        for what in _FOLLOW_UPS:
            self._follow(what, due, now)
        now = self._later()
        report = self._report()
        final = msgspec.structs.replace(
            _SAID, impact=publication.propose(report).impact, action=report.actions[-1].text
        )
        self._write(lambda conn: publication.publish(conn, name, final, _OPERATOR, now))
        self._deliver()
        done = "Everybody is back on the version before. The update is not offered any more."
        self._write(lambda conn: publication.add_update(conn, name, done, _OPERATOR, now))
        now = self._later()
        self._write(
            lambda conn: incidents.move(
                conn, name, "close", _OPERATOR, "the cause is shown, and nobody runs it", now
            )
        )
        self._deliver()
        missing, page = self._report().missing, self._status()
        shown = [one["name"] for one in page["incidents"]]
        leaked = [
            one.plan.device_id
            for one in self._world.fleet.devices
            if one.plan.device_id in json.dumps(page)
        ]
        text = f"on the status page: {', '.join(shown) or 'nothing'}; names {len(leaked)} devices; missing: {', '.join(missing) or 'nothing'}"
        return shown == [name] and not missing and not leaked, now, text

    def _guess(self) -> str:
        """Suppose what the operator may suppose: that it is the revisions of which a device went back."""
        bad = [one.name for one in self._report().reach.variants if one.counts.harmed]
        return f"it does not boot on {', '.join(bad)}"

    def _note(self, text: str, kind: str = "note", *, means: str = "", kept: str = "") -> None:
        name, now = self._incident, self._world.now
        self._write(
            lambda conn: incidents.note(
                conn, name, kind, text, _OPERATOR, now, means=means, kept=kept
            )
        )

    def _later(self) -> int:
        """Let some minutes pass between two acts, and return the time."""
        self._world.run(_PACE_S)
        return self._world.now

    def _deliver(self) -> None:
        outbox.deliver(self._world.app.store, (self._told,), self._world.now)

    # --- looks ---

    def _wait(self, until: Callable[[], bool]) -> None:
        """Let time pass until something is so; none where it is so already."""
        if not until():
            self._world.run(_PATIENCE_S, until=until)

    def _status(self) -> Any:
        """Return the public page as anybody sees it."""
        answer = self._world.wire.send("GET", "/status.json", {}, None)
        return json.loads(answer.body)

    def _is_halted(self) -> bool:
        return self._world.desk.rollout(self._name).state == "halted"

    def _report(self) -> IncidentReport:
        # A simulated server looks at its ticks alone; a real one also at once, when a device reports that it ended badly.
        rhythm = Rhythm(every_s=int(self._world.tick_s), at_once=False)
        return self._read(
            lambda conn: reports.build(
                conn,
                self._incident,
                self._world.now,
                rhythm=rhythm,
                audience=self._world.desk.audience,
            )
        )

    def _row(self, conn: Connection) -> dict[str, Any]:
        row = admin_rollouts.rollout(conn, self._name)
        assert row is not None  # noqa: S101 - it was made at the start
        return row

    def _updates(self, states: frozenset[str] | set[str]) -> int:
        return self._read(
            lambda conn: admin_rollouts.count_updates(conn, int(self._row(conn)["id"]), states)
        )

    def _permitted_since(self, conn: Connection, at: int) -> int:
        """Count updates that were given leave to activate later than that."""
        every = outcomes.OPEN | outcomes.ENDED
        found = admin_rollouts.updates_in(conn, int(self._row(conn)["id"]), every)
        return sum((one["permitted_at"] or 0) > at for one in found)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._world.app.store.read(work)

    def _write(self, work: Callable[[Connection], Any]) -> Any:
        return self._world.app.store.write(work).result()
