"""Who is kept out of a rollout by a person or by the planner: hardware variants by name, and whatever a query finds.

Both stand in `Rollout.isolated`, as text: a variant as it is (`gw1-r7`), a query behind a mark (`where site = "lyon"`), which no variant's name can begin with.
An update whose device a query keeps out is counted under that text in place of its variant, so that its outcomes leave the evidence of everybody else as an
isolated variant's do.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tidegate.core.errors import RequestError
from tidegate.rollout import query
from tidegate.rollout.evidence.strata import CLASS, OTHER, VARIANT
from tidegate.rollout.query import Attributes

MARK: Final = "where "
#: What the evidence gate's attributes are called in the query language, where it is not the same.
_NAMES: Final = {CLASS: "connectivity", "from": "release"}
#: The longest text of an entry: it is a name among variants.
ENTRY_MAX: Final = 80


def entry_of(text: str) -> str:
    """Return the entry for a query (untrusted text), written as the language writes it.

    Raises:
        RequestError: `request.invalid`: it is no query, it means everybody, it is too long for a name, or it asks for what is another thing when a device
            comes for its update (`state`, `seen` …), so that it would keep nobody out.
    """
    parsed = str(query.parse_lasting(text, also=("seen",)))
    if not parsed:
        raise RequestError("request.invalid", "a query that finds everybody: halt the rollout")
    entry = f"{MARK}{parsed}"
    if len(entry) > ENTRY_MAX:
        hint = "make a group of these devices (tidegate group create NAME --query ...) and isolate it: --where 'group = \"NAME\"'"
        raise RequestError("request.invalid", f"a query of {len(parsed)} characters", hint=hint)
    return entry


def entry_of_part(attributes: Sequence[str], values: Sequence[str]) -> str:
    """Return the entry for a part of the fleet as the evidence gate tells parts apart; empty = no query can say it.

    Args:
        attributes: `variant`, `region`, `class`, `from`, or a device's own (`attr.NAME`).
        values: of these; `other` is whatever is not told apart.
    """
    if OTHER in values or not attributes:
        return ""
    if tuple(attributes) == (VARIANT,):
        return values[0]
    tests = [
        f"{_NAMES.get(name, name)} = {_quoted(value)}"
        for name, value in zip(attributes, values, strict=True)
    ]
    try:
        return entry_of(" and ".join(tests))
    except RequestError:
        return ""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def query_of(entry: str) -> str:
    """Return the query that finds whom an entry keeps out."""
    return entry.removeprefix(MARK) if entry.startswith(MARK) else f"variant = {_quoted(entry)}"


def variants(isolated: Iterable[str]) -> frozenset[str]:
    """Return the hardware variants among the entries."""
    return frozenset(one for one in isolated if not one.startswith(MARK))


def queries(isolated: Iterable[str]) -> tuple[str, ...]:
    """Return the entries that are queries."""
    return tuple(one for one in isolated if one.startswith(MARK))


def names_of(entry: str) -> frozenset[str]:
    """Return the names that an entry which is a query looks at."""
    return query.parse(entry.removeprefix(MARK)).names


def holds(entry: str, attrs: Attributes) -> bool:
    """Say whether an entry that is a query finds a device (`cohort.attributes_of`)."""
    return query.parse(entry.removeprefix(MARK)).matches(attrs)


def kept_out(isolated: Iterable[str], variant: str, attrs: Attributes) -> str:
    """Return the entry that keeps a device out, or an empty text."""
    for one in isolated:
        if one == variant or (one.startswith(MARK) and holds(one, attrs)):
            return one
    return ""
