"""A report as Markdown (CommonMark with tables). Whatever strangers wrote stays text."""

from collections.abc import Sequence

from tidegate.rollout.incident import text
from tidegate.rollout.incident.blocks import Block, Log, Points, Table, Words
from tidegate.rollout.incident.document import Document


def to_markdown(found: Document) -> str:
    """Write a report."""
    lines = [f"# {text.markdown(found.title)}", ""]
    lines += [f"- {name}: {text.markdown(value)}" for name, value in found.facts]
    for section in found.sections:
        lines += ["", f"## {text.markdown(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> Sequence[str]:
    match block:
        case Words():
            return [text.markdown(block.text)]
        case Points():
            return [f"- {text.markdown(one)}" for one in block.rows]
        case Table():
            rules = ["--:" if at in block.numbers else "---" for at in range(len(block.head))]
            rows = [_row(block.head), f"|{'|'.join(rules)}|"]
            return [*rows, *(_row(row) for row in block.rows)]
        case Log():
            fence = text.fence(block.lines)
            return [f"### {text.markdown(block.title)}", "", fence, *block.lines, fence]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(text.markdown(cell) or ' ' for cell in cells)} |"
