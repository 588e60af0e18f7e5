"""`fields=a,b.c`: an answer with these fields only, of a page of each of its items. A field that no answer of the route has is refused."""

from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean

#: Name of the query parameter.
FIELDS: Final = "fields"
FIELDS_MAX: Final = 1000
_MOST: Final = 64
Wanted = dict[str, Any]


def wanted(text: str, kinds: tuple[Any, ...]) -> Wanted:
    """Return what is wanted (untrusted) as a tree: name → what is wanted of it, empty for all.

    Raises:
        RequestError: `request.invalid`: too many, or a name that an answer of these kinds cannot have.
    """
    names = [one.strip() for one in text.split(",") if one.strip()]
    if not names or len(names) > _MOST or len(text) > FIELDS_MAX:
        raise RequestError("request.invalid", f"fields: 1 to {_MOST} names, separated by commas")
    known = known_fields(kinds)
    tree: Wanted = {}
    for name in names:
        first, *rest = name.split(".")
        if known and first not in known:
            near = did_you_mean(first, sorted(known))
            raise RequestError("request.invalid", f'fields: no field "{first[:40]}"{near}')
        place = tree.setdefault(first, {})
        for part in rest:
            place = place.setdefault(part, {})
    return tree


def known_fields(kinds: tuple[Any, ...]) -> frozenset[str]:
    """Return the fields of these answers: of the items, where they are pages; empty where any may come."""
    found: set[str] = set()
    for kind in kinds:
        if not _is_struct(kind):
            return frozenset()
        hints = {one.encode_name: one.type for one in msgspec.structs.fields(kind)}
        item = _item(hints.get("items"))
        if item is not None:
            hints = {one.encode_name: one.type for one in msgspec.structs.fields(item)}
        found |= set(hints)
    return frozenset(found)


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


def answers(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a handler's return annotation allows, without None."""
    found = (
        get_args(annotation)
        if isinstance(annotation, UnionType) or get_origin(annotation) is Union
        else (annotation,)
    )
    return tuple(one for one in found if one not in (None, type(None)))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _item(annotation: Any) -> Any:
    """Return the struct that a list or tuple of a page holds, or None."""
    if get_origin(annotation) not in (list, tuple):
        return None
    first = get_args(annotation)[0]
    return first if _is_struct(first) else None
