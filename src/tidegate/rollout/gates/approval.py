"""`approval`: so many people let this step of this ring pass before more opens.

An approval is given for one step of one ring and never carries over to the next. After the last step of the last ring nothing more opens, so nobody is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import Finding
from tidegate.rollout.view import View

NAME: Final = "approval"
SETTINGS: Final[Mapping[str, Setting]] = {
    "people": Setting("count", 1, "how many different people"),
    "role": Setting("text", "approver", "the role they need; checked where the approval is given"),
}


@dataclass(frozen=True, slots=True)
class ByPeople:
    """Limits: how many different people, of which role."""

    people: int
    role: str
    stops: bool = field(default=False, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Count the different people who approved this step."""
        given = len(view.approved_by)
        if view.last_step:
            text = "approval: nothing more would open"
        elif given:
            text = f"approval: {given} of {self.people} ({', '.join(sorted(view.approved_by))})"
        else:
            text = f"approval: waits for {self.people} with role {self.role}"
        return Finding(
            gate=NAME,
            passed=view.last_step or given >= self.people,
            text=view.prefix + text,
            ring=view.ring,
            variant=view.variant,
            observed=given,
            limit=self.people,
            sample=given,
        )

    def calm(self, view: View) -> bool:
        """People never blame."""
        return view.tally.confirmed > 0


def create(**settings: Value) -> ByPeople:
    """Make the gate of read settings."""
    return ByPeople(people=int(settings["people"]), role=str(settings["role"]))
