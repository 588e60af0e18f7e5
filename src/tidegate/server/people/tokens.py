"""API tokens for programs: what they hold, from where and until when they are good. A token never may more than its owner does now."""

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import audit
from tidegate.server.actors import FLEET, OWNING, Actor, read_grant, read_grants, role_of
from tidegate.server.people.register import (
    Register,
    actor_of,
    check_name,
    digest,
    held_by,
    written,
)
from tidegate.server.store import Connection
from tidegate.server.store import admin_accounts as rows

TOKEN_PREFIX: Final = "tg_"  # noqa: S105 - how tokens begin, no secret
#: The last use of a token is written down this often at most, in seconds.
USE_NOTED_S: Final = 3600
_ADDRESSES_MAX: Final = 32


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An API token without its secret.

    Attributes:
        id: its number.
        name: of the token.
        role: the one role held in everything, or `granted`.
        grants: all that is held.
        addresses: networks from which it is good; empty = from everywhere.
        created_at, expires_at, revoked_at, last_used_at: unix seconds.
        created_by: the person behind it.
        last_address: where it was last used from.
    """

    id: int
    name: str
    role: str
    grants: tuple[str, ...]
    addresses: tuple[str, ...]
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    last_address: str


class ApiTokens(Register):
    """API tokens."""

    def actor_of_token(self, token: str, now: int, address: str = "") -> Actor | None:
        """Return who an API token (untrusted) acts for, or None: it is not good, or not from this address.

        What it holds is cut to what its owner holds by now, and an owner who is disabled holds nothing.
        """
        if not token.startswith(TOKEN_PREFIX):
            return None

        def work(conn: Connection) -> Actor | None:
            found = rows.token(conn, digest(token))
            if found is None or found["revoked_at"] is not None:
                return None
            if found["expires_at"] is not None and found["expires_at"] <= now:
                return None
            if found["addresses"] and not is_within(address, found["addresses"]):
                return None
            owner = str(found["created_by"])
            account = rows.account(conn, owner)
            if account is not None and account["disabled_at"] is not None:
                return None
            held = held_by(found)
            aliases: tuple[str, ...] = ()
            if account is not None:
                person = actor_of(conn, account)
                held, aliases = tuple(one for one in held if person.holds(one)), person.aliases
            self._note_use(found, now, address)
            return Actor(
                name=f"token:{found['name']}",
                role=role_of(held),
                kind="token",
                owner=owner,
                grants=held,
                aliases=aliases,
            )

        return self._store.read(work)

    def _note_use(self, found: dict[str, Any], now: int, address: str) -> None:
        """Note that a token is in use, about once an hour and address; nobody waits for it."""
        same = address[:64] == found["last_address"]
        if same and now - (found["last_used_at"] or 0) < USE_NOTED_S:
            return
        values = {"last_used_at": now, "last_address": address[:64]}
        token_id = int(found["id"])
        self._store.write(lambda conn: rows.change_token(conn, token_id, values))

    def create_token(
        self,
        name: str,
        role: str,
        actor: Actor,
        now: int,
        *,
        expires_at: int | None = None,
        grants: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> tuple[TokenFacts, str]:
        """Make an API token; its text is returned once and never stored.

        Args:
            name: 1 to 64 letters, digits and . _ - @.
            role: held in everything; not asked where there are `grants`.
            actor: who makes it.
            now: unix seconds.
            expires_at: unix seconds; None = after the server's usual time.
            grants: `ROLE` or `ROLE@SCOPE`, untrusted.
            addresses: addresses and networks (`192.0.2.0/24`) from which alone it is good, untrusted.

        Raises:
            RequestError: `request.invalid`, `request.conflict`; `request.forbidden`: it would hold more than its maker.
        """
        check_name(name)
        held = read_grants(grants) if grants else (read_grant(role),)
        actor.require_all_of(held)
        networks = [str(one) for one in networks_of(addresses)]
        expires_at = self._expiry(expires_at, now)
        secret = TOKEN_PREFIX + self._random(32).hex()

        def work(conn: Connection) -> TokenFacts:
            if rows.live_token_named(conn, name) is not None:
                raise RequestError("request.conflict", f"there is a token {name} already")
            row = {
                "name": name,
                "token_sha256": digest(secret),
                "role": role_of(held),
                "grants": written(held),
                "addresses": networks,
                "created_at": now,
                "created_by": actor.owner or actor.name,
                "expires_at": expires_at,
            }
            rows.add_token(conn, row)
            audit.record(conn, now, actor.name, "token.create", name, {"grants": written(held)})
            made = rows.token(conn, digest(secret))
            assert made is not None  # noqa: S101 - it was added two lines above
            return _facts(made)

        return self._store.write(work).result(), secret

    def _expiry(self, expires_at: int | None, now: int) -> int | None:
        limits = self._limits
        if expires_at is None:
            lives = limits.token_default_s or limits.token_max_s
            return now + lives if lives else None
        if limits.token_max_s and expires_at > now + limits.token_max_s:
            days = limits.token_max_s // 86_400
            raise RequestError(
                "request.invalid", f"a token of this server lives {days} days at most"
            )
        return expires_at

    def revoke_token(self, name: str, actor: Actor, now: int) -> None:
        """End an API token. Who may not manage everybody's ends their own.

        Raises:
            RequestError: `request.not_found`.
        """

        def work(conn: Connection) -> None:
            found = rows.live_token_named(conn, name)
            if found is None or not self._is_shown(found, actor):
                raise RequestError("request.not_found", f"no token {name[:64]}")
            rows.change_token(conn, int(found["id"]), {"revoked_at": now})
            audit.record(conn, now, actor.name, "token.revoke", name)

        self._store.write(work).result()

    def tokens(self, actor: Actor | None = None) -> list[TokenFacts]:
        """Return API tokens without their secrets: all, or those that an actor may see."""
        found = self._store.read(rows.tokens)
        return [_facts(row) for row in found if actor is None or self._is_shown(row, actor)]

    def _is_shown(self, row: dict[str, Any], actor: Actor) -> bool:
        return actor.allows("token.manage", FLEET) or row["created_by"] in actor.people

    def local_token(self, now: int, known: str = "") -> str:
        """Return a token with all rights for whoever may read the data directory: `known` when it is still good, else a new one.

        It acts for the first owner, so that this one cannot be their own second person.
        """
        if known and self.actor_of_token(known, now) is not None:
            return known
        secret = TOKEN_PREFIX + self._random(32).hex()

        def work(conn: Connection) -> None:
            old = rows.live_token_named(conn, "local")
            if old is not None:
                rows.change_token(conn, int(old["id"]), {"revoked_at": now})
            owners = rows.people_with(conn, OWNING)
            row = {
                "name": "local",
                "token_sha256": digest(secret),
                "role": "admin",
                "created_at": now,
                "created_by": owners[0] if owners else "admin",
            }
            rows.add_token(conn, row)
            audit.record(conn, now, "tidegate", "token.create", "local", {"role": "admin"})

        self._store.write(work).result()
        return secret


def networks_of(texts: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Read addresses and networks (untrusted).

    Raises:
        RequestError: `request.invalid`.
    """
    if len(texts) > _ADDRESSES_MAX:
        raise RequestError("request.invalid", f"at most {_ADDRESSES_MAX} networks")
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError as error:
            raise RequestError(
                "request.invalid", f"addresses: {text[:50]!r} is no address or network"
            ) from error
    return found


def is_within(address: str, networks: Sequence[str]) -> bool:
    """Say whether an address (of a connection) is in one of these networks."""
    try:
        caller = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(caller, ipaddress.IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    return any(caller in ipaddress.ip_network(one) for one in networks)


def _facts(row: dict[str, Any]) -> TokenFacts:
    return TokenFacts(
        id=int(row["id"]),
        name=str(row["name"]),
        role=str(row["role"]),
        grants=tuple(written(held_by(row))),
        addresses=tuple(row["addresses"] or ()),
        created_at=int(row["created_at"]),
        created_by=str(row["created_by"]),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        last_address=str(row["last_address"]),
    )
