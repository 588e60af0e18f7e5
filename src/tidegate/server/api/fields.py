"""`fields=a,b.c`: an answer with these fields only, of a page of each of its items. A field that no answer of the route has is refused."""

from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec

#: Name of the query parameter.
FIELDS: Final = "fields"


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
