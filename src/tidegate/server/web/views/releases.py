"""The list of releases, and one release."""

from dataclasses import dataclass

from tidegate.server.advisories import AdvisoryFacts
from tidegate.server.web.views.parts import CheckRow, Pair, RolloutRow, TimelineRow
from tidegate.server.web.views.supply import AttachmentRow


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release in a list."""

    name: str
    product: str
    version: str
    counter: int
    channels: tuple[str, ...]
    state: str
    devices: int
    published_at: int
    published_by: str


@dataclass(frozen=True, slots=True)
class ReleasesPage:
    """All releases, newest first, and the upload of a signed bundle."""

    now: int
    rows: tuple[ReleaseRow, ...] = ()
    total: int = 0
    root_version: int = 0


@dataclass(frozen=True, slots=True)
class RunsRow:
    """Where a release runs, by variant. `of` is how many devices of the variant there are."""

    variant: str
    state: str
    runs: int
    of: int
    reverted: int
    lost: int


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A file of a release."""

    component: str
    hardware: str
    kind: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class SignerRow:
    """A key that signed, by the name its publisher gave it."""

    name: str
    keyid: str
    role: str


@dataclass(frozen=True, slots=True)
class ReleasePage:
    """One release."""

    now: int
    name: str
    title: str
    product: str
    version: str
    counter: int
    security_version: int
    state: str
    channels: tuple[str, ...]
    published_at: int
    published_by: str
    recalled_at: int = 0
    recall_reason: str = ""
    devices: int = 0
    fleet: int = 0
    known: tuple[TimelineRow, ...] = ()
    runs: tuple[RunsRow, ...] = ()
    artifacts: tuple[ArtifactRow, ...] = ()
    compatible: tuple[Pair, ...] = ()
    contract: tuple[CheckRow, ...] = ()
    signers: tuple[SignerRow, ...] = ()
    rollouts: tuple[RolloutRow, ...] = ()
    attachments: tuple[AttachmentRow, ...] = ()
    advisories: tuple[AdvisoryFacts, ...] = ()
