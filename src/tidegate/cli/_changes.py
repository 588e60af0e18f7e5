"""A draft beside the document before it, laid out for whoever is about to sign it."""

from collections.abc import Sequence
from typing import Any

from tidegate.cli._ceremony import date
from tidegate.cli.output import printable
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import RoleKeys
from tidegate.publisher.ceremony import called
from tidegate.publisher.compare import Difference, RingChange


def ring_lines(
    rings: Sequence[RingChange], *, mine: PublicKey | None = None, notes: dict[str, str]
) -> list[str]:
    """Write who may sign what, one role a line.

    Args:
        rings: the roles; those that go are left out.
        mine: a key to be marked with (you).
        notes: by role, what stands behind its keys.
    """
    there = [one for one in rings if one.after.keys]
    width = max([12, *(len(one.role) for one in there)])
    keys = {one.role: _names(one.after, mine) for one in there}
    wide = max((len(text) for text in keys.values()), default=0)
    return [
        f"  {printable(one.role):<{width}} {one.after.threshold} of {len(one.after.keys):<3}"
        f" {keys[one.role]:<{wide}}  {notes.get(one.role, '')}".rstrip()
        for one in there
    ]


def change_lines(found: Difference, what: str) -> list[str]:
    """Write what is different: who comes, who goes, how many must sign, until when.

    Args:
        found: the difference.
        what: `root`, `targets` or a product role.
    """
    if not found.before:
        return [
            f"There {'are' if what == 'targets' else 'is'} no {what} before {'them' if what == 'targets' else 'it'}."
        ]
    lines = [f"What changes after {what} {found.before}:"]
    for one in found.changes:
        lines += _ring(one)
    lines += [_row(name, f"{was} -> {now}") for name, was, now in found.facts]
    was, now = (date(at) for at in found.expires)
    lines.append(_row("expires", f"{now}, before {was}"))
    same = [one.role for one in found.rings if not one.changed]
    if same:
        lines.append(f"  unchanged    {printable(', '.join(same))}")
    return lines


def warning_lines(found: Difference) -> list[str]:
    """Write what is allowed and unwise."""
    return [f"  warning  {printable(text)}" for text in found.warnings]


def plain(found: Difference) -> dict[str, Any]:
    """Return the difference as JSON-like data."""
    return {
        "before": found.before,
        "after": found.after,
        "expires": {"before": found.expires[0], "after": found.expires[1]},
        "roles": [
            {
                "role": one.role,
                "needs": {"before": one.before.threshold, "after": one.after.threshold},
                "comes": [_key(key) for key in one.comes],
                "goes": [_key(key) for key in one.goes],
            }
            for one in found.changes
        ],
        "facts": [{"what": name, "before": was, "after": now} for name, was, now in found.facts],
        "warnings": list(found.warnings),
    }


def _ring(one: RingChange) -> list[str]:
    if not one.after.keys:
        return [_row(one.role, f"goes   all of it: {_names(one.before, None)}")]
    found = [f"comes  {_long(key)}" for key in one.comes]
    found += [f"goes   {_long(key)}" for key in one.goes]
    if one.needs_changed and one.before.keys:
        found.append(f"needs  {_of(one.before)} -> {_of(one.after)}")
    elif not one.before.keys:
        found.append(f"needs  {_of(one.after)}")
    return [_row(one.role if at == 0 else "", text) for at, text in enumerate(found)]


def _row(name: str, text: str) -> str:
    return f"  {printable(name):<12} {printable(text)}"


def _of(ring: RoleKeys) -> str:
    return f"{ring.threshold} of {len(ring.keys)}"


def _names(ring: RoleKeys, mine: PublicKey | None) -> str:
    return ", ".join(
        printable(called(key))
        + (" (you)" if mine is not None and key.identity == mine.identity else "")
        for key in ring.keys
    )


def _long(key: PublicKey) -> str:
    return f"{key.name}   {key.keyid[:12]}" if key.name else key.keyid[:12]


def _key(key: PublicKey) -> dict[str, str]:
    return {"name": key.name, "keyid": key.keyid}
