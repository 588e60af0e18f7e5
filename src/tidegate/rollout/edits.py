"""What an edit changes in a rollout that has begun. Pure.

**Where its rings stand.** A ring keeps the share that is open: it stands at the last of its new steps that opens no more than that. So an edit never opens
anything by itself.

**What becomes wider.** Whatever may reach a device sooner, or more devices, or is stopped by less. An edit that only narrows is one person's act, like a
halt; one that widens may need a second person. What cannot be compared counts as wider.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from tidegate.core.amounts import format_duration, format_share, format_size
from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import gates
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.gates.evidence import Weighed
from tidegate.rollout.model import Approval, GateSpec, Policy, RingProgress, RingSpec

#: Limits of plain gates: +1 = the greater one is stricter, -1 = the smaller one is. Any other limit must stay as it is.
_STRICTER: Final[Mapping[str, Mapping[str, int]]] = {
    "approval": {"people": 1},
    "soak": {"time_s": 1},
    "minimum_sample": {"healthy": 1, "patience_s": 1},
    "failure_rate": {"max_bp": -1, "odds": -1},
    "metric": {"ratio": -1, "odds": -1},
}
#: The same of the evidence gate.
_EVIDENCE: Final[Mapping[str, int]] = {
    "odds": -1,
    "extra_failure_ppm": -1,
    "extra_silence_ppm": -1,
    "hazard_pct": -1,
    "late_growth_pct": -1,
    "doubt_pct": -1,
    "watch_s": 1,
}
_WAYS: Final = ("immediate", "window", "manual")


def refitted(
    before: Policy, after: Policy, rings: tuple[RingProgress, ...]
) -> tuple[RingProgress, ...]:
    """Return where rings stand under new steps.

    Args:
        before: the policy that they stand under.
        after: another, with the same rings in the same order.
        rings: one progress a ring.

    Raises:
        RequestError: `request.conflict`: other rings, or a ring that is open further than its first new step.
    """
    if [one.name for one in before.rings] != [one.name for one in after.rings]:
        text = "the rings of a rollout that has begun keep their names and order"
        raise RequestError("request.conflict", text)
    known = (*rings, *(RingProgress() for _ in range(len(before.rings) - len(rings))))
    return tuple(
        _refitted(old, new, one)
        for old, new, one in zip(before.rings, after.rings, known, strict=True)
    )


def _refitted(old: RingSpec, new: RingSpec, progress: RingProgress) -> RingProgress:
    if old.shares == new.shares or progress.state not in {"open", "soaking"}:
        return progress
    share = _present(old, progress)
    steps = [number for number, one in enumerate(new.shares) if one <= share]
    if not steps:
        raise RequestError(
            "request.conflict",
            f"ring {new.name} is open to {format_share(share)}: its steps begin there or below, not at {format_share(new.shares[0])}",
        )
    return msgspec.structs.replace(progress, step=steps[-1])


def kept(before: Policy, after: Policy, approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """Return the approvals that still mean what was approved: those of rings whose steps and gates stay. An approval names its step by number."""
    same = {
        new.name
        for old, new in zip(before.rings, after.rings, strict=True)
        if (old.shares, old.gates) == (new.shares, new.gates)
    }
    return tuple(one for one in approvals if one.ring in same)


def _present(spec: RingSpec, progress: RingProgress) -> int:
    return spec.shares[min(max(progress.step, 0), len(spec.shares) - 1)]


def wider(
    before: tuple[Policy, DeliveryPolicy], after: tuple[Policy, DeliveryPolicy]
) -> tuple[str, ...]:
    """Return in which ways new terms are wider than old ones, as sentences; none = they only narrow."""
    (old, old_delivery), (new, new_delivery) = before, after
    return (
        *(
            text
            for mine, other in zip(old.rings, new.rings, strict=True)
            for text in _wider_ring(mine, other)
        ),
        *_looser(old.guards, new.guards, "guard"),
        *_wider_flow(old, new),
        *_wider_delivery(old_delivery, new_delivery),
    )


def _wider_ring(old: RingSpec, new: RingSpec) -> Iterator[str]:
    where = f"ring {new.name}"
    if old.audience != new.audience:
        yield f"{where} has another audience"
    if new.shares[0] > old.shares[0]:
        yield f"{where} begins at {format_share(new.shares[0])}, not {format_share(old.shares[0])}"
    if new.shares[-1] > old.shares[-1]:
        yield f"{where} ends at {format_share(new.shares[-1])}, not {format_share(old.shares[-1])}"
    gone = [
        one for one in old.shares if one not in new.shares and old.shares[0] < one < new.shares[-1]
    ]
    if gone:
        yield f"{where} has no step at {', '.join(map(format_share, gone))} any more"
    yield from _looser(old.gates, new.gates, where)


def _looser(old: tuple[GateSpec, ...], new: tuple[GateSpec, ...], where: str) -> Iterator[str]:
    """Yield the gates that are gone, or ask for less."""
    left = list(new)
    for one in old:
        able = [other for other in left if other.gate == one.gate]
        found = next((other for other in able if _as_strict(one, other)), None)
        if found is not None:
            left.remove(found)
        elif able:
            yield f"{where}: gate {one.gate} asks for less, or for something else"
        else:
            yield f"{where}: gate {one.gate} is gone"


def _as_strict(old: GateSpec, new: GateSpec) -> bool:
    if old == new:
        return True
    mine, other = (gates.load(one.gate, one.settings) for one in (old, new))
    if isinstance(mine, Weighed) and isinstance(other, Weighed):
        return mine.replaces == other.replaces and _as_strict_evidence(mine.harm, other.harm)
    return _no_less(_limits(mine), _limits(other), _STRICTER.get(old.gate, {}))


def _as_strict_evidence(old: Harm, new: Harm) -> bool:
    mine, other = ({**msgspec.structs.asdict(one), "soaks": ()} for one in (old, new))
    return new.soaks[: len(old.soaks)] == old.soaks and _no_less(mine, other, _EVIDENCE)


def _limits(gate: Any) -> dict[str, Any]:
    return {one.name: getattr(gate, one.name) for one in dataclasses.fields(gate)}


def _no_less(old: Mapping[str, Any], new: Mapping[str, Any], signs: Mapping[str, int]) -> bool:
    """Say whether every limit is as strict as before."""
    return old.keys() == new.keys() and all(
        new[name] * signs[name] >= value * signs[name] if name in signs else new[name] == value
        for name, value in old.items()
    )


def _wider_flow(old: Policy, new: Policy) -> Iterator[str]:
    for text, before, after in (
        ("permits out at once", old.at_once, new.at_once),
        ("permits before anything is proved", old.first, new.first),
        *(
            (f"permits out at once by {name}", most, new.at_once_per.get(name, 0))
            for name, most in old.at_once_per.items()
        ),
    ):
        if _unbounded(after) > _unbounded(before):
            yield f"{text}: {_most(after)}, not {_most(before)}"
    for name in ("start", "finish", "return", "confirm"):
        before, after = (getattr(one.deadlines, f"{name}_s") for one in (old, new))
        if _unbounded(after) > _unbounded(before):
            yield f"silence counts later: {name} after {_most(after, format_duration)}, not {_most(before, format_duration)}"
    if old.retry != new.retry:
        yield "retries are other ones"
    if new.priority > old.priority:
        yield f"priority {new.priority}, not {old.priority}"
    if new.holdback_bp < old.holdback_bp:
        yield f"{format_share(new.holdback_bp)} held back, not {format_share(old.holdback_bp)}"
    if new.dynamic and not old.dynamic:
        yield "newcomers are taken"
    if new.prefetch != old.prefetch:
        yield "it is fetched ahead" if new.prefetch else "it is no longer fetched ahead"


def _wider_delivery(old: DeliveryPolicy, new: DeliveryPolicy) -> Iterator[str]:
    for word, before, after in (
        ("downloads", old.download_window, new.download_window),
        ("activates", old.activate_window, new.activate_window),
    ):
        other_zone = before and new.zone != old.zone
        if before and (not after or other_zone or not set(after) <= set(before)):
            yield f"it {word} in other windows: {'; '.join(after) or 'any time'}"
    if _WAYS.index(new.activate) < _WAYS.index(old.activate):
        yield f"activation is {new.activate}, not {old.activate}"
    if _unbounded(new.bps_max) > _unbounded(old.bps_max):
        yield f"rate {_most(new.bps_max, _rate)}, not {_most(old.bps_max, _rate)}"
    if _unbounded(new.deadline) < _unbounded(old.deadline):
        yield "it is required sooner"
    if new.not_before < old.not_before:
        yield "it may be activated sooner"
    if new.tries > old.tries:
        yield f"{new.tries} tries, not {old.tries}"
    if new.offline_permit_s > old.offline_permit_s:
        yield "leave ahead is good for longer"
    if new.retry_refused and not old.retry_refused:
        yield "devices that went back from it try it again"


def _unbounded(most: int) -> float:
    return most or float("inf")


def _most(most: int, write: Callable[[int], str] = "{:,}".format) -> str:
    return write(most) if most else "no bound"


def _rate(bytes_s: int) -> str:
    return f"{format_size(bytes_s)}/s"
