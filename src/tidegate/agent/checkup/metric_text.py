"""Reads one number out of metrics in the Prometheus text format, line by line: what exporters, node_exporter's text files and many applications write.

Format: Prometheus exposition formats, text-based, 0.0.4 (OpenMetrics' lines read alike): `name{label="value",…} number [timestamp]`; `#` begins a comment.
Lines that are not so are passed over. Bytes come from a product's own software, but nothing here depends on their being right.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from tidegate.core.errors import ConfigError

#: Bytes looked at, at most: a device's own metrics are far smaller.
READ_MAX: Final = 4 << 20
_LINE_MAX: Final = 64 << 10
_ESCAPES: Final = {"n": "\n", "\\": "\\", '"': '"'}


class Wanted(NamedTuple):
    """Which samples are meant: those of this name that bear these labels, whatever others they bear."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


def parse_wanted(text: str) -> Wanted:
    """Read a selector: `name` or `name{label="value",…}`.

    Raises:
        ConfigError: `config.invalid`: it is no such thing.
    """
    found = _head(text.strip() + " ")
    if found is None or found[2].strip():
        raise ConfigError(
            "config.invalid", f'metric = {text[:80]!r}: name, or name{{label="value"}}'
        )
    return Wanted(found[0], tuple(sorted(found[1].items())))


def total(lines: Iterable[bytes], wanted: Wanted) -> float | None:
    """Return the sum of the samples meant; None when there is none. Not-a-number and infinity count as none."""
    found: float | None = None
    prefix = wanted.name.encode()
    for raw in lines:
        if not raw.lstrip().startswith(prefix) or len(raw) > _LINE_MAX:
            continue
        value = _sample(raw.decode("utf-8", "replace"), wanted)
        if value is not None and math.isfinite(value):
            found = value if found is None else found + value
    return found if found is None or math.isfinite(found) else None


def _sample(line: str, wanted: Wanted) -> float | None:
    head = _head(line.strip() + " ")
    if head is None or head[0] != wanted.name:
        return None
    labels, words = head[1], head[2].split()
    if not words or any(labels.get(name) != value for name, value in wanted.labels):
        return None
    try:
        return float(words[0])
    except ValueError:
        return None


def _head(line: str) -> tuple[str, dict[str, str], str] | None:
    """Return (name, labels, rest) of a line, or None."""
    end = 0
    while end < len(line) and (line[end].isalnum() or line[end] in "_:."):
        end += 1
    name = line[:end]
    if not name or name[0].isdigit():
        return None
    rest = line[end:].lstrip()
    if not rest.startswith("{"):
        # A name ends at a blank.
        return (name, {}, rest) if line[end].isspace() else None
    return _labels(name, rest, 1)


def _labels(name: str, text: str, at: int) -> tuple[str, dict[str, str], str] | None:
    labels: dict[str, str] = {}
    while True:
        while at < len(text) and (text[at].isspace() or text[at] == ","):
            at += 1
        if at >= len(text):
            return None
        if text[at] == "}":
            return name, labels, text[at + 1 :]
        equals = text.find("=", at)
        if equals < 0:
            return None
        key, at = text[at:equals].strip(), equals + 1
        while at < len(text) and text[at].isspace():
            at += 1
        if not key or at >= len(text) or text[at] != '"':
            return None
        value: list[str] = []
        at += 1
        while at < len(text) and text[at] != '"':
            if text[at] == "\\" and at + 1 < len(text):
                value.append(_ESCAPES.get(text[at + 1], "\\" + text[at + 1]))
                at += 2
                continue
            value.append(text[at])
            at += 1
        if at >= len(text):
            return None
        labels[key] = "".join(value)
        at += 1
