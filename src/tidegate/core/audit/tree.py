"""The Merkle tree of RFC 6962 (section 2) over a log that only grows: its nodes, its head, and proofs that an old head is the beginning of a new one.

Only the roots of complete subtrees are ever kept, by (level, number): node `number` of level `level` covers the leaves from `number << level` on, `1 << level`
of them. They never change, so that heads and proofs of every older size can be answered from the same few nodes, about two a level. Verification is that of
RFC 9162, sections 2.1.3.2 and 2.1.4.2, which gives the same answers for the same trees.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tidegate.core.merkle import WIDTH, node

#: Root of a log without rows.
EMPTY: Final = hashlib.sha256(b"").digest()
#: Hashes in any proof, at most: a log of 2⁶³ rows.
PROOF_MAX: Final = 64

#: Gives the root of a complete subtree by (level, number).
NodeAt = Callable[[int, int], bytes]
Place = tuple[int, int]


def grown(size: int, leaf: bytes, node_at: NodeAt) -> Iterator[tuple[int, int, bytes]]:
    """Yield the nodes (level, number, digest) that become complete when `leaf` is added to a log of `size` rows; two on average."""
    level, number, digest = 0, size, leaf
    yield level, number, digest
    while number % 2:
        digest = node(node_at(level, number - 1), digest)
        level, number = level + 1, number // 2
        yield level, number, digest


def root(size: int, node_at: NodeAt) -> bytes:
    """Return the head of a log of `size` rows."""
    return _over(0, size, node_at) if size else EMPTY


def inclusion(index: int, size: int, node_at: NodeAt) -> tuple[bytes, ...]:
    """Return the proof that row `index` (0 = the first) is in the log of `size` rows.

    Raises:
        ValueError: there is no such row.
    """
    if not 0 <= index < size:
        raise ValueError(f"row {index} of {size}")
    found: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _half(high - low)
        if index < middle:
            found.append(_over(middle, high, node_at))
            high = middle
        else:
            found.append(_over(low, middle, node_at))
            low = middle
    return tuple(reversed(found))


def consistency(old: int, new: int, node_at: NodeAt) -> tuple[bytes, ...]:
    """Return the proof that the log of `old` rows is the beginning of that of `new` rows; empty where nothing is to be proved.

    Raises:
        ValueError: the old one is not the shorter one.
    """
    if not 0 <= old <= new:
        raise ValueError(f"from {old} to {new}")
    if old in {0, new}:
        return ()
    found: list[bytes] = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _half(high - low)
        if old <= middle:
            found.append(_over(middle, high, node_at))
            high = middle
        else:
            found.append(_over(low, middle, node_at))
            low, whole = middle, False
    if not whole:
        found.append(_over(low, high, node_at))
    return tuple(reversed(found))


def places(ask: Callable[[NodeAt], object]) -> list[Place]:
    """Return the nodes that `ask` will read, so that a database can be asked for all of them at once. Which they are depends on sizes alone."""
    found: dict[Place, None] = {}

    def note(level: int, number: int) -> bytes:
        found[level, number] = None
        return EMPTY

    ask(note)
    return list(found)


def proves_inclusion(
    proof: Sequence[bytes], *, leaf: bytes, index: int, size: int, head: bytes
) -> bool:
    """Say whether `proof` (untrusted) shows `leaf` to be row `index` of the log of `size` rows with this head."""
    if not 0 <= index < size or not _are_digests(leaf, head, *proof[: PROOF_MAX + 1]):
        return False
    digest, at, last = leaf, index, size - 1
    for one in proof:
        if last == 0:
            return False
        if at % 2 or at == last:
            digest = node(one, digest)
            while at and not at % 2:
                at, last = at // 2, last // 2
        else:
            digest = node(digest, one)
        at, last = at // 2, last // 2
    return last == 0 and digest == head


def proves_consistency(
    proof: Sequence[bytes], *, old: int, old_head: bytes, new: int, new_head: bytes
) -> bool:
    """Say whether `proof` (untrusted) shows that the log with `old_head` is the beginning of that with `new_head`.

    Nothing is proved of a log without rows, as in the reference: every log begins with it.
    """
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_head == new_head
    if not proof or not _are_digests(old_head, new_head, *proof[: PROOF_MAX + 1]):
        return False
    path = [old_head, *proof] if old & (old - 1) == 0 else list(proof)
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at // 2, last // 2
    first = second = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            first, second = node(one, first), node(one, second)
            while at and not at % 2:
                at, last = at // 2, last // 2
        else:
            second = node(second, one)
        at, last = at // 2, last // 2
    return last == 0 and first == old_head and second == new_head


class Frontier:
    """A log's head while its rows come by, in 32 bytes for each binary digit of their number."""

    def __init__(self) -> None:
        """Begin with an empty log."""
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Take in the next row."""
        number = self.size
        while number % 2:
            leaf = node(self._peaks.pop(), leaf)
            number //= 2
        self._peaks.append(leaf)
        self.size += 1

    def head(self) -> bytes:
        """Return the head over all rows so far."""
        if not self._peaks:
            return EMPTY
        *others, digest = self._peaks
        for one in reversed(others):
            digest = node(one, digest)
        return digest


def _are_digests(*found: bytes) -> bool:
    """Say whether all are digests, and no more of them than a proof and two heads have."""
    return len(found) <= PROOF_MAX + 2 and all(len(one) == WIDTH for one in found)


def _half(count: int) -> int:
    """Return the largest power of two below `count` (at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _over(low: int, high: int, node_at: NodeAt) -> bytes:
    """Return the root over the leaves from `low` to `high`; `low` is a multiple of the power of two that covers them."""
    count = high - low
    if count & (count - 1) == 0:
        return node_at(count.bit_length() - 1, low // count)
    middle = low + _half(count)
    return node(_over(low, middle, node_at), _over(middle, high, node_at))
