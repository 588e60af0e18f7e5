"""What a lab run tried and found, as the table at its end. Figures are counted where they happen; nothing is written down beforehand."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Kinds of harm, each of which must stay at 0.
BRICK, WRONG_SLOT, OUTCOME = "bricks", "wrong slot", "outcome lost or counted twice"


@dataclass
class Report:
    """Counts, by what was tried."""

    _cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _boots: Counter[str] = field(default_factory=Counter)
    _updates: Counter[str] = field(default_factory=Counter)
    _harm: Counter[str] = field(default_factory=Counter)
    _cpu_s: float = 0.0
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

    def seed(self, text: str) -> None:
        """Remember how to do it again."""
        with self._lock:
            self._seeds.append(text)

    def cuts(self, mode: str) -> int:
        """Return how many cuts there were in a mode."""
        with self._lock:
            return sum(count for (of, _), count in self._cuts.items() if of == mode)

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
        for kind in (BRICK, WRONG_SLOT, OUTCOME):
            yield f"{kind:32} {self._harm[kind]}"
        yield f"{'wall time':24} {time.monotonic() - self._began:5.0f} s, {self._cpu_s:.0f} s of it CPU in machines"
        yield from self._seeds
