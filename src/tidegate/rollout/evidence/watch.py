"""The gate as one thing: happenings in, decisions out. What a simulator, the server and `tidegate gate` use."""

from collections.abc import Callable

import msgspec

from tidegate.rollout.evidence import book as books
from tidegate.rollout.evidence import desk as desks
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.desk import Desk
from tidegate.rollout.evidence.facts import Credits, Fact, Isolated, Kind, Permit
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import Scheme
from tidegate.rollout.evidence.wealth import Wealth


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """What is stored."""

    book: books.Packed
    desk: desks.Packed
    decided_at: int
    saved: list[int]


class Watch:
    """One release under watch: `desk` takes what happens, `step` says what follows.

    ```python
    watch = Watch(divide(census), PRESETS["normal"], Baseline(), start)
    watch.desk.advance(now)             # every quarter of an hour: what time it is,
    watch.desk.permit(profile)          # what happened,
    decision = watch.step(now)          # and what follows
    ```
    """

    def __init__(
        self,
        scheme: Scheme,
        harm: Harm,
        baseline: Baseline,
        start: int,
        past: dict[Kind, tuple[int, int]] | None = None,
        kind: type[Book] = Book,
    ) -> None:
        self.book = kind(scheme, harm, baseline)
        self.desk = Desk(self.book, start, past)
        self.wealth = Wealth(self.book)
        self._decided_at = start
        #: Strata whose permit of this tick was saved up, and not taken yet.
        self._saved: set[int] = set()

    def step(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Book what is mature and decide: once a tick.

        Args:
            now: unix seconds.
            keep: is given every fact, in the order of the log.
        """
        for fact in self.desk.tick(now):
            self._book(fact, keep)
        self._saved.clear()
        decision = self._decide(now, keep)
        self.desk.doubted = decision.doubted
        return decision

    def early(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Book what counts at once and decide again, between two ticks: as often as one likes.

        No time is let go on: cohorts, late events and what a site or region is capped to wait for their tick. A permit that was saved up over hours and
        belongs to this tick is not lost by it.

        Args:
            now: unix seconds.
            keep: is given every fact, in the order of the log.
        """
        self.desk.advance(now)
        for fact in self.desk.drain():
            self._book(fact, keep)
            if isinstance(fact, Permit):
                self._saved.difference_update(self.book.home(fact.profile).strata)
        return self._decide(self.desk.now, keep, early=True)

    def _decide(
        self, now: int, keep: Callable[[Fact], None] | None, *, early: bool = False
    ) -> Decision:
        before = dict(self.book.credits)
        decision = decide(
            self.book,
            self.desk.now,
            since_s=now - self._decided_at,
            known=self.wealth,
            waiting=self.desk.risks.waiting(),
        )
        self._decided_at = max(self._decided_at, now)
        for fact in decision.carried:
            if not (early and isinstance(fact, Credits) and fact.parts_ppm == before):
                self._book(fact, keep)
        if early:
            decision = self._with_saved(decision)
        variants = self.book.scheme.variants
        given = {variants[name]: count for name, count in decision.permits.items()}
        for one, count in (*given.items(), *decision.caps.items()):
            if count == 1 and one in before and one not in decision.credits_ppm:
                self._saved.add(one)
        return decision

    def _with_saved(self, decision: Decision) -> Decision:
        """Return a decision with the permits of this tick that were saved up and that nobody has taken yet."""
        variants = self.book.scheme.variants
        kept = {
            name: 1
            for name, count in decision.permits.items()
            if not count and variants[name] in self._saved
        }
        caps = {one: 1 for one, cap in decision.caps.items() if not cap and one in self._saved}
        if not kept and not caps:
            return decision
        return msgspec.structs.replace(
            decision, permits={**decision.permits, **kept}, caps={**decision.caps, **caps}
        )

    def isolate(self, stratum: int, keep: Callable[[Fact], None] | None = None) -> None:
        """Book that a person isolated a stratum: it counts no more, and what overlaps it starts at even odds."""
        for fact in (*self.desk.drain(), Isolated(at=self.desk.now, stratum=stratum)):
            self._book(fact, keep)

    def _book(self, fact: Fact, keep: Callable[[Fact], None] | None) -> None:
        self.book.fold(fact)
        if keep is not None:
            keep(fact)

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return what is to be stored."""
        return Packed(
            book=self.book.pack(),
            desk=self.desk.pack(),
            decided_at=self._decided_at,
            saved=sorted(self._saved),
        )

    @classmethod
    def unpack(cls, packed: Packed, harm: Harm, baseline: Baseline) -> "Watch":
        """Return the watch that was stored, under settings that may have changed since.

        Raises:
            ValueError: settings that do not fit what was booked: other metrics, ticks, or ages of gates.
        """
        watch = cls(packed.book.scheme, harm, baseline, packed.desk.now)
        watch.restore(packed)
        return watch

    def restore(self, packed: Packed) -> None:
        """Take up what was stored, under this watch's settings (`unpack`)."""
        self.book = Book.unpack(packed.book, self.book.harm, self.book.baseline)
        self.desk = Desk(self.book, packed.desk.now)
        self.desk.restore(packed.desk)
        self.wealth = Wealth(self.book)
        self._decided_at, self._saved = packed.decided_at, set(packed.saved)
