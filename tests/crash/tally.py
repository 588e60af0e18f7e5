"""What the crash tests of this run tried, and what came of it: counted as they go, printed at the end of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.crash.blocklog.judge import Verdict
from tests.crash.cuts import Tried


@dataclass
class Tally:
    """The two tables of a run."""

    disks: dict[str, Sequence[Verdict]] = field(default_factory=dict)
    promises: dict[str, tuple[int, int]] = field(default_factory=dict)
    stories: dict[str, Tried] = field(default_factory=dict)

    def judged(self, rig: str, verdicts: Sequence[Verdict]) -> None:
        """Note what a rig's log gave."""
        self.disks[rig] = verdicts

    def promised(self, files: str, olds: int, news: int) -> None:
        """Note what a file system that keeps no more than its promise gave."""
        self.promises[files] = (olds, news)

    def cut(self, story: str, tried: Tried) -> None:
        """Note what the cuts of a story gave."""
        self.stories[story] = tried

    def lines(self) -> list[str]:
        """Return the table, nothing when nothing was tried."""
        lines = []
        if self.disks:
            lines.append(
                f"{'states of a disk':34}{'old':>8}{'new':>8}{'lost':>6}{'returned':>10}{'undone':>8}"
            )
            rows = {name: _sums(found) for name, found in self.disks.items()}
            rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))
            lines += [
                f"  {name:32}{old:8}{new:8}{lost:6}{kept:10}{undone:8}"
                for name, (old, new, lost, kept, undone) in rows.items()
            ]
        if self.promises:
            states = sum(olds + news for olds, news in self.promises.values())
            lines.append(f"states of files by the promise of POSIX alone: {states}, lost 0")
        if self.stories:
            lines.append(f"{'cuts of a story':34}{'single':>8}{'pairs':>8}{'run':>6}{'wrong':>10}")
            lines += [
                f"  {name:32}{one.singles:8}{one.pairs:8}{one.states:6}{len(one.wrong):10}"
                for name, one in self.stories.items()
            ]
            found = self.stories.values()
            singles, pairs = sum(one.singles for one in found), sum(one.pairs for one in found)
            states, wrong = sum(one.states for one in found), sum(len(one.wrong) for one in found)
            lines.append(f"  {'all':32}{singles:8}{pairs:8}{states:6}{wrong:10}")
        return lines


def _sums(found: Sequence[Verdict]) -> tuple[int, ...]:
    return (
        sum(one.old + one.inert for one in found),
        sum(one.new for one in found),
        sum(one.lost for one in found),
        sum(one.kept for one in found),
        sum(one.undone for one in found),
    )


TALLY = Tally()
