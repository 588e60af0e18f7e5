"""One simulated device: the real agent (machine, runner and worker) on a simulated board, disk, link and clock."""

from dataclasses import dataclass
from random import Random
from typing import Final

from tidegate.agent.checkup.examiner import InPlace
from tidegate.agent.ports import PowerCut, Reading
from tidegate.agent.runner import Ports, Runner
from tidegate.agent.settings import Settings
from tidegate.core.release import HealthCheck, Running
from tidegate.sim.board import Catalogue, Image, SimBoard
from tidegate.sim.clock import DeviceClock, Timeline
from tidegate.sim.faults import Truth
from tidegate.sim.link import SimLink, Wire
from tidegate.sim.population import DevicePlan

#: Things done in one wake before others get their turn.
TURN: Final = 64
#: How long the power is away after a cut, in seconds.
OUTAGE_S: Final = 30.0
NEVER: Final = float("inf")
#: The reason that a failing check of each kind stands for.
REASON_OF: Final = {
    "boot": "health.boot",
    "network": "health.network",
    "services": "health.service",
    "error_rate": "health.error_rate",
    "command": "health.command",
    "http": "health.service",
}


@dataclass(frozen=True, kw_only=True)
class Factory:
    """What every device of a population leaves the factory with.

    Attributes:
        anchor: root metadata built into the image.
        image: the bytes in slot A; `installed` says which release they are.
        product: what all devices are.
        claim: token to enrol with.
        slot_size: bytes of each slot.
        poll_interval_s: at least so long between polls; 0 = as the server says.
    """

    anchor: bytes
    image: bytes
    installed: Image
    product: str
    claim: str | None
    slot_size: int
    poll_interval_s: int = 0


class _Probe:
    """A health check that sees what the running image really does."""

    def __init__(self, device: "SimDevice", kind: str) -> None:
        self._device = device
        self._kind = kind

    def check(self, now: float) -> tuple[bool, str]:
        """Return (passes, detail)."""
        behaviour = self._device.board.behaviour()
        if self._kind in {"services", "http"}:
            return behaviour.service, "active" if behaviour.service else "main process exited"
        if self._kind == "network":
            return behaviour.network, "up" if behaviour.network else "no carrier"
        return True, "fine"


class _Errors:
    """The error counter of the running image."""

    def __init__(self, board: SimBoard) -> None:
        self._board = board

    def read(self, last: Reading | None) -> Reading:
        """Errors since this boot."""
        return Reading(count=self._board.errors_total())


class SimDevice:
    """A device that can be woken; between wakes it costs nothing.

    Attributes:
        plan: what it is on paper.
        board: the hardware, with the truth about it.
        link: its network.
        runner: the agent that runs now; None between boots.
        inhibitors: what says not now on this device.
    """

    def __init__(
        self,
        plan: DevicePlan,
        factory: Factory,
        *,
        timeline: Timeline,
        wire: Wire,
        catalogue: Catalogue,
        truth: Truth,
    ) -> None:
        """Make the device and switch it on."""
        self.plan = plan
        self.clock = DeviceClock(timeline, _random(plan.seed, "clock"))
        self.board = SimBoard(
            variant=plan.variant,
            clock=self.clock,
            random=_random(plan.seed, "board"),
            catalogue=catalogue,
            truth=truth,
            slot_size=factory.slot_size,
        )
        self.board.load(factory.image)
        self.link = SimLink(
            wire,
            self.clock,
            _random(plan.seed, "link"),
            faults=plan.link,
            pattern=plan.pattern,
        )
        self.settings = _settings(plan, factory)
        self.inhibitors: tuple[str, ...] = ()
        self.runner: Runner | None = None
        self._offline = False
        self.board.start()

    def wake(self) -> float:
        """Let the agent work for a turn. Return when it wants to be woken next, on the timeline."""
        self.clock.wake()
        if self.board.dead:
            return NEVER
        try:
            wanted = self.clock.at() + self._turn()
        except PowerCut:
            self.runner = None
            self.clock.sleep(OUTAGE_S)
            self._boot()
            return self.clock.at()
        return self._or_network(wanted)

    def restart(self) -> None:
        """Pull the plug and put it back."""
        self.clock.wake()
        self.runner = None
        self._boot()

    def _or_network(self, wanted: float) -> float:
        """Wake early when the network comes back: a device's network service tells the agent (`tidegate-agent check`)."""
        at = self.clock.at()
        if self.link.pattern.is_online(at):
            return wanted
        self._offline = True
        return min(wanted, self.link.pattern.next_online(at))

    def _turn(self) -> float:
        if self._offline and self.link.pattern.is_online(self.clock.at()):
            self._offline = False
            if self.runner is not None:
                self.runner.check_now()
        runner = self.runner or self._start_agent()
        for _ in range(TURN):
            delay = runner.tick()
            if self.board.wants_reboot:
                self.runner = None
                self._boot()
                return 0.0
            if delay > 0:
                return delay
        return 0.0

    def _start_agent(self) -> Runner:
        ports = Ports(
            clock=self.clock,
            storage=self.board.storage,
            board=self.board,
            transport=self.link,
            examiner=InPlace(self._probe),
            errors=_Errors(self.board),
            inhibitors=self._inhibitors,
        )
        self.runner = Runner(ports, self.settings)
        return self.runner

    def _boot(self) -> None:
        self.board.start()
        self.link.down = not self.board.behaviour().network

    def _probe(self, check: HealthCheck) -> tuple[str, _Probe]:
        return REASON_OF.get(check.kind, "health.command"), _Probe(self, check.kind)

    def _inhibitors(self) -> tuple[str, ...]:
        return self.inhibitors


def _settings(plan: DevicePlan, factory: Factory) -> Settings:
    installed = factory.installed
    return Settings(
        device_id=plan.device_id,
        product=factory.product,
        hardware=plan.hardware,
        attributes=plan.attributes,
        region=plan.region,
        site=plan.site,
        connectivity=plan.connectivity,
        anchor=factory.anchor,
        claim=factory.claim,
        installed=Running(
            release_counter=installed.counter, sha256=installed.sha256, version=installed.version
        ),
        poll_interval_s=factory.poll_interval_s,
    )


def _random(seed: int, part: str) -> Random:
    return Random(f"{part} {seed}")  # noqa: S311 - a story, not a secret
