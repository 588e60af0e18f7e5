"""What a person can choose for a new rollout, from the same presets that a policy file names. Pure."""

import copy
from collections.abc import Mapping
from typing import Any, Final

from tidegate.core import amounts
from tidegate.rollout import holdback, levels, presets
from tidegate.rollout.evidence.settings import PRESETS as HARM
from tidegate.rollout.model import RingSpec
from tidegate.server.web import words
from tidegate.server.web.views import PresetChoice

#: From the slowest to the fastest; `lab` is for trying things out and no choice for a fleet.
CHOICES: Final = ("careful", "normal", "fast", "emergency")
HOLDBACKS: Final = ("none", "0.5%", "1%", "2%", "5%")
LEVELS: Final = tuple((name, levels.MEANS[name]) for name in levels.LEVELS)
#: Fields that change what the preset says, and how long each may be.
MORE: Final = {
    "pilot": 1000,
    "steps": 200,
    "approval": 1,
    "activate": 400,
    "level": 20,
    "deadline": 40,
    "odds": 12,
    "failures": 10,
}
_MOST: Final = {
    "release": 128, "name": 128, "preset": 20, "audience": 1000, "holdback": 10, **MORE,
}  # fmt: skip
#: What stands in the form where nothing was sent.
_BEFORE: Final = {"preset": "normal", "holdback": "none"}


def sent(given: Mapping[str, str]) -> dict[str, str]:
    """Return every field of the form as it was sent (untrusted), cut to its length; others are passed over."""
    return {
        name: str(given.get(name, _BEFORE.get(name, "")))[:most] for name, most in _MOST.items()
    }


def policy_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the policy file that a form stands for; its values are untrusted, and checked as a file's are."""
    said = {key: fields.get(key, "").strip()[:most] for key, most in _MOST.items()}
    more = {key: said.pop(key) for key in MORE}
    held = said.pop("holdback")
    data: dict[str, Any] = {key: value for key, value in said.items() if value}
    if held:
        data["flow"] = {"holdback": held}
    written = presets.PRESETS.get(said["preset"] or "normal")
    if written is not None:  # else whoever reads the policy says so
        data |= _rings_of(written, more) | _guards_of(written, more)
    if more["activate"]:
        data["windows"] = {"activate": _parts(more["activate"], ";")}
    delivery = {key: more[key] for key in ("level", "deadline") if more[key]}
    if delivery:
        data["delivery"] = delivery
    return {**data, "draft": True} if fields.get("draft") else data


def _rings_of(written: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    """Return the rings of a preset as the form changes them: who the pilots are, the steps of the last ring, a person's word before each next ring."""
    if not (more["pilot"] or more["steps"] or more["approval"]):
        return {}
    rings = copy.deepcopy(list(written["ring"]))
    for ring in rings:
        if more["pilot"] and ring["name"] == "pilot":
            ring["audience"] = more["pilot"]
    if more["approval"]:
        for ring in rings[:-1]:
            ring["gates"] = [*ring["gates"], {"type": "approval"}]
    if more["steps"]:
        rings[-1]["steps"] = _parts(more["steps"], ",")
    return {"ring": rings}


def _guards_of(written: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    """Return the guards of a preset with other limits for the evidence."""
    said: dict[str, Any] = {key: more[key] for key in ("odds", "failures") if more[key]}
    if not said:
        return {}
    if more["odds"].isdecimal():
        said["odds"] = int(more["odds"])
    guards = copy.deepcopy(list(written["guards"]))
    return {"guards": [{**one, **said} if one.get("type") == "evidence" else one for one in guards]}


def _parts(text: str, mark: str) -> list[str]:
    return [one.strip() for one in text.split(mark) if one.strip()]


def choices() -> tuple[PresetChoice, ...]:
    """Return the presets and what each means."""
    return tuple(PresetChoice(name, _says(name)) for name in CHOICES)


def _says(name: str) -> tuple[str, ...]:
    """Write a preset's rings one by one, then what the evidence asks of all of them, then when it halts and for how long."""
    harm, policy = HARM[name], presets.preset(name)
    ages = [words.duration(gate.age_s) for gate in harm.soaks]
    early = f"{', '.join(ages[:-1])}{' and ' if ages[1:] else ''}{ages[-1]}" if ages else ""
    watched = holdback.watch_s(policy) or harm.watch_s
    return (
        *(_ring_says(ring) for ring in policy.rings),
        f"Grows as devices prove well after {early}."
        if early
        else "No proof by age; the halt stays on.",
        f"Halts at {words.odds(harm.odds)}; watched {words.duration(watched)} after completion.",
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
