"""A release for devices that have no server: one file for a stick, or a mirror directory. No key is needed: everything in it is signed already.

What comes out was taken once as a device takes it (`core.offline`), from the first root in it to the payload.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import (
    file_name,
    parse_root,
    parse_targets,
    product_role,
    signed_targets,
)
from tidegate.core.offline import believe
from tidegate.core.verify import TrustedSet, have
from tidegate.publisher import bundle as bundles
from tidegate.publisher.publish import Api, published

_ONLINE: Final = ("timestamp", "snapshot")


@dataclass(frozen=True)
class Chain:
    """Documents from which a device gets to a product's role: roots in their order, the others by role."""

    roots: tuple[bytes, ...]
    documents: Mapping[str, bytes]


@dataclass(frozen=True)
class Made:
    """What was written, for people. `until`: unix seconds when the first document in it expires."""

    version: str
    roots: str
    until: int


class _Typed(msgspec.Struct):
    type: str = msgspec.field(name="_type")


class _Outer(msgspec.Struct):
    signed: _Typed


def fetched(api: Api, anchor: bytes, product: str, *, now: int) -> Chain:
    """Return what a server has published, verified from `anchor`, with every root that it has.

    Raises:
        PublisherError: `sig.*`; `meta.no_root`: nothing is published. TidegateError: the server cannot be reached.
    """
    trusted = published(api, anchor, product, now=now)
    if trusted is None:
        raise PublisherError("meta.no_root", "the server has published nothing yet")
    last = trusted.root.version
    names = [file_name("root", number) for number in range(1, last + 1)]
    roots = [api.get_bytes(f"/d/v1/repo/{name}") for name in names]
    if roots[-1] != trusted.root.body:
        raise PublisherError("sig.mix_and_match", f"the server gives two different roots {last}")
    documents = {role: document.body for role, document in trusted.roles.items()}
    documents["timestamp"] = have(trusted.timestamp, "timestamp").body
    documents["snapshot"] = have(trusted.snapshot, "snapshot").body
    return Chain(tuple(roots), documents)


def given(bodies: Sequence[bytes]) -> Chain:
    """Sort documents that lie here as files: roots, and the targets role.

    Raises:
        PublisherError: `sig.malformed`: something else; `meta.no_root`: no root among them.
    """
    roots: dict[int, bytes] = {}
    documents: dict[str, bytes] = {}
    for body in bodies:
        try:
            kind = msgspec.json.decode(body, type=_Outer).signed.type
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PublisherError("sig.malformed", f"no signed document: {error}"[:200]) from error
        if kind == "root":
            roots[parse_root(body).version] = body
        elif kind == "targets":
            documents["targets"] = body
        else:
            raise PublisherError("sig.malformed", f"a document of type {kind[:40]!r}")
    if not roots:
        raise PublisherError("meta.no_root", "give the roots as well, from the devices' own on")
    return Chain(tuple(roots[version] for version in sorted(roots)), documents)


def write(bundle: Path, chain: Chain, out: Path, *, now: int, mirror: bool = False) -> Made:
    """Write a signed release with all that a device needs to believe it.

    Args:
        bundle: the signed bundle, with the payloads.
        chain: from `fetched` or `given`.
        out: file, or directory of a mirror; replaced or added to.
        now: unix seconds.
        mirror: lay it out like a server.

    Raises:
        PublisherError: `sig.*`: a device would refuse it; `release.malformed`.
    """
    found = bundles.read(bundle)
    product = found.role.removeprefix("product/")
    documents = _newest(found, chain, product)
    trusted = TrustedSet(chain.roots[0], now=now)
    for body in chain.roots[1:]:
        trusted.update_root(body)
    believe(trusted, product, documents, offline_now=now)
    role = trusted.roles[product_role(product)]
    signed = {
        part.full.sha256 for one in signed_targets(role).values() for part in one.release.pieces
    }
    members = [one for one in found.manifest.payloads if one.sha256 in signed]
    if not members:
        raise PublisherError("release.malformed", f"{bundle.name} brings no payload that counts")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".offline-") as folder:
        payloads = {one.sha256: Path(folder) / one.sha256 for one in members}
        for one in members:
            bundles.extract_member(bundle, one, payloads[one.sha256])
        if mirror:
            _lay_out(out, chain.roots, documents, payloads)
        else:
            bundles.write(
                out,
                documents,
                payloads,
                product=product,
                version=found.manifest.version,
                roots=chain.roots,
            )
    ends = [trusted.root.expires_at, trusted.targets.expires_at, role.expires_at]
    first = parse_root(chain.roots[0]).version
    return Made(found.manifest.version, f"{first} to {trusted.root.version}", min(ends))


def _newest(found: bundles.Bundle, chain: Chain, product: str) -> dict[str, bytes]:
    """Take the newer of the two product roles. What no server has published yet, no snapshot names: then there is none."""
    role = product_role(product)
    documents = {
        name: body for name, body in chain.documents.items() if not name.startswith("product/")
    }
    mine, theirs = found.documents[role], chain.documents.get(role)
    if theirs is not None and parse_targets(theirs, role).version >= found.product.version:
        return {**documents, role: theirs}
    return {name: body for name, body in documents.items() if name not in _ONLINE} | {role: mine}


def _lay_out(
    out: Path,
    roots: Sequence[bytes],
    documents: Mapping[str, bytes],
    payloads: Mapping[str, Path],
) -> None:
    """Lay files out as a server names them; timestamp last, so that a device sees an old set or a new one."""
    repo, blobs = out / "repo", out / "blobs"
    repo.mkdir(parents=True, exist_ok=True)
    blobs.mkdir(exist_ok=True)
    for digest, file in payloads.items():
        file.replace(blobs / digest)
    for body in roots:
        (repo / file_name("root", parse_root(body).version)).write_bytes(body)
    last = [role for role in documents if role == "timestamp"]
    for role in [one for one in documents if one != "timestamp"] + last:
        version = bundles.version_of(role, documents[role])
        (repo / file_name(role, version)).write_bytes(documents[role])
