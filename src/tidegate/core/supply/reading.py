"""Other people's JSON, read with limits: size, nesting and number of values are looked at before anything is built in memory.

Unlike our own documents (`core.codec`) these may hold fractions. Duplicate keys are refused all the same: two readers would see two documents.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.core.codec import deeper_than, without_strings
from tidegate.core.errors import PublisherError

#: Nesting that is followed; CycloneDX components and CSAF branches nest, a few levels in practice.
DEPTH_MAX: Final = 64
#: JSON values in one document. Each costs about a hundred bytes once parsed.
VALUES_MAX: Final = 1_500_000
#: Characters of a name, address or identifier.
TEXT_MAX: Final = 4_000


def malformed(detail: str) -> PublisherError:
    """Make the error for a document that is not what it should be."""
    return PublisherError("supply.malformed", clean(detail, 300))


def read_object(body: bytes, limit: int) -> dict[str, Any]:
    """Parse an untrusted JSON object.

    Args:
        body: bytes as they came.
        limit: most bytes that are looked at.

    Raises:
        PublisherError: `supply.too_large`: bytes, nesting or number of values beyond the limits; `supply.malformed`.
    """
    if len(body) > limit:
        raise PublisherError("supply.too_large", f"{len(body)} bytes; at most {limit} are taken")
    if body.startswith(b"\xef\xbb\xbf"):
        raise malformed("it begins with a byte order mark")
    marks = without_strings(body)
    if deeper_than(marks, DEPTH_MAX):
        raise PublisherError("supply.too_large", f"nested deeper than {DEPTH_MAX}")
    if marks.count(b",") + marks.count(b"[") + marks.count(b"{") > VALUES_MAX:
        raise PublisherError("supply.too_large", f"more than {VALUES_MAX} values")
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_fraction,
            parse_constant=_no_number,
        )
        if b"\\u" in body:
            json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise malformed(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise malformed("not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def clean(text: str, most: int = TEXT_MAX) -> str:
    """Return text fit to be stored and shown on one line: control and formatting characters become U+FFFD, and it is cut."""
    if text.isascii() and text.isprintable():
        return text[:most]
    return "".join(
        "\ufffd" if unicodedata.category(char).startswith("C") else char for char in text[:most]
    )


def text_of(plain: dict[str, Any], key: str, where: str, *, default: str | None = None) -> str:
    """Return a text member, cleaned.

    Raises:
        PublisherError: `supply.malformed`: missing without a default, no text, or longer than `TEXT_MAX`.
    """
    value = plain.get(key, default)
    if value is None:
        if default is None and key not in plain:
            raise malformed(f"{where}: {key} is missing")
        value = default
    if not isinstance(value, str):
        raise malformed(f"{where}: {key} is not a text")
    if len(value) > TEXT_MAX:
        raise malformed(f"{where}: {key} has {len(value)} characters")
    return clean(value)


def objects_of(plain: dict[str, Any], key: str, where: str) -> Iterator[dict[str, Any]]:
    """Return the members of a list of objects; none where it is missing.

    Raises:
        PublisherError: `supply.malformed`: not a list, or not of objects.
    """
    value = plain.get(key)
    if value is None:
        return
    if not isinstance(value, list):
        raise malformed(f"{where}: {key} is not a list")
    for one in value:
        if not isinstance(one, dict):
            raise malformed(f"{where}: {key} holds something else than objects")
        yield one


def object_of(plain: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return a member that is an object; an empty one where it is missing.

    Raises:
        PublisherError: `supply.malformed`.
    """
    value = plain.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(f"{where}: {key} is not an object")
    return value


def texts_of(plain: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts, cleaned; none where it is missing.

    Raises:
        PublisherError: `supply.malformed`.
    """
    value = plain.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(one, str) and len(one) <= TEXT_MAX for one in value
    ):
        raise malformed(f"{where}: {key} is not a list of texts")
    return tuple(clean(one) for one in value)


def time_of(plain: dict[str, Any], key: str, where: str) -> int:
    """Return an RFC 3339 time as unix seconds; 0 where it is missing.

    Raises:
        PublisherError: `supply.malformed`.
    """
    text = text_of(plain, key, where, default="")
    if not text:
        return 0
    try:
        # seven digits of a second and more are legal there and not here
        found = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError) as error:
        raise malformed(f"{where}: {key} is no time") from error
