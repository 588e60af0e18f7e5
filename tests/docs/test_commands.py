"""Every command printed in a page exists, with the options it is printed with; so does every make target."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tidegate.agent import main
from tidegate.cli import program
from tidegate.cli.help import TOPICS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str) -> list[str]:
    """Return the lines of a page's `sh` blocks and indented blocks, with continued lines joined and comments gone."""
    lines, fenced, wanted = [], False, False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            wanted = line.removeprefix("```").strip() == "sh"
        elif (fenced and wanted) or (not fenced and line.startswith("    ")):
            lines.append(line.strip())
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def printed(program: str) -> list[tuple[str, str]]:
    """Return (page, call) for each printed call of a program, also behind `&&` and inside sentences as `code`."""
    found = []
    for page in PAGES:
        text = page.read_text()
        calls = [call.strip() for line in blocks(text) for call in line.split("&&")]
        calls += re.findall(r"`([^`\n]+)`", text)
        calls += re.findall(r"(?m)^  (tidegate [a-z].*)$", text)  # examples in --help
        name = page.relative_to(ROOT).as_posix()
        found += [(name, one) for one in calls if re.match(rf"{program} [a-z]", one)]
    return sorted(set(found))


def words_of(call: str) -> list[str]:
    """Split a call, without redirection, pipe and the background mark."""
    words = shlex.split(call, comments=True)
    for stop in ("|", ">", "&", ";", "2>"):
        if stop in words:
            words = words[: words.index(stop)]
    return words[1:]


def options_of(command: click.Command) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize(("page", "call"), printed("tidegate"))
def test_a_printed_command_exists_with_its_options(page: str, call: str) -> None:
    command: click.Command = program
    context = click.Context(command)
    words = words_of(call)
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"{page}: {call}"
        command, context = found, click.Context(found, parent=context)
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given - (options_of(command) | {"--help"}) == set(), f"{page}: {call}"


@pytest.mark.parametrize(("page", "call"), printed("tidegate-agent"))
def test_a_printed_agent_verb_exists(page: str, call: str) -> None:
    assert words_of(call)[0] in main._parser().format_help(), f"{page}: {call}"


@pytest.mark.parametrize(("page", "call"), printed("make"))
def test_a_printed_make_target_exists(page: str, call: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert words_of(call)[0] in targets, f"{page}: {call}"


def test_every_topic_that_is_named_can_be_read() -> None:
    sources = (ROOT / "src" / "tidegate").rglob("*.py")
    named = {
        word
        for path in sources
        for word in re.findall(r"tidegate help ([a-z-]+)", path.read_text())
    }
    assert named - TOPICS.keys() == set()


def test_pages_print_commands() -> None:
    assert len(printed("tidegate")) > 30
    assert len(printed("make")) > 5
