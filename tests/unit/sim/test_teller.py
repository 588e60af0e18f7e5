"""The demo says what happens while it happens, and its table tells agreement from the lack of it."""

import io

from tidegate.sim.teller import Row, Teller, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_plain_lines_and_not_too_many_of_them() -> None:
    out, clock = io.StringIO(), [0.0]
    teller = Teller(out, clock=lambda: clock[0])
    for second in range(12):
        clock[0] = float(second)
        teller.progress(f"{second} of 12")
    assert out.getvalue().splitlines() == [
        "     0.0 s  0 of 12",
        "     5.0 s  5 of 12",
        "    10.0 s  10 of 12",
    ]
    assert "\r" not in out.getvalue()


def test_a_terminal_gets_one_line_that_changes_and_lines_that_stay() -> None:
    out = Terminal()
    teller = Teller(out, clock=lambda: 0.0)
    teller.progress("1 of 2")
    teller.progress("2 of 2")
    teller.line("done")
    shown = out.getvalue().split("\r")[-1]
    assert shown == "done\n"
    assert "2 of 2" in out.getvalue()


def test_a_row_agrees_only_when_both_sides_say_the_same() -> None:
    lines = table([Row("1", "confirmed", "305", "305"), Row("2", "reverted", "6", "7")])
    assert [line.split()[-1] for line in lines] == ["AGREE", "yes", "NO"]
    assert len({line.index(line.split()[1]) for line in lines}) == 1
