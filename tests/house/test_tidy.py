"""Small rules of the house that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "tidegate").rglob("*.py"))
LISTS = sorted((ROOT / "requirements").glob("*.txt"))
LINES_MAX = 600


@pytest.mark.parametrize("package", ["core", "agent", "server"])
def test_packages_that_must_load_alone_have_an_empty_init(package: str) -> None:
    assert (ROOT / "src" / "tidegate" / package / "__init__.py").read_text() == ""


def test_no_source_file_holds_two_concepts_worth_of_lines() -> None:
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > LINES_MAX}
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if path.read_text().strip()
        and not path.read_text().lstrip().startswith(('"""', "'''", 'r"""'))
    ]
    assert silent == []


def test_modules_are_named_after_one_concept() -> None:
    vague = {"utils", "util", "helpers", "common", "manager", "base", "misc"}
    assert [p.as_posix() for p in SOURCES if p.stem in vague] == []


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_requirements_are_pinned_with_hashes_and_name_no_index(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"https?://|--(extra-)?index-url", text) is None
    entries = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"(?m)^#.*\n", "", text).strip())
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_lists_agree_on_every_version() -> None:
    pins: dict[str, set[str]] = {}
    for path in LISTS:
        for name, version in re.findall(
            r"(?m)^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", path.read_text()
        ):
            pins.setdefault(name, set()).add(version)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


def test_every_page_that_the_code_names_is_in_the_repository() -> None:
    pages = {path.name for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for path in SOURCES
        for name in re.findall(r"(?<!--out )(?<![\w-])[\w-]+\.md\b", path.read_text())
    }
    assert {(name, path) for name, path in named if name not in pages} == set()
