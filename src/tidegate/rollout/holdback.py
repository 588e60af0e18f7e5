"""A part of the fleet that is kept not updated until the watch ends, so that late harm can be told from what happens anyway.

Late crashes, devices going dark and slow metrics are judged against devices that are not updated. At the end of a ramp there are none, unless some are kept:
the last of the salted order, so that chance alone says which. It is written as one more step of the last ring, before all: that step has passed when its gates
have, and when the evidence guard's watch has gone by since it opened. A person can let it pass at any time (`rollout advance`).
"""

from tidegate.core.amounts import format_share
from tidegate.rollout import gates
from tidegate.rollout.gates.evidence import Weighed
from tidegate.rollout.model import ALL_BP, Finding, Policy, RingProgress

NAME = "holdback"


def stepped(shares: tuple[int, ...], holdback_bp: int) -> tuple[int, ...]:
    """Return the steps of a last ring with the part held back as its last one.

    Args:
        shares: basis points, rising.
        holdback_bp: basis points, over 0.
    """
    rest = ALL_BP - holdback_bp
    return (*(one for one in shares if one < rest), rest, ALL_BP)


def watch_s(policy: Policy) -> int | None:
    """Return how long is watched after everybody else was let go: the evidence guard's watch; None without such a guard."""
    loaded = (gates.of_spec(spec, "guards") for spec in policy.guards if spec.gate == "evidence")
    return next((gate.harm.watch_s for gate in loaded if isinstance(gate, Weighed)), None)


def until(policy: Policy, ring: int, progress: RingProgress) -> int | None:
    """Return until when (unix seconds) a part of this ring is held back; None = nothing of it is, or not yet.

    Args:
        policy: of the rollout.
        ring: index of the ring.
        progress: where it stands.
    """
    spec = policy.rings[ring]
    last = ring + 1 == len(policy.rings) and progress.step + 2 == len(spec.shares)
    if not policy.holdback_bp or not last or progress.state not in {"open", "soaking"}:
        return None
    return progress.opened_at + (watch_s(policy) or 0)


def judge(policy: Policy, ring: int, progress: RingProgress, now: int) -> tuple[Finding, ...]:
    """Say whether the part that is held back may go; nothing where none is."""
    opens_at = until(policy, ring, progress)
    if opens_at is None:
        return ()
    share = format_share(policy.holdback_bp)
    ended = now >= opens_at
    text = (
        f"holdback: {share} of the devices were not updated while the others were watched: done"
        if ended
        else f"holdback: {share} of the devices are not updated while the others are watched"
    )
    return (
        Finding(
            gate=NAME,
            passed=ended,
            text=text,
            ring=policy.rings[ring].name,
            limit=opens_at - progress.opened_at,
            observed=max(0, now - progress.opened_at),
            opens_at=None if ended else opens_at,
        ),
    )
