"""A control plane in memory, as a device sees it: an honest one, or one in a thief's hands. It signs with whatever online keys it was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tidegate.core import codec
from tidegate.core.keys import Signer, sign_document
from tidegate.core.metadata import (
    MetaInfo,
    SignedTarget,
    file_name,
    make_snapshot,
    make_timestamp,
    parse_root,
    parse_snapshot,
    parse_targets,
    root_extra,
    sign,
)
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    TIME_TYPE,
    AssignedTarget,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    RepoBinding,
    TimeAnswer,
    TimeBody,
    TimeRequest,
)

DAY_S: Final = 86_400
_REPO: Final = "/d/v1/repo/"


@dataclass(frozen=True)
class OnlineSigners:
    """The keys of a server that sign what devices read."""

    snapshot: Signer
    timestamp: Signer
    director: Signer


@dataclass
class Plane:
    """One control plane.

    Attributes:
        keys: its online keys.
        roots: every root that it serves, oldest first.
        documents: newest targets and product roles.
        version: of its next snapshot and timestamp.
        now: unix seconds.
        orders: fields of the next assignment, beside those that bind it to the question.
        device: id and key digest of the device that asks.
    """

    keys: OnlineSigners
    roots: list[bytes]
    documents: dict[str, bytes]
    version: int
    now: int
    files: dict[str, bytes] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=lambda: {"action": "none"})
    device: tuple[str, str] = ("", "")
    seq: int = 0
    forgery: bytes = b""

    def __post_init__(self) -> None:
        """Publish what there is."""
        self.seq = self.seq or self.now * 1000
        self.publish()

    def publish(self, *, root: bytes | None = None, **roles: bytes) -> None:
        """Sign snapshot and timestamp over documents of its choice; `product_gw1` is `product/gw1`."""
        self.documents |= {name.replace("product_", "product/", 1): b for name, b in roles.items()}
        if root is not None:
            self.roots.append(root)
        for body in self.roots:
            self.files[file_name("root", parse_root(body).version)] = body
        infos: dict[str, MetaInfo] = {}
        for role, body in self.documents.items():
            document = parse_targets(body, role)
            infos[role] = document.info
            self.files[file_name(role, document.version)] = body
        snapshot = sign(
            make_snapshot(
                version=self.version,
                expires_at=self.now + 14 * DAY_S,
                issued_at=self.now,
                documents=infos,
            ),
            self.keys.snapshot,
        )
        timestamp = sign(
            make_timestamp(
                version=self.version,
                expires_at=self.now + 2 * DAY_S,
                issued_at=self.now,
                snapshot=parse_snapshot(snapshot).info,
            ),
            self.keys.timestamp,
        )
        self.files[file_name("snapshot", self.version)] = snapshot
        self.files[file_name("timestamp", None)] = timestamp
        self.binding = RepoBinding(
            root_min=1, timestamp_min=self.version, snapshot_min=self.version
        )
        self.version += 1

    def forge(self, *, root: bytes | None = None, **roles: bytes) -> None:
        """Publish one document that honest people would not, and remember it."""
        self.forgery = root if root is not None else next(iter(roles.values()))
        self.publish(root=root, **roles)

    def order(self, action: str, target: AssignedTarget | None = None, **changes: Any) -> None:
        """Give whoever asks next this order."""
        self.orders = {"action": action, "target": target, **changes}

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Answer a device."""
        if path.startswith(_REPO):
            found = self.files.get(path.removeprefix(_REPO))
            return (200, found) if found is not None else (404, b"{}")
        if path == "/d/v1/assignment":
            return 200, codec.encode(self._assignment(codec.decode(body, AssignmentRequest)))
        if path == "/d/v1/time":
            asked = codec.decode(body, TimeRequest)
            told = TimeBody(device_id=self.device[0], nonce=asked.nonce, time=self.now)
            signed = sign_document(told, TIME_TYPE, self.keys.director)
            return 200, codec.encode(TimeAnswer(envelope=signed))
        return 404, b"{}"

    def _assignment(self, asked: AssignmentRequest) -> AssignmentAnswer:
        self.seq += 1
        orders = dict(self.orders)
        naming = orders.get("target") is not None
        body = AssignmentBody(
            device_id=self.device[0],
            device_key=self.device[1],
            epoch=root_extra(parse_root(self.roots[-1])).authorities.epoch,
            seq=self.seq,
            issued=self.now,
            expires=self.now + DAY_S,
            nonce=asked.nonce,
            action=orders.pop("action"),
            update=f"drill-{self.seq}" if naming else None,
            rollout="drill",
            repo=self.binding,
        )
        return AssignmentAnswer(
            envelope=sign_document(
                msgspec.structs.replace(body, **orders), ASSIGNMENT_TYPE, self.keys.director
            )
        )


def assigned(target: SignedTarget, **changes: Any) -> AssignedTarget:
    """Name a signed image in the product role's own words, but for `changes`."""
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
    return msgspec.structs.replace(named, **changes)


def documents_of(targets: bytes, products: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return targets and product roles by role."""
    return {"targets": targets, **{f"product/{name}": body for name, body in products.items()}}
