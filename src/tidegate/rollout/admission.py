"""How many more permits may be out at once: what is not proved yet, against what may be lost.

An admission policy sees the whole rollout and says a number, or None for no bound. The planner takes the smallest. `AtOnce` is the plain one, `Growing` lets
the number rise with what is confirmed; a policy that weighs evidence is another class with the same methods, added to `of_policy`.
"""

from dataclasses import dataclass
from typing import Protocol

from tidegate.rollout import tally as sums
from tidegate.rollout.model import Evidence, Finding, Policy, Rollout


class Admission(Protocol):
    """A bound on permits whose outcome is not known yet."""

    def room(self, rollout: Rollout, evidence: Evidence, now: int) -> int | None:
        """Return how many more permits may be given now, ≥ 0; None = no bound of this kind."""
        ...

    def because(self, room: int) -> Finding:
        """Say why it is `room`, in the sentence that everybody prints."""
        ...


@dataclass(frozen=True, slots=True)
class AtOnce:
    """At most `limit` permits out at a time, over all rings and variants, isolated ones included: they are not proved either."""

    limit: int

    def room(self, rollout: Rollout, evidence: Evidence, now: int) -> int | None:
        """Return the limit less the permits whose outcome is open."""
        return max(0, self.limit - sums.total(evidence).pending)

    def because(self, room: int) -> Finding:
        """Say how much of the limit is left."""
        return Finding(
            gate="at_once",
            passed=room > 0,
            text=f"at most {self.limit:,} at once: room for {room:,} more",
            observed=self.limit - room,
            limit=self.limit,
        )


@dataclass(frozen=True, slots=True)
class Growing:
    """At most `first` permits out until more are confirmed; then 1.5 times the confirmed, so that one feedback time multiplies the reach by 2.5 at most.

    A release that bricks everything then costs about `first` devices, however large the ring that is open.
    """

    first: int

    def room(self, rollout: Rollout, evidence: Evidence, now: int) -> int | None:
        """Return what the confirmed ones allow, less the permits whose outcome is open."""
        known = {variant for _, variant in evidence.tallies} - set(rollout.isolated)
        confirmed = sums.total(evidence, variants=known).confirmed
        return max(0, max(self.first, 3 * confirmed // 2) - sums.total(evidence).pending)

    def because(self, room: int) -> Finding:
        """Say that it is the confirmed ones that limit it."""
        return Finding(
            gate="growing",
            passed=room > 0,
            text=(
                f"limited by feedback: first {self.first:,} devices, then 1.5 times the confirmed; "
                f"room for {room:,} more"
            ),
            observed=room,
            limit=self.first,
        )


@dataclass(frozen=True, slots=True)
class Unweighed:
    """No permit before the evidence gate has said how many: it opens at the next look of the planner."""

    def room(self, rollout: Rollout, evidence: Evidence, now: int) -> int | None:
        """Return 0."""
        return 0

    def because(self, room: int) -> Finding:
        """Say what is waited for."""
        text = "permits wait for the evidence gate, which opens at the planner's next look"
        return Finding(gate="evidence", passed=False, text=text)


def of_policy(policy: Policy) -> tuple[Admission, ...]:
    """Return the admission policies that a rollout's policy asks for."""
    found: list[Admission] = []
    if policy.at_once:
        found.append(AtOnce(policy.at_once))
    if policy.first:
        found.append(Growing(policy.first))
    return tuple(found)


def least(
    admissions: tuple[Admission, ...], rollout: Rollout, evidence: Evidence, now: int
) -> tuple[int | None, tuple[Finding, ...]]:
    """Return the smallest room, None when nothing bounds it, and the finding of the policy that gave it."""
    rooms = [
        (room, one) for one in admissions if (room := one.room(rollout, evidence, now)) is not None
    ]
    if not rooms:
        return None, ()
    room, tightest = min(rooms, key=lambda pair: pair[0])
    return room, (tightest.because(room),)
