"""Sets the demo's stage: control plane, throw-away keys, images of real files, signed releases, simulated devices and one real agent."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tidegate.agent.boot import file_record as boot_file
from tidegate.core.errors import ConfigError
from tidegate.core.release import Running
from tidegate.publisher.image import make_ext4
from tidegate.sim import cast
from tidegate.sim.api import Api
from tidegate.sim.board import Image
from tidegate.sim.control import Control
from tidegate.sim.crew import CrewSpec, Known
from tidegate.sim.images import BUILT_AT, TreeSpec, make_tree
from tidegate.sim.population import DevicePlan, PopulationSpec, populate
from tidegate.sim.processes import Crews, Server, free_port
from tidegate.sim.report import DeviceTruth
from tidegate.sim.teller import Teller
from tidegate.sim.venue import Venue
from tidegate.sim.virtual_board import BoardSpec, VirtualBoard, make_board, slot_path, wait_for
from tidegate.sim.workshop import Recipe, Workshop, contract

#: Slots of simulated devices, and of the real agent's board.
SMALL: Final = 2 << 20
LARGE: Final = 64 << 20
#: How much of the library goes into an image of `LARGE` bytes.
_CONTENT_MAX: Final = 48 << 20
#: How often simulated devices ask, in their own accelerated seconds, and the real one in real ones.
POLL_S: Final = 240
REAL_POLL_S: Final = 2
_SERVER_TOML: Final = """# The demo's control plane: everything in seconds.
[plan]
tick = "1s"
[poll]
interval = "1s"
"""


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Where and how large.

    Attributes:
        venue: a server that is there already, with nothing on it; None = one of the stage's own.
        token: of somebody who may do everything there.
        releases: those that the story needs, the factory's among them, in their order.
    """

    folder: Path
    devices: int
    speed: float
    seed: int
    venue: Venue | None = None
    token: str = ""
    releases: tuple[cast.ReleasePlan, ...] = cast.RELEASES


class Stage:
    """Everything that the story is played with.

    Attributes:
        plans: the simulated devices on paper.
        server: the stage's own; None where it plays on another.
        venue, control, crew, board: there after `set`.
    """

    venue: Venue
    control: Control
    crew: Crews
    board: VirtualBoard
    _workshop: Workshop

    def __init__(self, options: StageOptions, teller: Teller) -> None:
        """Plan the fleet; nothing is started yet."""
        self._options = options
        self.server: Server | None = None
        self._teller = teller
        self._folder = options.folder
        self._spec = PopulationSpec(
            size=options.devices, day_s=1.5 * options.speed, product=cast.PRODUCT
        )
        self.plans: list[DevicePlan] = populate(self._spec, options.seed)
        self.plan_of = {plan.device_id: plan for plan in self.plans}
        self._images: dict[tuple[int, str], Path] = {}
        self._running: dict[str, Image] = {}
        self._open: list[Any] = []
        self._real_trail = [cast.FACTORY.counter]

    # --- setting and striking --------------------------------------------------------------------------------------

    def set(self) -> None:
        """Set everything up, with progress shown.

        Raises:
            TidegateError: something is missing or does not start.
        """
        with ThreadPoolExecutor(2) as pool:
            making = {
                (release.counter, model): pool.submit(self._make_image, release, model)
                for release in self._options.releases
                for model in self._models(release)
            }
            self._open_venue()
            self._wait_for_images(making)
        self._publish()
        self._start_devices()

    def close(self) -> None:
        """End every process, newest first."""
        for one in reversed(self._open):
            one.stop()
        self._open.clear()

    @property
    def url(self) -> str:
        """Where the control plane listens."""
        return self.venue.url

    def sign_in_link(self) -> str:
        """Return a link that signs its holder in, once."""
        return f"{self.url}{self.control.sign_in_path()}"

    def _open_venue(self) -> None:
        """Start a server of our own, or see that nothing lives on the one that was named: the demo brings a root of trust that anybody may sign with."""
        given = self._options.venue
        if given is None:
            self._start_server()
            return
        self.venue = given
        self.control = Control(Api(given.wire(), self._options.token))
        if self.control.lives():
            raise ConfigError(
                "config.invalid",
                f"{given.url} has devices or releases; the demo wants a server for itself, and publishes a root of trust made of throw-away keys",
            )

    def _start_server(self) -> None:
        self._teller.progress("starting the control plane")
        data = self._folder / "data"
        config = self._folder / "tidegate.toml"
        config.write_text(_SERVER_TOML)
        log = self._folder / "server.log"
        self.server = Server(data, free_port(), log, ("--config", str(config)))
        self._open.append(self.server)
        token = (data / "bootstrap.token").read_text().strip()
        self.venue = Venue(url=f"http://127.0.0.1:{self.server.port}")
        self.control = Control(Api(self.venue.wire(), token))

    # --- images ----------------------------------------------------------------------------------------------------

    def _models(self, release: cast.ReleasePlan) -> tuple[str, ...]:
        return (cast.MODEL, cast.REAL_MODEL) if release.real else (cast.MODEL,)

    def _make_image(self, release: cast.ReleasePlan, model: str) -> Path:
        large = model == cast.REAL_MODEL
        tree = self._folder / "trees" / f"{model}-{release.version}"
        image = self._folder / "images" / f"{model}-{release.version}.ext4"
        image.parent.mkdir(parents=True, exist_ok=True)
        spec = TreeSpec(release.version, extra=release.extra, role=model)
        if large:
            spec = TreeSpec(release.version, packages=(), role=model, limit_bytes=_CONTENT_MAX)
        make_tree(tree, spec)
        make_ext4(tree, image, LARGE if large else SMALL, BUILT_AT)
        return image

    def _wait_for_images(self, making: dict[tuple[int, str], "Future[Path]"]) -> None:
        for number, (key, future) in enumerate(making.items()):
            self._teller.progress(f"images of real files: {number} of {len(making)}")
            self._images[key] = future.result()

    # --- releases --------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        self._teller.progress("keys and a root of trust")
        self._workshop = Workshop(self._folder / "lab", cast.PRODUCT, self.control)
        releases = self._options.releases
        for number, release in enumerate(releases):
            self._teller.progress(f"signed and published: {number} of {len(releases)} releases")
            recipes = [self._recipe(release, model) for model in self._models(release)]
            # a way back to what is not told here is no way
            back_to = tuple(one.counter for one in releases if one.counter in release.back_to)
            self._workshop.publish(replace(release, back_to=back_to), recipes)

    def _recipe(self, release: cast.ReleasePlan, model: str) -> Recipe:
        image = self._images[(release.counter, model)]
        if model == cast.REAL_MODEL:
            health = contract(self._real_checks(), warmup_s=3, timeout_s=60, interval_s=1)
            return Recipe("rootfs-dev", image, model, (1, 1), health)
        checks: list[dict[str, Any]] = [
            {"type": "boot"},
            {"type": "network"},
            {"type": "services", "units": ["gateway.service"]},
        ]
        # In a simulated device's own, accelerated time.
        health = contract(checks, warmup_s=60, timeout_s=300, interval_s=5)
        return Recipe("rootfs", image, model, release.revs, health)

    def _real_checks(self) -> list[dict[str, Any]]:
        """What the real agent has to show: its board is up, it reaches the server, the board's own process runs."""
        board = self._folder / "board"
        return [
            {"type": "boot", "by": f"marker:{board / 'booted'}"},
            {"type": "network", "needs": [f"tcp:{self.venue.host}:{self.venue.port}"]},
            {"type": "services", "pid_files": [str(board / "core.pid")]},
        ]

    def target_of(self, release: cast.ReleasePlan, model: str) -> dict[str, Any]:
        """Return the `AssignedTarget` that names a release's artifact for a model, as JSON-like data."""
        return self._workshop.assigned(release.counter, model)

    def director_key(self) -> str:
        """Steal the director's private key, as somebody would who got into the server; hex. Empty where nobody can."""
        if self.server is None:
            return ""
        return (self._folder / "data" / "online" / "director.key").read_bytes().hex()

    # --- devices ---------------------------------------------------------------------------------------------------

    def _start_devices(self) -> None:
        self._teller.progress("switching the devices on")
        root = self._workshop.root
        claim = self.control.make_claim(cast.PRODUCT, len(self.plans) + 1)
        anchor = self._folder / "root.json"
        anchor.write_bytes(root)
        factory = self._images[(cast.FACTORY.counter, cast.MODEL)]
        spec = CrewSpec(
            venue=self.venue,
            seed=self._options.seed,
            speed=self._options.speed,
            population=self._spec,
            anchor=str(anchor),
            factory_image=str(factory),
            factory=self._known(cast.FACTORY).image,
            claim=claim,
            slot_size=SMALL,
            poll_interval_s=POLL_S,
        )
        names = [plan.device_id for plan in self.plans]
        self.crew = Crews(spec, self._folder / "crew.log", names)
        self._open.append(self.crew)
        self.crew.know(self._known(release) for release in self._options.releases)
        self._start_board(claim, root)
        # Some of them have no network just now; they join while the story goes on.
        wanted = len(self.plans) * 9 // 10
        if not wait_for(lambda: self._enrolled() >= wanted, 120):
            raise ConfigError("config.invalid", f"only {self._enrolled()} of {wanted} devices came")

    def _enrolled(self) -> int:
        count = sum(1 for _ in self.control.devices())
        self._teller.progress(f"{count} of {len(self.plans) + 1} devices enrolled")
        return count

    def _known(self, release: cast.ReleasePlan) -> Known:
        content = self._images[(release.counter, cast.MODEL)].read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        image = Image(release.counter, release.version, digest, len(content))
        return Known(image=image, behaviours=release.behaviours)

    def _start_board(self, claim: str, root: bytes) -> None:
        folder = self._folder / "board"
        image = self._images[(cast.FACTORY.counter, cast.REAL_MODEL)]
        digest = _sha256(image)
        spec = BoardSpec(
            device_id=cast.REAL_ID,
            product=cast.PRODUCT,
            model=cast.REAL_MODEL,
            rev=1,
            server=self.url,
            anchor=root,
            claim=claim,
            image=image,
            installed=Running(
                release_counter=cast.FACTORY.counter,
                sha256=digest,
                version=cast.FACTORY.version,
            ),
            slot_size=LARGE,
            attributes={"stage": "pilot", "region": "here", "site": "desk"},
            poll_s=REAL_POLL_S,
            ca=Path(self.venue.ca) if self.venue.ca else None,
        )
        make_board(folder, spec)
        self.board = VirtualBoard(folder)
        self._open.append(self.board)
        self.board.start()

    def truths(self) -> list[DeviceTruth]:
        """Return what is true of every device, the real agent's board included."""
        counter = self.real_counter()
        if counter != self._real_trail[-1]:
            self._real_trail.append(counter)
        trail = self._real_trail
        image = self._images.get((counter, cast.REAL_MODEL))
        real = DeviceTruth(
            device_id=cast.REAL_ID,
            variant=f"{cast.REAL_MODEL}-r1",
            stage="pilot",
            counter=counter,
            sha256=_sha256(image) if image is not None else "",
            version=next((one.version for one in cast.RELEASES if one.counter == counter), ""),
            primary_counter=counter,
            dead=counter == 0,
            boots=self.board.boots,
            failed_boots=0,
            torn_boots=0,
            cuts=(),
            trials=tuple((to, origin, "confirmed") for origin, to in pairwise(trail)),
        )
        return [*self.crew.truth(), real]

    def real_counter(self) -> int:
        """Return the release that the real agent's board would boot: by the bytes of its primary slot."""
        folder = self._folder / "board"
        record = boot_file.decode((folder / "boot.json").read_bytes())
        found = _sha256(slot_path(folder, record.primary))
        for release in self._options.releases:
            if release.real:
                image = self._images[(release.counter, cast.REAL_MODEL)]
                if _sha256(image) == found:
                    return release.counter
        return 0

    # --- the end ---------------------------------------------------------------------------------------------------

    def report(self, incidents: Iterable[str]) -> list[str]:
        """Return the last incident's report as lines, and where all of them are."""
        names = list(dict.fromkeys(incidents))
        if not names:
            return []
        lines = ["", f"Incidents: {' '.join(names)}   {self.url}/incidents/{names[-1]}"]
        return lines + self.control.incident_report(names[-1]).splitlines()


_digests: dict[tuple[str, int], str] = {}


def _sha256(path: Path) -> str:
    """Hash a file, remembered as long as it does not change."""
    key = (str(path), path.stat().st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
