"""What an incident's report is made of, and its form as JSON (`tidegate.incident-report/1`): fields are added, never renamed or taken away.

Times are unix seconds; 0 and an empty text mean that there is nothing yet.
"""

from typing import Final, Literal

import msgspec

from tidegate.rollout.contrast import ContrastTable
from tidegate.rollout.model import Finding

SCHEMA: Final = "tidegate.incident-report/1"
#: Most devices that a report names in one list; `GET /incidents/NAME/cohort` lists every one.
LISTED_MAX: Final = 25
Kind = Literal["halt", "isolation", "held", "fallback", "manual"]
Status = Literal["open", "mitigated", "closed"]
Severity = Literal["critical", "major", "minor"]
#: `said`: held to be proved, but nothing is written down that shows it otherwise than by counts.
Cause = Literal["unknown", "supposed", "said", "proved"]
EntryKind = Literal["event", "decision", "outcome", "note"]
#: How something was shown that the counts of a rollout do not show.
Means = Literal["log", "bench", "code", "supplier", "other"]
MEANS: Final[dict[Means, str]] = {
    "log": "log of a device",
    "bench": "test on a bench",
    "code": "code or image, read",
    "supplier": "word of a supplier",
    "other": "otherwise",
}


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The incident itself. `subject` is the variant of an isolation; `rollout` is empty where it belongs to none.

    `mitigated_by`, `closed_by` and `published_by`: who did it last; empty where nobody did.
    """

    name: str
    kind: Kind
    opened_at: int
    opened_by: str
    state: Status = "open"
    severity: Severity = "major"
    owner: str = ""
    subject: str = ""
    rollout: str = ""
    release: str = ""
    summary: str = ""
    mitigated_at: int = 0
    closed_at: int = 0
    published_at: int = 0
    mitigated_by: str = ""
    closed_by: str = ""
    published_by: str = ""


class DeviceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One device that acted on the release, as far as it got. `attributes` are compared to find what the failed have in common.

    `permitted_at`: when it was given leave to activate; from then until `at` it could not be relied on. `offered_at`: when the server first offered it;
    `staged_at`: when the server heard that it holds the image. 0 = never, or not looked up. `from_version`: what it ran when it was offered; empty = not known.
    """

    device: str
    variant: str
    ring: str
    state: str
    reason: str = ""
    at: int = 0
    from_counter: int = 0
    permitted_at: int = 0
    offered_at: int = 0
    staged_at: int = 0
    from_version: str = ""
    attributes: dict[str, str | int | float | bool] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the timeline: who did what, when. `because` are the sentences that a decision was founded on."""

    at: int
    who: str
    text: str
    kind: EntryKind = "event"
    because: tuple[str, ...] = ()


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person wrote down: a corrective action, a hypothesis, the cause and its proof, what the proof rests on."""

    at: int
    by: str
    text: str


class Shown(Written, frozen=True, kw_only=True):
    """What shows the cause otherwise than by the counts of the rollout: what was looked at, by which `means`, and where that is `kept`; empty = not said."""

    means: Means = "other"
    kept: str = ""


class FollowUp(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do: who does it until when, and when it was done. `due_at` 0 = no date; `about` recall: to decide whether the release is recalled."""

    number: int
    text: str
    owner: str
    due_at: int = 0
    done_at: int = 0
    done_by: str = ""
    about: Literal["", "recall"] = ""

    def overdue_s(self, at: int) -> int:
        """Return for how long it has been overdue at `at` (unix seconds); 0 = it is not."""
        return max(0, at - self.due_at) if self.due_at and not self.done_at else 0


class DeviceLog(msgspec.Struct, frozen=True, kw_only=True):
    """What a device sent with a bad outcome: the failed checks and the end of the previous boot's log, scrubbed. `cut`: there was more."""

    device: str
    variant: str
    at: int
    reason: str
    detail: str = ""
    checks: tuple[str, ...] = ()
    text: str = ""
    cut: bool = False


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Updates that had not begun to activate: `held` keep still (a staged image is inert), `cancelled` were ended."""

    held: int = 0
    cancelled: int = 0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """From which release to which, and how it went. `version` is empty where the counter is of no release known here."""

    from_counter: int
    from_version: str
    attempts: int
    harmed: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Devices; they add up: attempts = confirmed + harmed + open, harmed = reverted + failed + lost.

    `audience`: devices that the rollout was for, as far as its rings had been opened; 0 where nobody counted them.
    """

    audience: int = 0
    attempts: int = 0
    exposed: int = 0
    confirmed: int = 0
    harmed: int = 0
    reverted: int = 0
    failed: int = 0
    lost: int = 0
    open: int = 0
    untouched: int = 0


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """How many ended badly for one reason."""

    code: str
    text: str
    count: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one variant or ring; `variants` of a ring: attempts by variant; `members`: devices that it holds now, by variant (null = not counted)."""

    name: str
    counts: Counts
    isolated: bool = False
    variants: dict[str, int] = {}
    members: dict[str, int] | None = None


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Who was hit. The lists are the first of them; the counts are of all, and `GET /incidents/NAME/cohort` lists every device.

    `first` and `last` are the devices that ended badly first and last; `cancelled` had not begun to activate, and their reason says why they never will.
    `out`: of `out_count` that were past the point of no return when it was stopped, the first, as they ended.
    """

    counts: Counts = Counts()
    stopped: Stopped = Stopped()
    reasons: tuple[Reason, ...] = ()
    variants: tuple[Share, ...] = ()
    rings: tuple[Share, ...] = ()
    moves: tuple[Move, ...] = ()
    first: DeviceOutcome | None = None
    last: DeviceOutcome | None = None
    past_return: tuple[DeviceOutcome, ...] = ()
    affected: tuple[DeviceOutcome, ...] = ()
    cancelled: tuple[DeviceOutcome, ...] = ()
    out: tuple[DeviceOutcome, ...] = ()
    out_count: int = 0


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """A device that was brought back, and when the server heard that it runs well there. `other`: what it said last is in its other slot; empty = nothing."""

    device: str
    variant: str
    at: int
    other: str = ""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A look of the gate: how many devices had acted by then, how many of these had ended badly, what it did, and what stood against which bar (`bars`).

    `rare`: of the second bar of `failure_rate`, ring by ring: how many failures would have been as rare as that bar asks, or why it did not apply.
    """

    at: int
    attempts: int
    harmed: int
    text: str
    bars: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that brings devices back: how many have taken the order, confirmed it (`back`), or ended badly on the way (`harmed`).

    `ordered_at` and `ordered_by`: when, and who; `ground`: why, as it was said then. `devices`: the first of those that are back.
    `looks`: what its own gate had before it each time that it wrote down what it did; the last of them.
    """

    rollout: str
    release: str
    state: str
    taken: int = 0
    back: int = 0
    harmed: int = 0
    ordered_at: int = 0
    ordered_by: str = ""
    ground: str = ""
    devices: tuple[Returned, ...] = ()
    looks: tuple[Look, ...] = ()


class Population(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one variant now: whether the manifest names it (`fits`), how many acted on the release, ended badly with it, and refuse it from now on."""

    variant: str
    devices: int
    fits: bool = True
    attempts: int = 0
    harmed: int = 0
    refusing: int = 0

    @property
    def meeting(self) -> int:
        """Devices that would take the release if it went out again."""
        return max(0, self.devices - self.refusing) if self.fits else 0


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of the product now; `matching`: those whose hardware the release's manifest names as compatible; `never`: of these, those that it never reached.

    Attributes:
        untried: variants that never acted on it.
        since: of `matching`, devices that were enrolled after the rollout was made, so it was not made for them.
        alike: of `matching`, devices of variants of which at least one device ended badly, and which do not refuse the release themselves.
        unknown: of `matching`, devices of the variants that are `untried`: nothing is known of them.
        well: of `matching`, devices of variants that tried it and of which none ended badly.
        refusing: of `matching`, devices that went back by themselves and refuse it; matching = alike + unknown + well + refusing.
        variants: every variant of the product.
        idle: what those run now that it never reached: devices by version; null = not counted.
        joined: of `since`, devices that it reached all the same; -1 = not counted.
    """

    devices: int
    matching: int
    never: int
    untried: tuple[str, ...] = ()
    since: int = 0
    alike: int = 0
    unknown: int = 0
    well: int = 0
    refusing: int = 0
    variants: tuple[Population, ...] = ()
    idle: dict[str, int] | None = None
    joined: int = -1


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """When the gate looks: every `every_s` seconds, and `at_once` when a device reports that it ended badly."""

    every_s: int
    at_once: bool = True


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """How long it took `count` devices from their permit until the server heard that they are in `state`, in seconds."""

    state: str
    count: int
    shortest_s: int
    median_s: int
    longest_s: int


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """A text that stood on the status page, word for word: put there by `by` at `at`, until it was changed or taken off; `until` 0 = it stands there."""

    at: int
    by: str
    title: str
    summary: str
    until: int = 0
    impact: str = ""
    action: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the status page says now, word for word. `at`: since when it says anything; since when it says just this stands in the report's `pages`."""

    at: int
    title: str
    summary: str
    impact: str = ""
    action: str = ""
    updates: tuple[Written, ...] = ()


class IncidentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as data; built by `rollout.incident.build`, printed by web, command line and export.

    Attributes:
        title: what was done to what, in a few words.
        figures: the counts as one sentence.
        state: of the rollout now; `version` of the release that it brought.
        because: the findings that led to it, as they were then.
        contrast: what the failed have in common, now.
        decisions: who decided what, and on what ground; part of the timeline as well.
        missing: what nobody has said or seen yet.
        product: whose devices were hit.
        started_at: of the rollout; `first_bad_at` and `last_bad_at`: of the devices that ended badly.
        running: devices that run the release now; -1 = nobody counted.
        ways_back: rollouts that were ordered to bring devices back.
        told: what the status page says; null = nothing.
        cause: proved, with its proof; null = it is supposed (`hypothesis`) or not known.
        fleet: whom the rollout was for; null = nobody counted.
        recalled_at: of the release; 0 = it was not.
        drill: the devices were simulated.
        evidence: what shows the cause otherwise than by these counts; without any, a cause is only said, not proved.
        looks: what the gate had before it each time that it wrote down what it did, up to the stop; the last of them.
        rhythm: when it looks; null = not known.
        passages: from permit to outcome, of the devices that this report looks at.
        warmup_s: for how long a device has to be well by the health contract before it may confirm; the longest of the release's artifacts, 0 = not known.
        recalled_by: who did; `recall_reason` why. Empty where it was not recalled, or nobody knows any more.
        pages: every text that stood on the status page, the oldest first; empty where nothing did, or nobody knows any more.
    """

    schema: str = SCHEMA
    at: int = 0
    incident: Incident
    title: str
    figures: str
    state: str = ""
    version: str = ""
    reach: Reach = Reach()
    because: tuple[Finding, ...] = ()
    contrast: ContrastTable = ContrastTable()
    hypothesis: Written | None = None
    decisions: tuple[Entry, ...] = ()
    timeline: tuple[Entry, ...] = ()
    logs: tuple[DeviceLog, ...] = ()
    actions: tuple[Written, ...] = ()
    followups: tuple[FollowUp, ...] = ()
    missing: tuple[str, ...] = ()
    product: str = ""
    started_at: int = 0
    first_bad_at: int = 0
    last_bad_at: int = 0
    running: int = -1
    ways_back: tuple[WayBack, ...] = ()
    told: Told | None = None
    cause: Written | None = None
    fleet: Fleet | None = None
    recalled_at: int = 0
    drill: bool = False
    evidence: tuple[Shown, ...] = ()
    looks: tuple[Look, ...] = ()
    rhythm: Rhythm | None = None
    passages: tuple[Passage, ...] = ()
    warmup_s: int = 0
    recalled_by: str = ""
    recall_reason: str = ""
    pages: tuple[Stood, ...] = ()
