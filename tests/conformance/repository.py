"""A foreign TUF repository for tests: everything in it can be changed, signed by whomever, and published under any name."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tests.unit.core.repo import DAY, NOW
from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from tidegate.core.keys import private_from_seed

TOP = ("root", "timestamp", "snapshot", "targets")


def key(name: str, keytype: str = "ecdsa") -> CryptoSigner:
    """Return the key that this name always gives."""
    seed = hashlib.sha384(name.encode()).digest()
    if keytype == "ed25519":
        return CryptoSigner(ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32]))
    scalar = int.from_bytes(private_from_seed(seed, keytype), "big")
    return CryptoSigner(ec.derive_private_key(scalar, ec.SECP256R1()))


def when(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


@dataclass
class Answer:
    """`agent.ports.Response` from memory."""

    status: int
    body: bytes

    @property
    def headers(self) -> Mapping[str, str]:
        return {"content-length": str(len(self.body))}

    def read(self, count: int) -> bytes:
        piece, self.body = self.body[:count], self.body[count:]
        return piece

    def close(self) -> None:
        self.body = b""


class Repository:
    """A repository, its keys, and what was asked of it.

    Attributes:
        signed: the documents as they would be published next, by role.
        signers: who signs for a role, by role.
        files: what is served of metadata, by file name.
        artifacts: what is served of targets, by path without the digest before the name.
        asked: file names of metadata that were asked for.
        fetched: paths of artifacts that were asked for.
        complete: whether snapshot and timestamp tell length and digest.
    """

    def __init__(self) -> None:
        self.safe = NOW + 30 * DAY
        self.complete = False
        self.signed: dict[str, Any] = {
            "root": Root(expires=when(self.safe)),
            "targets": Targets(expires=when(self.safe)),
            "snapshot": Snapshot(expires=when(self.safe)),
            "timestamp": Timestamp(expires=when(self.safe)),
        }
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fetched: list[str] = []
        for role in TOP:
            self.signed[role].version = 0
            self.add_key(role, key(f"first {role}"))
        self.publish("root", "targets", "snapshot", "timestamp")

    @property
    def root(self) -> Root:
        return self.signed["root"]  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> Timestamp:
        return self.signed["timestamp"]  # type: ignore[no-any-return]

    @property
    def snapshot(self) -> Snapshot:
        return self.signed["snapshot"]  # type: ignore[no-any-return]

    @property
    def targets(self) -> Targets:
        return self.signed["targets"]  # type: ignore[no-any-return]

    # --- keys ---

    def add_key(self, role: str, signer: CryptoSigner, delegator: str = "root") -> None:
        """Let a key speak for a role, and sign as it."""
        self.signed[delegator].add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)

    def only_keys(self, role: str, *signers: CryptoSigner, threshold: int = 1) -> None:
        """Replace the keys of a top role."""
        self.root.roles[role].keyids.clear()
        self.signers[role] = []
        self.root.roles[role].threshold = threshold
        for one in signers:
            self.add_key(role, one)

    def rotate(self, role: str) -> None:
        """Replace the keys of a top role by a new one."""
        self.only_keys(role, key(f"{role} after {self.root.version}"))

    # --- delegations and targets ---

    def delegate(self, delegator: str, role: DelegatedRole, targets: Targets | None = None) -> None:
        """Let a role speak; it signs with a key of its own for each delegator."""
        parent: Targets = self.signed[delegator]
        if parent.delegations is None:
            parent.delegations = Delegations({}, roles={})
        assert parent.delegations.roles is not None
        parent.delegations.roles[role.name] = role
        if role.name not in self.signed:
            self.signed[role.name] = targets or Targets(expires=when(self.safe))
            self.signed[role.name].version = 0
        self.add_key(role.name, key(f"{delegator} {role.name}"), delegator)

    def add_target(self, role: str, path: str, body: bytes, *kinds: str) -> TargetFile:
        """Have a role name a file, and serve it."""
        target = TargetFile.from_data(path, body, list(kinds) or None)
        self.signed[role].targets[path] = target
        self.artifacts[path] = body
        return target

    # --- publishing ---

    def publish(self, *roles: str, version: int | None = None) -> None:
        """Raise the version of each role, have it signed and served, and let the document above name it."""
        for role in roles:
            signed = self.signed[role]
            signed.version = signed.version + 1 if version is None else version
            self.serve(role, self.sign(role))

    def sign(self, role: str) -> bytes:
        """Return a role's document, signed by its present signers."""
        made: Metadata[Any] = Metadata(self.signed[role])
        for one in self.signers[role]:
            made.sign(one, append=True)
        return made.to_bytes()

    def serve(self, role: str, body: bytes, version: int | None = None) -> None:
        """Serve bytes as a role's document, and let the document above name them."""
        named = self.signed[role].version if version is None else version
        meta = MetaFile(named)
        if self.complete:
            meta = MetaFile.from_data(named, body, ["sha256"])
        if role == "snapshot":
            self.timestamp.snapshot_meta = meta
        elif role not in TOP or role == "targets":
            self.snapshot.meta[f"{role}.json"] = meta
        name = f"{quoted(role)}.json"
        self.files[name if role == "timestamp" else f"{named}.{name}"] = body

    def edit(self, role: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change what is served of a role behind everybody's back."""
        plain = json.loads(self.served(role))
        change(plain)
        self.files[self.name_of(role)] = json.dumps(plain).encode()

    def name_of(self, role: str) -> str:
        """Return the name under which a role's newest document is served."""
        version = self.signed[role].version
        return "timestamp.json" if role == "timestamp" else f"{version}.{quoted(role)}.json"

    def served(self, role: str) -> bytes:
        return self.files[self.name_of(role)]

    def drop(self, role: str) -> None:
        """Serve no document of a role any more."""
        name = f"{quoted(role)}.json"
        for one in [one for one in self.files if one == name or one.partition(".")[2] == name]:
            del self.files[one]

    # --- serving ---

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Answer as `agent.ports.Transport`."""
        assert method == "GET"
        found = self.get(path)
        return Answer(404, b"") if found is None else Answer(200, found)

    def get(self, path: str) -> bytes | None:
        kind, _, name = path.removeprefix("/").partition("/")
        if kind == "metadata":
            self.asked.append(name)
            return self.files.get(name)
        path = unquote(name)
        self.fetched.append(path)
        if self.root.consistent_snapshot:
            head, slash, last = path.rpartition("/")
            path = head + slash + last.partition(".")[2]
        return self.artifacts.get(path)


def quoted(role: str) -> str:
    """Quote a role's name as file names carry it: everything but letters, digits and `_.-~`."""
    safe = "_.-~"
    return "".join(
        one if (one.isascii() and one.isalnum()) or one in safe else f"%{byte:02X}"
        for one in role
        for byte in one.encode()
    )


def public(signer: CryptoSigner) -> Key:
    return signer.public_key
