"""What a person can choose for a new rollout, from the same presets that a policy file names. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.rollout import holdback, presets
from tidegate.rollout.evidence.settings import HOUR_S
from tidegate.rollout.evidence.settings import PRESETS as HARM
from tidegate.server.web import words
from tidegate.server.web.views import PresetChoice

#: From the slowest to the fastest; `lab` is for trying things out and no choice for a fleet.
CHOICES: Final = ("careful", "normal", "fast", "emergency")
HOLDBACKS: Final = ("none", "0.5%", "1%", "2%", "5%")
_MOST: Final = {"release": 128, "name": 128, "preset": 20, "audience": 1000, "holdback": 10}


def policy_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the policy file that a form stands for; its values are untrusted, and checked as a file's are."""
    said = {key: fields.get(key, "").strip()[:most] for key, most in _MOST.items()}
    held = said.pop("holdback")
    data: dict[str, Any] = {key: value for key, value in said.items() if value}
    if held:
        data["flow"] = {"holdback": held}
    return {**data, "draft": True} if fields.get("draft") else data


def choices() -> tuple[PresetChoice, ...]:
    """Return the presets and what each means."""
    return tuple(PresetChoice(name, _says(name)) for name in CHOICES)


def _says(name: str) -> tuple[str, ...]:
    harm, policy = HARM[name], presets.preset(name)
    ages = [str(gate.age_s // HOUR_S) for gate in harm.soaks]
    soaks = f"Soaks {', '.join(ages[:-1])}{' and ' if ages[1:] else ''}{ages[-1]} h" if ages else ""
    steps = ", ".join(f"{share / 100:g}{words.NBSP}%" for share in policy.rings[-1].shares)
    watched = holdback.watch_s(policy) or harm.watch_s
    return (
        f"{soaks}; then more." if soaks else "No soak; the halt stays on.",
        f"Last ring in {words.plural(len(policy.rings[-1].shares), 'step')}: {steps}.",
        f"Watched {words.duration(watched)} after that.",
    )
