"""The form for a new rollout: what is asked for, what each preset means, and whom it would reach."""

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.server.reach import Reach
from tidegate.server.web.views.releases import ReleaseRow


@dataclass(frozen=True, slots=True)
class PresetChoice:
    """A preset with its consequences: how it goes forward, what is waited for, and how long it is watched afterwards."""

    name: str
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewRolloutPage:
    """The form as it was filled in, and what follows from it.

    `sent`: every field by its name, `changed`: one of those that change what the preset says was filled in. `reach` is None until a release was chosen;
    `problem` says what is wrong with the form.
    """

    now: int
    releases: tuple[ReleaseRow, ...]
    presets: tuple[PresetChoice, ...]
    holdbacks: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]
    sent: Mapping[str, str]
    changed: bool = False
    release: str = ""
    name: str = ""
    preset: str = "normal"
    audience: str = ""
    holdback: str = "none"
    reach: Reach | None = None
    variants: tuple[str, ...] = ()
    problem: str = ""
