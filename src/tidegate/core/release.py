"""What a release is: the `custom` part of a TUF target, the health contract, and the pure rules of what may follow what.

Schema: `docs/reference/metadata.md`. Order is decided by `release_counter` alone; version strings are for people.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.hardware import Hardware, HardwareRange, Name, compatible

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Counter = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
SecurityVersion = Annotated[int, Meta(ge=0, le=0xFFFF)]
Seconds = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
Size = Annotated[int, Meta(ge=0, le=1 << 40)]
Version = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*$(?!\n)")
]
FileName = Annotated[
    str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*$(?!\n)")
]
#: Where payloads lie at `<mirror>/blobs/<sha256>`: no name of a user, no query.
Mirror = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%!$&'()*+,;=:@/-]*)?$(?!\n)",
    ),
]
Mirrors = Annotated[tuple[Mirror, ...], Meta(max_length=8)]
Channel = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$(?!\n)")]

#: Most components that one artifact brings beside its own.
PARTS_MAX: Final = 15
#: Fields of `ReleaseTarget` that a reader must understand are named in `crit`; these are the ones this version knows.
SPEC: Final = 1


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a health contract. `kind` is the name of a file under `agent/health/`; `settings` are that check's own.

    `optional`: a device's own policy may leave the check out. What is signed without it stands.
    """

    name: Name
    kind: Name
    settings: Annotated[dict[str, str | int | list[str]], Meta(max_length=32)] = {}
    optional: bool | msgspec.UnsetType = msgspec.UNSET


class HealthContract(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must show before it confirms: every check passes, and goes on passing for `warmup_s` after the first full pass.

    `timeout_s` bounds the whole: no full warm-up by then, and the device reverts with `health.timeout` or the failing check's reason.
    """

    warmup_s: Seconds = 600
    timeout_s: Seconds = 1800
    interval_s: Annotated[int, Meta(ge=1, le=3600)] = 10
    error_rate_per_hour: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    checks: Annotated[tuple[HealthCheck, ...], Meta(max_length=64)] = ()


class Install(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the slot afterwards: exact length and digest of the installed bytes."""

    size: Size
    sha256: Sha256


class PayloadRef(msgspec.Struct, frozen=True, kw_only=True):
    """One way to get the bytes: a payload container (core.payload), whole or against a base."""

    kind: Literal["full", "delta"]
    sha256: Sha256
    length: Size
    index_sha256: Sha256
    base_sha256: Sha256 | None = None


class FallbackTo(msgspec.Struct, frozen=True, kw_only=True):
    """A counter that a device may be ordered back to, until then (unix seconds)."""

    counter: Counter
    expires: Seconds


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """Another component that must be there in at least this counter and, where `sha256` names images, be one of those."""

    component: Name
    counter_min: Counter
    sha256: Annotated[tuple[Sha256, ...], Meta(max_length=64)] = ()


class Component(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another component of a device, as it is now: the counter of its release, and the digest of its installed bytes where that is known."""

    counter: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 0
    sha256: Sha256 | None = None

    def meets(self, need: Requirement) -> bool:
        """Say whether this is what a release needs; an image that is not known is none of those named."""
        return self.counter >= need.counter_min and (not need.sha256 or self.sha256 in need.sha256)


#: What a device has beside the component in question; at most so many are told.
Components = Annotated[dict[Name, Component], Meta(max_length=32)]


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A document that belongs to a release: bill of materials, statements, provenance, notes. Devices do not download it.

    Attributes:
        kind: `sbom`, `vex`, `provenance`, `notes`, `licences` (`core.supply.documents`); a reader leaves others alone.
        format: what it was recognised as: `cyclonedx-1.5`, `spdx-2.3`, `openvex`, `csaf`, `slsa-1`, `text`.
        name: file name, for people; never used as a path of a server.
        sha256: digest of its bytes.
        length: in bytes.
    """

    kind: Name
    format: Name
    name: FileName
    sha256: Sha256
    length: Size


#: What an installer is told by the release's signers, beside the bytes.
InstallSettings = Annotated[dict[Name, str | int | list[str]], Meta(max_length=32)]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One component of an artifact that brings several: what is installed of it, by which installer, from which payloads.

    Attributes:
        component: what it is part of on the device.
        format: name of the installer (`agent/installers/`).
        install: what stands there afterwards, and is read back.
        package: what the payload unpacks to, where that is not `install` itself.
        payloads: ways to get the bytes; one of them whole.
        settings: the installer's own.
    """

    component: Name
    format: Name
    install: Install
    package: Install | None = None
    payloads: Annotated[tuple[PayloadRef, ...], Meta(min_length=1, max_length=64)]
    settings: InstallSettings = {}

    @property
    def unpacked(self) -> Install:
        """Return what the payload unpacks to."""
        return self.package if self.package is not None else self.install

    @property
    def full(self) -> PayloadRef:
        """Return the full payload; `contradiction` refuses a part without one."""
        return next(one for one in self.payloads if one.kind == "full")


class ReleaseTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact of a release, as the product role signs it (`custom.tidegate` of a TUF target).

    The director must name the same product, counter, security_version, hardware and channels, or the device refuses (`sig.director_mismatch`).

    Attributes:
        install: what stands in the slot afterwards, and is read back from it.
        package: what the payload unpacks to, where a foreign installer makes the slot's content out of that (a RAUC bundle, an SWU file); then it stands
            in `crit`. None = the payload unpacks to `install` itself.
        settings: what its installer is told; named in `crit` when it is there.
        parts: components that are installed with this one, in this order, all or none; named in `crit` when they are there.
        mirrors: where the payloads may be fetched from, tried in this order before the server. Who does not know the field asks the server.
    """

    spec: Literal[1] = 1
    product: Name
    version: Version
    release_counter: Counter
    security_version: SecurityVersion
    channels: Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=16)]
    kind: Literal["security", "feature", "mixed"] = "feature"
    component: Name = "rootfs"
    format: Name = "raw_image"
    hardware: Annotated[tuple[HardwareRange, ...], Meta(min_length=1, max_length=64)]
    from_counters: Annotated[tuple[tuple[Counter, Counter], ...], Meta(max_length=16)] = ()
    min_agent: Version | None = None
    requires: Annotated[tuple[Requirement, ...], Meta(max_length=16)] = ()
    install: Install
    package: Install | None = None
    payloads: Annotated[tuple[PayloadRef, ...], Meta(min_length=1, max_length=64)]
    fallback_to: Annotated[tuple[FallbackTo, ...], Meta(max_length=16)] = ()
    health: HealthContract = HealthContract()
    notes: Annotated[str, Meta(max_length=2000)] = ""
    built_at: Seconds = 0
    source: Annotated[str, Meta(max_length=300)] = ""
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=16)] = ()
    settings: InstallSettings = {}
    parts: Annotated[tuple[Part, ...], Meta(max_length=PARTS_MAX)] = ()
    mirrors: Mirrors = ()
    crit: Annotated[tuple[str, ...], Meta(max_length=32)] = ()

    @property
    def digest(self) -> str:
        """Return what names the installed content as a whole, 64 hex digits: the digest of the one image, or of all of them with their names, in order."""
        if not self.parts:
            return self.install.sha256
        lines = "".join(f"{one.component} {one.install.sha256}\n" for one in self.pieces)
        return hashlib.sha256(f"tidegate parts\n{lines}".encode()).hexdigest()

    @property
    def pieces(self) -> tuple[Part, ...]:
        """Return everything that is installed, in order, the artifact's own component first."""
        own = Part(
            component=self.component,
            format=self.format,
            install=self.install,
            package=self.package,
            payloads=self.payloads,
            settings=self.settings,
        )
        return (own, *self.parts)

    @property
    def components(self) -> frozenset[str]:
        """Return the names of the components that it brings."""
        return frozenset(one.component for one in self.pieces)

    @property
    def full(self) -> PayloadRef:
        """Return the full payload; every artifact has one."""
        return next(one for one in self.payloads if one.kind == "full")

    @property
    def unpacked(self) -> Install:
        """Return length and digest of what the payload unpacks to."""
        return self.package if self.package is not None else self.install

    @property
    def name(self) -> str:
        """Return the release's name: product and version, `gw1-2.4.1`."""
        return f"{self.product}-{self.version}"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs or ran: the confirmed release of a slot. Counter 0 = a factory image that no release described."""

    release_counter: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = 0
    security_version: SecurityVersion = 0
    sha256: Sha256 | None = None
    version: Annotated[str, Meta(max_length=64)] = ""


def release_sha256(install_digests: Iterable[str]) -> str:
    """Return the digest that names a release: over the sorted digests of its installed artifacts."""
    return hashlib.sha256("\n".join(sorted(install_digests)).encode()).hexdigest()


_ABSENT: Final = Component()


def refusal(
    target: ReleaseTarget,
    *,
    hardware: Hardware,
    channel: str,
    running: Running,
    floor: int,
    agent: str,
    components: Mapping[str, Component],
    fallback: bool = False,
    resume_min: int = 0,
) -> str | None:
    """Return the `compat.*` reason for which a device must refuse this target, or None.

    Both ends ask this: the device before it downloads (it has the final say), the server before it offers, the publisher before it publishes.

    Args:
        target: verified target.
        hardware: what the device is.
        channel: the device's own channel.
        running: the confirmed release that it runs in its slot; of a component that it keeps beside the slots, what it says in `components` counts.
        floor: the device's security floor.
        agent: the agent's version.
        components: the components that the device has beside the slot's, by name. What a release brings itself need not be there before.
        fallback: an authorised way back: the counter may be lower; everything else holds.
        resume_min: no install below this counter, since a grant led the device back from there (`core.grant`). To repair what runs stays allowed.
    """
    if not compatible(target.hardware, hardware):
        return "compat.hardware"
    if channel not in target.channels:
        return "compat.channel"
    if target.security_version < floor:
        return "compat.floor"
    mine = components.get(target.component)
    if mine is not None:
        running = Running(release_counter=mine.counter, sha256=mine.sha256)
    repair = (
        target.release_counter == running.release_counter
        and target.install.sha256 == running.sha256
    )
    if not fallback and not repair and target.release_counter <= running.release_counter:
        return "compat.counter"
    if not fallback and not repair and target.release_counter < resume_min:
        return "compat.counter"
    there = [components.get(one.component, _ABSENT).counter for one in target.parts]
    if not fallback and max(there, default=0) > target.release_counter:
        return "compat.counter"
    if (
        not fallback
        and not repair
        and target.from_counters
        and not _within(target.from_counters, running.release_counter)
    ):
        return "compat.waypoint"
    if target.min_agent is not None and version_key(agent) < version_key(target.min_agent):
        return "compat.agent"
    after = {**components, **_brought(target)}
    if any(not after.get(one.component, _ABSENT).meets(one) for one in target.requires):
        return "compat.requires"
    return None


def contradiction(target: ReleaseTarget) -> str:
    """Say in words why no device could ever take a target; empty = one could. Asked before it is published: `refusal` would only answer in the field."""
    for one in target.hardware:
        low, high = max(one.rev_min, 0), one.rev_max
        if low > high or not set(range(low, min(high, low + 65) + 1)) - set(one.exclude_revs):
            return f"hardware: no revision of {one.model} is left in {low} to {high}"
    for low, high in target.from_counters:
        if low > high:
            return f"from_counters: {low} to {high} holds nothing"
    if (
        target.from_counters
        and min(low for low, _ in target.from_counters) >= target.release_counter
    ):
        return f"from_counters: nothing in it is older than {target.release_counter} itself"
    names = [one.component for one in target.requires]
    if target.component in names:
        return f"requires: {target.component} cannot need itself"
    if len(set(names)) != len(names):
        return "requires: one component twice"
    return _parts_contradiction(target)


def _parts_contradiction(target: ReleaseTarget) -> str:
    """Say why no device could install the parts together; empty = one could."""
    names = [one.component for one in target.pieces]
    if len(set(names)) != len(names):
        return f"parts: {max(names, key=names.count)} twice"
    for part in target.parts:
        if sum(one.kind == "full" for one in part.payloads) != 1:
            return f"parts: {part.component} needs one full payload"
    for name, there in (
        ("parts", target.parts),
        ("settings", target.settings),
        ("package", target.package),
    ):
        if there and name not in target.crit:
            return f"crit: must name {name}, or an older agent would leave them out"
    brought = _brought(target)
    for need in target.requires:
        if need.component in brought and not brought[need.component].meets(need):
            return f"requires: this release brings another {need.component} than it needs"
    return ""


def _brought(target: ReleaseTarget) -> dict[str, Component]:
    """Return what the device will have of each part afterwards."""
    return {
        one.component: Component(counter=target.release_counter, sha256=one.install.sha256)
        for one in target.parts
    }


def _within(ranges: tuple[tuple[int, int], ...], counter: int) -> bool:
    return any(low <= counter <= high for low, high in ranges)


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Order version strings for people: numbers as numbers, `~` before everything. Never decides about firmware."""
    parts: list[tuple[int, int, str]] = []
    word = ""
    for char in text + ".":
        if char.isalnum():
            if word and char.isdigit() != word[-1].isdigit():
                parts.append(_part(word))
                word = ""
            word += char
            continue
        if word:
            parts.append(_part(word))
            word = ""
        if char == "~":
            parts.append((-1, 0, ""))
    return (*parts, (0, 0, ""))


def _part(word: str) -> tuple[int, int, str]:
    return (2, int(word), "") if word.isascii() and word.isdigit() else (1, 0, word)
