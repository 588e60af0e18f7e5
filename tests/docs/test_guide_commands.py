"""Every command of the guides for operators is carried out by a test: which one is said here, section by section, and a section that nobody names is an error.

The tests take the blocks of a section in turn (`tests.byhand.guide.Section`) and fail where one is left, so a block that is added is carried out, or its
test is red; and a section that is added is named here, or this is.
"""

from pathlib import Path

import pytest
from tests.byhand.guide import ROOT, Section, blocks

OPERATING = "test_operating_guides.py"
PRODUCTION = "test_production_guide.py"
WHO: dict[str, dict[str, str]] = {
    "production.md": {
        "Install it": PRODUCTION,
        "On one machine": PRODUCTION,
        "Three replicas, with single sign-on": PRODUCTION,
        "With containers": "test_compose_guide.py",
        "On Kubernetes": PRODUCTION,
        "Update it": PRODUCTION,
        "Then": PRODUCTION,
    },
    "back-up-and-restore.md": {
        "Back up": OPERATING,
        "Keep the online keys apart": OPERATING,
        "See that it is whole": OPERATING,
        "Restore": OPERATING,
        "On PostgreSQL": OPERATING,
        "Any moment of the past, on PostgreSQL": "test_point_in_time_guide.py",
    },
    "postgresql.md": dict.fromkeys(
        (
            "Make the database", "Make the schema, then serve", "Move from SQLite", "A standby",
            "A new version",
        ),
        OPERATING,
    ),
    "several-processes.md": {"Start them": OPERATING},
    "object-storage.md": {
        "An S3-compatible store": OPERATING,
        "Who sends the bytes to devices": OPERATING,
        "Large bundles, over lines that break": OPERATING,
    },
    "single-sign-on.md": dict.fromkeys(
        ("At the server", "Accounts", "Without passwords"), OPERATING
    ),
    "watch-the-server.md": {"Metrics": OPERATING, "Traces": OPERATING},
}  # fmt: skip


@pytest.mark.parametrize("guide", WHO)
def test_every_section_with_commands_is_carried_out_by_somebody(guide: str) -> None:
    found = dict.fromkeys(one.section for one in blocks(guide))
    assert list(found) == list(WHO[guide]), f"{guide}: who carries out what is new?"
    for section, test in WHO[guide].items():
        text = (Path(__file__).parent / test).read_text()
        assert section.partition(", on")[0] in text, f"{test} does not take {guide}, {section}"


def test_commands_stand_in_fences() -> None:
    """What is only indented would be carried out by nobody; output may stand so."""
    for guide in WHO:
        text = (ROOT / "docs" / "guides" / guide).read_text()
        typed = [line for line in text.splitlines() if line.startswith(("    tidegate ", "    $ "))]
        assert typed == [], guide


def test_a_block_that_nobody_takes_is_an_error() -> None:
    section = Section("production.md", "Install it")
    with pytest.raises(AssertionError, match="nobody carries out"):
        section.done()
    with pytest.raises(AssertionError, match="has no commands"):
        Section("production.md", "No such section")
    section.take("python3 -m venv")
    section.done()
    with pytest.raises(AssertionError, match="no block is left"):
        section.take("anything")
