"""What a rollout, or the fleet, did over time: plots that stand by themselves, each with its words and its total."""

from dataclasses import dataclass
from typing import Literal

from tidegate.server.web.charts import Kind

Unit = Literal["count", "bytes"]


@dataclass(frozen=True, slots=True)
class Plot:
    """One thing over time, a value for each span.

    Attributes:
        label: what it is, in words.
        values: one for each span, oldest first. A device that goes back is taken out of what was confirmed, so one may be below 0.
        kind: its colour, which says nothing that the words do not.
        state: a code of `words.STATES` whose shape stands before the words; empty = none.
        code: of a reason, printed as a person would grep it.
        unit: what is counted.
        level: it stands at a value at the end of each span, in place of changing by one in it.
    """

    label: str
    values: tuple[int, ...]
    kind: Kind = "text3"
    state: str = ""
    code: str = ""
    unit: Unit = "count"
    level: bool = False

    @property
    def figure(self) -> int:
        """The figure beside it: the sum, or where it stands at the end."""
        return (self.values[-1] if self.values else 0) if self.level else sum(self.values)

    @property
    def most_in(self) -> int | None:
        """Number of the span with the most; None: there is nothing anywhere."""
        most = max(self.values, default=0)
        return self.values.index(most) if most > 0 else None


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Plots that are read together; `empty` stands there where none of them has anything to show."""

    key: str
    title: str
    says: str
    plots: tuple[Plot, ...]
    empty: str = ""

    @property
    def told(self) -> tuple[Plot, ...]:
        """The plots in which there is anything."""
        return tuple(one for one in self.plots if any(one.values))

    @property
    def filled(self) -> tuple[int, ...]:
        """Numbers of the spans in which there is anything."""
        columns = zip(*(one.values for one in self.told), strict=True)
        return tuple(n for n, values in enumerate(columns) if any(values))


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The history of a rollout (`rollout` is its name), or of the fleet.

    Attributes:
        at: when each span begins, unix seconds, oldest first; empty = nothing has happened yet.
        span_s: how long each is.
        days: how far back it goes, of the fleet; `periods`: how far it may.
        products: whose figures these are, where somebody does not see all; of nobody's when `uncounted`.
        uncounted: groups that are seen, of which no figures are kept by themselves.
    """

    now: int
    at: tuple[int, ...]
    span_s: int
    groups: tuple[PlotGroup, ...]
    rollout: str = ""
    days: int = 0
    periods: tuple[int, ...] = ()
    products: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
