"""What a person asks for when making a rollout: the parsed policy file as plain values, checked whole.

The policy proper is read by `rollout.presets`; here stand the parts that belong to the server: name, release, audience, start, windows, delivery.
"""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from tidegate.core import amounts, schedule
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import OFFLINE_PERMIT_MAX_S, DeliveryPolicy
from tidegate.rollout import cohort, presets
from tidegate.rollout.levels import LEVELS, MEANS
from tidegate.rollout.model import Policy

#: Keys of a policy file that are read here.
OWN_KEYS: Final = ("name", "release", "audience", "start", "draft", "windows", "delivery")
_WINDOW_KEYS: Final = ("download", "activate", "zone")
_DELIVERY_KEYS: Final = (
    "level", "rate", "activate", "tries", "deadline", "offline_permit", "retry_refused",
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_AUDIENCE_MAX: Final = 1000
#: Every whole hour from UTC-12 to UTC+14; these names count westward.
_ON_EARTH: Final = tuple(f"Etc/GMT{hours:+d}" for hours in range(-14, 13))


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that somebody asks for. `start_at` 0 = at once; `draft` = do not start."""

    name: str
    release: str
    audience: str
    policy: Policy
    delivery: DeliveryPolicy
    start_at: int = 0
    draft: bool = False


def draft_of(data: Mapping[str, Any]) -> Draft:
    """Read what was asked for.

    Args:
        data: the parsed file or request; untrusted.

    Raises:
        RequestError: `request.invalid`: the first mistake, with the nearest known word.
    """
    release = _text(data, "release")
    if not release:
        raise RequestError("request.invalid", "release: name the release")
    name = _text(data, "name") or release
    if not _NAME.fullmatch(name):
        raise RequestError("request.invalid", "name: 1 to 128 letters, digits and . _ -")
    written = audience_of(data)
    try:
        delivery = delivery_of(data)
        start_at = _start(data.get("start", "at once"))
    except ConfigError as error:
        raise RequestError("request.invalid", error.detail) from error
    policy = presets.policy_from_dict(data, also=OWN_KEYS)
    if data.get("delivery", {}).get("level") == "prefetch":
        policy = msgspec.structs.replace(policy, prefetch=True)
    draft = data.get("draft", False)
    if not isinstance(draft, bool):
        raise RequestError("request.invalid", "draft: true or false")
    return Draft(
        name=name,
        release=release,
        audience=written,
        policy=within(policy, written),
        delivery=delivery,
        start_at=start_at,
        draft=draft,
    )


def audience_of(data: Mapping[str, Any]) -> str:
    """Read whom a rollout means, in its normal form; empty = all of the product.

    Raises:
        RequestError: `request.invalid`.
    """
    audience = _text(data, "audience")
    try:
        return str(cohort.parse_lasting(audience)) if audience.strip() not in {"", "rest"} else ""
    except ConfigError as error:
        raise RequestError("request.invalid", error.detail) from error


def own_audience(ring: str, audience: str) -> str:
    """Return what a ring asks for by itself: its query without the rollout's audience that `within` folded into it; `rest` = whoever is left."""
    if not audience:
        return ring.strip() or "rest"
    if ring == audience:
        return "rest"
    head, tail = f"({audience}) and (", ")"
    return ring[len(head) : -len(tail)] if ring.startswith(head) and ring.endswith(tail) else ring


def within(policy: Policy, audience: str) -> Policy:
    """Fold the rollout's audience into every ring's, so that whoever looks at a ring sees who is meant.

    Raises:
        RequestError: `request.invalid`: both together are too long.
    """
    if not audience:
        return policy
    rings = []
    for ring in policy.rings:
        own = ring.audience.strip()
        both = audience if own in {"", "rest"} else f"({audience}) and ({own})"
        if len(both) > _AUDIENCE_MAX:
            raise RequestError("request.invalid", f"audience: with ring {ring.name}'s too long")
        rings.append(msgspec.structs.replace(ring, audience=both))
    return msgspec.structs.replace(policy, rings=tuple(rings))


def delivery_of(data: Mapping[str, Any]) -> DeliveryPolicy:
    """Read the tables `windows` and `delivery` of a policy file.

    Raises:
        RequestError: `request.invalid`. ConfigError: `config.invalid`: an amount that cannot be read.
    """
    windows = _table(data, "windows", _WINDOW_KEYS)
    delivery = _table(data, "delivery", _DELIVERY_KEYS)
    zone = windows.get("zone", "device")
    if not isinstance(zone, str):
        raise RequestError("request.invalid", "windows.zone: a name in quotes")
    if zone != "device":
        schedule.load_zone(zone, "windows.zone")
    activate = _windows(windows, "activate")
    usual = "window" if activate else "immediate"
    when = _choice(delivery.get("activate", "manual" if _level(delivery) == "offered" else usual))
    rate = delivery.get("rate", "none")
    tries = delivery.get("tries", 3)
    if isinstance(tries, bool) or not isinstance(tries, int) or not 1 <= tries <= 15:
        raise RequestError("request.invalid", "delivery.tries: 1 to 15")
    deadline = delivery.get("deadline", "none")
    again = delivery.get("retry_refused", False)
    if not isinstance(again, bool):
        raise RequestError("request.invalid", "delivery.retry_refused: true or false")
    return DeliveryPolicy(
        download_window=_windows(windows, "download"),
        activate_window=activate,
        zone=zone,
        bps_max=0 if amounts.is_off(rate) else amounts.parse_rate(rate, "delivery.rate"),
        activate=when,
        deadline=0 if amounts.is_off(deadline) else _instant(deadline, "delivery.deadline"),
        tries=tries,
        retry_refused=again,
        offline_permit_s=_offline_permit(delivery.get("offline_permit", "none")),
    )


def _level(delivery: Mapping[str, Any]) -> str:
    """Return the level that was asked for, or an empty text; what contradicts it is refused.

    Raises:
        RequestError: `request.invalid`.
    """
    level = delivery.get("level", "")
    if level == "":
        return ""
    if level not in LEVELS:
        near = did_you_mean(str(level), LEVELS)
        known = ", ".join(LEVELS)
        raise RequestError(
            "request.invalid", f"delivery.level: {str(level)[:40]!r}{near}; there are {known}"
        )
    by_owner = delivery.get("activate", "") == "manual"
    dated = not amounts.is_off(delivery.get("deadline", "none"))
    wrong = {
        "offered": "activate" in delivery and not by_owner,
        "required": by_owner or dated,
        "required-by": by_owner or not dated,
        "prefetch": by_owner,
    }
    if wrong[level]:
        text = f"delivery.level: {level} is {MEANS[level]}; activate and deadline say otherwise"
        raise RequestError("request.invalid", text)
    return str(level)


def _offline_permit(value: object) -> int:
    """Read for how long leave may be given ahead."""
    if amounts.is_off(value):
        return 0
    found = amounts.parse_duration(value, "delivery.offline_permit")
    if found > OFFLINE_PERMIT_MAX_S:
        limit = amounts.format_duration(OFFLINE_PERMIT_MAX_S)
        raise RequestError("request.invalid", f"delivery.offline_permit: at most {limit}")
    return found


def _choice(value: object) -> Literal["immediate", "window", "manual"]:
    match value:
        case "immediate":
            return "immediate"
        case "window":
            return "window"
        case "manual":
            return "manual"
        case _:
            known = ("immediate", "window", "manual")
            near = did_you_mean(str(value), known)
            raise RequestError("request.invalid", f"delivery.activate: {str(value)[:40]!r}{near}")


def _windows(table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table.get(key, "any")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise RequestError("request.invalid", f'windows.{key}: windows, as in ["02:00-05:00"]')
    if not schedule.parse_windows(texts, f"windows.{key}"):
        return ()
    return tuple(texts)


def opens_at(delivery: DeliveryPolicy, at: int) -> int:
    """Return when the activation window opens next from `at` on (unix seconds); 0 = any time. In a zone that only the device knows: for the first on Earth."""
    if not delivery.activate_window:
        return 0
    windows = schedule.parse_windows(delivery.activate_window)
    zones = _ON_EARTH if delivery.zone == "device" else (delivery.zone,)
    return min(schedule.next_open(windows, schedule.load_zone(one), at) or 0 for one in zones)


def _start(value: object) -> int:
    if value in {"at once", "now", 0, ""}:
        return 0
    return _instant(value, "start")


def _instant(value: object, key: str) -> int:
    """Return unix seconds of an integer or an RFC 3339 time."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
        return value
    if isinstance(value, dt.datetime):
        return int(value.timestamp())
    try:
        parsed = dt.datetime.fromisoformat(str(value))
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise RequestError(
            "request.invalid", f'{key}: "at once", or a time with its zone: "2026-12-24T02:00:00Z"'
        )
    return int(parsed.timestamp())


def _table(data: Mapping[str, Any], key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, Mapping):
        raise RequestError("request.invalid", f"{key}: a table was expected")
    for name in value:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise RequestError("request.invalid", f'{key}: unknown key "{str(name)[:40]}"{near}')
    return value


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise RequestError("request.invalid", f"{key}: text was expected")
    return value
