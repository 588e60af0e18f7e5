"""The incident report: what happened to whom, since when, why it was stopped, what was done, and what is still missing from the story.

It is data first (`model`, put together by `report`); `document` lays it out once for readers, and Markdown and HTML are written from that.
"""

from tidegate.rollout.incident.blocks import Block
from tidegate.rollout.incident.document import lay_out
from tidegate.rollout.incident.looks import BAD, looks
from tidegate.rollout.incident.markdown import to_markdown
from tidegate.rollout.incident.model import (
    LISTED_MAX,
    MEANS,
    SCHEMA,
    DeviceLog,
    DeviceOutcome,
    Entry,
    Fleet,
    FollowUp,
    Incident,
    IncidentReport,
    Population,
    Returned,
    Rhythm,
    Shown,
    Stood,
    Stopped,
    Told,
    WayBack,
    Written,
)
from tidegate.rollout.incident.page import POLICY, to_html
from tidegate.rollout.incident.report import PAST_RETURN, RECALL_ASKED, UNSHOWN, build

__all__ = [
    "BAD",
    "LISTED_MAX",
    "MEANS",
    "PAST_RETURN",
    "POLICY",
    "RECALL_ASKED",
    "SCHEMA",
    "UNSHOWN",
    "Block",
    "DeviceLog",
    "DeviceOutcome",
    "Entry",
    "Fleet",
    "FollowUp",
    "Incident",
    "IncidentReport",
    "Population",
    "Returned",
    "Rhythm",
    "Shown",
    "Stood",
    "Stopped",
    "Told",
    "WayBack",
    "Written",
    "build",
    "lay_out",
    "looks",
    "to_html",
    "to_markdown",
]
