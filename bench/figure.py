"""One measured figure, its reference of the same run, and its bar; and the table of them all."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured.

    Attributes:
        name: what, in a few words.
        value: the figure.
        unit: of value, reference and bar.
        reference: the same measured on something known, in the same run; None where there is nothing to compare with.
        against: what the reference is.
        bar: the limit that the project set itself; None for figures that only inform.
        at_most: whether the bar is an upper limit.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    against: str = ""
    bar: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Say whether the bar is met; a figure without one always is."""
        if self.bar is None:
            return True
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    @property
    def ratio(self) -> float | None:
        """Return the figure as a multiple of its reference; None where there is none."""
        return self.value / self.reference if self.reference else None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A part of the benchmark that could not be run: a bar that nobody looked at is not met."""

    name: str
    why: str


_HEAD = ("what", "measured", "bar", "reference of the same run", "ratio", "met")


def table(rows: Sequence[Figure | Failure]) -> list[str]:
    """Return figures as the lines of one table, each under its column."""
    cells = [_HEAD, *(_cells(one) for one in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    widths[0] = max(widths[0], 24)
    lines = []
    for row in cells:
        # words to the left, numbers to the right
        shown = [
            f"{cell:>{width}}" if column in {1, 2, 4} else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(shown).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def _cells(one: Figure | Failure) -> tuple[str, ...]:
    if isinstance(one, Failure):
        return (one.name, "not measured", "", one.why, "", "NO")
    bar = met = ""
    if one.bar is not None:
        bar = f"{'<=' if one.at_most else '>='} {_number(one.bar)}"
        met = "yes" if one.met else "NO"
    reference = "" if one.reference is None else f"{_number(one.reference)}  {one.against}"
    ratio = "" if one.ratio is None else f"{one.ratio:.3g}"
    return (one.name, f"{_number(one.value)} {one.unit}".rstrip(), bar, reference, ratio, met)


def _number(value: float) -> str:
    """Write a number with as many digits as say something."""
    if value != value or abs(value) >= 1_000 or value == int(value):  # noqa: PLR0124 - not a number
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
