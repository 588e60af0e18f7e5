"""What is wrong with a copy of the log, and where: an export held against its own chain and against checkpoints that were signed before.

Rows are read one at a time, a few ahead; of each checkpoint its size and root are held. What can be told from a copy: whatever breaks the chain, and whatever a
checkpoint at hand covers otherwise. What cannot: rows behind the newest checkpoint that were changed with every hash after them made anew, and rows taken from
the end of which no checkpoint speaks. `Examined.covered` says how far signatures reach.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Final, Literal

import msgspec

from tidegate.core.audit import entry as entries
from tidegate.core.audit.checkpoint import Checkpoint, Verifier, open_note
from tidegate.core.audit.entry import AuditRow
from tidegate.core.audit.tree import EMPTY, Frontier
from tidegate.core.errors import PublisherError

Kind = Literal[
    "edited", "deleted", "inserted", "reordered", "truncated", "forked", "forged", "unreadable"
]
#: Rows that are looked at ahead: what was moved farther than this is found as deleted here and inserted there.
AHEAD: Final = 8
#: Rows that can be taken out, and the rest numbered anew, and still be counted.
GAP_MAX: Final = 1_000
#: Faults that are told; a log with more of them is not worth reading on.
FAULTS_MAX: Final = 20


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `first` and `last` are the numbers of the rows that it is about (0: none), as they were counted before it."""

    kind: Kind
    first: int
    last: int
    text: str


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What an examination found.

    Attributes:
        rows: rows read.
        head: hash of the last of them, `root`: head of the tree over all, both hex.
        begins_at, ends_at: times of the first and the last row, unix seconds.
        checkpoints: how many were signed by the key, and agree.
        covered: rows that the newest of those covers.
        faults: what is wrong, in order; empty = the log holds as far as `covered`, and its chain to its end.
    """

    rows: int
    head: str
    root: str
    begins_at: int
    ends_at: int
    checkpoints: int
    covered: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Heads:
    """Checkpoints by size. Two of one size with two roots are a fork, whoever holds the rows."""

    def __init__(self, verifiers: Collection[Verifier], origin: str | None = None) -> None:
        """Believe these keys; `origin`: checkpoints of this log alone."""
        self._verifiers = verifiers
        self._origin = origin
        self.roots: dict[int, bytes] = {}
        self.faults: list[Fault] = []

    def add(self, note: str, source: str) -> Checkpoint | None:
        """Take in a note (untrusted); what is wrong with it is noted as a fault. `source` says where it stood, for people."""
        try:
            found = open_note(note, self._verifiers, self._origin)
        except PublisherError as error:
            kind: Kind = "unreadable" if error.code == "audit.unreadable" else "forged"
            self._note(kind, 0, f"{source}: {error.detail}")
            return None
        known = self.roots.setdefault(found.size, found.root)
        if known != found.root:
            text = f"{source}: two signed checkpoints of {found.size} rows name two different logs"
            self._note("forked", found.size, text)
        return found

    @property
    def newest(self) -> int:
        """Size of the newest checkpoint, 0 when there is none."""
        return max(self.roots, default=0)

    def _note(self, kind: Kind, row: int, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(kind=kind, first=row, last=row, text=text))


def examine(lines: Iterable[bytes], heads: Heads) -> Examined:
    """Hold an export (untrusted lines of JSON, from the first row on) against its chain and against checkpoints."""
    return _Examination(heads).run(lines)


class _Examination:
    """One pass. `expected` is the number that the next row had when it was written, `prev` the hash before it."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._faults: list[Fault] = list(heads.faults)
        self._ahead: deque[AuditRow] = deque()
        self._expected, self._prev = 1, entries.ORIGIN
        self._shift = 0
        self._frontier = Frontier()
        self._whole = True
        self._proved = 0
        self._agreed = 0
        self._rows = 0
        self._begins_at = self._ends_at = 0
        self._meet(EMPTY)

    def run(self, lines: Iterable[bytes]) -> Examined:
        rows = self._read(lines)
        while self._fill(rows) and len(self._faults) < FAULTS_MAX:
            self._step()
        return self._end()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, lines: Iterable[bytes]) -> Iterator[AuditRow]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield entries.read_row(line)
            except PublisherError as error:
                self._fault("unreadable", 0, 0, f"line {number} is no row: {error.detail}")
                self._whole = False

    def _fill(self, rows: Iterator[AuditRow]) -> bool:
        while len(self._ahead) < AHEAD:
            found = next(rows, None)
            if found is None:
                break
            self._ahead.append(found)
        return bool(self._ahead)

    # --- one row ------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        ahead = self._ahead
        place = next((at for at, one in enumerate(ahead) if self._follows(one)), None)
        if place is None:
            self._broken()
            return
        row = ahead[place]
        del ahead[place]
        if place == 0:
            self._renumbered(row)
        else:
            self._out_of_place(row, place)
        self._take(row)

    def _follows(self, row: AuditRow) -> bool:
        """Say whether a row was written as number `expected`, behind `prev`, whatever number it carries now."""
        return _linked(self._prev, row, self._expected)

    def _take(self, row: AuditRow) -> None:
        """Go behind a row, in the state in which it was written or as near as can be told."""
        self._begins_at = self._begins_at or row.at
        self._ends_at = row.at
        self._frontier.add(entries.leaf(entries.canon(_numbered(row, self._expected))))
        self._prev = row.hash
        self._expected += 1
        self._rows += 1
        self._meet(self._frontier.head() if self._frontier.size in self._heads.roots else None)

    def _renumbered(self, row: AuditRow) -> None:
        """Look at the number that a row in its right place carries."""
        shift = row.seq - self._expected
        if shift != self._shift:
            self._fault(
                "edited",
                self._expected,
                self._expected,
                f"row {self._expected} calls itself {row.seq}",
            )
            self._shift = shift

    def _out_of_place(self, row: AuditRow, place: int) -> None:
        """Say of the rows before `row`, which comes next, whether they come later (then they were moved) or never belonged here."""
        moved: list[AuditRow] = []
        foreign: list[AuditRow] = []
        for one in [self._ahead[at] for at in range(place)]:
            (moved if self._belongs(one, row) else foreign).append(one)
        if moved:
            last = self._expected + len(moved)
            text = f"row {self._expected} stands behind {len(moved)} that came after it"
            self._fault("reordered", self._expected, last, text)
        for one in foreign:
            self._ahead.remove(one)
            self._rows += 1
            text = f"a row that calls itself {one.seq} ({one.action} by {one.actor}) was put in before row {self._expected}"
            self._fault("inserted", self._expected, self._expected, text)
        self._shift = row.seq - self._expected if not moved else self._shift

    def _belongs(self, row: AuditRow, first: AuditRow) -> bool:
        """Say whether a row follows one of those ahead: then it is of this log, and only its place is wrong."""
        before = [first.hash, *(one.hash for one in self._ahead)]
        numbers = range(self._expected + 1, self._expected + AHEAD + 1)
        return any(_linked(hash_, row, seq) for seq in numbers for hash_ in before)

    def _broken(self) -> None:
        """Nothing near follows: rows are gone, or this one or the one before it was changed."""
        row = self._ahead.popleft()
        missing = self._missing(row)
        first, last = self._expected, self._expected + missing - 1
        if missing:
            what = f"row {first} is" if missing == 1 else f"rows {first} to {last} are"
            self._fault("deleted", first, last, f"{what} gone")
            self._shift = row.seq - (last + 1)
            self._expected = last + 1
        else:
            text = f"row {first} was changed after it was written: its hash does not follow from row {first - 1}"
            if self._proved < first - 1:
                text += " (or that one was changed, and its own hash made anew)"
            self._fault("edited", first, first, text)
        self._whole = False
        self._take(row)

    def _missing(self, row: AuditRow) -> int:
        """Return how many rows are gone before `row`, by the numbers that it and the row behind it were written under; 0 when none is."""
        behind = self._ahead[0] if self._ahead else None
        plain = row.seq - self._shift - self._expected
        if behind is None:
            return max(0, plain)
        likely: list[int] = [plain] if plain > 0 else []
        for gap in likely + list(range(1, GAP_MAX + 1)):
            if _linked(row.hash, behind, self._expected + gap + 1):
                return gap
        return max(0, plain) if not self._rides(row) else 0

    def _rides(self, row: AuditRow) -> bool:
        """Say whether the row behind `row` was written right after number `expected`: then nothing is gone, and `row` is that number."""
        return bool(self._ahead) and _linked(row.hash, self._ahead[0], self._expected + 1)

    # --- checkpoints and the end --------------------------------------------------------------------------------------

    def _meet(self, head: bytes | None) -> None:
        """Hold the head over the rows so far against the checkpoint of this size, where there is one and no row before it is known to be wrong."""
        size = self._frontier.size
        signed = self._heads.roots.get(size)
        if head is None or signed is None or not self._whole:
            return
        if head == signed:
            self._proved, self._agreed = size, self._agreed + 1
            return
        text = (
            f"the signed checkpoint of {size} rows covers another log: rows {self._proved + 1} to {size} are not what they were,"
            " although their hashes were made to follow"
        )
        self._fault("forked", self._proved + 1, size, text)
        self._whole = False

    def _end(self) -> Examined:
        count, newest = self._expected - 1, self._heads.newest
        if newest > count and len(self._faults) < FAULTS_MAX:
            what = (
                f"row {newest} is" if newest == count + 1 else f"rows {count + 1} to {newest} are"
            )
            text = f"{what} gone from the end: a signed checkpoint covers {newest} rows"
            self._fault("truncated", count + 1, newest, text)
        return Examined(
            rows=self._rows,
            head=self._prev,
            root=self._frontier.head().hex(),
            begins_at=self._begins_at,
            ends_at=self._ends_at,
            checkpoints=self._agreed,
            covered=self._proved,
            faults=tuple(self._faults),
        )

    def _fault(self, kind: Kind, first: int, last: int, text: str) -> None:
        if len(self._faults) < FAULTS_MAX:
            self._faults.append(Fault(kind=kind, first=first, last=last, text=text))


def _numbered(row: AuditRow, seq: int) -> AuditRow:
    return row if row.seq == seq else msgspec.structs.replace(row, seq=seq)


def _linked(before: str, row: AuditRow, seq: int) -> bool:
    return entries.link(before, entries.canon(_numbered(row, seq))) == row.hash
