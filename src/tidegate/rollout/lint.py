"""What speaks against a rollout before it starts, from its policy and whom it would reach. Pure; each finding has a stable code.

An `error` keeps it from being made, a `warning` has to be confirmed by a person, a `note` is told. Figures about detection are expectations: how many devices
an update reaches until the evidence gate halts it at its odds (10.6 nats and more, over the information that one device gives), and with baselines that are
assumed as long as a fleet has no history. They say what a gate can do at best, and nothing about a release.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from tidegate.core.amounts import format_duration, format_size, parse_duration
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout import gates, query
from tidegate.rollout.evidence.settings import DELTAS_PPM, MILLION, Harm
from tidegate.rollout.gates.evidence import Weighed
from tidegate.rollout.model import ALL_BP, Policy, RingSpec

Level = Literal["error", "warning", "note"]

#: Devices that go dark within an hour of a reboot without any fault of the update, as long as a fleet has no history.
SILENCE: Final = 0.003
#: Brick rates that a note speaks of.
_RATES: Final = (0.01, 0.1, 1.0)
#: A first step beyond this many devices and this share of them, with nothing that holds permits back, is worth a warning.
_BIG: Final = 1_000
_BIG_SHARE: Final = 0.1
_MONTH_S: Final = 30 * 86_400


class Lint(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `code` is stable."""

    code: str
    level: Level
    text: str


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """Another rollout that would serve some of the same devices. `first`: whether it goes before this one; `ends`: this one supersedes it when it starts."""

    rollout: str
    release: str
    devices: int
    first: bool
    ends: bool = False


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a rollout would reach and under which conditions.

    `offered`: ring → variant → devices. `payload`: bytes of one device's download, `rate` what the server's budget allows a second (0 = no bound).
    `starts_at`, `deadline` in unix seconds (0 = none), `opens_at` when its activation window opens next (0 = any time). `security`: every artifact is of a
    security release, the only one that a deadline binds. `warm_up_s`: for how long a device has to be healthy before it confirms (0 = not known).
    """

    offered: Mapping[str, Mapping[str, int]]
    starts_at: int
    deadline: int = 0
    opens_at: int = 0
    security: bool = False
    warm_up_s: int = 0
    payload: int = 0
    rate: int = 0
    conflicts: tuple[Conflict, ...] = ()
    #: Names of the groups that there are; None = not looked up.
    groups: frozenset[str] | None = None

    @property
    def devices(self) -> int:
        """How many devices would be offered the release."""
        return sum(sum(one.values()) for one in self.offered.values())


def lint(policy: Policy, scope: Scope) -> tuple[Lint, ...]:
    """Return what is to be said, errors first."""
    found = [
        *_timing(policy, scope),
        *_rings(policy, scope),
        *_conflicts(scope),
        *_whom(policy),
        *_groups(policy, scope),
        *_detection(policy, scope.devices),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda one: order[one.level]))


def soak_s(policy: Policy, offered: Mapping[str, Mapping[str, int]]) -> int:
    """Return the least time that soak takes, in seconds: of every step of every ring that has devices, or beside that of the evidence gate."""
    rings = sum(
        _soak_of(ring) * len(ring.shares)
        for ring in policy.rings
        if sum(offered.get(ring.name, {}).values())
    )
    harm = _harm(policy)
    return max(rings, max((one.age_s for one in harm.soaks), default=0) if harm else 0)


def devices_until_seen(excess: float, harm: Harm, baseline: float = SILENCE) -> float:
    """Return how many devices get an update, in expectation, until its silence halts the rollout.

    Args:
        excess: share of devices that it bricks, 0..1.
        harm: what the gate tolerates and how sure it must be.
        baseline: share that goes dark anyway.

    Returns:
        A number ≥ 1; infinite for what is tolerated.
    """
    allowed = baseline + harm.extra_silence_ppm / MILLION
    actual = min(1.0, baseline + excess)
    if actual <= allowed:
        return math.inf
    told = actual * math.log(actual / allowed)
    if actual < 1:
        told += (1 - actual) * math.log((1 - actual) / (1 - allowed))
    return max(1.0, _nats(harm) / told)


def least_seen(devices: int, harm: Harm) -> float | None:
    """Return the least brick rate that a fleet of this size can show before all of it has the update; None when it cannot show any."""
    if devices_until_seen(1.0, harm) > devices:
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if devices_until_seen(middle, harm) > devices:
            low = middle
        else:
            high = middle
    return high


def _nats(harm: Harm) -> float:
    """Return the evidence that the silence of the whole fleet needs, in nats: the odds, over its share of the wealth and of each alternative."""
    streams = harm.streams
    named = (streams.failure, streams.silence, streams.crash, streams.dark)
    whole = sum((*named, streams.crash_rate, streams.dark_rate, *streams.metric))
    strata = harm.strata
    parts = strata.fleet + strata.variants + strata.singles + strata.pairs
    share = streams.silence / whole * strata.fleet / parts / len(DELTAS_PPM)
    return math.log(harm.odds / share) if share else math.inf


def _timing(policy: Policy, scope: Scope) -> Iterator[Lint]:
    end = scope.deadline
    if end and end <= scope.starts_at:
        yield _error("lint.deadline_past", "delivery.deadline lies before the start")
    elif end and scope.opens_at > end:
        text = "the activation window opens only after delivery.deadline"
        if scope.security:
            yield _note("lint.window_late", f"{text}: at that date all activate, outside of it")
        else:
            yield _warning(
                "lint.window_late",
                f"{text}, which binds security releases only: nobody activates by then",
            )
    confirm_s = policy.deadlines.confirm_s
    if scope.warm_up_s >= confirm_s:
        warm_up = format_duration(scope.warm_up_s)
        text = f"a healthy device confirms after a warm-up of {warm_up}, and counts as lost, which is a failure, after {format_duration(confirm_s)}"
        yield _warning("lint.confirm_short", f"{text} (deadlines.confirm)")
    soak = soak_s(policy, scope.offered)
    total = scope.payload * scope.devices
    carry_s = -(-total // scope.rate) if scope.rate else 0
    took_s = max(soak, carry_s)
    if total:
        budget = (
            f", {format_duration(carry_s)} at {format_size(scope.rate)}/s" if scope.rate else ""
        )
        text = (
            f"{format_size(total)} to carry at most{budget}; the soaks take {format_duration(soak)}"
        )
        yield _note(
            "lint.duration", f"at least {format_duration(took_s)} until all have it: {text}"
        )
    if carry_s > _MONTH_S:
        text = f"the budget of bytes carries it in no less than {format_duration(carry_s)}"
        yield _warning("lint.egress", text)
    if end > scope.starts_at and scope.starts_at + took_s > end:
        left = format_duration(end - scope.starts_at)
        text = f"it takes at least {format_duration(took_s)}, and delivery.deadline is in {left}"
        yield _warning("lint.deadline_short", text)


def _rings(policy: Policy, scope: Scope) -> Iterator[Lint]:
    if not scope.devices:
        yield _warning("lint.nobody", "no device would be offered this release")
        return
    seen: set[str] = set()
    for ring in policy.rings:
        variants = {
            name: count for name, count in scope.offered.get(ring.name, {}).items() if count
        }
        if not variants:
            only = query.confined_to(query.parse(ring.audience), "group")
            gone = sorted(only - scope.groups) if scope.groups is not None else []
            why = f": there is no group {', '.join(gone)}" if gone else ""
            yield _note("lint.ring_empty", f"ring {ring.name} has no device{why}")
            continue
        for name in sorted(variants.keys() - seen if seen else ()):
            text = f"{name}: ring {ring.name} is their first, with {variants[name]:,} devices"
            yield _warning("lint.no_canary", text)
        if not seen:
            yield from _first_step(policy, ring, sum(variants.values()), scope.devices)
        seen |= variants.keys()


def _whom(policy: Policy) -> Iterator[Lint]:
    """Say what the queries mean over time."""
    if not policy.dynamic:
        yield _note("lint.snapshot", "whom it means is fixed when it is made; newcomers are out")
    elif any("seen" in query.parse(ring.audience).names for ring in policy.rings):
        text = "a device that asks was heard just now, so `seen` keeps nobody out or everybody: make it a snapshot (dynamic = false)"
        yield _warning("lint.seen", text)


def _groups(policy: Policy, scope: Scope) -> Iterator[Lint]:
    """Say which groups are named that there are not: a slip in `not group:frozen` lets everybody in whom it was to keep out."""
    missing: dict[str, list[str]] = {}
    for ring in policy.rings if scope.groups is not None else ():
        asked = query.parse(ring.audience)
        only = query.confined_to(asked, "group")
        for name in sorted(query.named(asked, "group") - (scope.groups or frozenset())):
            # A ring of a group alone that is not there is empty, and that is told of the ring.
            if name not in only or scope.offered.get(ring.name):
                missing.setdefault(name, []).append(ring.name)
    for name, rings in missing.items():
        near = did_you_mean(name, scope.groups or ())
        text = f"there is no group {name} (ring {', '.join(rings)}): nobody is in it, and `not group:{name}` keeps nobody out{near}"
        yield _warning("lint.no_group", text)


def _first_step(policy: Policy, ring: RingSpec, devices: int, all_devices: int) -> Iterator[Lint]:
    opened = devices * ring.shares[0] // ALL_BP
    held = policy.first or policy.at_once or _harm(policy) is not None
    if not held and opened >= _BIG and opened > _BIG_SHARE * all_devices:
        text = (
            f"ring {ring.name} lets {opened:,} devices go before anything is known: set flow.first"
        )
        yield _warning("lint.big_step", text)


def _conflicts(scope: Scope) -> Iterator[Lint]:
    for one in scope.conflicts:
        whom = f"{one.devices:,} of these devices are also in {one.rollout} ({one.release})"
        if one.ends:
            yield _note("lint.supersedes", f"{whom}, which ends when this one starts")
        elif one.first:
            text = f"{whom}, which goes first; give this one a higher priority to change that"
            yield _warning("lint.conflict", text)
        else:
            yield _note("lint.goes_first", f"{whom}; this one goes first")


def _detection(policy: Policy, devices: int) -> Iterator[Lint]:
    harm = _harm(policy)
    if harm is None:
        if not policy.guards and not any(ring.gates for ring in policy.rings):
            yield _warning("lint.no_guard", "nothing stops it by itself: it has no guard")
        return
    if not devices:
        return
    told = [
        f"{rate:.0%} about {_round(devices_until_seen(rate, harm)):,}"
        for rate in _RATES
        if devices_until_seen(rate, harm) <= devices
    ]
    if told:
        text = f"devices that a brick rate would reach before it is stopped: {', '.join(told)}"
        yield _note("lint.detection", text)
    least = least_seen(devices, harm)
    if least is None:
        text = f"{devices:,} devices are too few for evidence: rely on rings, soaks and people"
        yield _warning("lint.small", text)
    elif least > _RATES[0]:
        text = f"with {devices:,} devices, fewer bricks than about {least:.0%} cannot be told from chance"
        yield _note("lint.small", text)


def _harm(policy: Policy) -> Harm | None:
    """Return what the policy's evidence gate tolerates; None when it has none."""
    for spec in policy.guards:
        loaded = gates.of_spec(spec, "guards")
        if isinstance(loaded, Weighed):
            return loaded.harm
    return None


def _soak_of(ring: RingSpec) -> int:
    times = [spec.settings.get("time", "24h") for spec in ring.gates if spec.gate == "soak"]
    try:
        return max((parse_duration(one, "soak") for one in times), default=0)
    except ConfigError:
        return 0  # that is the gate's own mistake, and named there


def _round(number: float) -> int:
    """Return two figures of a number: it is an expectation."""
    digits = max(0, math.floor(math.log10(number)) - 1)
    step: int = 10**digits
    return round(number / step) * step


def _error(code: str, text: str) -> Lint:
    return Lint(code=code, level="error", text=text)


def _warning(code: str, text: str) -> Lint:
    return Lint(code=code, level="warning", text=text)


def _note(code: str, text: str) -> Lint:
    return Lint(code=code, level="note", text=text)
