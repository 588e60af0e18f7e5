"""JSON in and out, with limits: strict types, sizes checked before parsing, canonical bytes for what is signed.

Unknown fields are kept out of messages silently (a newer peer may send more); in signed documents the field `crit` names those that a reader must
understand, and an unknown one there refuses the document.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from tidegate.core.errors import PublisherError, RequestError

T = TypeVar("T")

#: Largest body of a device message, in bytes (events are batched below it).
MESSAGE_MAX: Final = 1 << 20
#: Largest signed document other than TUF metadata, in bytes.
DOCUMENT_MAX: Final = 64 << 10
#: Integers beyond this do not survive SQLite or a browser.
INTEGER_MAX: Final = (1 << 53) - 1
_DEPTH_MAX: Final = 32
_EMPTY: Final[tuple[object, ...]] = (None, "", [], (), {})
#: Most values in one signed document. A parser makes up to 64 bytes of each two-byte value: this, and not the size, bounds what a bomb costs.
VALUES_MAX: Final = 1 << 15
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(b"[]{}")))


def prepare() -> frozenset[str]:
    """Let msgspec learn every message of this program now, in this thread, and return their names.

    It learns what it knows of a type when it first meets it. Two threads that met one at once have crashed a process; so a program with threads calls this
    before it starts them. It costs a few milliseconds.
    """
    kinds, left = set[type[msgspec.Struct]](), [msgspec.Struct]
    while left:
        found = left.pop().__subclasses__()
        left += found
        kinds.update(one for one in found if one.__module__.startswith("tidegate."))
    for kind in kinds:
        msgspec.json.Decoder(kind)
    return frozenset(f"{one.__module__}.{one.__qualname__}" for one in kinds)


def encode(value: object) -> bytes:
    """Encode a Struct or plain value as compact JSON."""
    return msgspec.json.encode(value)


def decode(body: bytes, kind: type[T], limit: int = MESSAGE_MAX) -> T:
    """Decode an untrusted message.

    Raises:
        RequestError: `request.too_large` or `request.invalid` (which names the field).
    """
    if len(body) > limit:
        raise RequestError("request.too_large", f"{len(body)} bytes; at most {limit} are taken")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("request.invalid", str(error)[:300]) from error


def canonical(value: object) -> bytes:
    """Return canonical JSON: sorted keys, no blanks, UTF-8, integers only. Two equal documents give equal bytes."""
    plain = msgspec.to_builtins(value)
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def screen(body: bytes, limit: int) -> dict[str, Any]:
    """Parse an untrusted signed document strictly, before any library does.

    Refuses what `json.loads` lets through: duplicate keys, NaN, floats, a byte order mark, deep nesting, huge integers.

    Raises:
        PublisherError: `sig.oversized` or `sig.malformed`.
    """
    if len(body) > limit:
        raise PublisherError("sig.oversized", f"{len(body)} bytes; at most {limit} are taken")
    if not body.lstrip(b" \t\r\n").startswith(b"{"):
        raise PublisherError("sig.malformed", "not a JSON document: is it another file?")
    skeleton = without_strings(body)
    if skeleton.count(b",") + skeleton.count(b"[") + skeleton.count(b"{") > VALUES_MAX:
        raise PublisherError("sig.oversized", f"more than {VALUES_MAX} values")
    if deeper_than(skeleton, _DEPTH_MAX):
        raise PublisherError("sig.malformed", f"nested deeper than {_DEPTH_MAX}")
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_bounded,
        )
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise PublisherError("sig.malformed", str(error)[:200]) from error
    if not isinstance(found, dict):
        raise PublisherError("sig.malformed", "not a JSON object")
    return found


def decode_document(body: bytes, kind: type[T], limit: int = DOCUMENT_MAX) -> T:
    """Decode the payload of a signed document: screened first, then typed, then `crit` obeyed.

    Raises:
        PublisherError: `sig.oversized` or `sig.malformed`.
    """
    plain = screen(body, limit)
    check_crit(plain.get("crit"), field_names(kind))  # type: ignore[arg-type]  # a class is hashable
    try:
        return msgspec.convert(plain, type=kind)
    except msgspec.ValidationError as error:
        raise PublisherError("sig.malformed", str(error)[:200]) from error


@cache
def field_names(kind: type) -> frozenset[str]:
    """Return the names under which a Struct's fields travel; looking them up costs as much as verifying a signature."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def without_empty(plain: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is null, an empty text, list or object, at every depth but inside `settings`, whose content is not ours.

    A reader takes a field that is not there for empty, so the meaning stays; of a role with a hundred releases 7 kB go.
    """

    def trim(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return value if name == "settings" else without_empty(value)
        if isinstance(value, list | tuple):
            return [trim(name, one) for one in value]
        return value

    return {name: trim(name, value) for name, value in plain.items() if value not in _EMPTY}


def check_crit(crit: object, known: Iterable[str]) -> None:
    """Refuse a document whose `crit` list (untrusted) names a field that this version does not know.

    Raises:
        PublisherError: `sig.malformed`.
    """
    if crit is None:
        return
    if not isinstance(crit, list) or not all(isinstance(name, str) for name in crit):
        raise PublisherError("sig.malformed", "crit is not a list of names")
    unknown = sorted(set(crit) - set(known))
    if unknown:
        raise PublisherError(
            "sig.malformed", f"must be understood and is not: {', '.join(unknown)[:100]}"
        )


def without_strings(body: bytes) -> bytes:
    """Return JSON (untrusted) without its strings: every bracket and comma that is left is one of the structure."""
    return _STRING.sub(b"", body)


def deeper_than(marks: bytes, limit: int) -> bool:
    """Say whether JSON without its strings nests deeper than `limit`. Stops looking where it does."""
    depth = 0
    for bracket in marks.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > limit:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not an integer")


def _bounded(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > INTEGER_MAX:
        raise ValueError(f"{text[:20]} is out of range")
    return int(text)
