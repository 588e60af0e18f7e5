"""Who acts, and what they may do to which things: permissions, roles, scopes, grants.

A role is a set of permissions. A grant is a role in a scope: everything, one product, or one group of devices. An account or
token holds several. An act on a thing is allowed where one grant has its permission in a scope that covers the thing (its
`Place`). Stopping needs `rollout.halt`, which whoever can widen, approve or lead an incident has; widening needs
`rollout.widen`; letting somebody else's widening pass needs `rollout.approve`. An uploader hands in what release signers
signed, and decides nothing. Where a thing stands is found by `server.scopes`; nothing is looked up here.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean

_READ: Final = frozenset({"fleet.read"})
_AUDIT: Final = frozenset({"audit.read"})
_STOP: Final = frozenset({"rollout.halt", "incident.write", "notice.manage"}) | _AUDIT
_PUBLISH: Final = frozenset({"release.publish"})
_RECALL: Final = frozenset({"release.recall"})
_FALLBACK: Final = frozenset({"rollout.fallback"})
_WIDEN: Final = frozenset({"rollout.create", "rollout.widen"}) | _FALLBACK
_DEVICES: Final = frozenset({"device.manage", "claim.manage", "group.manage"})
_APPROVE: Final = frozenset({"rollout.approve"})
_SECURITY: Final = frozenset({"account.manage", "token.manage", "root.publish"})
#: Of whoever owns the server, in its default tenant alone.
_TENANTS: Final = frozenset({"tenant.manage"})

#: Every permission.
PERMISSIONS: Final = (
    _READ | _STOP | _PUBLISH | _RECALL | _WIDEN | _DEVICES | _APPROVE | _SECURITY | _TENANTS
)
#: Permissions by which more happens to devices, or more people may act. Nothing that stops is among them.
WIDENING: Final = frozenset(
    {"rollout.create", "rollout.widen", "rollout.approve", "rollout.fallback", "release.publish"}
    | {"account.manage", "token.manage", "root.publish", "tenant.manage"}
)
#: Acts under such a permission that take away, or refuse.
_TAKES_AWAY: Final = frozenset(
    {"decline", "disable", "end-sessions", "end", "revoke", "suspend", "forget"}
)
#: What each role may do. The last four are the names of before there were scopes; they stay.
ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": _READ,
    "auditor": _READ | _AUDIT,
    "telemetry-admin": _READ | frozenset({"notice.manage"}),
    "release-uploader": _READ | _PUBLISH,
    "release-manager": _READ | _STOP | _PUBLISH | _RECALL,
    "rollout-operator": _READ | _STOP | _WIDEN,
    "approver": _READ | _STOP | _APPROVE,
    "incident-commander": _READ | _STOP | _FALLBACK | _RECALL,
    "device-admin": _READ | _DEVICES,
    "security-admin": _READ | _AUDIT | _SECURITY,
    "owner": PERMISSIONS,
    "uploader": _READ | _PUBLISH,
    "operator": _READ | _STOP | _PUBLISH | _RECALL | _WIDEN | _DEVICES,
    "admin": PERMISSIONS,
}
#: Said of who holds anything but one role in everything.
GRANTED: Final = "granted"
#: Roles that hold every permission: somebody has to.
OWNING: Final = frozenset(role for role, may in ROLES.items() if may == PERMISSIONS)
GRANTS_MAX: Final = 32
ScopeKind = Literal["all", "product", "group"]


class Scope(msgspec.Struct, frozen=True, order=True):
    """Everything, one product, or one group of devices. Written `all`, `product:NAME`, `group:NAME`."""

    kind: ScopeKind = "all"
    name: str = ""

    def __str__(self) -> str:
        """Write it as it is read."""
        return self.kind if self.kind == "all" else f"{self.kind}:{self.name}"


EVERYTHING: Final = Scope()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a thing stands. `product` empty = above all products. `groups`: those that hold it as a whole."""

    product: str = ""
    groups: frozenset[str] = frozenset()


#: Where a thing stands that is about the whole fleet: only who may act on everything may act on it.
FLEET: Final = Place()


class Grant(msgspec.Struct, frozen=True, order=True):
    """A role in a scope. Written `ROLE` or `ROLE@SCOPE`."""

    role: str
    scope: Scope = EVERYTHING

    def __str__(self) -> str:
        """Write it as it is read."""
        return self.role if self.scope == EVERYTHING else f"{self.role}@{self.scope}"

    @property
    def may(self) -> frozenset[str]:
        """What the role may do; nothing when this server does not know it."""
        return ROLES.get(self.role, frozenset())

    def covers(self, place: Place) -> bool:
        """Say whether a thing stands in this grant's scope."""
        if self.scope.kind == "all":
            return True
        if self.scope.kind == "product":
            return bool(place.product) and place.product == self.scope.name
        return self.scope.name in place.groups


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody sees of lists: all of it, or things of these products and groups."""

    whole: bool = False
    products: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def sees(self, place: Place) -> bool:
        """Say whether a thing is seen."""
        return self.whole or place.product in self.products or bool(self.groups & place.groups)

    def sees_release(self, product: str) -> bool:
        """Say whether a product's releases are seen: they belong to no group, so who sees any group sees them."""
        return self.whole or product in self.products or bool(self.groups)

    @property
    def query(self) -> str:
        """What narrows a query of devices to those seen; empty = nothing has to."""
        if self.whole:
            return ""
        tests = [f'product = "{one}"' for one in sorted(self.products)]
        tests += [f"group:{one}" for one in sorted(self.groups)]
        return " or ".join(tests)


SEES_ALL: Final = Sight(whole=True)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts.

    Attributes:
        name: of the account; `token:NAME` for a token.
        role: the one role held in everything, or `GRANTED`.
        kind: account or token.
        owner: the person behind a token, so that nobody approves their own request by way of one.
        grants: what is held, when `role` is `GRANTED`.
        aliases: other accounts of the same person.
    """

    name: str
    role: str
    kind: str = "account"
    owner: str = ""
    grants: tuple[Grant, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def held(self) -> tuple[Grant, ...]:
        """What this actor holds."""
        return held(self.role, self.grants)

    @property
    def may(self) -> frozenset[str]:
        """What this actor may do to something."""
        return frozenset().union(*(one.may for one in self.held))

    @property
    def people(self) -> frozenset[str]:
        """The names under which this actor is known: nobody is a second person to themselves."""
        return frozenset({self.name, self.owner, *self.aliases} - {""})

    @property
    def sight(self) -> Sight:
        """What this actor sees of lists."""
        reading = [one.scope for one in self.held if "fleet.read" in one.may]
        return Sight(
            whole=EVERYTHING in reading,
            products=frozenset(one.name for one in reading if one.kind == "product"),
            groups=frozenset(one.name for one in reading if one.kind == "group"),
        )

    def allows(self, permission: str, place: Place) -> bool:
        """Say whether this actor has a permission where a thing stands."""
        return any(permission in one.may and one.covers(place) for one in self.held)

    def require(self, permission: str, place: Place | None = None) -> None:
        """Insist on a permission: where a thing stands, or anywhere.

        Raises:
            RequestError: `request.forbidden`.
        """
        if permission not in self.may:
            raise RequestError(
                "request.forbidden", f"{self.name} ({self.role}) has no {permission}"
            )
        if place is not None and not self.allows(permission, place):
            where = f"for {place.product}" if place.product else "for the whole fleet"
            raise RequestError("request.forbidden", f"{self.name} has no {permission} {where}")

    def require_all_of(self, grants: Iterable[Grant]) -> None:
        """Insist that this actor holds everything that these grants give, where they give it: nobody gives more than they have.

        Raises:
            RequestError: `request.forbidden`.
        """
        for grant in grants:
            if not self.holds(grant):
                raise RequestError(
                    "request.forbidden", f"{grant} may more than {self.name} ({self.role})"
                )

    def holds(self, grant: Grant) -> bool:
        """Say whether this actor may all that a grant gives, where it gives it."""
        mine = [one for one in self.held if one.scope in {EVERYTHING, grant.scope}]
        return grant.may <= frozenset().union(*(one.may for one in mine))


def asks_for_proof(permission: str, method: str, path: str) -> bool:
    """Say whether a call widens: then, where the settings want that, whoever sits at a session shows anew who they are. Looking and taking away never ask."""
    if permission not in WIDENING or method in {"GET", "HEAD", "OPTIONS", "DELETE"}:
        return False
    return path.rstrip("/").rpartition("/")[2] not in _TAKES_AWAY


def held(role: str, grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Return what is held by a stored role and stored grants: a server that knows no grants writes the role alone, and is believed."""
    return tuple(grants) if role == GRANTED else (Grant(role),)


def role_of(grants: tuple[Grant, ...]) -> str:
    """Return the role that stands for grants in one word: the one role held in everything, else `GRANTED`."""
    if len(grants) == 1 and grants[0].scope == EVERYTHING and len(grants[0].role) <= 16:
        return grants[0].role
    return GRANTED


def read_grant(text: str) -> Grant:
    """Read `ROLE` or `ROLE@SCOPE` (untrusted).

    Raises:
        RequestError: `request.invalid`.
    """
    role, at, rest = text.strip().partition("@")
    if role not in ROLES:
        near = did_you_mean(role, ROLES)
        raise RequestError(
            "request.invalid", f"no role {role[:32]!r}{near}; known: {', '.join(ROLES)}"
        )
    kind, _, name = (rest if at else "all").partition(":")
    known: Any = kind
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    fits = not name if kind == "all" else 1 <= len(name) <= 64 and plain.isalnum()
    if kind not in get_args(ScopeKind) or not fits:
        raise RequestError(
            "request.invalid", f"scope {rest[:80]!r}: all, product:NAME or group:NAME"
        )
    return Grant(role, Scope(known, name))


def read_grants(texts: Iterable[str]) -> tuple[Grant, ...]:
    """Read several grants (untrusted), each once, in order of their names.

    Raises:
        RequestError: `request.invalid`: one of them, or there are none, or too many.
    """
    found = tuple(sorted({read_grant(one) for one in texts}))
    if not 1 <= len(found) <= GRANTS_MAX:
        raise RequestError("request.invalid", f"1 to {GRANTS_MAX} roles")
    return found
