"""What of a rollout can be changed in a form, as it stands and as it was sent. Pure.

Only what differs from how it stands is a change: whoever opens the form and sends it changes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidegate.core.amounts import format_size
from tidegate.server.amendments import Terms
from tidegate.server.web.views import EditField

_STEPS: Final = "steps."
_MOST: Final = 1000
_FIELDS: Final = (
    ("in_flight", "Permits out at once", "A number, or none."),
    ("first", "Before anything is proved", "A number, or none."),
    ("activate", "Activates in", "Windows, by each device's own clock: Sat 02:00-05:00; Sun 02:00-05:00"),
    ("download", "Downloads in", "The same, or any."),
    ("rate", "Rate", "Of each device, as 1MiB/s, or none."),
    ("priority", "Priority", "Of several rollouts for one device the highest goes first."),
)  # fmt: skip


def fields_of(terms: Terms, sent: Mapping[str, str]) -> tuple[EditField, ...]:
    """Return the fields of the form as they were sent (untrusted), or as they stand."""
    now = _stands(terms)
    rings = [
        (f"{_STEPS}{one.name}", f"Steps of {one.name}", "What is open of it stays open.")
        for one in terms.policy.rings
    ]
    return tuple(
        EditField(name, label, str(sent.get(name, now[name]))[:_MOST], now[name], hint)
        for name, label, hint in (*rings, *_FIELDS)
    )


def parts_of(terms: Terms, sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a policy file that a form changes; its values are untrusted, and checked as a file's are."""
    parts: dict[str, Any] = {}
    for name, value in _changed(terms, sent):
        if name.startswith(_STEPS):
            parts.setdefault("steps", {})[name.removeprefix(_STEPS)] = _split(value, ",")
        elif name in {"in_flight", "first"}:
            parts.setdefault("flow", {})[name] = int(value) if value.isdecimal() else value
        elif name == "priority":
            parts[name] = int(value) if value.removeprefix("-").isdecimal() else value
        elif name == "rate":
            parts.setdefault("delivery", {})[name] = value or "none"
        else:
            windows = _split(value, ";")
            parts.setdefault("windows", {})[name] = "any" if windows in ([], ["any"]) else windows
    return parts


def _changed(terms: Terms, sent: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, stands in _stands(terms).items():
        value = str(sent.get(name, stands))[:_MOST].strip()
        if value != stands:
            yield name, value


def _stands(terms: Terms) -> dict[str, str]:
    policy, delivery = terms.policy, terms.delivery
    found = {
        f"{_STEPS}{one.name}": ", ".join(f"{share / 100:g}%" for share in one.shares)
        for one in policy.rings
    }
    return found | {
        "in_flight": str(policy.at_once or "none"),
        "first": str(policy.first or "none"),
        "activate": "; ".join(delivery.activate_window) or "any",
        "download": "; ".join(delivery.download_window) or "any",
        "rate": f"{format_size(delivery.bps_max)}/s" if delivery.bps_max else "none",
        "priority": str(policy.priority),
    }


def _split(text: str, mark: str) -> list[str]:
    return [one.strip() for one in text.split(mark) if one.strip()]
