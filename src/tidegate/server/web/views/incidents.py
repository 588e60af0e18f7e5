"""The list of incidents, and one report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.rollout.incident import MEANS, Block
from tidegate.server.web.views.evidence import NeedleRow
from tidegate.server.web.views.parts import (
    BecauseRow,
    Fact,
    Pair,
    ReasonRow,
    Shares,
    TimelineRow,
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
    severity: str = "major"
    owner: str = ""
    due_at: int = 0  # of the first follow-up that is not done


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    """All incidents, those that are not closed first."""

    now: int
    rows: tuple[IncidentRow, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class ContrastRow:
    """A value that the failed have in common. `share` of those with it failed, `other_share` of all others; `odds` to 1 against luck."""

    label: str
    bad: int
    count: int
    other_bad: int
    other_count: int
    odds: str
    same: str = ""


@dataclass(frozen=True, slots=True)
class CohortRow:
    """A device of the cohort."""

    device: str
    variant: str
    ring: str
    state: str
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class DeviceList:
    """The first devices of one list of the cohort, of `every` that there are. `which` names the list in the API."""

    title: str
    which: str
    every: int
    rows: tuple[CohortRow, ...] = ()


@dataclass(frozen=True, slots=True)
class LogRow:
    """What a device sent with a bad outcome."""

    device: str
    title: str
    at: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FollowUpRow:
    """What is left to do. `late`: its date has passed."""

    number: int
    text: str
    owner: str
    due_at: int = 0
    done_at: int = 0
    late: bool = False


@dataclass(frozen=True, slots=True)
class PublicationView:
    """What the status page says, or could say. `published_at` 0 = it says nothing; `public`: whether there is one."""

    public: bool = False
    published_at: int = 0
    title: str = ""
    summary: str = ""
    impact: str = ""
    action: str = ""
    updates: tuple[TimelineRow, ...] = ()


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """An incident report: a document, also on paper. `parts` are sections of the report as it is exported, by their titles."""

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
    severity: str = "major"
    owner: str = ""
    mitigated_at: int = 0
    closed_at: int = 0
    cohort: Shares = ()
    parts: Mapping[str, tuple[Block, ...]] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    reasons: tuple[ReasonRow, ...] = ()
    because: tuple[BecauseRow, ...] = ()
    evidence: tuple[NeedleRow, ...] = ()  # as it was weighed when it was stopped
    contrast: tuple[ContrastRow, ...] = ()
    contrast_note: str = ""
    devices: tuple[DeviceList, ...] = ()
    logs: tuple[LogRow, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    hypothesis: TimelineRow | None = None
    proved: bool = False
    means: tuple[tuple[str, str], ...] = tuple(MEANS.items())
    actions: tuple[TimelineRow, ...] = ()
    followups: tuple[FollowUpRow, ...] = ()
    missing: tuple[str, ...] = ()
    related: tuple[Pair, ...] = ()
    publication: PublicationView = PublicationView()
