"""Policies: ready ones, and how one is read from a file.

A policy file is TOML; what is read here is its part that says who goes first, what must be seen before more go, and what stops it:

```toml
preset  = "normal"                  # what is not said below is taken from it
dynamic = true                      # newcomers are served, also after completion; false: the audience is fixed when it is made
priority = 0                        # of several rollouts for one device the highest goes first, then the newest release
guards  = ["evidence"]              # gates by type, by a name given below, or as a table

[deadlines]                         # silence is an outcome after these
start   = "7d"                      # offered, and no download begun
finish  = "7d"                      # begun, and not finished
return  = "1h"                      # from here on it is a failure
confirm = "2h"

[retry]                             # what ended before a permit and says nothing against the release
tries   = 3                         # attempts in all
backoff = "1m"                      # then twice that, and so on
most    = "1d"
budget  = "100%"                    # further attempts, of the devices that were offered it
"user.declined" = 5                 # attempts in all, for a reason or a family of them

[flow]
in_flight = "none"                  # permits out at once, at most
first     = 8                       # … before anything is proved; then 1.5 times the confirmed
holdback  = "none"                  # "1%": of the last ring, not updated until the watch ends, to compare with

[flow.per]                          # … among devices that share this attribute, over all rollouts
site           = 20
"attr.cluster" = 1

[[ring]]
name     = "pilot"
audience = "group:pilot"            # a query; "rest" = all that is left
steps    = ["10%", "100%"]          # default: all at once
soak     = "24h"
gates    = ["enough", { type = "approval", people = 1 }]

[[gate]]
name    = "enough"
type    = "minimum_sample"
healthy = 20
```

Presets are written in the same words, so that what they mean can be printed.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from tidegate.core import amounts
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean, nearest
from tidegate.core.reasons import family, is_reason
from tidegate.rollout import engine, gates, holdback, query, retry
from tidegate.rollout.model import ALL_BP, Deadlines, GateSpec, Policy, Retry, RingSpec

#: Schema of policy files that this version reads.
SCHEMA: Final = 1
_KEYS: Final = frozenset(
    {
        "schema",
        "preset",
        "dynamic",
        "guards",
        "deadlines",
        "priority",
        "retry",
        "flow",
        "ring",
        "gate",
    }
)
_RING_KEYS: Final = frozenset({"name", "audience", "steps", "soak", "gates"})
_DEADLINE_KEYS: Final = frozenset({"start", "finish", "return", "confirm"})
_RETRY_KEYS: Final = frozenset({"tries", "backoff", "most", "budget"})
_FLOW_KEYS: Final = frozenset({"in_flight", "first", "holdback", "per"})
#: Attributes whose devices a cap can bound: those that stay as they are while a device is on its way.
_CAPPED: Final = (
    "site",
    "region",
    "model",
    "variant",
    "product",
    "channel",
    "connectivity",
    "revision",
)
#: Before the name of one group that a cap bounds.
GROUP: Final = "group:"
_MOST_RINGS: Final = 32
_MOST_HELD_BP: Final = 5_000


def _weighed(preset: str) -> dict[str, Any]:
    """Write the evidence guard; the plain ones beside it stand in until somebody weighs."""
    return {"type": "evidence", "preset": preset, "replaces": "failure_rate,metric"}


def _rings(
    internal: tuple[int, str, str],
    pilot: tuple[int, str, str],
    fleet: tuple[int, str, str],
    steps: list[str],
) -> list[dict[str, Any]]:
    """Write the usual three rings: (healthy devices, soak, patience) each, and the steps of the last."""

    def ring(
        name: str, audience: str, need: tuple[int, str, str], **more: object
    ) -> dict[str, Any]:
        enough = {"type": "minimum_sample", "healthy": need[0], "patience": need[2]}
        return {"name": name, "audience": audience, "soak": need[1], "gates": [enough], **more}

    return [
        ring("internal", "group:internal", internal),
        ring("pilot", "group:pilot", pilot),
        ring("fleet", "rest", fleet, steps=steps),
    ]


#: The ready policies, in the words of a policy file. `lab` is for trying things out: everything in seconds, nothing proved.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "normal": {
        "guards": [
            _weighed("normal"),
            {"type": "failure_rate", "max": "2%", "sample": 50, "healthy": 10},
            {"type": "metric", "clump": 3},
        ],
        "deadlines": {"start": "7d", "finish": "7d", "return": "1h", "confirm": "24h"},
        "flow": {"in_flight": "none", "first": 8},
        "ring": _rings((5, "4h", "24h"), (20, "24h", "4d"), (50, "24h", "7d"), ["10%", "100%"]),
    },
    "careful": {
        "guards": [
            _weighed("careful"),
            {"type": "failure_rate", "max": "1%", "sample": 100, "healthy": 20},
            {"type": "metric", "ratio": 1.2, "clump": 3},
        ],
        "deadlines": {"start": "7d", "finish": "7d", "return": "1h", "confirm": "24h"},
        "flow": {"in_flight": "none", "first": 4},
        "ring": _rings(
            (5, "24h", "4d"),
            (50, "4d", "14d"),
            (100, "4d", "14d"),
            ["10%", "100%"],
        ),
    },
    "fast": {
        "guards": [
            _weighed("fast"),
            {"type": "failure_rate", "max": "2%", "sample": 50, "healthy": 10},
            {"type": "metric", "clump": 3},
        ],
        "deadlines": {"start": "7d", "finish": "7d", "return": "1h", "confirm": "24h"},
        "flow": {"in_flight": "none", "first": 8},
        "ring": _rings((5, "1h", "12h"), (20, "4h", "24h"), (50, "4h", "2d"), ["10%", "100%"]),
    },
    "emergency": {
        "guards": [
            _weighed("emergency"),
            {"type": "failure_rate", "max": "5%", "sample": 50, "healthy": 10},
            {"type": "metric", "ratio": 2, "clump": 3},
        ],
        "deadlines": {"start": "7d", "finish": "7d", "return": "1h", "confirm": "2h"},
        "flow": {"in_flight": "none", "first": 8},
        "ring": _rings((3, "10m", "1h"), (5, "10m", "1h"), (50, "10m", "4h"), ["10%", "100%"]),
    },
    "lab": {
        "guards": [
            {"type": "failure_rate", "max": "10%", "sample": 10, "healthy": 3},
            {"type": "metric", "exposure": "1h"},
        ],
        "deadlines": {"return": "2m", "confirm": "4m"},
        "retry": {"backoff": "5s"},
        "flow": {"in_flight": "none", "first": 0},
        "ring": _rings(
            (1, "2s", "60s"), (3, "5s", "60s"), (5, "5s", "60s"), ["10%", "50%", "100%"]
        ),
    },
}


def preset(name: str) -> Policy:
    """Return a ready policy.

    Raises:
        RequestError: `request.invalid`: no such preset, with the nearest.
    """
    return policy_from_dict({"preset": name})


def policy_from_dict(data: Mapping[str, Any], also: Collection[str] = ()) -> Policy:
    """Read a policy.

    Args:
        data: a parsed policy file; untrusted. What it does not say comes from its `preset` (default `normal`).
        also: further keys that the caller reads itself; they are passed over here.

    Raises:
        RequestError: `request.invalid`: unknown key (with the nearest), amount without unit, unknown gate, query that cannot be read.
    """
    _known(data, _KEYS | frozenset(also), "policy")
    if data.get("schema", SCHEMA) != SCHEMA:
        raise _wrong(f"schema {data['schema']!r:.20}: this version reads schema {SCHEMA}")
    base = _preset(data.get("preset", "normal"))
    try:
        policy = _policy({**base, **data}, base)
    except ConfigError as error:
        raise _wrong(error.detail) from error
    engine.check(policy)
    if policy.holdback_bp and holdback.watch_s(policy) is None:
        raise _wrong(
            "flow.holdback: there is no evidence guard that would compare with it: add one to guards"
        )
    return policy


def _policy(data: Mapping[str, Any], base: Mapping[str, Any]) -> Policy:
    named = _named_gates(_list(data, "gate"))
    rings = [_ring(_table(one, "ring"), named) for one in _list(data, "ring")]
    if not 1 <= len(rings) <= _MOST_RINGS:
        raise _wrong(f"ring: a policy has 1 to {_MOST_RINGS} rings")
    flow = {**base["flow"], **_table(data["flow"], "flow")}
    _known(flow, _FLOW_KEYS, "flow")
    dynamic = data.get("dynamic", True)
    if not isinstance(dynamic, bool):
        raise _wrong("dynamic: true or false")
    priority = data.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > 1000:
        raise _wrong("priority: a whole number from -1000 to 1000")
    held_bp = _held_back(flow.get("holdback", "none"))
    if held_bp:
        if rings[-1].shares[-1] != ALL_BP:
            raise _wrong(
                "flow.holdback: the last ring must end at 100%; of a smaller share the others are held back already"
            )
        shares = holdback.stepped(rings[-1].shares, held_bp)
        rings[-1] = msgspec.structs.replace(rings[-1], shares=shares)
    return Policy(
        priority=priority,
        holdback_bp=held_bp,
        rings=tuple(rings),
        guards=tuple(_gate(one, named, "guards") for one in _list(data, "guards")),
        deadlines=_deadlines({**base["deadlines"], **_table(data["deadlines"], "deadlines")}),
        retry=_retry({**base.get("retry", {}), **_table(data.get("retry", {}), "retry")}),
        at_once=_count(flow["in_flight"], "flow.in_flight"),
        first=_count(flow["first"], "flow.first"),
        at_once_per=caps(_table(flow.get("per", {}), "flow.per"), "flow.per"),
        dynamic=dynamic,
    )


def _held_back(value: object) -> int:
    if amounts.is_off(value):
        return 0
    share = amounts.parse_share(value, "flow.holdback")
    if not 1 <= share <= _MOST_HELD_BP:
        raise _wrong('flow.holdback: a share of over 0% and at most 50%, or "none"')
    return share


def _preset(name: object) -> dict[str, Any]:
    if not isinstance(name, str) or name not in PRESETS:
        near = did_you_mean(str(name), PRESETS)
        raise _wrong(f'preset: no preset "{str(name)[:40]}"{near}')
    return copy.deepcopy(dict(PRESETS[name]))


def _ring(data: Mapping[str, Any], named: Mapping[str, GateSpec]) -> RingSpec:
    name = data.get("name")
    where = f"ring {name}" if isinstance(name, str) else "ring"
    _known(data, _RING_KEYS, where)
    found = [_gate(one, named, where) for one in _list(data, "gates", where)]
    if "soak" in data and not amounts.is_off(data["soak"]):
        amounts.parse_duration(data["soak"], f"{where}, soak")
        found.append(GateSpec(gate="soak", settings={"time": data["soak"]}))
    audience = data.get("audience", "rest")
    if not isinstance(audience, str):
        raise _wrong(f"{where}, audience: a query in quotes")
    try:
        written = str(query.parse_lasting(audience))
    except RequestError as error:
        detail = f"{where}, audience: {error.detail}"
        raise RequestError(error.code, detail, hint=error.hint) from error
    steps = data.get("steps", ["100%"])
    if not isinstance(steps, list) or not steps:
        raise _wrong(f'{where}, steps: shares, as in ["10%", "100%"]')
    shares = tuple(amounts.parse_share(one, f"{where}, steps") for one in steps)
    return _checked(
        {"name": name, "audience": written, "shares": shares or (ALL_BP,), "gates": found}, where
    )


def _checked(data: dict[str, Any], where: str) -> RingSpec:
    try:
        return msgspec.convert(data, RingSpec, strict=True)
    except msgspec.ValidationError as error:
        raise _wrong(f"{where}: {error}") from error


def _named_gates(entries: list[Any]) -> dict[str, GateSpec]:
    found: dict[str, GateSpec] = {}
    for entry in entries:
        table = dict(_table(entry, "gate"))
        name = table.pop("name", None)
        if not isinstance(name, str) or name in found:
            raise _wrong("gate: every [[gate]] has a name of its own")
        found[name] = _gate(table, {}, f"gate {name}")
    return found


def _gate(entry: object, named: Mapping[str, GateSpec], where: str) -> GateSpec:
    """Read a gate given by name, by type, or as a table with its settings; its settings are tried at once."""
    if isinstance(entry, str) and entry in named:
        return named[entry]
    if isinstance(entry, str) and entry not in gates.names():
        near = did_you_mean(entry, {*named, *gates.names()})
        raise _wrong(f'{where}, gates: no gate "{entry[:40]}"{near}')
    table: dict[str, Any] = (
        {"type": entry} if isinstance(entry, str) else dict(_table(entry, f"{where}, gates"))
    )
    kind = table.pop("type", None)
    if not isinstance(kind, str):
        raise _wrong(f"{where}, gates: a gate has a type: {', '.join(gates.names())}")
    gates.load(kind, table, where)
    return GateSpec(gate=kind, settings=table)


def _deadlines(data: Mapping[str, Any]) -> Deadlines:
    _known(data, _DEADLINE_KEYS, "deadlines")
    return Deadlines(
        start_s=_or_none(data.get("start", "none"), "deadlines.start"),
        finish_s=_or_none(data.get("finish", "none"), "deadlines.finish"),
        return_s=max(1, amounts.parse_duration(data["return"], "deadlines.return")),
        confirm_s=max(1, amounts.parse_duration(data["confirm"], "deadlines.confirm")),
    )


def caps(data: Mapping[str, Any], where: str) -> dict[str, int]:
    """Read how many devices that share an attribute, or are in a group, may be on their way at once.

    Args:
        data: attribute or `group:NAME` → a whole number, or `"none"`; untrusted.
        where: of the table, for the message.

    Raises:
        RequestError: `request.invalid`: an attribute that cannot be capped, or no number.
    """
    found: dict[str, int] = {}
    for name, value in data.items():
        own = name.startswith("attr.") and 5 < len(name) <= 69
        group = name.startswith(GROUP) and len(GROUP) < len(name) <= len(GROUP) + 64
        if name not in _CAPPED and not own and not group:
            known = f'there are {", ".join(_CAPPED)}, a device\'s own as "attr.NAME", or a group as "group:NAME"'
            near = nearest(name, _CAPPED)
            meant = f'; did you mean "{near}"?' if near else ""
            raise _wrong(f'{where}: "{name[:40]}" cannot be capped{meant}; {known}')
        most = _count(value, f"{where}.{name}")
        if most:
            found[name] = most
    return found


def _or_none(value: object, key: str) -> int:
    return 0 if amounts.is_off(value) else max(1, amounts.parse_duration(value, key))


def _retry(data: Mapping[str, Any]) -> Retry:
    reasons: dict[str, int] = {}
    for name, value in data.items():
        if name in _RETRY_KEYS:
            continue
        if name not in retry.MAY and not (is_reason(name) and family(name) in retry.MAY):
            near = did_you_mean(name, {*_RETRY_KEYS, *retry.MAY})
            known = ", ".join(sorted(retry.MAY))
            raise _wrong(f'retry: "{name[:40]}" is not tried again{near}; what may be: {known}')
        reasons[name] = _tries(value, f"retry.{name}")
    usual = Retry()
    budget = data.get("budget", "100%")
    return Retry(
        tries=_tries(data.get("tries", usual.tries), "retry.tries"),
        backoff_s=max(1, amounts.parse_duration(data.get("backoff", "1m"), "retry.backoff")),
        most_s=max(1, amounts.parse_duration(data.get("most", "1d"), "retry.most")),
        budget_bp=amounts.parse_share(budget, "retry.budget"),
        reasons=reasons,
    )


def _tries(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise _wrong(f"{key}: attempts in all, 1 to 100 (1 = never again)")
    return value


def _count(value: object, key: str) -> int:
    if amounts.is_off(value):
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(f'{key}: a whole number of devices, or "none"')
    return value


def _known(data: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in data:
        if key not in known:
            near = did_you_mean(str(key), known)
            raise _wrong(f'{where}: unknown key "{str(key)[:40]}"{near}')


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(f"{where}: a table was expected")
    return value


def _list(data: Mapping[str, Any], key: str, where: str = "") -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list | tuple):
        raise _wrong(f"{where}{', ' if where else ''}{key}: a list was expected")
    return list(value)


def _wrong(detail: str) -> RequestError:
    return RequestError("request.invalid", detail)
