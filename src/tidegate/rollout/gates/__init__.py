"""Gates: one file each; the file's name is the name in a policy.

A gate file has `SETTINGS` (name → `limits.Setting`), `create(**settings) -> Gate`, and a frozen dataclass of limits with `judge(view, now) -> Finding`.
Its module docstring is its page in the reference. A gate that only lets time, people or numbers come (`soak`, `approval`, `minimum_sample`) holds a ring's
step back. A gate that finds harm (`stops` is true: `failure_rate`, `metric`) halts the rollout, or has the variant isolated that alone is to blame; as a
guard it is judged at every decision, long after completion.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.limits import Setting, Value, read_settings
from tidegate.rollout.model import Finding, GateSpec
from tidegate.rollout.view import View


@runtime_checkable
class Gate(Protocol):
    """Limits, and how they are judged. Pure: the same view and time give the same finding."""

    @property
    def stops(self) -> bool:
        """Say whether failing means harm (halt or isolate), not just waiting."""
        ...

    def judge(self, view: View, now: int) -> Finding:
        """Judge what is in view at `now` (unix seconds). More harm never turns a failed finding into a passed one."""
        ...

    def calm(self, view: View) -> bool:
        """Say whether there is proof enough that what is in view is well: a variant is isolated only while all others are calm.

        Only asked of gates that stop.
        """
        ...


class _Module(Protocol):
    SETTINGS: Mapping[str, Setting]

    def create(self, **settings: Value) -> Gate: ...


def names() -> tuple[str, ...]:
    """Return the names of all gates, sorted: the files of this folder."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def settings_of(name: str) -> Mapping[str, Setting]:
    """Return what may be set on a gate, by name: for forms, help and documentation.

    Raises:
        RequestError: `request.invalid`: no such gate.
    """
    return _module(name, "gate").SETTINGS


def load(name: str, settings: Mapping[str, object], where: str = "") -> Gate:
    """Return a gate with its limits.

    Args:
        name: untrusted; must be one of `names()`.
        settings: untrusted; amounts as written, `{"max": "2%"}`.
        where: which ring, for messages.

    Raises:
        RequestError: `request.invalid`: unknown gate or setting, or a bad value; names the nearest.
    """
    key = f"{where}, gate {name}" if where else f"gate {name}"
    module = _module(name, key)
    return module.create(**read_settings(module.SETTINGS, settings, key))


def of_spec(spec: GateSpec, where: str = "") -> Gate:
    """Return the gate that a policy names; cached, since policies rarely change.

    Raises:
        RequestError: `request.invalid`, as `load`.
    """
    return _cached(spec.gate, msgspec.json.encode(spec.settings, order="sorted"), where)


@lru_cache(maxsize=1024)
def _cached(name: str, settings: bytes, where: str) -> Gate:
    return load(name, msgspec.json.decode(settings, type=dict[str, int | float | str]), where)


def _module(name: str, key: str) -> _Module:
    if name not in names():
        raise RequestError("request.invalid", f"{key}: no such gate{did_you_mean(name, names())}")
    return cast("_Module", importlib.import_module(f"{__name__}.{name}"))
