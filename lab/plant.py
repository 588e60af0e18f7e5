"""The control plane of a lab run: a real `tidegate serve` on the loopback interface, the team's keys, and the releases of real images."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from lab.machine import SilentError
from tidegate.core.release import HealthContract, Running
from tidegate.publisher.ceremony import online_keys
from tidegate.publisher.lab import make_lab
from tidegate.sim.api import Api
from tidegate.sim.cast import ReleasePlan
from tidegate.sim.control import Control
from tidegate.sim.link import HttpWire
from tidegate.sim.processes import Server, free_port
from tidegate.sim.workshop import Recipe, Workshop, contract

PRODUCT: Final = "lab"
MODEL: Final = "lab-x86"
#: What the guests are told: 10.0.2.2 is the host's loopback, through QEMU.
_HOST: Final = "10.0.2.2"
_SETTINGS: Final = '[poll]\ninterval = "1s"\n[plan]\ntick = "1s"\n'
#: A device in emulation may need minutes for what a real one does in seconds.
_PATIENCE: Final = "1h"
#: For one round of checks: on a host with other work it takes that long to start the process that does them, in seconds.
_CHECK_S: Final = 60
#: Pause between two looks at the server, in seconds: the machines want the processor.
ASK_S: Final = 0.5


@dataclass(frozen=True)
class Release:
    """A release as it was published.

    Attributes:
        image: what a slot holds afterwards.
        sha256: digest of exactly that.
    """

    product: str
    counter: int
    version: str
    image: Path
    sha256: str

    @property
    def name(self) -> str:
        """The server's name for it."""
        return f"{self.product}-{self.version}"

    @property
    def running(self) -> Running:
        """How the factory describes it."""
        return Running(release_counter=self.counter, version=self.version, sha256=self.sha256)


def health(*, warmup_s: int = 2, timeout_s: int = 300, **limits: int) -> HealthContract:
    """Write the contract of the lab's product: it booted, its service runs and serves.

    Args:
        warmup_s: how long it must stay well.
        timeout_s: after which it is given up; long, since a host with other work makes everything slow.
        limits: further fields of the contract, such as `error_rate_per_hour`.
    """
    checks: list[dict[str, Any]] = [
        {"type": "boot", "by": "marker:/run/booted", "timeout_s": _CHECK_S},
        {"type": "services", "pid_files": ["/run/app.pid"], "timeout_s": _CHECK_S},
    ]
    made = contract(checks, warmup_s=warmup_s, timeout_s=timeout_s, interval_s=2)
    return msgspec.structs.replace(made, **limits)


class Plant:
    """One server and what is published on it.

    Args:
        folder: for data, keys and bundles.
        products: for which there are keys. One rollout of a product at a time is what a server knows, so each story has a product of its own.
    """

    def __init__(self, folder: Path, products: Sequence[str] = (PRODUCT,)) -> None:
        """Start the server, make keys, publish the trust."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "tidegate.toml"
        settings.write_text(_SETTINGS)
        extra = ("--config", str(settings))
        self.server = Server(folder / "data", free_port(), folder / "server.log", extra)
        self._token = (folder / "data" / "bootstrap.token").read_text().strip()
        self._own = threading.local()
        keys = online_keys(self.control.online_keys())
        lab = make_lab(folder / "keys", keys, products, now=int(time.time()), randomness=os.urandom)
        self._shops = {}
        self._claims = {}
        for product in products:
            (folder / product).mkdir()
            self._shops[product] = Workshop(folder / product, product, self.control, lab=lab)
            self._claims[product] = self.control.make_claim(product, 1000)

    @property
    def control(self) -> Control:
        """The operator's API, over a connection of this thread's own."""
        if not hasattr(self._own, "control"):
            self._own.control = Control(Api(HttpWire("127.0.0.1", self.server.port), self._token))
        made: Control = self._own.control
        return made

    def release(
        self, counter: int, image: Path, contract: HealthContract, product: str = PRODUCT
    ) -> Release:
        """Build, sign and publish a release of a slot's image."""
        version = f"1.{counter}.0"
        shop = self._shops[product]
        recipe = Recipe("rootfs", image, MODEL, (0, 9), contract)
        shop.publish(ReleasePlan(counter, version, ""), [recipe])
        return Release(product, counter, version, image, shop.installed(counter, MODEL))

    def factory(self, device: str, installed: Release, group: str = "all") -> dict[str, bytes]:
        """Return what the factory writes on a device's data partition: who it is, whom it trusts, and what runs on it."""
        board = (
            f'[server]\nurl = "http://{_HOST}:{self.server.port}"\n'
            f'[device]\nproduct = "{installed.product}"\n[device.attributes]\nstage = "{group}"\n'
        )
        return {
            "factory/id": f"{device}\n".encode(),
            "factory/root.json": self._shops[installed.product].root,
            "factory/claim": f"{self._claims[installed.product]}\n".encode(),
            "factory/installed.json": msgspec.json.encode(installed.running),
            "factory/board.toml": board.encode(),
        }

    def roll_out(self, release: Release, *, tries: int = 3) -> str:
        """Send a release to all devices of its product, those that come later too; returns the rollout's name.

        Args:
            release: which.
            tries: boots that the loader grants it.
        """
        return self.control.roll_out(
            {
                "name": f"all-{release.name}",
                "release": release.name,
                "preset": "lab",
                "guards": [],
                "delivery": {"tries": tries},
                "deadlines": {"return": _PATIENCE, "confirm": _PATIENCE},
                "ring": [{"name": "all", "audience": "rest", "soak": "1s"}],
            }
        )

    def reports(self, device: str) -> list[dict[str, Any]]:
        """Return what a device reported, newest last."""
        return sorted(self.control.device_log(device), key=lambda one: int(one["seq"]))

    def outcomes(self, device: str) -> list[dict[str, Any]]:
        """Return the reports of a device that end an update."""
        kinds = {"confirmed", "reverted", "failed"}
        return [one for one in self.reports(device) if one["kind"] in kinds]

    def known(self, device: str) -> bool:
        """Say whether a device has enrolled."""
        return any(one["id"] == device for one in self.devices())

    def devices(self) -> Iterator[dict[str, Any]]:
        """Yield what the server knows of each device."""
        return self.control.devices()

    def wait_outcome(self, device: str, within_s: float) -> dict[str, Any]:
        """Wait until a device has told how its update ended; returns that report.

        Raises:
            SilentError: it did not within the time.
        """
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            told = self.outcomes(device) if self.known(device) else []
            if told:
                return told[-1]
            time.sleep(ASK_S)
        why = self.why(device) if self.known(device) else "it never enrolled"
        raise SilentError(f"{device} told no outcome within {within_s:g} s: {why}")

    def counted(self, release: Release) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many devices of a release's product told each outcome, and how many the server counted in its rollout."""
        names = [one["id"] for one in self.devices() if one["product"] == release.product]
        kinds = [one["kind"] for name in names for one in self.outcomes(name)]
        rollout = self.control.rollout(f"all-{release.name}")
        both = ("confirmed", "reverted")
        return (
            {kind: kinds.count(kind) for kind in both},
            {kind: rollout.count(kind) for kind in both},
        )

    def why(self, device: str) -> Any:
        """Return what the server says of why a device does what it does."""
        return self.control.api.get(f"/devices/{device}/why")

    def stop(self) -> None:
        """End the server."""
        self.server.stop()
