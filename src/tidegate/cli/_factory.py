"""A factory's list of devices as a file: CSV with a header, JSON lines, or one JSON array. Read as a stream; each entry knows its line.

A line that cannot be read is one mistake, with its number; what comes after it is read all the same.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean

#: Columns of a CSV file; `attributes.NAME` beside them.
COLUMNS: Final = ("id", "serial", "public_key", "keytype", "key_sha256", "product", "channel")
ATTRIBUTES: Final = "attributes."
#: Longest line or entry that is read, in characters.
_LONGEST: Final = 64 << 10


class Line(NamedTuple):
    """An entry of the file, or what is wrong with its line."""

    number: int
    entry: dict[str, Any] | None
    problem: str = ""


def read(path: Path) -> Iterator[Line]:
    """Yield the entries of a file in their order.

    Raises:
        ConfigError: `config.unreadable`: no such file; `config.invalid`: it is no such list at all.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.read(1)
            while first.isspace():
                first = file.read(1)
            file.seek(0)
            if first == "[":
                yield from _array(file)
            elif first == "{":
                yield from _lines(file)
            elif first:
                yield from _csv(file, path)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error


def _lines(file: Iterable[str]) -> Iterator[Line]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _entry(number, line)


def _entry(number: int, text: str) -> Line:
    if len(text) > _LONGEST:
        return Line(number, None, f"longer than {_LONGEST} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"no JSON: {error}")
    if not isinstance(found, dict):
        return Line(number, None, "no JSON object")
    return Line(number, found)


def _array(file: Iterable[str]) -> Iterator[Line]:
    """Read an array element by element, over several lines or many in one. An element that does not end is given up where a line begins the next one."""
    start, text = 0, ""
    for number, line in enumerate(file, start=1):
        if text and line.lstrip().startswith("{") and _indent(line) <= _indent(text):
            yield _entry(start, text)
            text = ""
        start = start if text else number
        text += line
        done, text = _elements(text)
        for entry in done:
            yield Line(start, entry) if isinstance(entry, dict) else Line(start, None, "no object")
        if len(text) > _LONGEST:
            yield _entry(start, text)
            text = ""
    if text:
        yield _entry(start, text)


def _elements(text: str) -> tuple[list[Any], str]:
    """Return the whole elements at the beginning of a text, and what is left of it."""
    found: list[Any] = []
    decoder = json.JSONDecoder()
    while True:
        rest = text.lstrip(" \t\r\n,[]")
        if not rest:
            return found, ""
        try:
            element, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return found, text.lstrip("\r\n,[]")
        found.append(element)
        text = rest[end:]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _csv(file: Iterable[str], path: Path) -> Iterator[Line]:
    rows = csv.reader(file, strict=True)
    header = [one.strip() for one in next(rows)]
    unknown = [one for one in header if one not in COLUMNS and not one.startswith(ATTRIBUTES)]
    if unknown:
        near = did_you_mean(unknown[0], COLUMNS)
        raise ConfigError(
            "config.invalid", f'{path}: line 1: there is no column "{unknown[0][:40]}"{near}'
        )
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(number, None, f"no CSV: {error}")
            continue
        if not any(one.strip() for one in row):
            continue
        if len(row) != len(header):
            yield Line(number, None, f"{len(row)} fields, the header has {len(header)}")
            continue
        yield Line(number, _plain(dict(zip(header, row, strict=True))))


def _plain(row: dict[str, str]) -> dict[str, Any]:
    """Return a row without its empty fields, attributes gathered."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if not value.strip():
            continue
        if name.startswith(ATTRIBUTES):
            found.setdefault("attributes", {})[name.removeprefix(ATTRIBUTES)] = value.strip()
        else:
            found[name] = (
                value.strip().replace("\\n", "\n") if name == "public_key" else value.strip()
            )
    return found
