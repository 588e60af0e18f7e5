"""Hostile bodies made from a good one, and raw requests that no honest client sends."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any, Final

from tidegate.core.errors import HINTS
from tidegate.core.reasons import REASONS

#: What a string field is given: markup, SQL, paths, control characters, much too much.
TEXTS: Final = (
    "",
    "\x00",
    "\x1b[2J\r\nX-Injected: 1",
    "<script>alert(1)</script>",
    "'; DROP TABLE device; --",
    "../../../../etc/passwd",
    "%00%2e%2e%2f",
    "\u202e\ufeff\U0001f4a3",
    "=cmd|' /C calc'!A0",
    "A" * 100_000,
)
#: What a number field is given. The large ones do not fit into a database's integer.
NUMBERS: Final = (-1, 0, 1 << 53, 1 << 63, 1 << 64, 1 << 400, True, 1.5, "7", None)
#: What any field is given.
SHAPES: Final[tuple[Any, ...]] = (None, [], {}, [[[[]]]], {"a": {"b": 1}}, 0, "x", False)

#: Bodies that are no JSON object at all.
RAW: Final[dict[str, bytes]] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "number": b"1",
    "form": b"a=1&b=2",
    "markup": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
    "not utf-8": b'{"nonce": "\xff\xfe"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "zeros": bytes(1000),
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "half a surrogate": b'{"nonce": "\\ud800"}',
    "not a number": b'{"nonce": NaN, "state": Infinity}',
    "huge exponent": b'{"nonce": 1e999999}',
    "many digits": b'{"nonce": ' + b"9" * 100_000 + b"}",
    "a megabyte and one": b'{"nonce": "' + b"a" * (1 << 20) + b'"}',
}


def spoiled(good: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, body): broken JSON, and the good body with one thing wrong."""
    yield from RAW.items()
    whole = json.dumps(good).encode()
    for part in (1, len(whole) // 2, len(whole) - 1):
        yield f"cut after {part} bytes", whole[:part]
    yield "something behind", whole + b"{}"
    for path, value in _leaves(good, ()):
        name = ".".join(map(str, path))
        yield f"without {name}", _encode(_without(good, path))
        others: tuple[Any, ...] = NUMBERS
        if isinstance(value, str):
            others = (*TEXTS, value + "\n", value.upper() + " ")
        for one in (*SHAPES, *others):
            if one != value:
                yield f"{name} = {str(one)[:30]!r}", _encode(_with(good, path, one))


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:1]):
            yield from _leaves(inner, (*path, index))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    changed = json.loads(json.dumps(value))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    changed = json.loads(json.dumps(value))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


def problem_code(status: int, body: bytes, content_type: str | None) -> str:
    """Return the code of a problem; fail when an error is not told as the protocol says."""
    found = json.loads(body)
    assert content_type == "application/problem+json", content_type
    assert found["status"] == status
    code = str(found["code"])
    assert code in HINTS or code in REASONS, code
    assert found["type"] == f"urn:tidegate:error:{code}"
    assert "Traceback" not in found["detail"]
    return code


def raw_request(port: int, sent: bytes, *, end: bool = True, patience_s: float = 3) -> bytes:
    """Send bytes as they are; return what comes back until the server closes or falls silent."""
    pieces = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.settimeout(patience_s)
        with contextlib.suppress(OSError):
            raw.sendall(sent)
            if end:
                raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(65536):
                pieces.append(piece)
                raw.settimeout(0.2)  # what belongs to this answer is on its way already
    return b"".join(pieces)
