"""The table of the benchmarks: it shows what was measured, and nothing that was not is met."""

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from bench.figure import Failure, Figure, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("bench_run", str(ROOT / "bench" / "run"))
    spec = importlib.util.spec_from_loader("bench_run", loader)
    assert spec is not None
    made = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    return made


def test_each_figure_stands_beside_its_bar_its_reference_and_the_verdict() -> None:
    rows: list[Figure | Failure] = [
        Figure(name="polls", value=31_234.4, unit="polls/s", reference=44_000, against="bare", bar=20_000),
        Figure(name="answer", value=12.34, unit="ms", reference=4, bar=10, at_most=True),
        Figure(name="memory", value=0.5, unit="MiB"),
        Failure(name="idle", why="not root"),
    ]  # fmt: skip
    head, rule, polls, answer, memory, idle = table(rows)
    assert head.split() == [
        "what",
        "measured",
        "bar",
        "reference",
        "of",
        "the",
        "same",
        "run",
        "ratio",
        "met",
    ]
    assert set(rule) == {"-", " "}
    assert polls.split() == ["polls", "31,234", "polls/s", ">=", "20,000", "44,000", "bare", "0.71", "yes"]  # fmt: skip
    assert answer.split() == ["answer", "12.3", "ms", "<=", "10", "4", "3.08", "NO"]
    assert memory.split() == ["memory", "0.50", "MiB"]
    assert idle.split() == ["idle", "not", "measured", "not", "root", "NO"]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([Figure(name="a", value=2, unit="s", bar=1)], 0),
        ([Figure(name="a", value=1, unit="s", bar=2)], 1),
        ([Figure(name="a", value=float("nan"), unit="s", bar=2)], 1),
        (RuntimeError("no such thing"), 1),
        (SystemExit("not root"), 1),
    ],
)
def test_fails_where_a_bar_is_missed_or_was_not_looked_at(
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: list[Figure] | BaseException,
    code: int,
) -> None:
    def measure() -> list[Figure]:
        if isinstance(rows, BaseException):
            raise rows
        return rows

    monkeypatch.setattr("bench.sessions.measure", measure)
    assert run.main(["sessions"]) == code
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4
    assert "load average" in shown[0]
    if isinstance(rows, BaseException):
        assert str(rows) in shown[-1]


def test_every_file_with_figures_is_a_part_that_is_run(run: ModuleType) -> None:
    with_figures = {
        path.stem for path in (ROOT / "bench").glob("*.py") if "\ndef measure(" in path.read_text()
    }
    assert with_figures == set(run.PARTS)
