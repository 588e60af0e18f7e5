"""The schema's history is one line: two branches that each add a step to the same one are found when they meet."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "src" / "tidegate" / "server" / "store" / "migrations"


def _said(text: str, word: str) -> str | None:
    found = re.search(rf'^{word}(?:: Final)? = (?:"(\d+)"|None)$', text, re.MULTILINE)
    assert found, word
    return found[1]


def test_each_step_follows_the_one_before_it() -> None:
    steps = sorted((MIGRATIONS / "versions").glob("0*.py"))
    before = None
    for step in steps:
        text = step.read_text()
        assert _said(text, "revision") == step.name[:4]
        assert _said(text, "down_revision") == before, f"{step.name} must follow {before}"
        before = step.name[:4]
    assert _said((MIGRATIONS / "__init__.py").read_text(), "HEAD") == before
