"""Releases with attachments, made by the publisher's own tools and published on a server in process."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.unit.core.supply import paper
from tests.unit.server.rig import Device, Rig

from tidegate.core.hardware import HardwareRange
from tidegate.core.metadata import signed_targets
from tidegate.core.release import HealthContract, ReleaseTarget
from tidegate.core.supply.policy import IngestRule
from tidegate.publisher.attach import of_spec
from tidegate.publisher.bundle import build, read
from tidegate.publisher.lab import Lab, make_lab
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.server import advisories, releases
from tidegate.server.actors import Actor
from tidegate.server.advisories import ImportFacts
from tidegate.server.releases import Published

SENDER = Actor(name="test", role="admin")


@dataclass
class Chain:
    rig: Rig
    lab: Lab

    @classmethod
    def on(cls, rig: Rig, folder: Path) -> "Chain":
        keys = rig.app.services.keys
        roles = ("snapshot", "timestamp", "director", "audit")
        online = {role: getattr(keys, role).public for role in roles}
        chain = cls(rig, make_lab(folder, online, ["gw1"], now=int(rig.now)))
        chain.accept(chain.lab.trust.read_bytes())
        return chain

    def accept(self, body: bytes) -> Published:
        services = self.rig.app.services
        return releases.accept_bundle(
            services, io.BytesIO(body), actor=SENDER, now=int(self.rig.now)
        )

    def demand(self, *rules: IngestRule) -> None:
        services = self.rig.app.services
        services.settings = msgspec.structs.replace(services.settings, ingest=rules)

    def image(self, counter: int) -> bytes:
        return f"image {counter}".encode().ljust(8192, b"\1")

    def bundle(
        self,
        counter: int,
        documents: Mapping[str, Any] | None = None,
        *,
        channels: tuple[str, ...] = ("stable",),
        parts: tuple[tuple[str, int, int], ...] = (("rootfs", 0, 9),),
        signed: bool = True,
    ) -> Path:
        """Build a bundle; `documents` by kind, `parts` are (component, lowest revision, highest)."""
        folder = self.lab.folder / f"release-{counter}"
        folder.mkdir(exist_ok=True)
        files = []
        for kind, value in (documents or {}).items():
            file = folder / f"{kind}.json"
            file.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
            files.append((kind.partition("-")[0], file))
        components = []
        for name, low, high in parts:
            (folder / name).write_bytes(self.image(counter) + name.encode())
            made_for = (HardwareRange("gw1", low, high),)
            one = ComponentSpec(name, "raw_image", folder / name, 0, hardware=made_for)
            components.append(one)
        spec = ReleaseSpec(
            product="gw1",
            version=f"1.{counter}.0",
            counter=counter,
            security_version=1,
            kind="feature",
            channels=channels,
            hardware=(HardwareRange("gw1", 0, 9),),
            components=tuple(components),
            health=HealthContract(),
            notes="",
            source="",
            min_agent=None,
            from_counters=(),
            requires=(),
            fallback_s=0,
            expires_s=300 * 86_400,
            attachments=tuple(files),
        )
        held = self.rig.app.services.repository._view.newest.get("product/gw1")
        attached = {
            name: [(one.signed, one.path) for one in found] for name, found in of_spec(spec).items()
        }
        made = build(
            spec,
            folder,
            previous=held.body if held else None,
            now=int(self.rig.now),
            level=1,
            attached=attached,
        )
        if signed:
            sign_bundle(made.bundle, self.lab.signer("product"))
        return made.bundle

    def publish(
        self, counter: int, documents: Mapping[str, Any] | None = None, **more: Any
    ) -> ReleaseTarget:
        bundle = self.bundle(counter, documents, **more)
        self.accept(bundle.read_bytes())
        targets = signed_targets(read(bundle).product).values()
        return next(one.release for one in targets if one.release.release_counter == counter)

    def bring(self, value: object) -> ImportFacts:
        found = advisories.read(paper.dumps(value))
        done = self.rig.write(lambda conn: advisories.take(conn, found, "test", int(self.rig.now)))
        assert isinstance(done, ImportFacts)
        return done

    def install(self, target: ReleaseTarget, *devices: str, rev: int = 1) -> None:
        """Have new devices run a release."""
        rollout = self.rig.rollout(target, name=f"r-{target.name}-{rev}")
        for name in devices:
            self.update(self.rig.device(name, rev=rev), target)
        self.rig.set_rollout(rollout, state="completed")

    def update(self, device: Device, target: ReleaseTarget) -> None:
        """Go the whole way with an assignment, to confirmed."""
        body = device.assignment()
        image = target.install.sha256
        device.tell("downloading", body)
        device.tell("staged", body, bytes=4096)
        assert device.permit(body, sha256=image).envelope is not None
        device.tell("rebooting", body)
        device.tell("verifying", body)
        device.tell(
            "confirmed",
            body,
            running_counter=target.release_counter,
            running_sha256=image,
            running_version=target.version,
        )


def bom(version: str, *more: Any) -> dict[str, Any]:
    """Return a bill of materials with openssl in a version."""
    purl = f"pkg:deb/debian/openssl@{version}?arch=arm64&distro=debian-12"
    lib = f"pkg:deb/debian/libssl3@{version}?arch=arm64&distro=debian-12&upstream=openssl"
    return paper.cyclonedx(
        paper.component("openssl", version, purl), paper.component("libssl3", version, lib), *more
    )
