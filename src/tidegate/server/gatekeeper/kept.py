"""One rollout's evidence in memory, and how it goes to the store and back.

Everything that the book follows from is durable before it is acted upon: what happened to devices, when it was decided between two steps (`early`) and what
people isolated stand in `gate_happening` in the order of commits; the state after a whole step stands in `gate_state` with the facts that led to it in
`gate_fact`. So whoever takes over reads the state, tells what happened since, and knows exactly what the one before knew.
"""

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from tidegate.rollout import keeping
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.crowd import BACK, CONTROL, LEFT, OUT, WELL
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import Scheme
from tidegate.rollout.query import Attributes
from tidegate.server.gatekeeper import rooms
from tidegate.server.gatekeeper.muster import Standing
from tidegate.server.store.gate_rows import Happening
from tidegate.server.store.gate_rows import Kept as Stored

#: Happenings that are not a device's: it was decided; a stratum, by number in place of the device, was isolated by hand.
EARLY: Final = "early"
ISOLATED: Final = "isolate"
CRASHED: Final = "crashed"
#: A device told of its errors; weighed when a window is over.
MEASURED: Final = "measured"
#: So many ticks a moment between two steps may be ahead of the last one.
AHEAD_TICKS: Final = 2
#: What they are called in the settings.
METRIC: Final = "errors"
#: A device was kept out by a query that no stratum is the same as.
EXCLUDED: Final = "exclude"

#: In place of the logarithm of nothing.
_NOTHING: Final = 1e9
#: Finds a device that a happening names and that nobody has met: by its row.
Introduce = Callable[[int], Standing | None]
_SCHEME: Final = msgspec.json.Decoder(Scheme)
_BASELINE: Final = msgspec.json.Decoder(Baseline)
_HARM: Final = msgspec.json.Decoder(Harm)
_DECISION: Final = msgspec.json.Decoder(Decision)
_FACT: Final = msgspec.json.Decoder(Fact)


class Page(NamedTuple):
    """Facts as they are stored. `harm`: the settings that they are booked under, where these changed; `digest` of the book after them."""

    at: int
    body: bytes
    digest: str
    harm: str | None


class Saved(NamedTuple):
    """The state after a whole step, not stored yet."""

    position: int
    stepped_at: int
    harm: str
    snapshot: bytes
    digest: str
    facts: int
    pages: tuple[Page, ...]


class Kept:
    """What is kept of one rollout. Used by one thread at a time: the planner's, and the writer's while the planner waits for it."""

    def __init__(
        self,
        rollout_id: int,
        roster: Roster,
        harm: Harm,
        baseline: Baseline,
        opened_at: int,
        crowded: frozenset[str] = frozenset(),
    ) -> None:
        """Begin with a roster that has decided nothing."""
        self.rollout_id = rollout_id
        self.roster = roster
        self.harm = harm
        self.baseline = baseline
        self.opened_at = opened_at
        self.crowded = crowded
        #: Of the row that was read or written last; 0 = there is none yet.
        self.generation = 0
        self.position = 0
        #: When the last whole step was taken, by the server's clock; the book's own time of it is `desk.ticked`.
        self.stepped_at = opened_at
        self.decision: Decision | None = None
        #: The rollout's generation that it was decided for.
        self.decided_for = 0
        #: Something was told that no decision has looked at.
        self.undecided = False
        #: What people keep out that the book was told of.
        self.told_out: set[str] = set()
        self.to_tell: list[tuple[int, str]] = []
        #: It has begun, and the store does not know it.
        self.fresh = True
        self.unsaved: Saved | None = None
        #: What was written of sites' rooms; sites where something happened since, and whether all are to be looked at.
        self.site_rooms: dict[str, int] = {}
        self.all_sites = False
        self.touched: set[str] = set()
        self._log: list[Fact] = []
        self._pages: list[Page] = []
        self._new_harm = True

    @classmethod
    def restored(cls, rollout_id: int, stored: Stored) -> "Kept":
        """Return what was stored, as it was then; `feed` what happened since.

        Raises:
            ValueError: it was damaged, or written by another version.
        """
        harm, baseline = _HARM.decode(stored.harm), _BASELINE.decode(stored.baseline)
        roster = Roster.load(stored.snapshot, _SCHEME.decode(stored.scheme), harm, baseline)
        crowded = frozenset(rooms.crowded_of(stored.known))
        kept = cls(rollout_id, roster, harm, baseline, stored.opened_at, crowded)
        kept.generation, kept.position = stored.generation, stored.position
        kept.stepped_at = stored.stepped_at
        kept.decision = _DECISION.decode(stored.decision)
        kept._new_harm = kept.fresh = False
        return kept

    @property
    def book(self) -> Book:
        """Return the book."""
        return self.roster.watch.book

    # ------------------------------------------------------------------ whose time it is

    def time_of(self, at: int) -> int:
        """Return the book's time of a moment of the server's clock.

        The book's time never goes back: when the clock does, no time has gone by, and it goes on from where it was. Nor does a moment between two steps run
        ahead of the last one by more than what counts as a time in which nobody looked (`Desk.missed`): a clock that was wrong for a minute ages nobody.
        """
        desk = self.roster.watch.desk
        return min(desk.ticked + at - self.stepped_at, desk.ticked + AHEAD_TICKS * self.harm.tick_s)

    def is_due(self, now: int) -> bool:
        """Say whether it is time for a whole step: a tick has gone by, or the clock has stepped back."""
        return not self.stepped_at <= now < self.stepped_at + self.harm.tick_s

    # ------------------------------------------------------------------ what happens

    def feed(self, news: Iterable[Happening], introduce: Introduce) -> None:
        """Tell what happened, in order.

        Args:
            news: behind `position`.
            introduce: finds a device that was not met yet.
        """
        for one in news:
            # The times are this server's own: a pause of the planner makes none of them one from the future.
            at = self.time_of(one.at)
            self.roster.watch.desk.advance(at)
            if one.what == EARLY:
                self.decision = self.roster.early(at, self._log.append)
                self.undecided = False
                self.position = one.seq
                continue
            if one.what == ISOLATED:
                self.roster.isolate(one.device_row, self._log.append)
            elif one.what == MEASURED:
                self.position = one.seq
                value = one.value if one.amount is None else one.amount
                name = one.name or METRIC
                self.roster.measured(str(one.device_row), at, name, value, one.seconds)
                continue
            else:
                self._tell(one._replace(at=at), introduce)
            self.undecided = True
            self.position = one.seq

    def _tell(self, one: Happening, introduce: Introduce) -> None:
        name = str(one.device_row)
        roster = self.roster
        if name not in roster.devices and one.what != CRASHED:
            # A crash alone is no reason to know somebody: who was not met is compared with nobody.
            found = introduce(one.device_row)
            if found is not None:
                self._meet(name, found, one.at)
        number = roster.devices.get(name)
        if number is not None:
            self.touched.add(roster.crowd.site_of(number))
        match one.what:
            case "permit":
                roster.permit(name, one.at)
            case "refund":
                roster.refund(name, one.at)
            case "failed":
                roster.failed(name, one.at)
            case "confirmed":
                roster.confirmed(name, one.at)
            case "crashed":
                roster.crashed(name, one.at)
            case "exclude":
                roster.exclude(name)
            case _:
                pass  # of a newer version: what it means is that one's to say

    def missing(
        self, of: Callable[[int], Standing | None], fits: Callable[[int], bool]
    ) -> list[str]:
        """Return devices that seem to have left the audience. Ask before what happened is read: who was just updated has left it, too, with a permit.

        Args:
            of: says of a row who may still get the release.
            fits: says of a row whether it still is a device of the product.
        """
        state = self.roster.crowd.state
        # Who may still get it is a device of the product: that is not asked again.
        return [
            name
            for name, number in self.roster.devices.items()
            if (
                of(int(name)) is None
                if state[number] == CONTROL
                else state[number] != LEFT and not fits(int(name))
            )
        ]

    def part(self, names: Iterable[str], fits: Callable[[int], bool]) -> None:
        """Let those go who have left, and had no permit before that."""
        crowd, devices = self.roster.crowd, self.roster.devices
        for name in names:
            if crowd.state[devices[name]] == CONTROL or not fits(int(name)):
                self.roster.leave(name)

    def hear(
        self,
        contacts: Iterable[tuple[int, int]],
        of: Callable[[int], Standing | None],
        now: int,
    ) -> None:
        """Tell who was heard when, in the order of time: (row, unix seconds). Who is heard for the first time and may get the release is met."""
        ahead = self.roster.watch.desk.ticked - self.stepped_at
        most = self.roster.watch.desk.ticked + AHEAD_TICKS * self.harm.tick_s

        def meet(name: str, at: int) -> None:
            if (found := of(int(name))) is not None:
                self._meet(name, found, at)

        # `time_of` of each, written out: nothing steps meanwhile.
        told = ((str(row), min(ahead + min(at, now), most)) for row, at in contacts)
        self.roster.hear(told, meet)

    def _meet(self, name: str, found: Standing, at: int) -> None:
        self.roster.meet(name, found.values, at, "" if found.site in self.crowded else found.site)

    def out(self, entry: str, attributes: Callable[[int], Attributes]) -> list[tuple[int, str]]:
        """Return what has to happen for a part that people keep out to count no more, as (number, what).

        Args:
            entry: as it stands in `Rollout.isolated`.
            attributes: of the device of a row, for the query language.
        """
        stratum = parts_of(self.book.scheme).get(entry)
        if stratum is not None:
            return [] if stratum in self.book.isolated else [(stratum, ISOLATED)]
        state = self.roster.crowd.state
        there = [
            int(name)
            for name, number in self.roster.devices.items()
            if state[number] in {OUT, WELL, BACK}
        ]
        return [(row, EXCLUDED) for row in there if _meant(entry, attributes(row))]

    # ------------------------------------------------------------------ deciding

    def step(self, now: int) -> Decision:
        """Take a whole step and make ready what is to be stored of it. Where the clock has stepped back no time has gone by since the last."""
        ticked = self.roster.watch.desk.ticked
        self.decision = self.roster.step(ticked + max(0, now - self.stepped_at), self._log.append)
        self.undecided = False
        self.stepped_at = now
        self.all_sites = True
        self.save()
        return self.decision

    def save(self) -> None:
        """Make ready what is to be stored, as everything stands now."""
        self._turn_page()
        self.unsaved = Saved(
            position=self.position,
            stepped_at=self.stepped_at,
            harm=_text(self.harm),
            snapshot=self.roster.dump(),
            digest=self._pages[-1].digest if self._pages else self.book.digest(),
            facts=self.book.facts,
            pages=tuple(self._pages),
        )

    def saved(self) -> None:
        """Note that what was made ready is durable with the transaction that is under way."""
        self.unsaved, self._pages = None, []

    def follow(self, harm: Harm) -> bool:
        """Take up settings that changed; say whether they did. What is booked stays, and so do the strata.

        Ages of soak gates that devices have passed cannot change under them: then those stay, and the rest follows.
        """
        if harm == self.harm:
            return False
        kept = {
            name: getattr(self.harm, name) for name in ("soaks", "windows_s", "metrics", "tick_s")
        }
        for wanted in (harm, msgspec.structs.replace(harm, streams=self.harm.streams, **kept)):
            if wanted == self.harm:
                return False
            try:
                roster = Roster.load(self.roster.dump(), self.book.scheme, wanted, self.baseline)
            except ValueError:
                continue
            self._turn_page()
            self.roster, self.harm, self._new_harm = roster, wanted, True
            return True
        return False

    def _turn_page(self) -> None:
        """End a page of the log."""
        if not self._log and not self._new_harm:
            return
        lines = b"\n".join(msgspec.json.encode(one) for one in self._log)
        harm = _text(self.harm) if self._new_harm else None
        page = Page(self.roster.watch.desk.now, zlib.compress(lines, 1), self.book.digest(), harm)
        self._pages.append(page)
        self._log, self._new_harm = [], False

    def first(self, saved: Saved, decision: str, now: int) -> Stored:
        """Return the row of the store that a gate begins with."""
        scheme = self.book.scheme
        return Stored(
            generation=self.generation + 1,
            position=saved.position,
            stepped_at=saved.stepped_at,
            opened_at=self.opened_at,
            scheme=_text(scheme),
            known=rooms.known_text(scheme, self.crowded),
            baseline=_text(self.baseline),
            harm=saved.harm,
            snapshot=saved.snapshot,
            digest=saved.digest,
            facts=saved.facts,
            decision=decision,
            decided_at=now,
        )


def parts_of(scheme: Scheme) -> dict[str, int]:
    """Return the strata that a rollout may isolate, by their entry in `Rollout.isolated`."""
    found = {
        keeping.entry_of_part(one.attributes, one.values): number
        for number, one in enumerate(scheme.strata)
    }
    found.pop("", None)
    return found


def _meant(entry: str, attributes: Attributes) -> bool:
    return bool(keeping.kept_out((entry,), str(attributes.get("variant", "")), attributes))


def decision_of(text: str) -> Decision:
    """Return a decision that was stored."""
    return _DECISION.decode(text)


def facts_of(body: bytes) -> list[Fact]:
    """Return the facts of a page."""
    return [_FACT.decode(line) for line in zlib.decompress(body).splitlines() if line]


def text_of(decision: Decision) -> str:
    """Return a decision as it is stored; JSON knows no infinity."""
    if not math.isfinite(decision.log_odds):
        decision = msgspec.structs.replace(decision, log_odds=-_NOTHING)
    return _text(decision)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
