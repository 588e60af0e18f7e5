"""Judges every state that the disk of a rig may be left in: old, new, or lost."""

import lzma
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.crash.blocklog.log import Phase, Write, phases
from tests.crash.blocklog.readers import LOST, READERS
from tests.crash.blocklog.rigs import Rig
from tests.crash.blocklog.states import Disk, Epoch, Overlay, epochs, states

LOGS: Final = Path(__file__).resolve().parents[1] / "logs"
RETURNED: Final = ": returned"
#: Whether it could be read, and the reading or what was wrong.
Found = tuple[bool, Any]


@dataclass
class Verdict:
    """What became of one call.

    Attributes:
        old, new, lost: states that read as before the call, as after it, as neither.
        inert: states in between of something that nobody reads before the call has returned.
        kept: states after the call had returned that read as after it; `undone`: those that did not.
        first: the slot that is booted next, once everything is on the disk.
        says: the first few that were wrong, in words.
    """

    call: str
    old: int = 0
    new: int = 0
    lost: int = 0
    inert: int = 0
    kept: int = 0
    undone: int = 0
    first: str = ""
    says: list[str] = field(default_factory=list)

    @property
    def states(self) -> int:
        """All that were judged."""
        return self.old + self.new + self.lost + self.inert + self.kept + self.undone


def load(rig: Rig, logs: Path = LOGS) -> tuple[bytes, list[Phase]]:
    """Return the disk as it was before the recording, and the phases of what was recorded."""
    image = lzma.decompress((logs / f"{rig.name}.img.xz").read_bytes())
    return image, phases(lzma.decompress((logs / f"{rig.name}.log.xz").read_bytes()))


def judge(rig: Rig, scratch: Path, logs: Path = LOGS) -> list[Verdict]:
    """Return a verdict for each call of a rig, from the log that is checked in, or from one in another folder."""
    image, recorded = load(rig, logs)
    return Judge(rig, image, scratch).all(recorded)


class Judge:
    """Walks through a log with the disk as it is durable by then."""

    def __init__(self, rig: Rig, image: bytes, scratch: Path) -> None:
        self._disk = Disk(image)
        self._reader = READERS[rig.reader]
        self._inert = rig.inert
        self._scratch = scratch
        self._pending: tuple[Write, ...] = ()
        #: What was read, by the sectors in which a state differs from the durable disk.
        self._new: Found = (False, None)
        self._known: dict[frozenset[tuple[int, bytes]], Found] = {}

    def all(self, recorded: list[Phase]) -> list[Verdict]:
        """Judge each call: the phase of its name, and the one after it had returned."""
        verdicts: list[Verdict] = []
        self._pass(recorded[0])
        for phase in recorded[1:]:
            if phase.name == "end":
                break
            if phase.name.endswith(RETURNED):
                self._after(phase, verdicts[-1])
            else:
                verdicts.append(self._during(phase))
        return verdicts

    def _during(self, phase: Phase) -> Verdict:
        verdict = Verdict(phase.name)
        old = self._read(self._pending)
        written = tuple(one for one in phase.entries if isinstance(one, Write))
        new = self._new = self._read((*self._pending, *written))
        verdict.first = self._reader.first(new[1]) if new[0] else "lost"
        for overlay in self._states(phase):
            found = self._read(overlay)
            if found[0] and found == new != old:
                verdict.new += 1
            elif found[0] and found == old:
                verdict.old += 1
            elif self._inert:
                verdict.inert += 1
            else:
                verdict.lost += 1
                self._say(verdict, "during it", overlay, found)
        return verdict

    def _after(self, phase: Phase, verdict: Verdict) -> None:
        """From here on nothing but the new state may be found, whatever the system does with what it still owes the disk."""
        for overlay in self._states(phase):
            found = self._read(overlay)
            if found[0] and found == self._new:
                verdict.kept += 1
            else:
                verdict.undone += 1
                self._say(verdict, "after it returned", overlay, found)

    def _pass(self, phase: Phase) -> None:
        for epoch in epochs(phase.entries, self._pending):
            self._begin(epoch)

    def _begin(self, epoch: Epoch) -> None:
        self._disk.apply(epoch.settled)
        self._pending = epoch.writes
        # The disk under the overlays is another one from here on.
        self._known.clear()

    def _states(self, phase: Phase) -> Iterator[Overlay]:
        for epoch in epochs(phase.entries, self._pending):
            self._begin(epoch)
            yield from states(epoch.writes)

    def _read(self, overlay: Overlay) -> Found:
        key = self._disk.difference(overlay)
        if key not in self._known:
            with self._disk.tried(overlay) as image:
                try:
                    self._known[key] = True, self._reader.read(image, self._scratch)
                except LOST as error:
                    self._known[key] = False, str(error)
        return self._known[key]

    def _say(self, verdict: Verdict, when: str, overlay: Overlay, found: Found) -> None:
        if len(verdict.says) < 3:
            there = ", ".join(f"{one.offset:#x}+{len(one.data)}" for one in overlay)
            verdict.says.append(f"{when}, with [{there}] on the disk: {str(found[1])[:300]}")
