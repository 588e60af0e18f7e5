"""Changing parts of a rollout: what is not named stays as it is.

The parts are those of a policy file that make sense by themselves: `preset`, `audience`, `steps`, `audiences` and `gates` by ring, `guards`, `flow`,
`priority`, `windows`, `delivery`. Everything else (deadlines, retries, rings of one's own) is a whole new policy file. What may follow is judged where a
whole policy is (`widening.edit`).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tidegate.core import amounts
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import engine, holdback, presets
from tidegate.rollout.model import ALL_BP, Policy, RingSpec
from tidegate.server import drafts
from tidegate.server.drafts import Draft

KEYS: Final = (
    "preset", "audience", "audiences", "steps", "gates", "guards", "flow", "priority", "windows", "delivery",
)  # fmt: skip
_FLOW: Final[Mapping[str, str]] = {"in_flight": "at_once", "first": "first", "per": "at_once_per"}
_WINDOWS: Final[Mapping[str, str]] = {
    "download": "download_window",
    "activate": "activate_window",
    "zone": "zone",
}
_DELIVERY: Final[Mapping[str, str]] = {
    "rate": "bps_max",
    "activate": "activate",
    "tries": "tries",
    "deadline": "deadline",
    "offline_permit": "offline_permit_s",
    "retry_refused": "retry_refused",
}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What of a rollout can be changed, as it stands at a generation.

    Attributes:
        audience: whom it means; empty = all of its product. Rings have it in their own, too.
        begun: rings keep their names and order then.
        fixed: whom it means was fixed when it was made (`server.fixed`), and stays.
    """

    name: str
    state: str
    generation: int
    policy: Policy
    delivery: DeliveryPolicy
    release: str = ""
    audience: str = ""
    begun: bool = False
    fixed: bool = False


def terms_of(row: Mapping[str, Any]) -> Terms:
    """Return what of a rollout (its row) can be changed."""
    return Terms(
        name=str(row["name"]),
        state=str(row["state"]),
        generation=int(row["generation"]),
        policy=msgspec.convert(row["policy"], type=Policy),
        delivery=msgspec.convert(row["delivery"], type=DeliveryPolicy),
        release=str(row["release"]),
        audience=str(row["audience"]),
        begun=row["started_at"] is not None,
        fixed=bool(row["fixed"]),
    )


def amended(row: Mapping[str, Any], data: Mapping[str, Any]) -> Draft:
    """Return a rollout's terms with some parts changed.

    Args:
        row: of the rollout.
        data: the parts, in the words of a policy file; untrusted.

    Raises:
        RequestError: `request.invalid`: nothing to change, an unknown part (with the nearest), or a bad value.
    """
    for key in data:
        if key not in KEYS:
            near = did_you_mean(str(key), KEYS)
            text = f'"{str(key)[:40]}" cannot be changed by itself{near}; replace the whole policy'
            raise RequestError("request.invalid", text)
    if not data:
        raise RequestError("request.invalid", f"name what is to change: {', '.join(KEYS)}")
    stands = terms_of(row)
    policy = stands.policy
    if "preset" in data:
        policy = _with_preset(policy, data["preset"])
    policy = _with_gates(_with_steps(policy, data), data)
    policy, audience = _with_audiences(_with_flow(policy, data), stands.audience, data)
    engine.check(policy)
    return Draft(
        name=str(row["name"]),
        release=str(row["release"]),
        audience=audience,
        policy=policy,
        delivery=_with_delivery(stands.delivery, data),
        start_at=int(row["start_at"]),
    )


def _with_preset(policy: Policy, name: object) -> Policy:
    """Take steps, gates and guards of a preset; whom a ring means stays."""
    given = presets.policy_from_dict({"preset": name})
    names = [one.name for one in policy.rings]
    if [one.name for one in given.rings] != names:
        text = f"preset: {name} has other rings than {', '.join(names)}; replace the whole policy"
        raise RequestError("request.invalid", text)
    rings = [
        msgspec.structs.replace(new, audience=old.audience)
        for old, new in zip(policy.rings, given.rings, strict=True)
    ]
    if policy.holdback_bp:
        held = holdback.stepped(rings[-1].shares, policy.holdback_bp)
        rings[-1] = msgspec.structs.replace(rings[-1], shares=held)
    return msgspec.structs.replace(policy, rings=tuple(rings), guards=given.guards)


def _with_audiences(policy: Policy, before: str, data: Mapping[str, Any]) -> tuple[Policy, str]:
    """Return the policy with other audiences, and the rollout's; that is folded into every ring's anew, so that no ring reaches beyond it."""
    asked = _by_ring(policy, data, "audiences")
    if "audience" not in data and not asked:
        return policy, before
    audience = drafts.audience_of(data) if "audience" in data else before
    rings = []
    for ring in policy.rings:
        own = drafts.own_audience(ring.audience, before)
        if ring.name in asked:
            entry = {"name": ring.name, "audience": asked[ring.name]}
            own = presets.policy_from_dict({"ring": [entry]}).rings[0].audience
        rings.append(msgspec.structs.replace(ring, audience=own))
    return drafts.within(msgspec.structs.replace(policy, rings=tuple(rings)), audience), audience


def _with_gates(policy: Policy, data: Mapping[str, Any]) -> Policy:
    """Take other gates of rings, and other guards."""
    asked = _by_ring(policy, data, "gates")
    rings = []
    for ring in policy.rings:
        if ring.name in asked:
            entry = {"name": ring.name, "gates": asked[ring.name]}
            read = presets.policy_from_dict({"ring": [entry]}).rings[0].gates
            rings.append(msgspec.structs.replace(ring, gates=read))
        else:
            rings.append(ring)
    guards = policy.guards
    if "guards" in data:
        guards = presets.policy_from_dict({"guards": data["guards"]}).guards
    return msgspec.structs.replace(policy, rings=tuple(rings), guards=guards)


def _by_ring(policy: Policy, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a table by ring; a ring that there is not is refused."""
    table = _table(data, key)
    names = [one.name for one in policy.rings]
    for name in table:
        if name not in names:
            near = did_you_mean(str(name), names)
            raise RequestError("request.invalid", f'{key}: no ring "{str(name)[:64]}"{near}')
    return table


def _with_steps(policy: Policy, data: Mapping[str, Any]) -> Policy:
    steps = _by_ring(policy, data, "steps")
    rings: list[RingSpec] = []
    for ring in policy.rings:
        held_bp = policy.holdback_bp if ring is policy.rings[-1] else 0
        if ring.name in steps:
            shares = _shares(steps[ring.name], ring.name, held_bp)
            rings.append(msgspec.structs.replace(ring, shares=shares))
        else:
            rings.append(ring)
    return msgspec.structs.replace(policy, rings=tuple(rings))


def _shares(steps: object, name: str, held_bp: int) -> tuple[int, ...]:
    """Return steps as shares; the last of the last ring leaves out who is held back."""
    if not isinstance(steps, list) or not steps:
        raise RequestError("request.invalid", f'steps.{name}: shares, as in ["10%", "100%"]')
    try:
        shares = tuple(amounts.parse_share(one, f"steps.{name}") for one in steps)
    except ConfigError as error:
        raise RequestError("request.invalid", error.detail) from error
    if held_bp and shares[-1] != ALL_BP:
        text = f"steps.{name}: they end at 100%, of which {held_bp / 100:g}% are held back already"
        raise RequestError("request.invalid", text)
    return holdback.stepped(shares, held_bp) if held_bp else shares


def _with_flow(policy: Policy, data: Mapping[str, Any]) -> Policy:
    flow = _known(_table(data, "flow"), _FLOW, "flow")
    words: dict[str, Any] = {"flow": flow} if flow else {}
    if "priority" in data:
        words["priority"] = data["priority"]
    if not words:
        return policy
    given = presets.policy_from_dict(words)
    changed = {field: getattr(given, field) for key, field in _FLOW.items() if key in flow}
    if "priority" in words:
        changed["priority"] = given.priority
    return msgspec.structs.replace(policy, **changed)


def _with_delivery(delivery: DeliveryPolicy, data: Mapping[str, Any]) -> DeliveryPolicy:
    windows = _known(_table(data, "windows"), _WINDOWS, "windows")
    given = _known(_table(data, "delivery"), _DELIVERY, "delivery")
    if not windows and not given:
        return delivery
    try:
        read = drafts.delivery_of({"windows": windows, "delivery": given})
    except ConfigError as error:
        raise RequestError("request.invalid", error.detail) from error
    changed = {field: getattr(read, field) for key, field in _WINDOWS.items() if key in windows}
    changed |= {field: getattr(read, field) for key, field in _DELIVERY.items() if key in given}
    if "activate" in windows and "activate" not in given and delivery.activate != "manual":
        changed["activate"] = "window" if changed["activate_window"] else "immediate"
    return msgspec.structs.replace(delivery, **changed)


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, Mapping):
        raise RequestError("request.invalid", f"{key}: a table")
    return value


def _known(table: Mapping[str, Any], known: Mapping[str, str], where: str) -> Mapping[str, Any]:
    for key in table:
        if key not in known:
            near = did_you_mean(str(key), known)
            raise RequestError(
                "request.invalid", f'{where}: "{str(key)[:40]}" cannot be changed{near}'
            )
    return table
