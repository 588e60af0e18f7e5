"""What a bundle is: signed metadata and payloads in one uncompressed tar file, with a manifest in front.

A bundle goes from the build machine to the holders of product keys, who add signatures, and then to the server. The manifest only helps carrying: it says what
follows, so that a reader can stream and bound it. Nobody believes it; everything in it is verified like what comes over the wire (`core.accept`).

An *offline bundle* goes on to the device itself, on a stick: it also carries the chain of roots and, where a server has them, timestamp and snapshot, so
that the device needs nobody else. It has a schema of its own, so that neither is taken for the other.

Order of members: `bundle.json`, then `metadata/…` (root, targets, product, as far as they are there), then `attachments/<sha256>`, then `payloads/<sha256>`.
"""

import hashlib
import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.caps import ROLE_MAX, ROOT_MAX
from tidegate.core.codec import encode
from tidegate.core.errors import PublisherError
from tidegate.core.hardware import Name
from tidegate.core.metadata import file_name
from tidegate.core.release import Sha256, Size
from tidegate.core.ustar import Reader

MANIFEST_NAME: Final = "bundle.json"
MANIFEST_MAX: Final = 256 << 10
#: Content type of an upload.
CONTENT_TYPE: Final = "application/vnd.tidegate.bundle.v1+tar"

_METADATA: Final = re.compile(
    r"metadata/([1-9][0-9]{0,15})\.(root|targets|snapshot|product%2F([A-Za-z0-9][A-Za-z0-9._-]{0,63}))\.json"
)
_TIMESTAMP: Final = "metadata/timestamp.json"
#: Members of a bundle for a server; an offline one may carry a long chain of roots.
_MEMBERS_MAX: Final = 128
_PAYLOAD: Final = re.compile(r"payloads/([0-9a-f]{64})")
_ATTACHMENT: Final = re.compile(r"attachments/([0-9a-f]{64})")
#: Most bytes of an attachment, whatever its kind (`core.supply.documents` has narrower limits).
ATTACHMENT_MAX: Final = 32 << 20


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a bundle: name inside it, length in bytes, digest."""

    name: Annotated[str, Meta(max_length=200)]
    length: Size
    sha256: Sha256

    @property
    def role(self) -> str | None:
        """Return the role whose document this is; None for payloads and attachments."""
        if self.name == _TIMESTAMP:
            return "timestamp"
        found = _METADATA.fullmatch(self.name)
        if found is None:
            return None
        return f"product/{found[3]}" if found[3] else found[2]

    @property
    def payload(self) -> str | None:
        """Return the digest that names a payload; None for what is none."""
        found = _PAYLOAD.fullmatch(self.name)
        return found[1] if found else None

    @property
    def attachment(self) -> str | None:
        """Return the digest that names an attachment; None for what is none."""
        found = _ATTACHMENT.fullmatch(self.name)
        return found[1] if found else None


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`bundle.json`. `product` and `version` are for people; None where a bundle carries only root or targets."""

    schema: Literal["tidegate.bundle/1", "tidegate.offline/1"] = "tidegate.bundle/1"
    product: Name | None = None
    version: Annotated[str, Meta(max_length=64)] = ""
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=512)]

    @property
    def offline(self) -> bool:
        """Say whether this is for devices that ask no server."""
        return self.schema == "tidegate.offline/1"

    def document(self, role: str) -> Member | None:
        """Return the member that holds a role's document."""
        return next((one for one in self.members if one.role == role), None)

    @property
    def payloads(self) -> tuple[Member, ...]:
        """Return the payloads."""
        return tuple(one for one in self.members if one.payload is not None)

    @property
    def attachments(self) -> tuple[Member, ...]:
        """Return the attachments: documents of a release that devices do not download."""
        return tuple(one for one in self.members if one.attachment is not None)


def document_name(role: str, version: int | None) -> str:
    """Return the member name of a role's document."""
    return f"metadata/{file_name(role, version)}"


def payload_name(sha256: str) -> str:
    """Return the member name of a payload."""
    return f"payloads/{sha256}"


def attachment_name(sha256: str) -> str:
    """Return the member name of an attachment."""
    return f"attachments/{sha256}"


def parse_manifest(body: bytes) -> BundleManifest:
    """Read `bundle.json` (untrusted).

    Raises:
        PublisherError: `release.malformed`: cannot be read, a member of unknown name, one named twice, or a document over its limit.
    """
    if len(body) > MANIFEST_MAX:
        raise PublisherError("release.malformed", f"bundle.json has {len(body)} bytes")
    try:
        found = msgspec.json.decode(body, type=BundleManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PublisherError("release.malformed", f"bundle.json: {error}"[:300]) from error
    if len({one.name for one in found.members}) != len(found.members):
        raise PublisherError("release.malformed", "bundle.json names a member twice")
    for one in found.members:
        _check_member(one)
    if not found.offline:
        _check_plain(found)
    return found


def _check_member(one: Member) -> None:
    digest = one.payload or one.attachment
    if digest is not None:
        if digest != one.sha256:
            raise PublisherError("release.malformed", f"{one.name}: named after other bytes")
        if one.attachment is not None and one.length > ATTACHMENT_MAX:
            raise PublisherError("supply.too_large", f"{one.name}: {one.length} bytes")
        return
    if one.role is None:
        raise PublisherError("release.malformed", f"bundle.json names {one.name[:80]!r}")
    if one.length > (ROOT_MAX if one.role == "root" else ROLE_MAX):
        raise PublisherError("sig.oversized", f"{one.name}: {one.length} bytes")


def _check_plain(manifest: BundleManifest) -> None:
    roles = [one.role for one in manifest.members if one.role is not None]
    if len(manifest.members) > _MEMBERS_MAX or len(set(roles)) != len(roles):
        raise PublisherError("release.malformed", "bundle.json names too much")
    if set(roles) & {"snapshot", "timestamp"}:
        raise PublisherError("release.malformed", "a bundle with an online role in it")


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Write `bundle.json`."""
    return encode(manifest)


# --- reading the file ---------------------------------------------------------------------------------------------------


def read_manifest(reader: Reader) -> BundleManifest:
    """Read the manifest in front of a bundle (untrusted).

    Raises:
        PublisherError: `release.malformed`, `sig.oversized`.
    """
    first = reader.next()
    if first is None or first[0] != MANIFEST_NAME or first[1] > MANIFEST_MAX:
        raise PublisherError("release.malformed", "the bundle has no manifest in front")
    return parse_manifest(reader.content())


def require_for_server(manifest: BundleManifest) -> None:
    """Refuse what goes to devices where a bundle for a server is wanted.

    Raises:
        PublisherError: `release.malformed`.
    """
    if manifest.offline:
        raise PublisherError(
            "release.malformed", "an offline bundle is for devices: use the one it was made from"
        )


def require_member(reader: Reader, member: Member) -> None:
    """Go to the next member, which must be this one.

    Raises:
        PublisherError: `release.malformed`.
    """
    if reader.next() != (member.name, member.length):
        raise PublisherError("release.malformed", f"{member.name} is not in its place")


def read_document(reader: Reader, member: Member) -> bytes:
    """Return the present member, a document whose length `parse_manifest` bounded.

    Raises:
        PublisherError: `release.malformed`: cut short, or other bytes than the manifest names.
    """
    body = reader.content()
    if hashlib.sha256(body).hexdigest() != member.sha256:
        raise PublisherError("release.malformed", f"{member.name}: other bytes than named")
    return body
