"""The list of rollouts, and one rollout."""

from dataclasses import dataclass

from tidegate.server.web.views.evidence import EvidenceView
from tidegate.server.web.views.parts import (
    BecauseRow,
    Chart,
    Fact,
    Pair,
    ReasonRow,
    RolloutRow,
    Shares,
    TimelineRow,
    VariantRow,
)


@dataclass(frozen=True, slots=True)
class RolloutsPage:
    """All rollouts, newest first."""

    now: int
    rows: tuple[RolloutRow, ...] = ()
    total: int = 0
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class RingRow:
    """A ring with the outcomes of its devices. `open_bp` is the share let in, `steps` how many steps it has."""

    name: str
    state: str
    state_sub: str
    audience: int
    confirmed: int
    under_way: int
    staged: int
    failed: int
    reverted: int
    lost: int
    isolated: int
    waiting: int
    open_bp: int = 0
    step_text: str = ""

    @property
    def shares(self) -> Shares:
        """The bar of this ring, in the fixed order."""
        return (
            ("ok", self.confirmed),
            ("go", self.under_way),
            ("go2", self.staged),
            ("wait", self.waiting),
            ("iso", self.isolated),
            ("bad", self.failed + self.reverted),
            ("lost", self.lost),
        )


@dataclass(frozen=True, slots=True)
class OwedRow:
    """A device whose word is owed: it has a permit and has not said how it went."""

    device: str
    variant: str
    state: str
    since: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A decision somebody asked for."""

    id: str
    title: str
    text: str
    asked_by: str
    asked_at: int
    expires_at: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class Halted:
    """Why a rollout stands still."""

    at: int
    by: str
    reason: str
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Undecided:
    """What a person has to decide, since evidence neither stops the rollout nor lets it go on."""

    reason: str
    incident: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A release that devices may be ordered back to."""

    release: str
    counter: int
    version: str


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """One device in a rollout; `why` in words, `code` its reason. `since` 0 = not told, `last_seen` 0 = never."""

    device: str
    variant: str
    site: str
    ring: str
    state: str
    code: str
    why: str
    since: int
    last_seen: int


@dataclass(frozen=True, slots=True)
class ParticipantsPage:
    """The devices of a rollout that stand somewhere; `choices`: (state, words) of what may be looked at."""

    now: int
    name: str
    state: str
    choices: tuple[tuple[str, str], ...]
    rows: tuple[ParticipantRow, ...] = ()
    next_cursor: str = ""
    empty: str = ""


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """One rollout."""

    now: int
    name: str
    title: str
    state: str
    state_text: str
    kind: str
    release: str
    release_counter: int
    generation: int
    created_at: int
    created_by: str
    started_at: int = 0
    parent: str = ""
    children: tuple[str, ...] = ()
    audience: str = ""
    asks: tuple[Ask, ...] = ()
    halted: Halted | None = None
    undecided: Undecided | None = None
    stopped: bool = False  # it was halted and never resumed, whatever became of it then
    facts: tuple[Fact, ...] = ()
    rings: tuple[RingRow, ...] = ()
    total: RingRow | None = None
    because: tuple[BecauseRow, ...] = ()
    variants: tuple[VariantRow, ...] = ()
    reasons: tuple[ReasonRow, ...] = ()
    log: tuple[TimelineRow, ...] = ()
    chart: Chart | None = None
    owed: tuple[OwedRow, ...] = ()
    owed_total: int = 0
    staged_inert: int = 0
    isolated: tuple[str, ...] = ()
    fallbacks: tuple[Target, ...] = ()
    next_step: str = ""
    next_ring: str = ""
    mandate: tuple[str, ...] = ()  # the steps that the release's signers allow
    weighs: bool = False  # its policy has an evidence guard
    evidence: EvidenceView | None = None  # None = nothing is weighed, or not yet
    terms: tuple[Pair, ...] = ()
    limits: tuple[str, ...] = ()  # what no gate speaks of: caps, bytes, a hold
    held: bool = False  # it fetches ahead, and activation was not let go yet

    @property
    def moving(self) -> bool:
        """Whether it can still be halted: it moves, or may yet be harmed by late evidence."""
        return self.state in {"active", "paused", "completed", "falling_back"}
