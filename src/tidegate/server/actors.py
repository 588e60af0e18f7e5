"""Who acts, and what each role may do.

Roles are sets of permissions. Stopping needs `rollout.halt`, which every role but the viewer and the uploader has; widening needs `rollout.widen`; letting
somebody else's widening pass needs `rollout.approve`. An uploader hands in what release signers signed, and decides nothing.
"""

from typing import Final

import msgspec

from tidegate.core.errors import RequestError

_READ: Final = frozenset({"fleet.read"})
_STOP: Final = frozenset({"rollout.halt", "incident.write", "audit.read"})
_OPERATE: Final = frozenset(
    {
        "rollout.create",
        "rollout.widen",
        "rollout.fallback",
        "release.publish",
        "release.recall",
        "device.manage",
        "claim.manage",
        "group.manage",
    }
)
_APPROVE: Final = frozenset({"rollout.approve"})
_ADMIN: Final = frozenset({"account.manage", "token.manage", "root.publish"})

#: What each role may do.
ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": _READ,
    "uploader": _READ | frozenset({"release.publish"}),
    "operator": _READ | _STOP | _OPERATE,
    "approver": _READ | _STOP | _APPROVE,
    "admin": _READ | _STOP | _OPERATE | _APPROVE | _ADMIN,
}
APPROVING_ROLES: Final = frozenset(role for role, may in ROLES.items() if "rollout.approve" in may)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts. `owner` is the person behind a token, so that nobody approves their own request by way of one."""

    name: str
    role: str
    kind: str = "account"
    owner: str = ""

    @property
    def may(self) -> frozenset[str]:
        """What this actor may do."""
        return ROLES.get(self.role, frozenset())

    @property
    def people(self) -> frozenset[str]:
        """The names under which this actor is known: nobody is a second person to themselves."""
        return frozenset({self.name, self.owner} - {""})

    def require(self, permission: str) -> None:
        """Insist on a permission.

        Raises:
            RequestError: `request.forbidden`.
        """
        if permission not in self.may:
            raise RequestError(
                "request.forbidden", f"{self.name} ({self.role}) has no {permission}"
            )
