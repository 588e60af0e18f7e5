"""One act in the operators' log: its canonical bytes, its place in the hash chain, and its leaf in the tree.

A row's canonical bytes are canonical JSON over every field but the hash, with the optional ones left out where they are empty: rows from before those fields
existed keep the bytes, and so the hashes, that they had. What a field means is not decided here.
"""

import hashlib
from typing import Any, Final

import msgspec

from tidegate.core.codec import canonical
from tidegate.core.errors import PublisherError

#: Hash before the first row.
ORIGIN: Final = ""
_ALWAYS: Final = ("seq", "at", "actor", "action", "object", "detail")


class AuditRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act.

    Attributes:
        seq: 1, 2, 3 …, without a gap.
        at: unix seconds, of the server's clock.
        actor: who did it.
        action: noun and verb, `rollout.halt`.
        object: what it was done to.
        detail: plain JSON.
        plan: SHA-256 (hex) of the plan that was approved or applied.
        request: id of the request that asked for it; the server's own log names the same.
        ip: where that request came from, as far as the server could see.
        before, after: SHA-256 (hex) over the canonical JSON of what was changed.
        hash: SHA-256 (hex) over the hash of the row before and these canonical bytes.
    """

    seq: int
    at: int
    actor: str
    action: str
    object: str
    detail: dict[str, Any]
    plan: str = ""
    request: str = ""
    ip: str = ""
    before: str = ""
    after: str = ""
    hash: str


_OPTIONAL: Final = tuple(one for one in AuditRow.__struct_fields__ if one not in {*_ALWAYS, "hash"})


def canon(entry: AuditRow) -> bytes:
    """Return the canonical bytes of a row, which chain and tree are over."""
    body = {name: getattr(entry, name) for name in _ALWAYS}
    body |= {name: found for name in _OPTIONAL if (found := getattr(entry, name))}
    return canonical(body)


def link(before: str, body: bytes) -> str:
    """Return the hash (hex) of a row: SHA-256 over the hash of the row before it (hex) and its canonical bytes."""
    return hashlib.sha256(before.encode() + b"\n" + body).hexdigest()


def leaf(body: bytes) -> bytes:
    """Return the leaf that stands for a row's canonical bytes in the tree: RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x00" + body).digest()


#: Stands in the tree for a number whose row had gone from a database before it had a tree, or between two servers: nothing was there.
MISSING: Final = leaf(b"")


def digest(thing: object) -> str:
    """Return SHA-256 (hex) over the canonical JSON of something that was changed, for `before` and `after`."""
    return hashlib.sha256(canonical(thing)).hexdigest()


def seal(entry: AuditRow, before: str) -> AuditRow:
    """Return a row with the hash that it has behind a row with the hash `before`."""
    return msgspec.structs.replace(entry, hash=link(before, canon(entry)))


def read_row(line: bytes) -> AuditRow:
    """Read one line of an export (untrusted).

    Raises:
        PublisherError: `audit.unreadable`.
    """
    try:
        entry = msgspec.json.decode(line, type=AuditRow)
        canon(entry)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PublisherError("audit.unreadable", str(error)[:200]) from error
    return entry
