"""The gate for anybody's rollout: lines about devices in, lines with decisions out. Pure; `tidegate gate` reads and prints them.

One JSON object a line, told apart by `what`; times are unix seconds of whoever watches all devices, and never go back by more than they are late:

| `what` | says | fields |
|---|---|---|
| `begin` | the first line: what is tolerated, what was normal before | `at`, `preset`, `settings`, `attributes`, `history`, `silence` |
| `device` | a device that is not updated; those before the first other line are the fleet | `at`, `device`, `values`, `site` |
| `seen` | a sign of life, of any device | `at`, `device` |
| `permit` | the device was let go: from here on it is at risk | `at`, `device` |
| `refund` | it did not go, and not because something failed | `at`, `device` |
| `failed` | install, boot or warm-up failed, or it went back before it was healthy | `at`, `device` |
| `confirmed` | it runs the release and is healthy | `at`, `device` |
| `crashed` | it crashed, or went back by itself, later; also one that is not updated | `at`, `device` |
| `measured` | what a device measured of itself in the `seconds` before, also one that is not updated | `at`, `device`, `metric`, `seconds`, `count` or `mean` |
| `tick` | nothing happened, and time went by | `at` |

**Whose time it is.** Times are the watcher's, but where they are taken over from devices one of them may be wrong. So a line that runs ahead by more than an
hour is kept until a `tick`, or a line of another device, is there, too: one device alone cannot let the gate's time go on. In a fleet of one or two there is
nobody to ask.

`preset`: `careful`, `normal`, `fast`, `emergency`. `settings`: those of the [evidence guard](gates.md#evidence), as `{"odds": 10000, "metrics":
"errors,-battery"}`: at what it stops, what is tolerated, and which metrics are compared, with a `-` where less is worse. `attributes`: names, `variant`
the first; whose `region` and `class` are told is compared with its like. `values`: one text an attribute. `history`: a list, oldest first, of `{variant:
[failures, first attempts]}`. `silence`: `{class: share}`, 0.003 = 0.3 %. `count`: what was counted in those seconds; `mean`: what a gauge showed, on the
average; `null`, and a metric not named, book nothing.

Out comes a decision each time that something in it changed, at most one a quarter of an hour: `verdict` (`go`, `hold`, `isolate`, `halt`), `odds` to 1 against
the release, `permits` = how many more devices of each variant may go now, `caps` = at most so many of those in a part of the fleet that has odds against it,
`limits` = what limits the speed, `at_worst` = how many could still be lost, `because` in words. **A halt is for good**: what comes after it is still weighed,
and nothing is permitted. **On hold**, the fleet is too small for evidence to stop the release or to let it go on, and `because` says what is bad: a person
decides.
"""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.evidence.baseline import from_history
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS, Harm
from tidegate.rollout.evidence.strata import USUAL, VARIANT, divide
from tidegate.rollout.evidence.watch import Watch
from tidegate.rollout.gates.evidence import SETTINGS, create, held, meter
from tidegate.rollout.limits import read_settings

#: Longest line, in bytes.
LINE_MAX: Final = 1 << 20
#: Time may not jump further than this in one line: a wrong clock would be taken for months of silence.
JUMP_MAX_S: Final = 60 * DAY_S
#: One device may be ahead of all others by so much.
AHEAD_S: Final = HOUR_S
#: Devices of a fleet in which one can be asked about another.
_ASKED: Final = 3
#: Lines that are kept because they run ahead, at most; the earliest of more are not taken.
_KEPT_MAX: Final = 10_000

At = Annotated[int, Meta(ge=0, le=2**53)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Value = Annotated[str, Meta(max_length=200)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=10**9)]


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="what", forbid_unknown_fields=True):  # fmt: skip
    at: At


class Begin(_Line, frozen=True, kw_only=True):
    """`settings` = of the evidence guard, but for its preset. `history` = (failures, first attempts) by variant, of earlier releases, oldest first.

    `silence` = share that falls silent, by connectivity class.
    """

    preset: Word = "normal"
    settings: Annotated[dict[Word, int | float | str], Meta(max_length=16)] = {}
    attributes: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=8)] = USUAL
    history: Annotated[tuple[dict[Word, tuple[Count, Count]], ...], Meta(max_length=100)] = ()
    silence: dict[Word, Share] = {}


class Device(_Line, frozen=True, kw_only=True):
    """`values` by attribute; what is not said is `other`. `site`: where it stands, if the devices there share their fate."""

    device: Word
    values: dict[Word, Value] = {}
    site: Value = ""


class _Named(_Line, frozen=True, kw_only=True):
    device: Word


class Seen(_Named, frozen=True, kw_only=True):
    """A sign of life."""


class Permit(_Named, frozen=True, kw_only=True):
    """It was let go."""


class Refund(_Named, frozen=True, kw_only=True):
    """It did not go."""


class Failed(_Named, frozen=True, kw_only=True):
    """It failed."""


class Confirmed(_Named, frozen=True, kw_only=True):
    """It is healthy."""


class Crashed(_Named, frozen=True, kw_only=True):
    """It crashed later."""


class Measured(_Named, frozen=True, kw_only=True):
    """It measured `count` in `seconds`, or the `mean` of a gauge."""

    metric: Word
    seconds: Annotated[int, Meta(ge=1, le=2**31)]
    count: float | None = None
    mean: float | None = None

    @property
    def amount(self) -> float | None:
        """Return what is booked: a gauge counts for as long as it was so."""
        return self.count if self.mean is None else self.mean * self.seconds


class Tick(_Line, frozen=True, kw_only=True):
    """Time went by."""


Line: TypeAlias = (
    Begin | Device | Seen | Permit | Refund | Failed | Confirmed | Crashed | Measured | Tick
)  # fmt: skip
_READ: Final = msgspec.json.Decoder(Line)
_MILLION: Final = 1_000_000


class _Times:
    """What time it is, by all that was told: one device alone is not believed."""

    def __init__(self, at: int) -> None:
        self._sure = at
        #: The device that is furthest ahead, and the time that some other device is at.
        self._first = ""
        self._first_at = self._other_at = at

    def told(self, at: int) -> None:
        """Take the word of whoever watches."""
        self._sure = max(self._sure, at)

    def told_by(self, device: str, at: int) -> None:
        """Take the word of a device."""
        if device == self._first:
            self._first_at = max(self._first_at, at)
        elif at > self._first_at:
            self._other_at, self._first, self._first_at = self._first_at, device, at
        else:
            self._other_at = max(self._other_at, at)

    @property
    def latest(self) -> int:
        """Return the time up to which lines are believed."""
        return max(self._sure, self._other_at) + AHEAD_S


class Gate:
    """Guards one rollout. Give it lines in their order."""

    def __init__(self) -> None:
        self._begun: Begin | None = None
        self._harm = PRESETS["normal"]
        self._fleet: list[Device] = []
        self._roster: Roster | None = None
        self._next = 0
        self._times = _Times(0)
        #: Lines that run ahead, the earliest first: (time, number, line).
        self._ahead: list[tuple[int, int, Line]] = []
        self._lines = 0
        self._said: dict[str, Any] = {}
        #: The release is to be stopped; it stays so.
        self.halted = False
        #: Evidence can neither stop it nor let it go on: a person decides.
        self.held = False

    def read(self, line: bytes | str) -> Iterator[dict[str, Any]]:
        """Take one line and give the decisions that are due by its time.

        Args:
            line: untrusted. An empty one says nothing.

        Raises:
            RequestError: `request.invalid`, `request.too_large`: nothing of this line was taken.
        """
        text = line.encode() if isinstance(line, str) else line
        if len(text) > LINE_MAX:
            raise RequestError("request.too_large", f"{len(text)} bytes; at most {LINE_MAX}")
        if not text.strip():
            return iter(())
        try:
            found = _READ.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError("request.invalid", str(error)[:300]) from error
        return iter(self._take(found))

    def end(self) -> Iterator[dict[str, Any]]:
        """Give what is to be said when no more lines come: a last decision, the verdict, and how many events were not taken."""
        roster = self._started(self._begun) if self._begun else None
        if roster is not None:
            yield from self._decided(roster, roster.watch.desk.now)
            if self._ahead:
                roster.ignored["future"] = roster.ignored.get("future", 0) + len(self._ahead)
        yield {
            "end": True,
            "verdict": "halt" if self.halted else "hold" if self.held else "go",
            "devices": len(roster.devices) if roster else 0,
            "ignored": dict(roster.ignored) if roster else {},
        }

    def _take(self, line: Line) -> list[dict[str, Any]]:
        begun = self._begun
        if begun is None:
            if not isinstance(line, Begin):
                raise RequestError(
                    "request.invalid", 'the first line is to be {"what": "begin", …}'
                )
            self._begin(line)
            return []
        if isinstance(line, Begin):
            raise RequestError("request.invalid", "a gate begins once: one rollout a run")
        if isinstance(line, Measured) and line.count is not None and line.mean is not None:
            raise RequestError("request.invalid", "measured: either a count or a mean")
        if isinstance(line, Device) and self._roster is None:
            _check_jump(begun.at, line.at)
            self._fleet.append(line)
            return []
        roster = self._started(begun)
        decided: list[dict[str, Any]] = []
        for one in self._believed(roster, line):
            _check_jump(roster.watch.desk.now, one.at)
            decided += self._until(roster, one.at)
            _tell(roster, one)
        return decided

    def _believed(self, roster: Roster, line: Line) -> Iterator[Line]:
        """Give the lines that are to be taken now, in their order: this one, if it does not run ahead, and those that waited for it."""
        if isinstance(line, Device | _Named):
            if line.device in roster.devices:
                self._times.told_by(line.device, line.at)
        else:
            self._times.told(line.at)
        self._lines += 1
        heappush(self._ahead, (line.at, self._lines, line))
        alone = len(roster.devices) < _ASKED
        while self._ahead and (alone or self._ahead[0][0] <= self._times.latest):
            yield heappop(self._ahead)[2]
        if len(self._ahead) > _KEPT_MAX:
            heappop(self._ahead)
            roster.ignored["future"] = roster.ignored.get("future", 0) + 1

    def _begin(self, line: Begin) -> None:
        if line.preset not in PRESETS:
            near = did_you_mean(line.preset, PRESETS)
            raise RequestError("request.invalid", f'preset: no preset "{line.preset}"{near}')
        if line.attributes[0] != VARIANT or len(set(line.attributes)) != len(line.attributes):
            raise RequestError(
                "request.invalid", f'attributes: different ones, "{VARIANT}" the first'
            )
        self._harm = _harm(line)
        self._begun = line
        self._times = _Times(line.at)
        self._next = line.at + self._harm.tick_s

    def _started(self, begun: Begin) -> Roster:
        """Return the roster; the devices told so far become the fleet when it is asked for first."""
        if self._roster is not None:
            return self._roster
        census: dict[tuple[str, ...], int] = {}
        for one in {one.device: one for one in reversed(self._fleet)}.values():
            profile = tuple(one.values.get(name, "other") for name in begun.attributes)
            census[profile] = census.get(profile, 0) + 1
        harm = self._harm
        silence = {name: round(share * _MILLION) for name, share in begun.silence.items()}
        scheme = divide(census, begun.attributes, harm.strata)
        watch = Watch(scheme, harm, from_history(begun.history, silence), begun.at)
        self._roster = Roster(watch)
        for one in self._fleet:
            self._roster.meet(one.device, one.values, begun.at, one.site)
        self._fleet.clear()
        return self._roster

    def _until(self, roster: Roster, at: int) -> Iterator[dict[str, Any]]:
        """Let time go on, a quarter of an hour at a time: whoever reads a log was not down when it was silent."""
        while self._next <= at:
            yield from self._decided(roster, self._next)
            self._next += roster.watch.book.harm.tick_s

    def _decided(self, roster: Roster, now: int) -> Iterator[dict[str, Any]]:
        said = self._of(roster, roster.step(now))
        compared = {name: value for name, value in said.items() if name != "at"}
        if compared != self._said:
            self._said = compared
            yield said

    def _of(self, roster: Roster, decision: Decision) -> dict[str, Any]:
        self.halted = self.halted or decision.verdict == "halt"
        waits = held(decision)
        self.held = waits is not None and not self.halted
        book = roster.watch.book
        open_: Mapping[str, int] = {} if self.halted else decision.permits
        names = {one: book.scheme.strata[one].name for one in decision.caps}
        said: dict[str, Any] = {
            "at": decision.at,
            "verdict": "halt" if self.halted else "hold" if self.held else decision.verdict,
            "odds": round(decision.odds, 1),
            "permits": {name: count for name, count in open_.items() if count},
            "caps": {} if self.halted else {names[one]: n for one, n in decision.caps.items()},
            "limits": "halted" if self.halted else decision.limits,
            "at_worst": decision.at_worst,
            "because": waits.text if waits and self.held else meter(decision, book.harm),
        }
        if decision.blame is not None:
            said["blame"] = decision.blame.name or "the release"
        return said


def _harm(line: Begin) -> Harm:
    """Return what is tolerated.

    Raises:
        RequestError: `request.invalid`: a setting that the evidence guard does not have, or cannot be.
    """
    known = {name: one for name, one in SETTINGS.items() if name not in {"preset", "replaces"}}
    read = read_settings(known, line.settings, "settings")
    return create(preset=line.preset, replaces="none", **read).harm


def _check_jump(clock: int, at: int) -> None:
    if at > clock + JUMP_MAX_S:
        days = (at - clock) // DAY_S
        detail = f"at: {days} days after the line before: seconds are wanted"
        raise RequestError("request.invalid", detail)


def _tell(roster: Roster, line: Line) -> None:
    match line:
        case Device():
            roster.meet(line.device, line.values, line.at, line.site)
        case Seen():
            roster.seen(line.device, line.at)
        case Permit():
            roster.permit(line.device, line.at)
        case Refund():
            roster.refund(line.device, line.at)
        case Failed():
            roster.failed(line.device, line.at)
        case Confirmed():
            roster.confirmed(line.device, line.at)
        case Crashed():
            roster.crashed(line.device, line.at)
        case Measured() if line.amount is not None:
            roster.measured(line.device, line.at, line.metric, line.amount, line.seconds)
        case Measured():
            roster.seen(line.device, line.at)
        case _:
            pass
