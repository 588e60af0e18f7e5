"""One measured figure, its reference of the same run, and its bar."""

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

    def line(self) -> str:
        """Write it in one line."""
        parts = [f"{self.name:44} {self.value:12,.1f} {self.unit:10}"]
        if self.reference is not None:
            ratio = self.value / self.reference if self.reference else float("nan")
            parts.append(f"{self.against}: {self.reference:,.1f}, ratio {ratio:.2f}")
        if self.bar is not None:
            limit = "at most" if self.at_most else "at least"
            parts.append(f"bar {limit} {self.bar:,.1f}: {'met' if self.met else 'MISSED'}")
        return "  ".join(parts)
