"""The top bar and the fleet overview."""

from dataclasses import dataclass

from tidegate.server.web.charts import Kind
from tidegate.server.web.views.parts import Chart, InboxRow, ReasonRow, RolloutRow, TimelineRow


@dataclass(frozen=True, slots=True)
class Expiring:
    """Something that lapses soon, or has: what, when (unix seconds), whether it is too late, and what to do."""

    what: str
    expires_at: int
    days: int
    over: bool
    urgent: bool
    fix: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What the top bar shows on every page."""

    running: tuple[tuple[str, str], ...] = ()
    pending: int = 0
    incidents: int = 0
    products: tuple[str, ...] = ()
    single_operator: bool = False
    expiring: tuple[Expiring, ...] = ()
    one_signer: tuple[str, ...] = ()
    audit_size: int = 0
    audit_at: int = 0


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A firmware version running in the fleet. `color` is a class of the version ramp."""

    version: str
    color: Kind
    devices: int
    change_7d: int
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """An outcome of the last 24 hours against the day before. `spark` is days, oldest first."""

    state: str
    label: str
    now: int
    before: int
    kind: Kind
    spark: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetPage:
    """The fleet, or what is seen of it.

    `products`: whose devices are counted here, where somebody does not see all; `groups`: what else is seen, of which nothing is counted by itself.
    """

    now: int
    devices: int
    seen_24h: int
    variants: int
    chart: Chart
    versions: tuple[VersionRow, ...] = ()
    inbox: tuple[InboxRow, ...] = ()
    rollouts: tuple[RolloutRow, ...] = ()
    rollouts_total: int = 0
    last_rollout: str = ""
    outcomes: tuple[OutcomeRow, ...] = ()
    refused: tuple[ReasonRow, ...] = ()
    security: tuple[TimelineRow, ...] = ()
    products: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether devices are counted at all."""
        return bool(self.products) or not self.groups
