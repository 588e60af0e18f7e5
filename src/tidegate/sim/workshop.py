"""Where the demo's releases are made: throw-away keys, images packed into payloads, bundles built, signed and published as a team would do it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from tidegate.core.hardware import HardwareRange
from tidegate.core.metadata import SignedTarget, product_role
from tidegate.core.protocol import AssignedTarget
from tidegate.core.release import HealthCheck, HealthContract
from tidegate.publisher import bundle
from tidegate.publisher.ceremony import online_keys
from tidegate.publisher.lab import Lab, make_lab
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.sim.cast import ReleasePlan

#: zstd level: somebody waits, and the link is this machine's own.
_LEVEL: Final = 1
_FALLBACK_S: Final = 30 * 86_400


@dataclass(frozen=True)
class Recipe:
    """One artifact of a release: an image, the board it is made for, and what that board must show.

    Attributes:
        format: which installer takes it.
        installed: the image inside, where `image` is a package of a foreign installer.
        settings: what the installer is told.
        beside: the component that this one is installed with; "" = an artifact of its own.
    """

    component: str
    image: Path
    model: str
    revs: tuple[int, int]
    health: HealthContract
    format: str = "raw_image"
    installed: Path | None = None
    settings: Mapping[str, str | int | list[str]] = field(default_factory=dict)
    beside: str = ""


def contract(
    checks: Sequence[dict[str, Any]], *, warmup_s: int, timeout_s: int, interval_s: int
) -> HealthContract:
    """Write a health contract; each check is a dict with `type` and its settings."""
    return HealthContract(
        warmup_s=warmup_s,
        timeout_s=timeout_s,
        interval_s=interval_s,
        checks=tuple(
            HealthCheck(
                name=str(one["type"]),
                kind=str(one["type"]),
                settings={key: value for key, value in one.items() if key != "type"},
            )
            for one in checks
        ),
    )


class Shop(Protocol):
    """Where releases are handed in: a server, over its API or in this process."""

    def online_keys(self) -> dict[str, Any]:
        """Return the public halves of the server's online keys."""
        ...

    def publish(self, bundle: Path) -> None:
        """Publish a signed bundle."""
        ...


class Workshop:
    """Keys and bundles of one product.

    Attributes:
        root: the anchor that devices leave the factory with.
    """

    def __init__(
        self,
        folder: Path,
        product: str,
        shop: Shop,
        *,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
        lab: Lab | None = None,
    ) -> None:
        """Make throw-away keys and a root of trust (or take those of `lab`), and publish it."""
        self._folder = folder
        self._product = product
        self._shop = shop
        self._clock = clock
        self._lab: Lab = lab or make_lab(
            folder,
            online_keys(shop.online_keys()),
            [product],
            now=int(clock()),
            randomness=randomness,
        )
        self._signer = self._lab.signer("product")
        self._previous: bytes | None = None
        self._targets: dict[tuple[int, str], SignedTarget] = {}
        self.root = self._lab.root.read_bytes()
        shop.publish(self._lab.trust)

    def publish(self, release: ReleasePlan, recipes: Sequence[Recipe]) -> None:
        """Build, sign and publish a release."""
        built = bundle.build(
            self._spec(release, recipes),
            self._folder,
            previous=self._previous,
            now=int(self._clock()),
            level=_LEVEL,
        )
        sign_bundle(built.bundle, self._signer)
        self._previous = bundle.read(built.bundle).documents[product_role(self._product)]
        self._shop.publish(built.bundle)
        leads = (one for one in recipes if not one.beside)
        for recipe, target in zip(leads, built.targets, strict=True):
            self._targets[(release.counter, recipe.model)] = target

    def assigned(self, counter: int, model: str) -> dict[str, Any]:
        """Return the `AssignedTarget` that truly names an artifact, as JSON-like data."""
        target = self._targets[(counter, model)]
        release = target.release
        named = AssignedTarget(
            path=target.path,
            length=target.length,
            sha256=target.sha256,
            product=release.product,
            release_counter=release.release_counter,
            security_version=release.security_version,
            hardware=release.hardware,
            channels=release.channels,
        )
        plain: dict[str, Any] = msgspec.to_builtins(named)
        return plain

    def installed(self, counter: int, model: str) -> str:
        """Return the digest of an artifact's installed bytes."""
        return self._targets[(counter, model)].release.install.sha256

    def _spec(self, release: ReleasePlan, recipes: Sequence[Recipe]) -> ReleaseSpec:
        return ReleaseSpec(
            product=self._product,
            version=release.version,
            counter=release.counter,
            security_version=0,
            kind="feature",
            channels=("stable",),
            hardware=tuple(_range(recipe) for recipe in recipes),
            components=tuple(
                ComponentSpec(
                    recipe.component,
                    recipe.format,
                    recipe.image,
                    0,
                    hardware=(_range(recipe),),
                    health=recipe.health,
                    installed=recipe.installed,
                    settings=dict(recipe.settings),
                    beside=(recipe.beside,) if recipe.beside else (),
                )
                for recipe in recipes
            ),
            health=recipes[0].health,
            notes=f"{release.version} of the demo",
            source="",
            min_agent=None,
            from_counters=(),
            requires=(),
            fallback_s=_FALLBACK_S,
            fallback_to=release.back_to,
            expires_s=180 * 86_400,
        )


def _range(recipe: Recipe) -> HardwareRange:
    low, high = recipe.revs
    return HardwareRange(recipe.model, low, high)
