"""What a section of a report is made of. Texts are one line each but not escaped."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list."""

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns named in `numbers` are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Log:
    """Lines as a device wrote them, with a heading."""

    title: str
    lines: tuple[str, ...]


Block = Words | Points | Table | Log
