"""What releases are made of, which devices have it, and what is known against it."""

from dataclasses import dataclass

from tidegate.server.advisories import AdvisoryFacts, FindingFacts
from tidegate.server.components import DeviceFacts, GroupFacts, PartFacts


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """A document of a release. `told` is what was read from it."""

    component: str
    kind: str
    name: str
    format: str
    length: int
    sha256: str
    told: str


@dataclass(frozen=True, slots=True)
class ComponentsPage:
    """The search for a part. Empty `name` = nothing was asked yet; `problem` says what is wrong with the question.

    `narrowed`: not everything is seen, but what belongs to the products in `of`.
    """

    now: int
    name: str = ""
    below: str = ""
    problem: str = ""
    devices: int = 0
    unknown: int = 0
    parts: tuple[PartFacts, ...] = ()
    parts_in_all: int = 0
    groups: tuple[GroupFacts, ...] = ()
    rows: tuple[DeviceFacts, ...] = ()
    near: tuple[str, ...] = ()
    next_cursor: str = ""
    narrowed: bool = False
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdvisoriesPage:
    """Advisories, the latest import first; `exposed` devices run something that nothing silences. `narrowed` as in `ComponentsPage`."""

    now: int
    rows: tuple[AdvisoryFacts, ...] = ()
    total: int = 0
    exposed: int = 0
    loud: int = 0
    next_cursor: str = ""
    narrowed: bool = False
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdvisoryPage:
    """One advisory and what it concerns."""

    now: int
    advisory: AdvisoryFacts
    findings: tuple[FindingFacts, ...] = ()
    findings_in_all: int = 0
