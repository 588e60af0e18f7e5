"""The audience of a snapshot rollout (`dynamic = false`): whom it means, by row, fixed when it was made.

Kept once, compressed, under the digest of its content, so that making a rollout stays one row more however large the fleet is. A device's row is its own for
ever, so the audience says the same to every process and after every restart. Who leaves the fleet keeps the place: such a device is told as gone.
"""

import hashlib
import zlib
from typing import Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.model import Policy
from tidegate.server.store import Connection, device_queries, rollout_rows

#: Audiences that are kept unpacked; a million devices take a megabyte.
_KNOWN_MAX: Final = 64
_LEVEL: Final = 1
_known: Final[dict[str, Fixed]] = {}


class FixedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A fixed audience, as the API gives it: how many devices it meant, when that was (unix seconds), and how many of them have left the fleet."""

    fixed_at: int
    devices: int
    gone: int


def save(conn: Connection, fixed: Fixed) -> str:
    """Keep an audience, on the writer, and return its digest. Keeping it again changes nothing."""
    digest = digest_of(fixed)
    packed = zlib.compress(fixed.rings, _LEVEL)
    rollout_rows.put_audience(conn, digest, len(fixed.rings), packed)
    _remember(digest, fixed)
    return digest


def digest_of(fixed: Fixed) -> str:
    """Return the name under which an audience is kept."""
    return hashlib.sha256(fixed.rings).hexdigest()


def load(conn: Connection, digest: str) -> Fixed:
    """Return an audience by its digest.

    Raises:
        RequestError: `request.not_found`: it is not kept here, or it is damaged; nobody may be admitted by it then.
    """
    found = _known.get(digest)
    if found is not None:
        return found
    kept = rollout_rows.audience(conn, digest)
    read = Fixed(_unpacked(*kept) if kept is not None else b"")
    if digest_of(read) != digest:
        raise RequestError("request.not_found", f"the fixed audience {digest[:12]} is not readable")
    return _remember(digest, read)


def facts(conn: Connection, digest: str, made_at: int) -> FixedFacts:
    """Tell of an audience; raises as `load`."""
    found = load(conn, digest)
    gone = sum(found.holds(row) for row in device_queries.not_accepted(conn))
    return FixedFacts(fixed_at=made_at, devices=found.devices, gone=gone)


def require_same(fixed: str | None, old: Policy, new: Policy) -> None:
    """Refuse a change of who is meant, once that is fixed: rings' names, order and queries, and `dynamic`.

    Args:
        fixed: digest of the rollout's audience; None = it has none.
        old: its policy.
        new: what it is to be.

    Raises:
        RequestError: `request.conflict`.
    """
    if not fixed:
        if old.dynamic and not new.dynamic:
            detail = "dynamic: who is meant is fixed when a rollout is made; make another one"
            raise RequestError("request.conflict", detail)
        return
    rings = [[(ring.name, ring.audience) for ring in one.rings] for one in (old, new)]
    if new.dynamic or rings[0] != rings[1]:
        detail = "whom a snapshot rollout means was fixed when it was made: rings and audience stay; make another one"
        raise RequestError("request.conflict", detail)


def _remember(digest: str, fixed: Fixed) -> Fixed:
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    return _known.setdefault(digest, fixed)


def _unpacked(size: int, packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, max(1, size))
    except zlib.error:
        return b""
