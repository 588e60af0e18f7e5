"""What a lab run tried and found, as the table at its end. Figures are counted where they happen; nothing is written down beforehand.

The lab runs in lanes, a process each. A lane's counts travel home as plain data (`packed`, `add`), and one table is made of all of them.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Kinds of harm, each of which must stay at 0.
BRICK, WRONG_SLOT, OUTCOME = "bricks", "wrong slot", "outcome lost or counted twice"
#: No harm that was seen, and none that was ruled out: the device did not get where it should within the time, and did not stand still either.
SILENT: Final = "no answer in time"
#: Where the power is cut.
LOADER_ALONE: Final = "boot loader alone"
WHOLE_SYSTEM: Final = "whole system"


@dataclass
class Report:
    """Counts, by what was tried."""

    _cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _boots: Counter[str] = field(default_factory=Counter)
    _updates: Counter[str] = field(default_factory=Counter)
    _harm: Counter[str] = field(default_factory=Counter)
    _cpu_s: float = 0.0
    _all_cpu_s: float = 0.0
    _set_up_s: float = 0.0
    _seeds: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cut(self, mode: str, moment: str, count: int = 1) -> None:
        """Count a power cut: in which mode of the lab, at which moment of an update."""
        with self._lock:
            self._cuts[(mode, moment)] += count

    def boots(self, mode: str, count: int = 1) -> None:
        """Count starts of a machine."""
        with self._lock:
            self._boots[mode] += count

    def update(self, ending: str) -> None:
        """Count an update by how it ended: `confirmed`, or why not."""
        with self._lock:
            self._updates[ending] += 1

    def harm(self, kind: str) -> None:
        """Count what must never happen."""
        with self._lock:
            self._harm[kind] += 1

    def used(self, cpu_s: float) -> None:
        """Add CPU seconds of virtual machines."""
        with self._lock:
            self._cpu_s += cpu_s

    def spent(self, cpu_s: float) -> None:
        """Add CPU seconds of everything that a lane ran: virtual machines, servers, tools and the tests themselves."""
        with self._lock:
            self._all_cpu_s += cpu_s

    def seed(self, text: str) -> None:
        """Remember how to do it again."""
        with self._lock:
            self._seeds.append(text)

    def made(self, seconds: float) -> None:
        """Add time for what is made once on a machine, and is no part of the lab's own time."""
        with self._lock:
            self._set_up_s += seconds

    def lacking(self, mode: str, least: int, moments: Iterable[str]) -> Iterator[str]:
        """Yield what a whole run must have had and had not.

        Args:
            mode: of the lab.
            least: power cuts in that mode.
            moments: each of which must have had a cut.
        """
        mine = {what: count for (of, what), count in self._cuts.items() if of == mode}
        if sum(mine.values()) < least:
            yield f"{mode}: {sum(mine.values())} cuts of {least}"
        yield from (f"{mode}: no cut at the moment `{one}`" for one in moments if one not in mine)

    def packed(self) -> dict[str, Any]:
        """Return the counts as plain data, for another process' `add`."""
        return {
            "cuts": [[*key, count] for key, count in self._cuts.items()],
            "boots": dict(self._boots),
            "updates": dict(self._updates),
            "harm": dict(self._harm),
            "cpu_s": self._cpu_s,
            "all_cpu_s": self._all_cpu_s,
            "seeds": self._seeds,
        }

    def add(self, packed: Mapping[str, Any]) -> None:
        """Add what a lane counted."""
        self._cuts.update({(mode, moment): count for mode, moment, count in packed["cuts"]})
        self._boots.update(packed["boots"])
        self._updates.update(packed["updates"])
        self._harm.update(packed["harm"])
        self._cpu_s += packed["cpu_s"]
        self._all_cpu_s += packed["all_cpu_s"]
        self._seeds += [one for one in packed["seeds"] if one not in self._seeds]

    def lines(self) -> Iterator[str]:
        """Yield the table; nothing when nothing was tried."""
        if not self._boots and not self._cuts:
            return
        for mode in sorted({mode for mode, _ in self._cuts} | set(self._boots)):
            mine = sorted((what, n) for (of, what), n in self._cuts.items() if of == mode)
            cuts = f"{sum(n for _, n in mine)} cuts" if mine else "no cuts"
            yield f"{mode:24} {self._boots[mode]:5} boots, {cuts}"
            if mine:
                yield f"{'':24}       {', '.join(f'{what} {n}' for what, n in mine)}"
        if self._updates:
            ends = ", ".join(f"{what} {n}" for what, n in sorted(self._updates.items()))
            yield f"{'updates ended':24} {sum(self._updates.values()):5} {ends}"
        for kind in (BRICK, WRONG_SLOT, OUTCOME, SILENT):
            yield f"{kind:32} {self._harm[kind]}"
        took_s = time.monotonic() - self._began - self._set_up_s
        yield f"set-up {_minutes(self._set_up_s)}, lab {_minutes(took_s)}"
        yield f"CPU {_minutes(self._all_cpu_s)}, of which the machines {_minutes(self._cpu_s)}"
        yield from sorted(self._seeds)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
