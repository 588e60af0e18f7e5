"""What a person can choose for a new rollout, from the same presets that a policy file names. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.core import amounts
from tidegate.rollout import holdback, presets
from tidegate.rollout.evidence.settings import PRESETS as HARM
from tidegate.rollout.model import RingSpec
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
    """Write a preset's rings one by one, then what the evidence asks of all of them, then the watch."""
    harm, policy = HARM[name], presets.preset(name)
    ages = [words.duration(gate.age_s) for gate in harm.soaks]
    early = f"{', '.join(ages[:-1])}{' and ' if ages[1:] else ''}{ages[-1]}" if ages else ""
    watched = holdback.watch_s(policy) or harm.watch_s
    return (
        *(_ring_says(ring) for ring in policy.rings),
        f"Grows as devices prove well after {early}."
        if early
        else "No proof by age; the halt stays on.",
        f"Watched {words.duration(watched)} after that.",
    )


def _ring_says(ring: RingSpec) -> str:
    """Write what a ring's steps are, and what each of them waits for."""
    settings = {gate.gate: gate.settings for gate in ring.gates}
    waits = []
    if healthy := settings.get("minimum_sample", {}).get("healthy"):
        waits.append(f"{healthy} healthy")
    if time := settings.get("soak", {}).get("time"):
        waits.append(words.duration(amounts.parse_duration(time, "soak")))
    steps = [f"{share / 100:g}{words.NBSP}%" for share in ring.shares]
    way = f"{', '.join(steps)}; each " if steps[1:] else ""
    wait = f"waits for {' and '.join(waits)}" if waits else "waits for nothing"
    return f"{ring.name.capitalize()}: {way}{wait}."
