"""Releases of one product with real keys and real documents: images, their containers, and what is signed about them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import zstandard

from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.keys import Signer
from tidegate.core.metadata import SignedTarget
from tidegate.core.payload import PLAIN, TAKE, ZERO, Operation, Segment, encode_head
from tidegate.core.release import (
    FallbackTo,
    HealthCheck,
    HealthContract,
    Install,
    Part,
    PayloadRef,
    ReleaseTarget,
)

DAY = 86_400
BLOCK = 4096
SLOT_SIZE = 64 * BLOCK
HARDWARE = Hardware("gw1", 3)
CONTRACT = HealthContract(
    warmup_s=20,
    timeout_s=60,
    interval_s=10,
    error_rate_per_hour=1000,
    checks=(HealthCheck(name="core", kind="services"),),
)


def signer(name: str) -> Signer:
    """Make the key that this name always gives."""
    return Signer.from_seed(hashlib.sha256(name.encode()).digest())


def make_image(counter: int, blocks: int = 12) -> bytes:
    """Make an image with its counter in every block, a run of zeros, and an odd length."""
    parts = [hashlib.sha256(f"{counter} {n}".encode()).digest() * 128 for n in range(blocks)]
    parts[3] = bytes(BLOCK)
    parts[4] = bytes(BLOCK)
    return b"".join(parts)[:-100]


def contain(image: bytes, segment_size: int = 2 * BLOCK) -> bytes:
    """Pack an image: the container's format, written plainly."""
    padded = image + bytes(-len(image) % BLOCK)
    operations, stream = [], bytearray()
    for at in range(0, len(padded), BLOCK):
        block = padded[at : at + BLOCK]
        if block == bytes(BLOCK):
            operations.append(Operation(ZERO, 0, 1))
            continue
        operations.append(Operation(TAKE, len(stream) // BLOCK, 1))
        stream += block
    segments, bodies = [], []
    for at in range(0, len(stream), segment_size):
        plain = bytes(stream[at : at + segment_size])
        stored = zstandard.ZstdCompressor(level=1, write_content_size=True).compress(plain)
        bodies.append(stored)
        segments.append(
            Segment(
                PLAIN,
                0,
                len(stored),
                hashlib.sha256(stored).digest(),
                len(plain),
                hashlib.sha256(plain).digest(),
            )
        )
    head = encode_head(
        image_size=len(image),
        segment_size=segment_size,
        target_sha256=hashlib.sha256(image).digest(),
        operations=tuple(operations),
        segments=tuple(segments),
    )
    return head + b"".join(bodies)


@dataclass(frozen=True)
class Release:
    """An image, its container and what is signed about it; with the images of its other parts, and their containers, by component."""

    image: bytes
    container: bytes
    target: SignedTarget
    parts: Mapping[str, bytes] = field(default_factory=dict)
    containers: tuple[bytes, ...] = ()


def payload_of(container: bytes) -> PayloadRef:
    """Describe a container."""
    head = 16 + int.from_bytes(container[8:12], "little")
    return PayloadRef(
        kind="full",
        sha256=hashlib.sha256(container).hexdigest(),
        length=len(container),
        index_sha256=hashlib.sha256(container[:head]).hexdigest(),
    )


def install_of(image: bytes) -> Install:
    """Describe an image."""
    return Install(size=len(image), sha256=hashlib.sha256(image).hexdigest())


def make_release(counter: int, **changes: object) -> Release:
    """Make a release of gw1."""
    return make_joint(counter, {}, changes)


def make_joint(
    counter: int, parts: Mapping[str, bytes], changes: Mapping[str, object] | None = None
) -> Release:
    """Make a release that brings components beside the slots, by name and image, with its own."""
    image = make_image(counter)
    container = contain(image)
    others = {name: contain(one) for name, one in parts.items()}
    target = ReleaseTarget(
        product="gw1",
        version=f"1.{counter}",
        release_counter=counter,
        security_version=counter,
        channels=("stable",),
        hardware=(HardwareRange("gw1", 2, 7),),
        install=install_of(image),
        payloads=(payload_of(container),),
        parts=tuple(
            Part(
                component=name,
                format="raw_image",
                install=install_of(one),
                payloads=(payload_of(others[name]),),
            )
            for name, one in parts.items()
        ),
        crit=("parts",) if parts else (),
        fallback_to=(FallbackTo(counter=counter - 1, expires=0xFFFFFFFF),) if counter > 1 else (),
        health=CONTRACT,
    )
    target = msgspec.structs.replace(target, **(changes or {}))
    signed = SignedTarget(f"gw1/1.{counter}/rootfs", target.full.length, target.full.sha256, target)
    return Release(image, container, signed, parts, tuple(others.values()))
