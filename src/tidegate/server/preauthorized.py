"""The factory's list: devices that are announced with their public key, and let in when they come with it.

An entry binds: who names an id that the list has, with another key, is refused, whatever claim token it brings. Importing a list again changes nothing.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core import keys
from tidegate.core.errors import TidegateError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import Attributes, DeviceId, PublicKey
from tidegate.core.release import Channel, Sha256
from tidegate.server import audit, snapshot
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, device_queries, identity_rows

#: Entries that one request may bring.
BATCH_MAX: Final = 1_000


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device as its factory announces it. At least one of id and serial, and the key or its digest; product and channel bind where they are given."""

    id: DeviceId | None = None
    serial: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    public_key: PublicKey | None = None
    keytype: Literal["ed25519", "ecdsa"] = "ed25519"
    key_sha256: Sha256 | None = None
    product: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    channel: Channel | None = None
    attributes: Attributes = {}


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as the API gives it. `used_at`: when a device came with its key."""

    id: str | None
    serial: str | None
    key_sha256: str
    product: str | None
    channel: str | None
    attributes: dict[str, str]
    created_at: int
    created_by: str
    used_at: int | None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that was not taken: its place among those sent (from 0), and why."""

    index: int
    code: str
    detail: str


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the entries of one request."""

    added: int
    known: int
    refused: tuple[Refused, ...]


def take(
    conn: Connection, entries: Sequence[object], actor: Actor, products: Collection[str], now: int
) -> Imported:
    """Add entries to the list; each stands or falls by itself.

    Args:
        conn: of a unit of work on the writer.
        entries: plain JSON (untrusted).
        actor: the operator.
        products: those that the targets role delegates.
        now: unix seconds.
    """
    added = known = 0
    refused = []
    for index, plain in enumerate(entries):
        try:
            entry = msgspec.convert(plain, Entry)
            if _take(conn, entry, actor, products, now):
                added += 1
            else:
                known += 1
        except msgspec.ValidationError as error:
            refused.append(Refused(index=index, code="request.invalid", detail=str(error)))
        except TidegateError as error:
            refused.append(Refused(index=index, code=error.code, detail=error.detail))
    if added:
        detail = {"added": added, "refused": len(refused)}
        audit.record(conn, now, actor.name, "device.preauthorize", f"{added} devices", detail)
    return Imported(added=added, known=known, refused=tuple(refused))


def _take(
    conn: Connection, entry: Entry, actor: Actor, products: Collection[str], now: int
) -> bool:
    """Add one entry; False when it is there already."""
    digest = _digest(entry)
    _require_sense(entry, products)
    values = {
        "key_sha256": digest,
        "device_id": entry.id,
        "serial": entry.serial,
        "product": entry.product,
        "channel": entry.channel,
        "attributes": entry.attributes or None,
    }
    known = identity_rows.listed_key(conn, digest)
    if known is not None:
        if all(getattr(known, name) == value for name, value in values.items()):
            return False
        raise _wrong("the list has this key already, with something else")
    if entry.id is not None:
        if identity_rows.listed_id(conn, entry.id):
            raise _wrong(f"the list has {entry.id} already, with another key")
        device = device_queries.by_id(conn, entry.id)
        if device is not None and device.key_sha256 != digest:
            raise _wrong(f"{entry.id} is enrolled with another key")
    if identity_rows.retired(conn, digest) is not None:
        raise _wrong("this key was retired")
    identity_rows.add_listed(conn, {**values, "created_at": now, "created_by": actor.name})
    return True


def _digest(entry: Entry) -> str:
    if entry.public_key is not None:
        key = keys.public_key(entry.keytype, entry.public_key)
        digest = keys.device_key_sha256(key.keytype, key.public)
        if entry.key_sha256 not in {None, digest}:
            raise _wrong("key_sha256 is not the digest of public_key")
        return digest
    if entry.key_sha256 is None:
        raise _wrong("public_key or key_sha256 is missing")
    return entry.key_sha256


def _require_sense(entry: Entry, products: Collection[str]) -> None:
    if entry.id is None and entry.serial is None:
        raise _wrong("id or serial is missing")
    if entry.product is not None and entry.product not in products:
        near = did_you_mean(entry.product, products)
        raise _wrong(f'nobody signs for the product "{entry.product}"{near}')
    if snapshot.TAGS in entry.attributes:
        raise _wrong(f'an attribute cannot be called "{snapshot.TAGS}"')


def _wrong(detail: str) -> TidegateError:
    return TidegateError("request.invalid", detail)


def listed(conn: Connection, *, after: int = 0, limit: int = 100) -> tuple[list[Listed], int]:
    """Return entries in the order in which they came, and the cursor of the next page (0 = there is none)."""
    found = identity_rows.listed(conn, after=after, limit=limit + 1)
    items = [
        Listed(
            id=row.device_id,
            serial=row.serial,
            key_sha256=row.key_sha256,
            product=row.product,
            channel=row.channel,
            attributes=row.attributes or {},
            created_at=row.created_at,
            created_by=row.created_by,
            used_at=row.used_at,
        )
        for row in found[:limit]
    ]
    return items, int(found[limit - 1].id) if len(found) > limit else 0


def drop(conn: Connection, key_sha256: str, actor: Actor, now: int) -> bool:
    """Take an unused entry off the list; say whether there was one."""
    gone = identity_rows.drop_listed(conn, key_sha256)
    if gone:
        audit.record(conn, now, actor.name, "device.unauthorize", key_sha256)
    return gone
