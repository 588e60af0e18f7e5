"""The demo's story in six steps. Each ends with rows that hold the server's own counts against the truth on the boards."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.core.errors import TidegateError
from tidegate.sim import cast
from tidegate.sim.control import RolloutView
from tidegate.sim.crew import CutOrder, LieOrder
from tidegate.sim.faults import CutMode
from tidegate.sim.play import PATIENCE_S, Play, StoryError
from tidegate.sim.report import DeviceTruth
from tidegate.sim.stage import Stage
from tidegate.sim.teller import Teller

#: Instants at which power is cut.
CUTS: Final = 66
MODES: Final[tuple[CutMode, ...]] = ("before", "torn", "after")
STEPS: Final = (1, 2, 3, 4, 5, 6)
#: What each step brings to the fleet.
_BRINGS: Final = {
    1: cast.GOOD, 2: cast.FRAGILE, 3: cast.DEAD, 4: cast.NOISY, 5: cast.SOUND, 6: cast.SOUND,
}  # fmt: skip


def needed(steps: Sequence[int]) -> tuple[cast.ReleasePlan, ...]:
    """Return the releases that some steps need, in their order."""
    wanted = {cast.FACTORY.counter, *(_BRINGS[step].counter for step in steps)}
    return tuple(release for release in cast.RELEASES if release.counter in wanted)


@dataclass(frozen=True)
class Refused:
    """One lie told to one device, and the reason with which it has to refuse."""

    title: str
    reason: str
    order: LieOrder


class Story(Play):
    """Plays the six steps, or some of them, on a stage that has been set."""

    def __init__(
        self,
        stage: Stage,
        teller: Teller,
        *,
        kill_server: bool = True,
        steps: Sequence[int] = STEPS,
    ) -> None:
        """Play on `stage`; with `kill_server` the stage's own server is killed in the middle of the first step."""
        super().__init__(stage, teller)
        self._kill_server = kill_server
        self._wanted = frozenset(steps)
        self._operations_per_update = 40
        #: The release that devices run before a bad one comes.
        self._before = cast.GOOD

    def play(self) -> bool:
        """Play everything. Returns whether every step came true and every figure agrees."""
        steps: list[tuple[str, Callable[[], str]]] = [
            ("1 a good release", self._good),
            ("2 fails its health check on one revision", self._fragile),
            ("3 never boots where the bench is blind", self._dead),
            ("4 raises the error rate after it passed", self._noisy),
            ("5 tampered, foreign, wrong, old", self._refused),
            ("6 power cuts", self._cut),
        ]
        return all(
            self._step(title, step)
            for number, (title, step) in enumerate(steps, 1)
            if number in self._wanted
        )

    def _step(self, title: str, step: Callable[[], str]) -> bool:
        began, first = time.monotonic(), len(self.rows)
        try:
            said = step()
            true = all(row.agrees for row in self.rows[first:])
        except (StoryError, TidegateError) as error:
            said, true = str(error), False
        took = time.monotonic() - began
        self.teller.line(f" {title:<42} {'true' if true else 'FALSE':<6} {took:5.1f} s")
        self.teller.line(f"     {said}")
        return true

    # --- 1 ---------------------------------------------------------------------------------------------------------

    def _good(self) -> str:
        release, everybody = cast.GOOD, len(self.stage.plans) + 1
        name = self.roll_out(release)
        server = self.stage.server
        kill = self._kill_server

        def done(view: RolloutView) -> bool:
            nonlocal kill
            if kill and server is not None and view.count("confirmed", ring="fleet") >= 5:
                kill = False
                server.kill()
                self.teller.line("   kill -9 of the server in mid-rollout; started again")
            return view.passed and view.count("confirmed") >= everybody

        self.watch(name, done)
        both = self.settle(name, lambda both: both.agrees(release.counter))
        confirmed = both.view.count("confirmed")
        self.row("1", "confirmed on 1.1.0", confirmed, both.found(release.counter).confirmed)
        self.row("1", "all devices confirmed", confirmed, everybody)
        self.row("1", "rings passed", both.view.rings_in("passed"), "internal pilot fleet")
        self.row("1", "the real agent runs", both.believed[cast.REAL_ID], self.stage.real_counter())
        self.distribution("1", both)
        killed = "; the server was killed and lost nothing" if server and server.kills else ""
        return f"{confirmed} confirmed of {everybody}, internal to full{killed}"

    # --- 2 ---------------------------------------------------------------------------------------------------------

    def _fragile(self) -> str:
        release, frail = cast.FRAGILE, cast.FRAIL
        self._before = release
        measured = self._steady()[:20]
        before = self.stage.crew.operations(measured)
        name = self.roll_out(release)
        self.watch(name, lambda view: view.passed and not view.pending)
        both = self.settle(name, lambda both: both.agrees(release.counter))
        after = self.stage.crew.operations(measured)
        spent = sum(after[one] - before[one] for one in measured)
        self._operations_per_update = max(1, spent // len(measured))
        view, broken = both.view, both.found(release.counter, variant=frail)
        found = both.found(release.counter)
        others = view.count("reverted") - view.count("reverted", variant=frail)
        self.row("2", "isolated", " ".join(view.isolated), frail)
        self.row("2", "confirmed on 1.2.0", view.count("confirmed"), found.confirmed)
        self.row("2", f"{frail} reverted", view.count("reverted", variant=frail), broken.reverted)
        self.row("2", f"{frail} confirmed", view.count("confirmed", variant=frail), 0)
        self.row("2", "reverted elsewhere", others, found.reverted - broken.reverted)
        self.distribution("2", both)
        self._answer(name, f"{frail} is left out of what follows until its service is mended")
        return (
            f"{frail} isolated, {broken.reverted} of it came back by themselves; "
            f"{view.count('confirmed')} others confirmed"
        )

    # --- 3 ---------------------------------------------------------------------------------------------------------

    def _dead(self) -> str:
        release = cast.DEAD
        name = self.roll_out(release)
        self.watch(name, lambda view: view.state == "halted" and not view.pending)
        both = self.settle(name, lambda both: both.agrees(release.counter))
        view, found = both.view, both.found(release.counter)
        self.row("3", "state", view.state, "halted")
        self.row("3", "halted in ring", view.rings_in("failed"), "pilot")
        self.row("3", "activated 1.3.0", view.count("exposed"), found.tried)
        self.row("3", "came back by themselves", view.count("reverted"), found.reverted)
        self.row("3", "activated in the fleet ring", view.count("exposed", ring="fleet"), 0)
        back = self.fall_back(name, release, self._before, "it does not boot elsewhere")
        self.distribution("3", back)
        self._answer(name, "the bench gets one of every revision", recall=release)
        return (
            f"HALTED in pilot: {found.tried} activated, {found.reverted} reverted by themselves, "
            f"{back.view.count('confirmed')} on the bench ordered back"
        )

    # --- 4 ---------------------------------------------------------------------------------------------------------

    def _noisy(self) -> str:
        release = cast.NOISY
        name = self.roll_out(release, soak="4s")
        self.watch(name, lambda view: view.state == "halted" and not view.pending)
        both = self.settle(name, lambda both: both.agrees(release.counter))
        view, found = both.view, both.found(release.counter)
        self.row("4", "state", view.state, "halted")
        self.row("4", "halted over", "errors" if "error" in view.halt_reason else "", "errors")
        self.row("4", "confirmed on 1.4.0", view.count("confirmed"), found.confirmed)
        self.row("4", "reverted by themselves", view.count("reverted"), found.reverted)
        back = self.fall_back(name, release, self._before, "errors rose after the update")
        returned = back.view.count("confirmed")
        self.row("4", "ordered back", returned, back.found(release.counter).fallen_back)
        self.distribution("4", back)
        incident = self._answer(name, "1.5.0 logs what 1.4.0 retried for ever", recall=release)
        return f"HALTED by metric, {returned} ordered back, {incident} written and published"

    def _answer(self, rollout: str, action: str, recall: cast.ReleasePlan | None = None) -> str:
        """Recall the release where it is beyond help, write down what is done about it, close the incident and publish it."""
        if recall is not None:
            self.control.recall(recall.name, action)
        name = self.incident(rollout)
        self.control.answer_incident(name, action)
        return name

    # --- 5 ---------------------------------------------------------------------------------------------------------

    def _refused(self) -> str:
        lies = self._lies()
        names = [lie.order.device_id for lie in lies]
        before = {one.device_id: one.counter for one in self.stage.truths()}
        self.stage.crew.lie(lie.order for lie in lies)
        policy = cast.policy(cast.SOUND, f"{cast.SOUND.name}-proxy")
        policy |= {"audience": f"id in ({', '.join(names)})"}
        policy["ring"] = [{"name": "lied-to", "audience": "rest"}]
        name = self.control.roll_out(policy)
        seen = self._refusals({lie.order.device_id: lie.reason for lie in lies})
        after = {one.device_id: one.counter for one in self.stage.truths()}
        for lie in lies:
            said = seen.get(lie.order.device_id, "nothing in the telemetry")
            self.row("5", lie.title, said, lie.reason)
        untouched = sum(before[one] == after[one] for one in names)
        self.row("5", "refused, and run what they ran", len(seen), untouched)
        self.control.cancel(name, "the proxies were found")
        self.stage.crew.be_honest(names)
        return f"{len(seen)} of {len(lies)} refused: {' '.join(sorted(set(seen.values())))}"

    def _lies(self) -> list[Refused]:
        """Choose a device for each lie."""
        free, stage = self._steady(), self.stage
        key = stage.director_key()
        other = stage.target_of(cast.GOOD, cast.REAL_MODEL)
        older = stage.target_of(cast.FACTORY, cast.MODEL)
        tampered = LieOrder(device_id=free[0], lie="tampered")
        foreign = LieOrder(device_id=free[1], lie="foreign")
        forged = LieOrder(device_id=free[2], lie="forged")
        told = [
            Refused("tampered bytes", "download.hash", tampered),
            Refused("foreign signature", "sig.unknown_key", foreign),
            Refused("forged signature", "sig.threshold", forged),
        ]
        if not key:
            return told
        wrong = LieOrder(device_id=free[3], lie="redirected", target=other, key=key)
        downgrade = LieOrder(device_id=free[4], lie="redirected", target=older, key=key)
        return [
            *told,
            Refused("wrong hardware", "compat.hardware", wrong),
            Refused("downgrade", "compat.counter", downgrade),
        ]

    def _steady(self) -> list[str]:
        """Name devices of the fleet ring that are always online on a good link, and not of the frail revision."""
        return [
            plan.device_id
            for plan in self.stage.plans
            if plan.stage == "fleet"
            and plan.connectivity == "always"
            and not plan.link.loss_ratio
            and plan.variant != cast.FRAIL
        ]

    def _refusals(self, reasons: dict[str, str]) -> dict[str, str]:
        """Wait until the telemetry of each device shows its reason; return what it shows."""
        seen: dict[str, str] = {}
        until = time.monotonic() + PATIENCE_S
        while len(seen) < len(reasons) and time.monotonic() < until:
            for device, reason in reasons.items():
                log = self.control.device_log(device)
                if any(event.get("reason") == reason for event in log):
                    seen[device] = reason
            self.teller.progress(f"{len(seen)} of {len(reasons)} refusals in the telemetry")
            time.sleep(0.5)
        return seen

    # --- 6 ---------------------------------------------------------------------------------------------------------

    def _cut(self) -> str:
        release = cast.SOUND
        chosen = self._steady()[10 : 10 + CUTS]
        length = self._operations_per_update
        self.stage.crew.cut(
            CutOrder(
                device_id=one,
                operation=1 + number * length // len(chosen),
                mode=MODES[number % len(MODES)],
            )
            for number, one in enumerate(chosen)
        )
        policy = cast.policy(release, release.name)
        policy["ring"] = [{"name": "fleet", "audience": "rest"}]
        name = self.control.roll_out(policy)
        self.watch(name, lambda view: view.passed and not view.pending)
        both = self.settle(
            name, lambda both: both.agrees(release.counter) and _all_on(both.truths, chosen)
        )
        cut = [one for one in both.truths if one.device_id in set(chosen)]
        happened = sum(bool(one.cuts) for one in cut)
        whole = sum(_is_whole(one) for one in both.truths)
        found = both.found(release.counter)
        self.row("6", "power cuts asked for, and happened", len(chosen), happened)
        self.row("6", "devices, and those on a whole signed image", len(both.truths), whole)
        self.row("6", "confirmed on 1.5.0", both.view.count("confirmed"), found.confirmed)
        self.row("6", "reverted", both.view.count("reverted"), found.reverted)
        self.distribution("6", both)
        when = Counter(phase for one in cut for phase in one.cuts)
        return (
            f"{happened} cuts: {when['install']} in download and install, {when['flag']} at the boot "
            f"flag, {when['after']} after it; {whole} of {len(both.truths)} run a whole, signed image"
        )


def _all_on(truths: list[DeviceTruth], names: list[str]) -> bool:
    wanted = set(names)
    return all(one.counter == cast.SOUND.counter for one in truths if one.device_id in wanted)


def _is_whole(truth: DeviceTruth) -> bool:
    """Say whether a board runs the exact bytes of a signed image, and never started anything else."""
    return not truth.dead and not truth.torn_boots and bool(truth.sha256)
