"""What each page shows, as frozen data.

Templates print these and nothing else; a `Reader` fills them. States are the codes of DESIGN section 2 (see `words.STATES`), reasons the codes of
`core.reasons`, times integer unix seconds, shares basis points. Text that came from devices or people is untrusted here as everywhere: it is
escaped where it is printed.
"""

from tidegate.server.web.views.devices import (
    Chip,
    DevicePage,
    DeviceRow,
    DevicesPage,
    GroupRow,
    PendingRow,
    Slot,
    WhyRow,
)
from tidegate.server.web.views.door import (
    Notice,
    Problem,
    SignInPage,
)
from tidegate.server.web.views.fleet import (
    Counts,
    Expiring,
    FleetPage,
    OutcomeRow,
    VersionRow,
)
from tidegate.server.web.views.incidents import (
    IncidentPage,
    IncidentRow,
    IncidentsPage,
)
from tidegate.server.web.views.parts import (
    BecauseRow,
    Chart,
    CheckRow,
    Fact,
    InboxRow,
    Mark,
    Pair,
    ReasonRow,
    RolloutRow,
    Series,
    Shares,
    TimelineGroup,
    TimelineRow,
    VariantRow,
)
from tidegate.server.web.views.releases import (
    ArtifactRow,
    ReleasePage,
    ReleaseRow,
    ReleasesPage,
    RunsRow,
    SignerRow,
)
from tidegate.server.web.views.rollouts import (
    Ask,
    Halted,
    OwedRow,
    RingRow,
    RolloutPage,
    RolloutsPage,
    Target,
)
from tidegate.server.web.views.supply import (
    AdvisoriesPage,
    AdvisoryPage,
    AttachmentRow,
    ComponentsPage,
)

__all__ = [
    "AdvisoriesPage",
    "AdvisoryPage",
    "ArtifactRow",
    "Ask",
    "AttachmentRow",
    "BecauseRow",
    "Chart",
    "CheckRow",
    "Chip",
    "ComponentsPage",
    "Counts",
    "DevicePage",
    "DeviceRow",
    "DevicesPage",
    "Expiring",
    "Fact",
    "FleetPage",
    "GroupRow",
    "Halted",
    "InboxRow",
    "IncidentPage",
    "IncidentRow",
    "IncidentsPage",
    "Mark",
    "Notice",
    "OutcomeRow",
    "OwedRow",
    "Pair",
    "PendingRow",
    "Problem",
    "ReasonRow",
    "ReleasePage",
    "ReleaseRow",
    "ReleasesPage",
    "RingRow",
    "RolloutPage",
    "RolloutRow",
    "RolloutsPage",
    "RunsRow",
    "Series",
    "Shares",
    "SignInPage",
    "SignerRow",
    "Slot",
    "Target",
    "TimelineGroup",
    "TimelineRow",
    "VariantRow",
    "VersionRow",
    "WhyRow",
]
