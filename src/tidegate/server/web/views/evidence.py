"""What is known against a rollout: the meter, the proof of health, who may go, and what all of it is measured by."""

from dataclasses import dataclass

from tidegate.server.web.views.parts import Odds
from tidegate.server.web.words import Tone


@dataclass(frozen=True, slots=True)
class NeedleRow:
    """One needle: whose devices, or which stream; `note` says what carries it. `isolated`: kept out by now."""

    name: str
    odds: Odds
    note: str = ""
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class NeedleGroup:
    """Needles under one heading."""

    title: str
    rows: tuple[NeedleRow, ...]


@dataclass(frozen=True, slots=True)
class ProofRow:
    """Proof of health at one age: how many are past it, how much worse it could still be at most, and from which bound on the gate is open.

    `worst` and `limit` are shares. `state` is a code of `words.STATES`, `note` says what it waits for.
    """

    age: str
    devices: int
    lost: int
    worst: float
    limit: float
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class LimitRow:
    """Something that limits speed: how many more may go now for its sake. `portion` of its bar, 0 to 1 on a logarithmic scale. `ring`: the open step."""

    name: str
    room: int
    portion: float
    note: str = ""
    ring: bool = False


@dataclass(frozen=True, slots=True)
class PermitRow:
    """How many more permits a part of the devices may get until the next decision. `capped`: it is a part with odds against it, not a variant."""

    name: str
    room: int
    odds: Odds | None = None
    because: str = ""
    capped: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class NormalRow:
    """What is normal for a variant or a class of devices, and what is let pass on top; shares."""

    name: str
    share: float
    allowed: float


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """The evidence against one rollout.

    Attributes:
        odds: of everything together.
        verdict: what was decided last: `go`, `isolate` or `halt`; `at` when.
        groups: needles of the meter.
        proof: by age, youngest first.
        limits: what limits the speed, lowest first; `limit_text` is the gate's own word.
        permits: variants first, then parts with odds against them.
        room: permits of all variants together.
        at_worst: devices out of `exposed` that could still be lost.
        failures, silences: what is normal; `assumed` without a history.
        gaps: what cannot be proved in a fleet of this size.
        held_back: a part of the last ring that is kept to compare with, and until when (unix seconds); empty = none now.
        rests_on: how much was weighed, for the footer.
    """

    odds: Odds
    verdict: str
    at: int
    groups: tuple[NeedleGroup, ...] = ()
    proof: tuple[ProofRow, ...] = ()
    limits: tuple[LimitRow, ...] = ()
    limit_text: str = ""
    permits: tuple[PermitRow, ...] = ()
    room: int = 0
    at_worst: int = 0
    exposed: int = 0
    failures: tuple[NormalRow, ...] = ()
    silences: tuple[NormalRow, ...] = ()
    assumed: bool = False
    gaps: tuple[str, ...] = ()
    rests_on: str = ""
    watch: str = ""
    held_back: str = ""
    held_until: int = 0

    @property
    def tone(self) -> Tone:
        """Colour the state of the evidence."""
        return "bad" if self.verdict != "go" else self.odds.tone
