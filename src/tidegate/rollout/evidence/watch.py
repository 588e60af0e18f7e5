"""The gate as one thing: happenings in, decisions out. What a simulator, the server and `tidegate gate` use."""

from collections.abc import Callable

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision, decide
from tidegate.rollout.evidence.desk import Desk
from tidegate.rollout.evidence.facts import Fact, Kind
from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.evidence.strata import Scheme
from tidegate.rollout.evidence.wealth import Wealth


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
    ) -> None:
        self.book = Book(scheme, harm, baseline)
        self.desk = Desk(self.book, start, past)
        self.wealth = Wealth(self.book)
        self._decided_at = start

    def step(self, now: int, keep: Callable[[Fact], None] | None = None) -> Decision:
        """Book what is mature and decide.

        Args:
            now: unix seconds.
            keep: is given every fact, in the order of the log.
        """
        for fact in self.desk.tick(now):
            self._book(fact, keep)
        decision = decide(
            self.book, self.desk.now, since_s=now - self._decided_at, known=self.wealth
        )
        self._decided_at = max(self._decided_at, now)
        for fact in decision.carried:
            self._book(fact, keep)
        return decision

    def _book(self, fact: Fact, keep: Callable[[Fact], None] | None) -> None:
        self.book.fold(fact)
        if keep is not None:
            keep(fact)
