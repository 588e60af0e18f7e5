"""The command blocks of a guide, section by section: what a test takes is carried out as it stands, and what nobody takes is found out."""

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: Also one that stands in a list, indented.
_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
#: Languages of blocks that a reader types or puts into a file.
CARRIED_OUT: Final = frozenset({"sh", "toml", "nginx", "yaml"})


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    section: str
    language: str
    text: str


def blocks(guide: str) -> list[Block]:
    """Return the blocks of `docs/guides/GUIDE`, in their order."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / "guides" / guide).read_text(), flags=re.MULTILINE)  # fmt: skip
    titled = [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    return [
        Block(title, language, textwrap.dedent(text))
        for title, body in titled
        for _, language, text in _FENCE.findall(body)
        if language in CARRIED_OUT
    ]


@dataclass
class Section:
    """The blocks of one section, to be taken in turn; `done` says that none was left."""

    guide: str
    title: str
    _left: list[Block] = field(init=False)

    def __post_init__(self) -> None:
        self._left = [one for one in blocks(self.guide) if one.section == self.title]
        assert self._left, f"{self.guide} has no commands in a section {self.title!r}"

    @property
    def left(self) -> int:
        """Return how many blocks were not taken yet."""
        return len(self._left)

    def take(self, *words: str) -> Block:
        """Take the next block; it has to hold these words.

        Raises:
            AssertionError: the guide says something else here.
        """
        assert self._left, (
            f"{self.guide}, {self.title}: no block is left where {words} was expected"
        )
        block = self._left.pop(0)
        assert all(one in block.text for one in words), (self.title, words, block.text)
        return block

    def done(self) -> None:
        """Fail where a block was not taken.

        Raises:
            AssertionError: a block of the guide is carried out by nobody.
        """
        assert not self._left, (
            f"{self.guide}, {self.title}: nobody carries out {self._left[0].text}"
        )
