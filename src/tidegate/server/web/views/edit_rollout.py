"""The form that changes a rollout which runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EditField:
    """A field: as it was sent, and as it stands. `choices`: it is one of these; `fixed` says why it stays as it is."""

    name: str
    label: str
    value: str
    stands: str
    hint: str
    choices: tuple[str, ...] = ()
    fixed: str = ""

    @property
    def long(self) -> bool:
        """Whether it takes more than a line."""
        return max(len(self.value), len(self.stands)) > 50


@dataclass(frozen=True)
class EditRolloutPage:
    """The form as it was filled in, and what follows from it.

    `generation`: what it was filled in for. `text`: what would be done, empty until something differs; `asks`: a second person would have to approve it.
    `wider`: in which ways. `warnings`: what would speak against it then, and does not now. `stays`: what cannot be changed, and why. `problem` says
    what is wrong with the form.
    """

    now: int
    name: str
    state: str
    generation: int
    fields: tuple[EditField, ...]
    stays: tuple[tuple[str, str], ...] = ()
    changed: bool = False
    asks: bool = False
    wider: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""
