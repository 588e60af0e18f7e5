"""A whole world in one process and one thread: the real server on a virtual clock, and a fleet of real agents on simulated boards.

Time jumps from one event to the next, so a week takes seconds; the same seed tells the same story. Used by `tidegate sim run` and by the scenario tests.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from tidegate.server import acts, releases, telemetry
from tidegate.server.app import App, create_app
from tidegate.server.auth import Actor
from tidegate.server.config import Settings
from tidegate.server.operations import Operations
from tidegate.server.planning import Audience
from tidegate.server.store import admin_devices, hot
from tidegate.sim.board import Catalogue, Image, SimBoard
from tidegate.sim.cast import ReleasePlan
from tidegate.sim.clock import EPOCH, DeviceClock, VirtualTimeline
from tidegate.sim.control import RolloutView, view_of
from tidegate.sim.device import Factory, SimDevice
from tidegate.sim.faults import Behaviour, Truth
from tidegate.sim.images import TreeSpec, make_packed, make_tree
from tidegate.sim.link import AsgiWire
from tidegate.sim.population import DevicePlan, PopulationSpec, populate
from tidegate.sim.report import DeviceTruth, device_truth, digest
from tidegate.sim.scheduler import Fleet, Scheduler
from tidegate.sim.workshop import Recipe, Workshop, contract

#: Bytes of a slot: small, so that thousands of them fit into memory.
SLOT: Final = 512 << 10
#: How often the server looks at its rollouts, in simulated seconds.
TICK_S: Final = 300.0
#: What every device has to show here.
CONTRACT: Final = contract(
    [{"type": "boot"}, {"type": "network"}, {"type": "services", "units": ["gateway.service"]}],
    warmup_s=600,
    timeout_s=1800,
    interval_s=30,
)
CLAIM: Final = "tgc_simulated-fleet"
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a world is made of.

    Attributes:
        poll_s: how often devices ask, in seconds.
    """

    population: PopulationSpec
    seed: int = 1
    poll_s: int = 1800


class Desk:
    """An operator in the server's own process: the same acts as over the API, by the same functions."""

    def __init__(self, app: App, now: Callable[[], int]) -> None:
        """Act on `app`, at the time that `now` tells."""
        self._app = app
        self._now = now
        self._operations = Operations(app.services)
        self._actor = Actor(name="operator", role="admin")

    @property
    def audience(self) -> Audience:
        """Counts who belongs to which ring."""
        return self._operations.audiences.count

    def online_keys(self) -> dict[str, Any]:
        """Return the public halves of the server's online keys."""
        return dict(self._app.services.keys.public())

    def publish(self, bundle: Path) -> None:
        """Publish a signed bundle."""
        with bundle.open("rb") as file:
            releases.accept_bundle(self._app.services, file, actor=self._actor, now=self._now())

    def make_claim(self, product: str, count: int, token: str) -> None:
        """Make a claim of that token."""
        row = {
            "name": f"{product}-sim",
            "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
            "product": product,
            "max_count": count,
            "expires_at": self._now() + 365 * 86_400,
            "created_at": self._now(),
            "created_by": self._actor.name,
        }
        self._app.store.write(lambda conn: admin_devices.add_claim(conn, row)).result()

    def roll_out(self, request: Mapping[str, Any], reason: str = "simulated") -> str:
        """Create and start a rollout; returns its name."""
        return self._operations.create(request, self._actor, reason, self._now()).name

    def rollout(self, name: str) -> RolloutView:
        """Return where a rollout stands."""
        row = self._app.store.read(lambda conn: acts.row_of(conn, name))
        found = self._app.store.read(lambda conn: telemetry.evidence(conn, int(row["id"])))
        return view_of(row, found.tallies)

    def act(self, name: str, verb: str, **detail: str) -> None:
        """Halt, pause, resume, isolate … a rollout."""
        self._operations.act(
            name, verb, self._actor, "simulated", self._now(), detail=detail or None
        )

    def fall_back(self, name: str, to: str, reason: str = "simulated") -> str:
        """Order the exposed devices of a halted rollout back to a release; returns the child's name."""
        return self._operations.fall_back(
            name, to, "exposed", self._actor, reason, self._now()
        ).name


class World:
    """The server, the fleet, and the operator's hands.

    Attributes:
        desk: the operator's own hands, without HTTP.
        contract: what every device has to show.
        tick_s: how often the server looks at its rollouts, in simulated seconds.
        fleet: the devices, with the truth about them.
        story: what the server told of its rollouts, with the time, one line a change.
    """

    contract = CONTRACT
    tick_s = TICK_S

    def __init__(self, spec: WorldSpec, folder: Path, *, start: float = EPOCH) -> None:
        """Set up the server in `folder`, publish the factory's release, and switch every device on; time begins at `start`, unix seconds."""
        self.spec = spec
        self._folder = folder
        self.timeline = VirtualTimeline(start)
        self.scheduler = Scheduler(self.timeline)
        self.catalogue = Catalogue()
        self.truth = Truth()
        self.story: list[str] = []
        self._told: dict[str, str] = {}
        self._watched: list[str] = []
        self._until: Callable[[], bool] | None = None
        self._met = False
        self._random = Random(f"world {spec.seed}")  # noqa: S311 - a story, not a secret
        self._loop = asyncio.new_event_loop()
        self.app = self._open_server()
        self.wire = AsgiWire(self.app, self._loop)
        self.desk = Desk(self.app, lambda: self.now)
        self.workshop = Workshop(
            folder / "lab",
            spec.population.product,
            self.desk,
            clock=self.timeline.wall,
            randomness=self._random.randbytes,
        )
        factory, content = self._publish(1, "1.0.0", "", {})
        self.fleet = self._make_fleet(factory, content)
        self.scheduler.every(self.tick_s, self._tick)

    def close(self) -> None:
        """End the server."""
        self.app.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- setting up ------------------------------------------------------------------------------------------------

    def _open_server(self) -> App:
        settings = Settings(
            data_dir=self._folder / "data",
            poll_interval_s=self.spec.poll_s,
            durable=False,
        )
        return create_app(settings, clock=self.timeline.wall, randomness=self._random.randbytes)

    def _make_fleet(self, factory: Image, content: bytes) -> Fleet:
        population = self.spec.population
        plans = populate(population, self.spec.seed)
        self.desk.make_claim(population.product, len(plans), CLAIM)
        made = Factory(
            anchor=self.workshop.root,
            image=content,
            installed=factory,
            product=population.product,
            claim=CLAIM,
            slot_size=SLOT,
        )
        return Fleet(self.scheduler, [self._device(plan, made) for plan in plans])

    def _device(self, plan: DevicePlan, factory: Factory) -> SimDevice:
        return SimDevice(
            plan,
            factory,
            timeline=self.timeline,
            wire=self.wire,
            catalogue=self.catalogue,
            truth=self.truth,
        )

    # --- the operator ----------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The time, unix seconds."""
        return int(self.timeline.wall())

    def publish(
        self,
        counter: int,
        version: str,
        extra: str,
        behaviours: Mapping[str, Behaviour] | None = None,
        *,
        back_to: tuple[int, ...] = (),
    ) -> str:
        """Build, sign and publish a release, and return its name.

        Args:
            counter: of the release.
            version: of the release.
            extra: module of the interpreter's library that is new in it.
            behaviours: how it really behaves, by variant; `*` = all.
            back_to: counters that it allows a way back to; () = its predecessor.
        """
        self._publish(counter, version, extra, behaviours or {}, back_to)
        return f"{self.spec.population.product}-{version}"

    def _publish(
        self,
        counter: int,
        version: str,
        extra: str,
        behaviours: Mapping[str, Behaviour],
        back_to: tuple[int, ...] = (),
    ) -> tuple[Image, bytes]:
        tree = self._folder / "trees" / version
        make_tree(tree, TreeSpec(version, packages=("json",), extra=extra))
        content = make_packed(tree)
        path = self._folder / f"{version}.image"
        path.write_bytes(content)
        image = Image(counter, version, hashlib.sha256(content).hexdigest(), len(content))
        self.catalogue.add(image)
        for variant, behaviour in behaviours.items():
            self.truth.behaviours[(counter, variant)] = behaviour
        models = sorted({variant.model for variant in self.spec.population.variants})
        plan = ReleasePlan(counter, version, extra, back_to=back_to)
        self.workshop.publish(
            plan,
            [Recipe(f"rootfs-{model}", path, model, (0, 65535), self.contract) for model in models],
        )
        return image, content

    def comes_up(self, version: str, variant: str) -> bool:
        """Boot a release on a board of its own, of that variant: on a bench, in no ring, unknown to the server, without a second of the world's time."""
        bench = VirtualTimeline(self.timeline.wall())
        board = SimBoard(
            variant=variant,
            clock=DeviceClock(bench, Random(f"bench {variant}")),  # noqa: S311 - a story
            random=Random(f"board {variant}"),  # noqa: S311 - a story
            catalogue=self.catalogue,
            truth=self.truth,
            slot_size=SLOT,
        )
        board.load((self._folder / f"{version}.image").read_bytes())
        board.start()
        return not board.dead

    def roll_out(self, request: Mapping[str, Any], reason: str = "simulated") -> str:
        """Create and start a rollout (`rollout.toml` as a dict); returns its name."""
        name = self.desk.roll_out(request, reason)
        self._watched.append(name)
        return name

    # --- time ------------------------------------------------------------------------------------------------------

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; at most `seconds`, or until a condition holds at one of the server's ticks. Returns what `until` said last."""
        self._until, self._met = until, False
        end = self.timeline.at() + seconds
        self.scheduler.run_until(end, done=lambda: self._met)
        return self._met or (until is not None and until())

    def run_until_state(self, name: str, *states: str, within_s: float) -> RolloutView:
        """Let time pass until a rollout is in one of these states, or `within_s` is over."""
        self.run(within_s, until=lambda: self.desk.rollout(name).state in states)
        return self.desk.rollout(name)

    def _tick(self) -> None:
        self.app.tick(self.now)
        for name in self._watched:
            self._tell(self.desk.rollout(name))
        if self._until is not None and self._until():
            self._met = True

    def _tell(self, view: RolloutView) -> None:
        rings = " ".join(f"{ring.name}:{ring.state}:{ring.share_bp}" for ring in view.rings)
        line = f"{view.name} {view.state} {rings} isolated={','.join(view.isolated)}"
        if self._told.get(view.name) != line:
            self._told[view.name] = line
            self.story.append(f"{int(self.timeline.at()):>8} {line}")

    # --- the truth -------------------------------------------------------------------------------------------------

    def truths(self) -> list[DeviceTruth]:
        """Return what is true of every device."""
        return [device_truth(device) for device in self.fleet.devices]

    def digest(self) -> str:
        """Return a digest of everything that happened: boards, and the server's story."""
        return digest(self.truths(), (line.encode() for line in self.story))

    def events_digest(self) -> str:
        """Return a digest of the server's whole event log."""
        return digest((), (line.encode() for line in self.app.store.read(hot.event_log)))
