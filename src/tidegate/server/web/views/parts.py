"""Parts that several pages show."""

from dataclasses import dataclass
from typing import Literal

from tidegate.server.web import charts, words
from tidegate.server.web.charts import Kind
from tidegate.server.web.words import Tone

Shares = tuple[tuple[Kind, int], ...]


@dataclass(frozen=True, slots=True)
class Odds:
    """Odds to 1 against a release or a part of its devices. Permits end `permits_end_pct` per cent of the way to `halts_at`; None = not known."""

    value: float
    halts_at: int
    permits_end_pct: int | None = None

    @property
    def text(self) -> str:
        """Write the odds."""
        return words.odds(self.value)

    @property
    def tone(self) -> Tone:
        """Colour them as the meter does."""
        if self.value >= self.halts_at:
            return "bad"
        return "warn" if self.value >= charts.EYES_AT else ""

    @property
    def spoken(self) -> str:
        """Say what the meter shows, for those who do not see it."""
        said = f"Odds {self.text}; halts at {words.odds(self.halts_at)}"
        return said if self.permits_end_pct is None else f"{said}, permits end at {self.stop_text}"

    @property
    def stop_text(self) -> str:
        """Write where permits end."""
        return words.odds(round(self.halts_at ** ((self.permits_end_pct or 0) / 100)))


@dataclass(frozen=True, slots=True)
class Fact:
    """A question with its answer: a big figure, perhaps a bar or a meter, and a sentence. `tone` colours the figure."""

    question: str
    big: str
    small: str = ""
    say: str = ""
    shares: Shares = ()
    tone: Tone = ""
    odds: Odds | None = None


@dataclass(frozen=True, slots=True)
class InboxRow:
    """Something that needs a person. `at` is since when; `end` names who has it, or is empty."""

    icon: str
    tone: Tone
    title: str
    href: str
    text: str
    at: int
    end: str = ""


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One line of a log: when, what, who. `code` is a reason or event code printed in mono after the text."""

    at: int
    icon: str
    tone: Tone
    text: str
    by: str = ""
    code: str = ""
    detail: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class TimelineGroup:
    """Lines that belong together: one update of a device, one day of an incident."""

    title: str
    rows: tuple[TimelineRow, ...]
    code: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A term with its value; `mono` prints the value as a person would type it, `note` stands faintly after it."""

    term: str
    value: str
    note: str = ""
    mono: bool = False
    href: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line or layer of a chart. `color` names a token of the style sheet."""

    label: str
    color: str
    y: tuple[float, ...]
    end: str = ""
    dash: bool = False
    step: bool = False
    width: float = 1.5


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that matters, as a dotted line with a word."""

    x: int
    label: str
    color: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time: at most 600 points. `finding` is the sentence for those who do not see it."""

    kind: Literal["stack", "lines"]
    x: tuple[int, ...]
    series: tuple[Series, ...]
    finding: str
    marks: tuple[Mark, ...] = ()
    log: bool = False
    unit: str = ""

    @property
    def drawable(self) -> bool:
        """Whether there are enough points for a line."""
        return len(self.x) > 1 and bool(self.series)


@dataclass(frozen=True, slots=True)
class BecauseRow:
    """A finding: what a gate saw against what it allows. `odds` where it saw odds: they are drawn on a logarithmic scale."""

    gate: str
    passed: bool
    text: str
    ring: str = ""
    variant: str = ""
    observed: float | None = None
    limit: float | None = None
    sample: int | None = None
    opens_at: int | None = None
    fails_above: bool = True
    odds: Odds | None = None


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A rollout in a list. `odds` where evidence is weighed, and it can still be halted."""

    name: str
    title: str
    sub: str
    state: str
    shares: Shares
    audience: int
    confirmed: int
    failed: int
    reverted: int
    lost: int
    because: str
    at: int
    active: bool = True
    state_text: str = ""  # in place of the state's own word
    odds: Odds | None = None


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """How many devices ended for one reason, and how they ended. `harm` is false for what is retried and says nothing against the release."""

    code: str
    words: str
    end: str
    devices: int
    harm: bool = True


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of the signed health contract."""

    name: str
    limit: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class VariantRow:
    """A hardware variant within a rollout."""

    name: str
    state: str
    attempts: int
    confirmed: int
    harmed: int
    top_reason: str = ""
