"""Who is in a cohort, without listing it: a Merkle tree over device ids, and proofs that one device is a leaf of it.

The tree is that of RFC 6962 (section 2.1; proofs as RFC 9162, section 2.1.3): leaves and inner nodes are hashed under different prefixes, so that neither can
stand in for the other, and a lone last node moves up as it is. Leaves are sorted by their digests: the same devices give the same root whatever order they
were named in, and whoever holds the levels finds a leaf by bisection, without a list of names beside it.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tidegate.core.errors import PublisherError
from tidegate.core.release import Sha256

#: Bytes of a digest.
WIDTH: Final = 32
#: Leaves beyond this are refused: four billion device ids, 32 hashes a proof.
LEAVES_MAX: Final = 1 << 32
_LEAF: Final = b"\x00tidegate.cohort.v1\x00"
_NODE: Final = b"\x01"

#: Reads (offset, count) of the bytes that `levels` made.
ReadAt = Callable[[int, int], bytes]


class CohortProof(msgspec.Struct, frozen=True, kw_only=True):
    """That a device is leaf number `index`: the digests beside its way up, lowest first. 20 of them for a million devices."""

    index: Annotated[int, Meta(ge=0, lt=LEAVES_MAX)]
    hashes: Annotated[tuple[Sha256, ...], Meta(max_length=32)] = ()


def leaf(device_id: str) -> bytes:
    """Return the digest that stands for a device."""
    return hashlib.sha256(_LEAF + device_id.encode()).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the digest over two others."""
    return hashlib.sha256(_NODE + left + right).digest()


def levels(device_ids: Iterable[str]) -> list[bytes]:
    """Return every level of the tree as joined digests, the leaves first and the root last.

    Args:
        device_ids: in any order; one named twice counts once.

    Raises:
        PublisherError: `sig.malformed`: no device at all.
    """
    row = sorted({leaf(one) for one in device_ids})
    if not row:
        raise PublisherError("sig.malformed", "a cohort of no devices")
    found = [b"".join(row)]
    while len(row) > 1:
        pairs = [node(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        row = pairs if len(row) % 2 == 0 else [*pairs, row[-1]]
        found.append(b"".join(row))
    return found


def widths(count: int) -> list[int]:
    """Return how many digests each level of a tree of `count` leaves has."""
    found = [count]
    while found[-1] > 1:
        found.append((found[-1] + 1) // 2)
    return found


def prove(read_at: ReadAt, count: int, device_id: str) -> CohortProof | None:
    """Return the proof for a device from the joined levels, or None: it is not in the cohort.

    Args:
        read_at: gives bytes of the joined `levels`; asked some forty times for a million leaves.
        count: leaves.
        device_id: whom it is about.
    """
    index = _find(read_at, count, leaf(device_id))
    if index is None:
        return None
    hashes, start, at = [], 0, index
    for width in widths(count)[:-1]:
        beside = at ^ 1
        if beside < width:
            hashes.append(read_at((start + beside) * WIDTH, WIDTH).hex())
        start, at = start + width, at // 2
    return CohortProof(index=index, hashes=tuple(hashes))


def _find(read_at: ReadAt, count: int, wanted: bytes) -> int | None:
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if read_at(middle * WIDTH, WIDTH) < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < count and read_at(low * WIDTH, WIDTH) == wanted else None


def proves(proof: CohortProof, device_id: str, *, root: str, count: int) -> bool:
    """Say whether `proof` (untrusted) shows that a device is one of the `count` leaves under `root` (hex)."""
    if proof.index >= count:
        return False
    digest, at, last = leaf(device_id), proof.index, count - 1
    for one in proof.hashes:
        if last == 0:
            return False
        beside = bytes.fromhex(one)
        if at % 2 or at == last:
            digest = node(beside, digest)
            while not at % 2 and at:
                at, last = at // 2, last // 2
        else:
            digest = node(digest, beside)
        at, last = at // 2, last // 2
    return last == 0 and digest.hex() == root
