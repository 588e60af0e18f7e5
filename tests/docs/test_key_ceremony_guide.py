"""The guide to the ceremony is carried out by a person at a terminal: every command, every question, every line that is shown.

`TIDEGATE_GOLDEN=write` writes what is shown into the guide; read the difference before it is kept.
"""

import os
import re
from pathlib import Path

import pytest
from tests.docs.terminal import BLOCK, ROOT, Terminal, commands
from tests.e2e.served import serving

from tidegate.publisher.words import WORDS

GUIDE = ROOT / "docs" / "guides" / "key-ceremony.md"
TEXT = GUIDE.read_text()
PASSPHRASE = "four rooms and a garden"
_WORD = "|".join(WORDS)
#: What differs from one run to the next: ids, words, times, sizes.
VARYING = (
    (re.compile(rf"(?:\b(?:{_WORD})\b ?){{8}}"), "<words>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<key id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "<day>"),
    (re.compile(r"\b\d\d:\d\d UTC\b"), "<time>"),
    (
        re.compile(r"\b\d+(?:\.\d+)? (?:s|d|days|[KMG]i?B|B|%)(?![A-Za-z0-9])", re.MULTILINE),
        "<amount>",
    ),
    (re.compile(r"\b[1-9]\d{7}\b"), "<minute>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<server>"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


def comparable(shown: str) -> str:
    for pattern, name in VARYING:
        shown = pattern.sub(name, shown)
    return shown.strip("\n")


class Person:
    """Knows the passphrase, the words that were last read aloud, and what is being released."""

    def __init__(self) -> None:
        self.words = ""
        self.version = ""

    def answer(self, screen: str) -> str | None:
        if screen.endswith(("not shown): ", "Once more: ")):
            return PASSPHRASE
        if screen.endswith("they are not shown: "):
            return self.words
        if screen.endswith("type its version: "):
            return self.version
        return None

    def heard(self, shown: str) -> None:
        for words in re.findall(r"^Words   (.*?)\s*$", shown, re.MULTILINE):
            self.words = words
        for version in re.findall(r"^gw1-(\d+\.\d+\.\d+)\.bundle\s*$", shown, re.MULTILINE):
            self.version = version


def carry_out(folder: Path) -> list[tuple[str, str, str]]:
    """Do all that the guide says; (command, what the guide shows, what was shown)."""
    for name, text in re.findall(r"```toml (\S+)\n(.*?)```", TEXT, re.DOTALL):
        (folder / name).write_text(text)
    person = Person()
    found = []
    with serving(folder / "tidegate-data") as served:
        env = {"TIDEGATE_SERVER": f"http://127.0.0.1:{served.port}", "HOME": str(folder / "home")}
        terminal = Terminal(folder, env, person.answer)
        for block in BLOCK.findall(TEXT):
            for line, expected in commands(block[1]):
                shown = terminal.run(line)
                person.heard(shown)
                found.append((line, expected, shown))
    return found


def rewrite(steps: list[tuple[str, str, str]]) -> None:
    shown = iter(steps)

    def filled(match: re.Match[str]) -> str:
        lines = []
        for line, _ in commands(match[2]):
            output = next(shown)[2].strip("\n")
            output = re.sub(r"[ \t]+$", "", output, flags=re.MULTILINE)
            lines.append(f"$ {line}\n" + (f"{output}\n" if output else ""))
        return match[1] + "\n".join(lines) + match[3]

    # the test derives keys cheaply; a person waits as long as trying a passphrase costs
    text = BLOCK.sub(filled, TEXT).replace("Made in 0.0 s", "Made in 0.5 s")
    GUIDE.write_text(text)


def test_every_command_of_the_guide_shows_what_the_guide_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TIDEGATE_KEY_PASSPHRASE_FILE", "TIDEGATE_ROOT", "TIDEGATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    steps = carry_out(tmp_path)
    if os.environ.get("TIDEGATE_GOLDEN") == "write":
        rewrite(steps)
        return
    assert len(steps) > 40
    for line, expected, shown in steps:
        assert comparable(shown) == comparable(expected), line
    assert (tmp_path / "root.2.json").is_file()
