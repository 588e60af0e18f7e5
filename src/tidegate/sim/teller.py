"""Tells the story while it happens: one changing line on a terminal, plain lines elsewhere. Talk goes to one stream; the verdict is data."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

#: On something that is no terminal, a line about progress at most this often, in seconds.
QUIET_S: Final = 5.0


class Teller:
    """Writes lines and progress to a stream."""

    def __init__(self, out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell on `out`; whether it is a terminal decides how."""
        self._out = out
        self._clock = clock
        self._live = out.isatty()
        self._shown = ""
        self._last_at = float("-inf")
        self._last = ""
        self._began = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        self._wipe()
        self._out.write(text + "\n")
        self._out.flush()
        self._last_at = float("-inf")

    def progress(self, text: str) -> None:
        """Show where things stand; on a terminal in place."""
        if self._live:
            self._wipe()
            self._shown = f"   {text}"[:150]
            self._out.write(self._shown)
            self._out.flush()
            return
        if text != self._last and self._clock() - self._last_at >= QUIET_S:
            self._last, self._last_at = text, self._clock()
            self._out.write(f"   {self.elapsed_s:5.1f} s  {text}\n")
            self._out.flush()

    def _wipe(self) -> None:
        if self._shown:
            self._out.write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""


@dataclass(frozen=True)
class Row:
    """One figure of the verdict: what the server counted beside what the simulator knows."""

    step: str
    figure: str
    server: str
    truth: str

    @property
    def agrees(self) -> bool:
        """Say whether the two are the same."""
        return self.server == self.truth


def table(rows: Sequence[Row]) -> list[str]:
    """Lay the verdict out as lines of text."""
    head = ("STEP", "FIGURE", "SERVER", "TRUTH", "AGREE")
    cells = [
        (row.step, row.figure, row.server, row.truth, "yes" if row.agrees else "NO") for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
