"""Claim tokens: what lets a new device in without a person looking at it. Shown once, stored as a digest, counted, limited in time and by serial number."""

import hashlib
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.server import audit
from tidegate.server.actors import Actor, Place
from tidegate.server.store import Connection
from tidegate.server.store import admin_devices as rows

#: How a claim token begins, so that a scanner for leaked secrets finds it.
PREFIX: Final = "tgc_"
EXPIRES_S: Final = 30 * 86_400
COUNT_MAX: Final = 1_000_000


class ClaimFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A claim without its secret."""

    name: str
    product: str
    group_name: str | None
    max_count: int
    used: int
    expires_at: int
    revoked_at: int | None
    created_at: int
    created_by: str


def require_product(product: str, products: Collection[str]) -> None:
    """Insist on a product that somebody signs for: devices of any other would never be offered anything.

    Args:
        product: as somebody typed it.
        products: those that the targets role delegates.

    Raises:
        RequestError: `request.invalid`.
    """
    if product not in products:
        near = did_you_mean(product, products) if products else "; there is no product yet"
        raise RequestError(
            "request.invalid",
            f'product: nobody signs for "{product}"{near}',
            hint="correct the name, or publish a targets role that delegates it",
        )


def create(
    conn: Connection,
    *,
    name: str,
    product: str,
    max_count: int,
    expires_at: int,
    group: str | None,
    serials: list[str] | None,
    actor: Actor,
    now: int,
    token_bytes: Callable[[int], bytes],
) -> tuple[ClaimFacts, str]:
    """Make a claim and its token, which is returned once.

    Raises:
        RequestError: `request.invalid`; `request.forbidden`: not for this product and group; `request.conflict`: the name is
            taken, and revoking by it would end only one of the two.
    """
    actor.require("claim.manage", Place(product=product, groups=frozenset({group or ""} - {""})))
    if not 1 <= max_count <= COUNT_MAX:
        raise RequestError("request.invalid", f"max_count: 1 to {COUNT_MAX}")
    if expires_at <= now:
        raise RequestError("request.invalid", "expires_at: it must lie ahead")
    for value, key in ((name, "name"), (product, "product"), (group or "x", "group")):
        plain = value.replace(".", "").replace("-", "").replace("_", "")
        if not (1 <= len(value) <= 64 and plain.isalnum() and value.isascii()):
            raise RequestError("request.invalid", f"{key}: 1 to 64 letters, digits and . _ -")
    if rows.claim(conn, name) is not None:
        raise RequestError(
            "request.conflict", f"there is a claim {name} already", hint="choose another name"
        )
    token = PREFIX + token_bytes(24).hex()
    row: dict[str, Any] = {
        "name": name,
        "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
        "product": product,
        "group_name": group,
        "max_count": max_count,
        "serials": serials,
        "expires_at": expires_at,
        "created_at": now,
        "created_by": actor.name,
    }
    rows.add_claim(conn, row)
    detail = {"product": product, "max_count": max_count, "expires_at": expires_at}
    audit.record(conn, now, actor.name, "claim.create", name, detail)
    return _facts({**row, "used": 0, "revoked_at": None}), token


def place_of(claim: ClaimFacts) -> Place:
    """Return where a claim stands: devices that come by it are of its product, and join its group."""
    return Place(product=claim.product, groups=frozenset({claim.group_name or ""} - {""}))


def listed(conn: Connection) -> list[ClaimFacts]:
    """Return every claim, newest first."""
    return [_facts(row) for row in rows.claims(conn)]


def revoke(conn: Connection, name: str, actor: Actor, now: int) -> ClaimFacts:
    """End a claim; devices that joined by it stay. Safe to repeat.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.claim(conn, name)
    if found is None:
        raise RequestError("request.not_found", f"no claim {name[:64]}")
    if found["revoked_at"] is None:
        rows.change_claim(conn, int(found["id"]), {"revoked_at": now})
        audit.record(conn, now, actor.name, "claim.revoke", name)
        found = {**found, "revoked_at": now}
    return _facts(found)


def _facts(row: dict[str, Any]) -> ClaimFacts:
    return ClaimFacts(**{name: row[name] for name in ClaimFacts.__struct_fields__})
