"""The list of incidents, and one report."""

from dataclasses import dataclass

from tidegate.server.web.views.parts import (
    BecauseRow,
    Fact,
    Pair,
    ReasonRow,
    Shares,
    TimelineRow,
    VariantRow,
)


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident in a list."""

    name: str
    summary: str
    kind: str
    state: str
    rollout: str
    opened_at: int
    opened_by: str
    closed_at: int = 0
    actions: int = 0


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    """All incidents, open ones first."""

    now: int
    rows: tuple[IncidentRow, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """An incident report: a document, also on paper."""

    now: int
    name: str
    title: str
    kind: str
    state: str
    opened_at: int
    opened_by: str
    rollout: str
    release: str
    summary: str
    closed_at: int = 0
    published_at: int = 0
    cohort: Shares = ()
    cohort_rows: tuple[Pair, ...] = ()
    facts: tuple[Fact, ...] = ()
    reasons: tuple[ReasonRow, ...] = ()
    because: tuple[BecauseRow, ...] = ()
    variants: tuple[VariantRow, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    actions: tuple[TimelineRow, ...] = ()
    notes: tuple[TimelineRow, ...] = ()
    missing: tuple[str, ...] = ()
    related: tuple[Pair, ...] = ()
