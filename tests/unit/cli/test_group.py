import json

import pytest

from tidegate.cli import first_screen, names, run
from tidegate.cli.output import EXIT_CODES, exit_code, printable, render_table
from tidegate.core.errors import HINTS, TidegateError
from tidegate.core.reasons import REASONS

Captured = pytest.CaptureFixture[str]


def test_alone_it_shows_what_people_do(capsys: Captured) -> None:
    assert run([]) == 0
    assert capsys.readouterr().out.strip() == first_screen()


def test_every_command_file_is_a_command_with_help(capsys: Captured) -> None:
    for name in names():
        assert run([name, "--help"]) == 0
        assert "Usage: tidegate" in capsys.readouterr().out


def test_a_typing_error_gets_the_nearest_word_and_is_not_run(capsys: Captured) -> None:
    assert run(["versoin"]) == 2
    captured = capsys.readouterr()
    assert 'did you mean "tidegate version"?' in captured.err
    assert captured.out == ""


def test_a_wrong_option_is_wrong_usage(capsys: Captured) -> None:
    assert run(["version", "--colour"]) == 2
    assert "error[request.invalid]" in capsys.readouterr().err


def test_json_is_one_value_that_names_its_schema(capsys: Captured) -> None:
    assert run(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "tidegate.version/1"


def test_with_json_an_error_is_one_problem_on_stderr(capsys: Captured) -> None:
    assert run(["explain", "no.such", "--json"]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    body = json.loads(captured.err)
    assert (body["code"], body["exit"]) == ("request.not_found", 5)


def test_every_code_can_be_explained(capsys: Captured) -> None:
    for code in [*REASONS, *HINTS]:
        assert run(["explain", code]) == 0
    assert "sig.threshold" in capsys.readouterr().out


def test_every_exit_code_is_written_down() -> None:
    assert {exit_code(TidegateError(code)) for code in [*REASONS, *HINTS]} <= set(EXIT_CODES)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sig.threshold", 3),
        ("compat.counter", 3),
        ("request.forbidden", 4),
        ("release.exists", 6),
        ("meta.incomplete", 7),
        ("link.unreachable", 8),
        ("data.locked", 9),
        ("config.invalid", 1),
    ],
)
def test_the_exit_code_says_who_must_act(code: str, expected: int) -> None:
    assert exit_code(TidegateError(code)) == expected


def test_untrusted_text_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a?[2Jb?c"


def test_a_table_lines_up() -> None:
    assert render_table(["name", "a.size"], [["x", "10"], ["longer", "2"]]) == (
        "NAME    SIZE\nx       10\nlonger  2"
    )
