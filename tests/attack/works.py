"""The vendor: offline keys as the security page wants them (root and targets 2 of 3, a product that needs two), and a real server process with real boards.

Images are small and carry the superblock that a virtual board looks for, so that a whole update of a real agent process takes a few seconds.
"""

import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.e2e.served import Served

from tidegate.core.authority import ProductExtra, ProductFloor
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import PublicKey, Signer
from tidegate.core.metadata import RoleKeys, SignedTarget, make_product, parse_targets, sign
from tidegate.core.release import HealthCheck, HealthContract, Running
from tidegate.publisher import bundle
from tidegate.publisher.ceremony import ROOT_S, RootSpec, begin_root, begin_targets, online_keys
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.publisher.staging import parse_staging
from tidegate.sim.api import Api
from tidegate.sim.control import Control
from tidegate.sim.link import HttpWire
from tidegate.sim.virtual_board import BoardSpec, make_board

MAIN, SOLO = "gw1", "solo"
SLOT = 1 << 20
DAY = 86_400
FLOOR = 2
SETTINGS = '[poll]\ninterval = "1s"\n[plan]\ntick = "1s"\n'


def signer(name: str) -> Signer:
    """Make the key that this name always gives."""
    return Signer.from_seed(hashlib.sha256(f"theft {name}".encode()).digest())


def ring(needs: int, *signers: Signer) -> RoleKeys:
    """Put the public halves of keys into a role."""
    return RoleKeys(tuple(one.public for one in signers), needs)


def image_of(text: str) -> bytes:
    """Return an image that a virtual board boots, and that says in every block what it is."""
    block = (text.encode() + b" ").ljust(64, b".") * 64
    whole = bytearray(block * 16)
    whole[1080:1082] = b"\x53\xef"
    return bytes(whole)


@dataclass
class Offline:
    """Every key that is never on the server. Replace one to lose it."""

    roots: tuple[Signer, ...] = tuple(signer(f"root {n}") for n in range(3))
    targets: tuple[Signer, ...] = tuple(signer(f"targets {n}") for n in range(3))
    incident: tuple[Signer, ...] = tuple(signer(f"incident {n}") for n in range(2))
    main: tuple[Signer, ...] = (signer("rita"), signer("rob"))
    solo: tuple[Signer, ...] = (signer("sam"),)

    def root(
        self, online: dict[str, PublicKey], *, previous: bytes | None = None, epoch: bool = False
    ) -> bytes:
        """Hold a root ceremony: two of three sign."""
        roles = {
            "root": ring(2, *self.roots),
            "targets": ring(2, *self.targets),
            "incident": ring(2, *self.incident),
            **{name: RoleKeys((key,), 1) for name, key in online.items()},
        }
        spec = RootSpec(tenant="default", expires_s=ROOT_S, roles=roles)
        draft = begin_root(spec, previous=previous, now=int(time.time()), raise_epoch=epoch)
        return sign(draft, *self.roots[:2])

    def delegate(self, *, previous: bytes | None = None) -> bytes:
        """Say who signs for each product: two for the main one, one for the other."""
        products = {MAIN: ring(2, *self.main), SOLO: ring(1, *self.solo)}
        draft = begin_targets(products, previous=previous, now=int(time.time()))
        return sign(draft, *self.targets[:2])


class Works:
    """One vendor with a running server.

    Attributes:
        roles: the product role that was published last, by product.
        digests: digest of every image that release signers signed, by counter, of the main product.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offline = Offline()
        self.roles: dict[str, bytes] = {}
        self.targets: dict[tuple[str, int], SignedTarget] = {}
        self.marker = folder / "booted"
        self.marker.touch()
        (folder / "tidegate.toml").write_text(SETTINGS)
        self.served = self.serve(folder / "data")
        self.root = self.offline.root(self.online)
        self.delegations = self.offline.delegate()
        self.publish_trust()
        self.claims = {name: self.control.make_claim(name, 100) for name in (MAIN, SOLO)}

    def serve(self, data: Path, *, port: int | None = None) -> Served:
        """Start a server process on a data directory."""
        self.served = Served(data, "--config", str(self.folder / "tidegate.toml"), port=port)
        token = (data / "bootstrap.token").read_text().strip()
        self.control = Control(Api(HttpWire("127.0.0.1", self.served.port), token))
        return self.served

    @property
    def online(self) -> dict[str, PublicKey]:
        """The public halves of the running server's own keys."""
        return online_keys(self.control.online_keys())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    def publish_trust(self) -> None:
        """Publish root and targets as they are now."""
        path = self.folder / "trust.bundle"
        bundle.write(path, {"root": self.root, "targets": self.delegations}, {})
        self.control.publish(path)

    def release(self, counter: int, *, product: str = MAIN, **changes: Any) -> SignedTarget:
        """Build a release, have it signed by all its signers, and publish it."""
        made = self.build(counter, product=product, **changes)
        for one in self.offline.main if product == MAIN else self.offline.solo:
            sign_bundle(made.bundle, one)
        self.control.publish(made.bundle)
        self.roles[product] = bundle.read(made.bundle).documents[f"product/{product}"]
        self.targets[product, counter] = made.targets[0]
        return made.targets[0]

    def build(self, counter: int, *, product: str = MAIN, **changes: Any) -> bundle.Built:
        """Build a release, unsigned."""
        path = self.folder / f"{product}-{counter}.img"
        path.write_bytes(image_of(f"{product} release {counter}"))
        steps = changes.pop("mandate", "")
        spec = ReleaseSpec(
            product=product,
            version=f"1.{counter}.0",
            counter=counter,
            security_version=counter,
            kind="feature",
            # What one person signs for alone is never for stable.
            channels=("stable",) if product == MAIN else ("pilot",),
            hardware=(HardwareRange(product, 0, 9),),
            components=(ComponentSpec("rootfs", "raw_image", path, 0),),
            health=self.health,
            notes="",
            source="",
            min_agent=None,
            from_counters=(),
            requires=(),
            fallback_s=0,
            expires_s=180 * DAY,
            mandate=parse_staging(steps) if steps else None,
        )
        return bundle.build(
            replace(spec, **changes),
            self.folder,
            previous=self.roles.get(product) or self._floor_first(product),
            now=int(time.time()),
            level=1,
        )

    @property
    def health(self) -> HealthContract:
        """What every image has to show."""
        check = HealthCheck(name="boot", kind="boot", settings={"by": f"marker:{self.marker}"})
        return HealthContract(warmup_s=1, timeout_s=30, interval_s=1, checks=(check,))

    def _floor_first(self, product: str) -> bytes:
        """Return the role that the first release is built on: no releases, and the product's floor."""
        floors = (ProductFloor(model=product, security_floor=FLOOR),)
        extra = ProductExtra(product_floor=floors)
        return make_product(version=1, expires_at=int(time.time()) + DAY, targets=(), extra=extra)

    def roll_out(self, counter: int, product: str = MAIN) -> str:
        """Send a release to everybody at once."""
        return self.control.roll_out(
            {
                "name": f"{product}-to-{counter}",
                "release": f"{product}-1.{counter}.0",
                "preset": "lab",
                "ring": [{"name": "all", "audience": "rest", "soak": "1s"}],
            }
        )

    def board(self, name: str, product: str = MAIN) -> Path:
        """Make a board that left the factory with release 1."""
        first = self.targets[product, 1].release
        folder = self.folder / name
        make_board(
            folder,
            BoardSpec(
                device_id=name,
                product=product,
                model=product,
                rev=1,
                server=self.url,
                anchor=self.root,
                claim=self.claims[product],
                image=self.folder / f"{product}-1.img",
                installed=Running(
                    release_counter=1,
                    version=first.version,
                    security_version=1,
                    sha256=first.install.sha256,
                ),
                slot_size=SLOT,
                attributes={},
                poll_s=1,
            ),
        )
        if product == SOLO:
            path = folder / "agent.toml"
            path.write_text(path.read_text().replace("[device]", '[device]\nchannel = "pilot"', 1))
        return folder

    def halt_server(self) -> None:
        """Stop the server so that its files can be copied whole."""
        self.served.stop()


def copy_board(source: Path, folder: Path, url: str) -> Path:
    """Make a copy of a board that was switched off, which talks to another server."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("agent.sock", "agent.log"))
    point_at(folder, url, source)
    return folder


def point_at(folder: Path, url: str, source: Path | None = None) -> None:
    """Turn a board that is switched off to another server's address."""
    path = folder / "agent.toml"
    lines = path.read_text()
    if source is not None:
        lines = lines.replace(str(source), str(folder))
    kept = [f'url = "{url}"' if line.startswith("url = ") else line for line in lines.splitlines()]
    path.write_text("\n".join(kept) + "\n")


def names_of(body: bytes, product: str) -> list[str]:
    """Return the paths that a product role names."""
    return sorted(parse_targets(body, f"product/{product}").signed.targets)


def digest(body: bytes) -> str:
    """Return the digest of bytes."""
    return hashlib.sha256(body).hexdigest()
