"""Whose word counts for a target path: the search through delegations (TUF specification 1.0.34, section 5.6.7).

Pre-order, depth first, in the order in which a role lists its delegations. A terminating delegation ends the search of everything beside and above it; a role
is looked at once in one search, so that a circle ends; hash prefixes and succinct bins (TAP 15) are delegations like others. Each role is taken anew under the
role that led to it: what it may say through one delegator says nothing about another.

Tidegate's own repositories need one step of this (targets to product); the whole search is here because the workflow is held against the conformance suite.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tidegate.core.errors import PublisherError
from tidegate.core.verify import TrustedSet

#: Roles that one search looks at (targets and 32 more, as python-tuf does); more is an attack on the device's time.
SEARCH_MAX: Final = 33


@dataclass(frozen=True)
class TargetInfo:
    """What a believed role says of a file: its length in bytes, and its digests (hex) by kind."""

    path: str
    length: int
    hashes: Mapping[str, str]


#: Brings a role's document and has it taken by the set, under the role that delegates it (None = root). Raises when either fails.
Take = Callable[[str, str | None], None]


def find_target(trusted: TrustedSet, path: str, take: Take) -> TargetInfo | None:
    """Return what the first role that may speak for `path` says of it; None when none does.

    Args:
        trusted: holds a snapshot.
        path: the target's path (untrusted text; used for comparing only).
        take: brings documents.

    Raises:
        PublisherError: `sig.*`: a role on the way is not believed, or not in snapshot; `sig.oversized`: more roles than are looked at.
    """
    looked_at: set[str] = set()
    pending: list[tuple[str, str | None]] = [("targets", None)]
    while pending:
        role, delegator = pending.pop()
        if role in looked_at:
            continue
        if len(looked_at) == SEARCH_MAX:
            raise PublisherError("sig.oversized", f"more than {SEARCH_MAX} roles may speak for it")
        looked_at.add(role)
        take(role, delegator)
        found = trusted.roles[role].signed.targets.get(path)
        if found is not None:
            return TargetInfo(path, found.length, dict(found.hashes))
        _push(trusted, role, path, pending)
    return None


def _push(trusted: TrustedSet, role: str, path: str, pending: list[tuple[str, str | None]]) -> None:
    delegations = trusted.roles[role].signed.delegations
    if delegations is None:
        return
    children: list[tuple[str, str | None]] = []
    for child, terminating in delegations.get_roles_for_target(path):
        children.append((child, role))
        if terminating:
            pending.clear()
            break
    pending.extend(reversed(children))
