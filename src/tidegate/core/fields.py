"""A choice of fields, `a,b.c`: what is kept of a thing, or of each item of a page. The API and the command line choose alike."""

from collections.abc import Collection
from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean

FIELDS_MAX: Final = 1000
_MOST: Final = 64
Wanted = dict[str, Any]


def wanted(text: str, known: Collection[str]) -> Wanted:
    """Return what is wanted (untrusted) as a tree, in its order: name → what is wanted of it, empty for all. `known` is empty where any name may come.

    Raises:
        RequestError: `request.invalid`: too many, or a name that is not known.
    """
    names = [one.strip() for one in text.split(",") if one.strip()]
    if not names or len(names) > _MOST or len(text) > FIELDS_MAX:
        raise RequestError("request.invalid", f"fields: 1 to {_MOST} names, separated by commas")
    tree: Wanted = {}
    for name in names:
        first, *rest = name.split(".")
        if known and first not in known:
            near = did_you_mean(first, known)
            raise RequestError("request.invalid", f'fields: no field "{first[:40]}"{near}')
        place = tree.setdefault(first, {})
        for part in rest:
            place = place.setdefault(part, {})
    return tree


def shaped(answer: Any, tree: Wanted) -> Any:
    """Return an answer with what is wanted; of a page, with that of each item."""
    if isinstance(answer, dict) and isinstance(answer.get("items"), list):
        return {**answer, "items": [_cut(one, tree) for one in answer["items"]]}
    return _cut(answer, tree)


def _cut(value: Any, tree: Wanted) -> Any:
    if isinstance(value, list):
        return [_cut(one, tree) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _cut(value[name], below) if below else value[name]
        for name, below in tree.items()
        if name in value
    }
