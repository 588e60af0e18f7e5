"""A server process with releases made from real files, a virtual board with a real agent process, and the operator's API."""

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.e2e.served import Served

from tidegate.core.release import HealthContract, Running
from tidegate.publisher.image import make_ext4
from tidegate.publisher.lab import Lab
from tidegate.sim import images
from tidegate.sim.api import Api
from tidegate.sim.cast import ReleasePlan
from tidegate.sim.control import Control
from tidegate.sim.link import HttpWire
from tidegate.sim.virtual_board import BoardSpec, make_board, slot_path, wait_for
from tidegate.sim.workshop import Recipe, Workshop, contract

PRODUCT: Final = "gw1"
SIZE: Final = 8 << 20
FILES: Final = 5 << 20
#: A line a second: everything in these tests waits for it.
SETTINGS: Final = '[poll]\ninterval = "1s"\n[plan]\ntick = "1s"\n'

#: Makes a package of a foreign installer out of an image: its format, and the file.
Wrap = Callable[[Path], tuple[str, Path]]


class Plant:
    """One control plane and what is published on it.

    Attributes:
        digests: what a slot must hold, by release counter.
    """

    def __init__(
        self, folder: Path, *options: str, lab: Callable[[Control], Lab] | None = None
    ) -> None:
        self.folder = folder
        settings = folder / "tidegate.toml"
        settings.write_text(SETTINGS)
        self.served = Served(folder / "data", "--config", str(settings), *options)
        token = (self.served.data / "bootstrap.token").read_text().strip()
        self.control = Control(Api(HttpWire("127.0.0.1", self.served.port), token))
        keys = None if lab is None else lab(self.control)
        self.shop = Workshop(folder / "shop", PRODUCT, self.control, lab=keys)
        self.marker = folder / "booted"
        self.marker.touch()
        self.digests: dict[int, str] = {}
        self.claim = self.control.make_claim(PRODUCT, 100)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    def version(self, counter: int) -> str:
        """Return the version of a release."""
        return f"1.{counter}.0"

    def release(self, counter: int, *, warmup_s: int = 2, wrap: Wrap | None = None) -> Path:
        """Build, sign and publish a release of real files, in the package that `wrap` makes of its image; returns the image."""
        version, image = self.version(counter), self.image(counter)
        check = {"type": "boot", "by": f"marker:{self.marker}"}
        health = contract([check], warmup_s=warmup_s, timeout_s=60, interval_s=1)
        back_to = (max(self.digests),) if self.digests else ()
        self.shop.publish(
            ReleasePlan(counter, version, _extra(counter), back_to=back_to),
            [_recipe(image, health, wrap)],
        )
        self.digests[counter] = self.shop.installed(counter, PRODUCT)
        return image

    def image(self, counter: int) -> Path:
        """Make the image of a release, of real files, that a virtual board boots."""
        tree, image = self.folder / f"tree-{counter}", self.folder / f"rootfs-{counter}.ext4"
        spec = images.TreeSpec(
            self.version(counter), packages=(), extra=_extra(counter), limit_bytes=FILES
        )
        images.make_tree(tree, spec)
        make_ext4(tree, image, SIZE, images.BUILT_AT)
        return image

    def board(self, name: str, image: Path, counter: int = 1) -> Path:
        """Make a virtual board that left the factory with `image`."""
        folder = self.folder / name
        make_board(
            folder,
            BoardSpec(
                device_id=name,
                product=PRODUCT,
                model=PRODUCT,
                rev=1,
                server=self.url,
                anchor=self.shop.root,
                claim=self.claim,
                image=image,
                installed=Running(
                    release_counter=counter,
                    version=self.version(counter),
                    sha256=self.digests[counter],
                ),
                slot_size=SIZE,
                attributes={"stage": "internal"},
                poll_s=1,
            ),
        )
        return folder

    def roll_out(self, counter: int, **more: Any) -> str:
        """Send a release to everybody at once; returns the rollout's name."""
        asked: dict[str, Any] = {
            "name": f"to-{counter}",
            "release": more.pop("release", "") or f"{PRODUCT}-{self.version(counter)}",
            "preset": "lab",
            "ring": [{"name": "all", "audience": "rest", "soak": "1s"}],
            **more,
        }
        return self.control.roll_out(asked)

    def ends(self, rollout: str, state: str, within_s: float = 60) -> bool:
        """Wait until a rollout is in this state; returns whether it came true."""
        return wait_for(lambda: self.control.rollout(rollout).state == state, within_s)

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        with closing(sqlite3.connect(self.served.data / "tidegate.db", timeout=10)) as raw:
            return raw.execute(statement, values).fetchall()

    def daily(self) -> Mapping[str, int]:
        """Return the daily counters, summed over the days of this test."""
        return dict(self.rows("SELECT name, sum(value) FROM daily GROUP BY 1"))


def _extra(counter: int) -> str:
    return ("queue.py", "sched.py", "shelve.py", "heapq.py")[counter % 4]


def _recipe(image: Path, health: HealthContract, wrap: Wrap | None) -> Recipe:
    if wrap is None:
        return Recipe("rootfs", image, PRODUCT, (0, 9), health)
    form, package = wrap(image)
    return Recipe("rootfs", package, PRODUCT, (0, 9), health, format=form, installed=image)


def slot_digest(board: Path, slot: str) -> str:
    """Return the digest of what stands in a slot of a virtual board."""
    with slot_path(board, slot).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
