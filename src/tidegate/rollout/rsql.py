"""What is different in hawkBit's RSQL: its operators, its names for things, and its one wildcard.

A query is RSQL where it uses an operator of it (`==`, `=in=` …) or a word that is hawkBit's alone (`controllerId`, `attribute.os`). `rollout.query` reads
both in one grammar; what is here says which words of the other language mean what in ours, and which have no meaning here: those are refused with what to
write instead, never guessed at.
Comparisons stay ours: letters count (hawkBit takes `A` for `a`), and text is in the order of version strings.
"""

import re
from collections.abc import Mapping
from typing import Final

#: Operators that only RSQL has, and what they are in ours.
OPERATORS: Final[Mapping[str, str]] = {
    "==": "=", "=eq=": "=", "=ne=": "!=", "=lt=": "<", "=le=": "<=", "=gt=": ">", "=ge=": ">=",
    "=in=": "in", "=out=": "not in",
}  # fmt: skip
#: Operators that only RSQL has and that take nothing but `null`: whether the attribute is to be there.
PRESENCE: Final[Mapping[str, bool]] = {"=is=": False, "=not=": True}
#: hawkBit's moments of now. Nothing here is compared with a moment.
_MOMENTS: Final[Mapping[str, str]] = {
    "${NOW_TS}": "times are ages here: write seen < 24h, or seen > 24h",
    "${OVERDUE_TS}": "how long is too long is yours to say: write seen > 24h",
}
#: hawkBit's fields that say the same here under another name.
_SAME: Final[Mapping[str, str]] = {"controllerid": "id", "tag.name": "tag"}
_PREFIXES: Final[Mapping[str, str]] = {"attribute.": "attr.", "metadata.": "attr."}
#: hawkBit's fields that say something else than anything here: what to write.
_INSTEAD: Final[Mapping[str, str]] = {
    "name": "id = gw1-0001, or attr.name for a device's own attribute",
    "description": "attr.description for a device's own attribute",
    "updatestatus": "state = confirmed (or failed, reverted, lost, staged ...)",
    "lastcontrollerrequestat": "seen < 24h for one that was heard, seen > 24h for one that is overdue",
    "createdat": "a device's own attribute, as in attr.made",
    "createdby": "attr.createdby for a device's own attribute",
    "lastmodifiedat": "attr.lastmodifiedat for a device's own attribute",
    "lastmodifiedby": "attr.lastmodifiedby for a device's own attribute",
    "ipaddress": "site = lyon-2, or region = eu",
    "address": "site = lyon-2, or region = eu",
    "targettype": "model = gw1",
    "type": "model = gw1, or attr.type for a device's own attribute",
    "assignedds": "rollout = gw1-2.4.1",
    "installedds": "release = gw1-2.4.1",
}
#: hawkBit's words that nobody else has: a query with one of them in a field's place is RSQL, whatever its operators are.
#: Taken for a device's own attribute, `updatestatus != in_sync` would be true of every device.
_TELLING: Final = frozenset({"controllerid", "updatestatus", "lastcontrollerrequestat", "assignedds", "installedds", "targettype", "attribute"})  # fmt: skip
_ESCAPED: Final = re.compile(r"\\(.)|([*?\[])", re.DOTALL)


def is_telling(name: str) -> bool:
    """Say whether a field's name makes a query RSQL: `controllerId`, `attribute.os`, but not a bare `attribute`.

    Args:
        name: as written; untrusted.
    """
    first, dot, _ = name.lower().partition(".")
    return first in _TELLING and (first != "attribute" or bool(dot))


def name_of(name: str) -> tuple[str, str]:
    """Return our name of a field, and (where there is none) what to write instead.

    Args:
        name: as written in a query that is RSQL; untrusted.

    Returns:
        (name, "") for one that is known or a device's own, (name, advice) for one that means nothing here.
    """
    lower = name.lower()
    if lower in _SAME:
        return _SAME[lower], ""
    advice = _INSTEAD.get(lower.partition(".")[0])
    if advice is not None:
        return name, advice
    for prefix, ours in _PREFIXES.items():
        if lower.startswith(prefix) and len(lower) > len(prefix):
            return ours + name[len(prefix) :], ""
    return name, ""


def moment(written: str) -> str:
    """Say what to write instead of one of hawkBit's macros (`${NOW_TS}`).

    Args:
        written: as it stands, with its braces; untrusted.
    """
    known = _MOMENTS.get(written.upper())
    return known or f"of hawkBit's macros {' and '.join(_MOMENTS)} can be said otherwise"


def glob_of(written: str) -> str | None:
    r"""Return the glob (`~`) that a value of `==` means, or None when it holds no wildcard.

    `*` is RSQL's only wildcard, in quotes and without; `\*` is the star itself. What else a glob knows (`?`, `[`) stands for itself.

    Args:
        written: the value without its quotes, its backslashes still there.
    """
    if "*" not in re.sub(r"\\.", "", written, flags=re.DOTALL):
        return None

    def one(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"[{match[1]}]" if match[1] in "*?[" else match[1]
        return "*" if match[2] == "*" else f"[{match[2]}]"

    return _ESCAPED.sub(one, written)
