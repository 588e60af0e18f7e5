"""Bodies of the routes about incidents."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate.rollout.incident import IncidentReport
from tidegate.rollout.incident.model import Severity
from tidegate.server.api.wire import Reason, Seconds, Short
from tidegate.server.cohort_lists import CohortDevice
from tidegate.server.followups import FollowUpFacts
from tidegate.server.grants import GrantFacts
from tidegate.server.incidents import IncidentFacts, NoteFacts
from tidegate.server.publication import Publication, Texts

Line = Annotated[str, Meta(max_length=500)]
Long = Annotated[str, Meta(max_length=10_000)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body in which an unknown key is a mistake."""


class NewIncident(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An incident to be opened by hand. `rollout` and `variant` say what it is about, where it is about one."""

    summary: Annotated[str, Meta(min_length=1, max_length=500)]
    rollout: Short = ""
    variant: Short = ""
    severity: Severity = "major"
    owner: Short = ""


class IncidentEdit(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    severity: Severity | None = None
    owner: Short | None = None
    summary: Line | None = None


class NewNote(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something to be written into an incident; `action` = a corrective one, `hypothesis` = of the cause; `cause` = proved, and how.

    `evidence` = what shows the cause otherwise than by counts: what was seen, by which `means`, and where that is `kept` (a ticket, a digest, a log).
    """

    text: Annotated[str, Meta(min_length=1, max_length=10_000)]
    kind: Literal["note", "action", "hypothesis", "cause", "evidence"] = "note"
    means: Literal["", "log", "bench", "code", "supplier", "other"] = ""
    kept: Line = ""


class NewFollowUp(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left to do. Without an owner it is whoever writes it down; `due_at` 0 = no date.

    `about` recall: to decide whether the release is recalled; it needs no text of its own, and a recall settles it.
    """

    text: Annotated[str, Meta(max_length=1_000)] = ""
    owner: Short = ""
    due_at: Seconds = 0
    about: Literal["", "recall"] = ""


class FollowUpEdit(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who does a follow-up, and until when; what is left out stays."""

    owner: Short | None = None
    due_at: Seconds | None = None


class NewPublication(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the status page is to say. What is left out stays, or is filled in from rounded counts; the summary is for people to write."""

    title: Line = ""
    summary: Long = ""
    impact: Long = ""
    action: Long = ""


class NewUpdate(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line to be added to the status page."""

    text: Long


class Withdrawal(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an incident is taken off the status page."""

    reason: Reason = ""


class Incidents(msgspec.Struct, frozen=True, kw_only=True):
    """A page of incidents, newest first."""

    items: list[IncidentFacts]
    next: str | None = None


class IncidentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An incident with its report and what was written into it.

    `publication` is what the status page says, `proposal` what it could say; `public` whether this server has a status page.
    """

    incident: IncidentFacts
    report: IncidentReport
    notes: list[NoteFacts]
    followups: list[FollowUpFacts]
    grants: list[GrantFacts]
    publication: Publication | None
    proposal: Texts
    public: bool


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """A page of an incident's devices, in order of time."""

    items: list[CohortDevice]
    next: str | None = None
