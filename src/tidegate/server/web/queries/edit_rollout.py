"""What of a rollout can be changed in a form, as it stands and as it was sent. Pure.

Only what differs from how it stands is a change: whoever opens the form and sends it changes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidegate.core.amounts import format_size
from tidegate.rollout import gate_texts, presets
from tidegate.server.amendments import Terms
from tidegate.server.drafts import own_audience
from tidegate.server.web.queries.new_rollout import CHOICES
from tidegate.server.web.views import EditField

_STEPS: Final = "steps."
_AUDIENCES: Final = "audiences."
_GATES: Final = "gates."
_MOST: Final = gate_texts.MOST
_AS_IT_IS: Final = "as it is"
_QUERY: Final = "A query, as on Devices; rest means all of the product."
_RING_QUERY: Final = "A query within the audience; rest means whoever is left."
_SAY_GATES: Final = "As in minimum_sample healthy=50; soak time=24h, or none. Taking one out asks for a second person."
_IS_FIXED: Final = "Fixed: it is a snapshot (dynamic = false), and means the devices that matched when it was made."
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
    fields = [
        ("preset", "Preset", "Steps, gates and guards of another preset; who is meant stays."),
        ("audience", "Audience", _QUERY),
    ]
    for one in terms.policy.rings:
        fields += [
            (f"{_AUDIENCES}{one.name}", f"Who is in {one.name}", _RING_QUERY),
            (f"{_STEPS}{one.name}", f"Steps of {one.name}", "What is open of it stays open."),
            (f"{_GATES}{one.name}", f"Gates of {one.name}", _SAY_GATES),
        ]
    fields.append(("guards", "Guards", "Gates that hold for every ring, in the same way."))
    return tuple(
        EditField(
            name,
            label,
            str(sent.get(name, now[name]))[:_MOST],
            now[name],
            hint,
            choices=_presets_of(terms) if name == "preset" else (),
            fixed=_IS_FIXED if terms.fixed and name.startswith("audience") else "",
        )
        for name, label, hint in (*fields, *_FIELDS)
    )


def stays(terms: Terms) -> tuple[tuple[str, str], ...]:
    """Return what no form and no call changes, and why."""
    rings = ", ".join(one.name for one in terms.policy.rings)
    found = [
        ("Release", f"{terms.release}: what is on its way is counted for it. Another release is another rollout."),
        ("Name", "Devices, incidents and the audit log know it by that."),
    ]  # fmt: skip
    if terms.begun:
        found.append(
            (
                "Rings",
                f"{rings}: their names and order. Devices are counted by them since it began.",
            )
        )
    if terms.fixed:
        found.append(("Who is meant", _IS_FIXED))
    return tuple(found)


def parts_of(terms: Terms, sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a policy file that a form changes; its values are untrusted, and checked as a file's are.

    Raises:
        RequestError: `request.invalid`: gates that cannot be read.
    """
    parts: dict[str, Any] = {}
    for name, value in _changed(terms, sent):
        if name.startswith(_STEPS):
            parts.setdefault("steps", {})[name.removeprefix(_STEPS)] = _split(value, ",")
        elif name.startswith(_AUDIENCES):
            parts.setdefault("audiences", {})[name.removeprefix(_AUDIENCES)] = value or "rest"
        elif name.startswith(_GATES):
            ring = name.removeprefix(_GATES)
            parts.setdefault("gates", {})[ring] = gate_texts.read(value, f"gates of {ring}")
        elif name == "guards":
            parts[name] = gate_texts.read(value, "guards")
        elif name in {"preset", "audience"}:
            parts[name] = value
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
    found = {"preset": _AS_IT_IS, "audience": terms.audience or "rest"}
    for one in policy.rings:
        found[f"{_AUDIENCES}{one.name}"] = own_audience(one.audience, terms.audience)
        found[f"{_STEPS}{one.name}"] = ", ".join(f"{share / 100:g}%" for share in one.shares)
        found[f"{_GATES}{one.name}"] = gate_texts.write(one.gates)
    return found | {
        "guards": gate_texts.write(policy.guards),
        "in_flight": str(policy.at_once or "none"),
        "first": str(policy.first or "none"),
        "activate": "; ".join(delivery.activate_window) or "any",
        "download": "; ".join(delivery.download_window) or "any",
        "rate": f"{format_size(delivery.bps_max)}/s" if delivery.bps_max else "none",
        "priority": str(policy.priority),
    }


def _presets_of(terms: Terms) -> tuple[str, ...]:
    """Return the presets with the same rings: others make another rollout."""
    names = [one.name for one in terms.policy.rings]
    able = (name for name in CHOICES if [one.name for one in presets.preset(name).rings] == names)
    return (_AS_IT_IS, *able)


def _split(text: str, mark: str) -> list[str]:
    return [one.strip() for one in text.split(mark) if one.strip()]
