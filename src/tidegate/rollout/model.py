"""What a rollout is, what is known about it, and what a plan says.

All of it is frozen data that travels: the server stores it as JSON, the web and the command line print it. Counts are integers; times are unix seconds;
shares are basis points (10,000 = all).
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.held import Held

RolloutState = Literal[
    "draft",
    "awaiting_approval",
    "scheduled",
    "active",
    "paused",
    "halted",
    "falling_back",
    "completed",
    "cancelled",
    "superseded",
]
RingState = Literal["waiting", "open", "soaking", "passed", "failed", "skipped"]
Verdict = Literal["advance", "hold", "halt", "isolate", "complete"]

ALL_BP: Final = 10_000
BasisPoints = Annotated[int, Meta(ge=0, le=ALL_BP)]
Text = Annotated[str, Meta(max_length=300)]
Name = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)")
]


class GateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A gate by name (`rollout/gates/NAME.py`) with its own settings, which that gate's dataclass checks."""

    gate: Name
    settings: Annotated[dict[str, int | float | str], Meta(max_length=16)] = {}


class RingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A named audience, opened in steps.

    A device belongs to the first ring whose `audience` query (rollout.cohort) it matches; an empty query matches all that is left. `shares` are the
    steps in basis points, rising, the last usually 10,000. `gates` must pass before the next step or ring opens.
    """

    name: Name
    audience: Annotated[str, Meta(max_length=1000)] = ""
    shares: Annotated[tuple[BasisPoints, ...], Meta(min_length=1, max_length=32)] = (ALL_BP,)
    gates: Annotated[tuple[GateSpec, ...], Meta(max_length=16)] = ()


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """When silence becomes an outcome (`lost.*`), in seconds after the step before it.

    Offered → `start` → downloading → `finish` → staged; permit → `return` → booted → `confirm` → confirmed. 0 = no such deadline.
    """

    start_s: Annotated[int, Meta(ge=0)] = 0
    finish_s: Annotated[int, Meta(ge=0)] = 0

    return_s: Annotated[int, Meta(ge=1)] = 3600
    confirm_s: Annotated[int, Meta(ge=1)] = 7200


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often what ended before a permit is offered again (`rollout.retry`).

    `tries` attempts in all for faults of the way; `reasons` says so for single reasons or families. The pause is `backoff_s`, doubled each time up to
    `most_s`. `budget_bp`: further attempts at most, as a share of the devices that were offered the release.
    """

    tries: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_s: Annotated[int, Meta(ge=1)] = 60
    most_s: Annotated[int, Meta(ge=1)] = 86_400
    budget_bp: Annotated[int, Meta(ge=0)] = 10_000
    reasons: Annotated[dict[str, Annotated[int, Meta(ge=1, le=100)]], Meta(max_length=64)] = {}


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollout goes forward, and what stops it.

    `guards` are gates judged over the whole rollout at every decision, from the first attempt to long after completion: one that fails halts. Before
    the fleet is judged, each variant is judged by the same `failure_rate` guard at its own minimum sample, and isolated when the others stay under.
    `at_once` bounds permits whose outcome is not known yet (0 = no bound); `first` does so before anything is proved, and grows with what is confirmed
    (0 = no such bound). `at_once_per` bounds permits out at once among the devices that share a value
    of an attribute, or are in a group (`group:NAME`), over all rollouts.
    Of several rollouts that a device belongs to, the one of the highest `priority` serves it, then the newest release. `dynamic`: newcomers are taken; else
    whom it means is fixed when the rollout is made (a snapshot). `prefetch`: every ring downloads and stages at once, and activation is held until a
    person lets it go; then rings and steps say who activates. `holdback_bp`: of the last ring, the share
    that is not updated until the watch ends.
    """

    rings: Annotated[tuple[RingSpec, ...], Meta(min_length=1, max_length=32)]
    guards: Annotated[tuple[GateSpec, ...], Meta(max_length=16)] = ()
    deadlines: Deadlines = Deadlines()
    retry: Retry = msgspec.field(default_factory=Retry)
    at_once: Annotated[int, Meta(ge=0)] = 0
    first: Annotated[int, Meta(ge=0)] = 0
    at_once_per: Annotated[dict[str, Annotated[int, Meta(ge=1)]], Meta(max_length=8)] = {}
    dynamic: bool = True
    prefetch: bool = False
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    holdback_bp: Annotated[int, Meta(ge=0, le=5_000)] = 0


def precedence(policy: Policy, counter: int, made: int) -> tuple[int, int, int]:
    """Return what decides between two rollouts that a device belongs to; the greater goes first.

    Args:
        policy: of the rollout.
        counter: of its release.
        made: rises with every rollout that is made.
    """
    return policy.priority, counter, made


class RingProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a ring stands. `step` indexes `RingSpec.shares`; `opened_at` is when the present step opened.

    `before` holds what the ring had by variant when that step opened, (attempts, ended, confirmed), so that a step is judged by its own devices.
    """

    state: RingState = "waiting"
    step: int = -1
    opened_at: int = 0
    before: dict[str, tuple[int, int, int]] = {}


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A person let a ring's step pass (`gate` approval)."""

    ring: str
    step: int
    by: str
    at: int


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as the planner sees it. `fixed` is the digest of the audience of a snapshot rollout; empty = its queries say who is meant."""

    name: str
    release_sha256: str
    state: RolloutState
    generation: int
    policy: Policy
    rings: tuple[RingProgress, ...]
    isolated: tuple[str, ...] = ()
    approvals: tuple[Approval, ...] = ()
    started_at: int = 0
    fixed: str = ""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of one ring and variant. Only first attempts are counted.

    `exposed` = permits granted and not returned; each ends as one of `confirmed`, `reverted`, `failed_after` (a failure after the permit) or `lost`, or is
    still open. `failed_before` ended before a permit: `transfer` of them for the way's fault, `install` for the installer's, the rest are refusals.
    `resumed_lost` = lost ones that were heard again and confirmed: they count as confirmed, no longer as lost.
    `retried` = further attempts that were offered; `unstarted` = devices that never began or never finished (`lost.start`, `lost.finish`).
    `last_permit_at` and `last_confirmed_at` are 0 when there was none.
    """

    audience: int = 0
    offered: int = 0
    downloading: int = 0
    staged: int = 0
    exposed: int = 0
    rebooting: int = 0
    verifying: int = 0
    confirmed: int = 0
    reverted: int = 0
    failed_after: int = 0
    lost: int = 0
    failed_before: int = 0
    transfer: int = 0
    install: int = 0
    declined: int = 0
    retried: int = 0
    unstarted: int = 0
    last_permit_at: int = 0
    last_confirmed_at: int = 0
    reasons: dict[str, int] = {}

    @property
    def harmed(self) -> int:
        """Attempts that ended badly after the device acted on the release, silence included."""
        return self.reverted + self.failed_after + self.lost + self.install

    @property
    def attempts(self) -> int:
        """Devices that acted on the release: permits, and installs that failed before one. Never the whole ring."""
        return self.exposed + self.install

    @property
    def ended(self) -> int:
        """Devices with an outcome, good or bad, before a permit or after."""
        after = self.confirmed + self.reverted + self.failed_after + self.lost
        return after + self.failed_before + self.declined + self.unstarted

    @property
    def pending(self) -> int:
        """Permits whose outcome is not known yet."""
        return max(0, self.exposed - self.confirmed - self.reverted - self.failed_after - self.lost)


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """Errors and the time they were counted over, of devices after confirmation, or of the control group: devices of the same product not updated.

    `top`: errors of the one device that had the most, where that is known.
    """

    errors: int = 0
    device_s: int = 0
    devices: int = 0
    top: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about a rollout at one position of the event log. `tallies` by (ring, variant); metrics by variant.

    `weighed` is the last decision of the evidence gate (`rollout.evidence`); None while nobody weighs.
    """

    position: int = 0
    tallies: dict[tuple[str, str], Tally] = {}
    updated: dict[str, Exposure] = {}
    control: dict[str, Exposure] = {}
    weighed: Decision | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Why: what a gate saw against what it allows. `text` is the sentence that the web, the command line and the report print.

    `opens_at` is when it would pass if nothing changed, where that is known.
    """

    gate: str
    passed: bool
    text: str
    ring: str = ""
    variant: str = ""
    observed: float | int | str | None = None
    limit: float | int | str | None = None
    sample: int | None = None
    opens_at: int | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do next; no choice is left to who carries it out. Applied only onto `parent_generation`.

    `state` and `rings` are the new ones in full. `isolate` names variants that leave now. `room` is how many more permits may be out at once (None = no
    bound); `rooms` is the same by variant, where evidence is weighed. `changed` says whether anything differs from the rollout that was planned for.
    `held`: a person has to decide, since evidence neither stops it nor lets it go on.
    """

    parent_generation: int
    verdict: Verdict
    state: RolloutState
    rings: tuple[RingProgress, ...]
    isolate: tuple[str, ...] = ()
    room: int | None = None
    because: tuple[Finding, ...] = ()
    changed: bool = False
    rooms: dict[str, int] | None = None
    held: Held | None = None
