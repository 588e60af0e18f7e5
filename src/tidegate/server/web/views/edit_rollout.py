"""The form that changes a rollout which runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EditField:
    """A field: as it was sent, and as it stands."""

    name: str
    label: str
    value: str
    stands: str
    hint: str


@dataclass(frozen=True)
class EditRolloutPage:
    """The form as it was filled in, and what follows from it.

    `generation`: what it was filled in for. `text`: what would be done, empty until something differs; `asks`: a second person would have to approve it.
    `wider`: in which ways. `problem` says what is wrong with the form.
    """

    now: int
    name: str
    state: str
    generation: int
    fields: tuple[EditField, ...]
    changed: bool = False
    asks: bool = False
    wider: tuple[str, ...] = ()
    problem: str = ""
