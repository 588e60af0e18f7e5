import importlib
import re
from pathlib import Path

import pytest

import tidegate.server.web
from tidegate.server.web.render import LIVE

TEMPLATES = Path(tidegate.server.web.__file__).parent / "templates"
PARTS = sorted(TEMPLATES.rglob("*.html"))


def test_every_command_that_a_page_names_is_there() -> None:
    named = {
        found
        for part in PARTS
        for found in re.findall(r"<code>tidegate ([a-z]+) ([a-z]+)", part.read_text())
    }
    assert named
    missing = {
        f"{noun} {verb}"
        for noun, verb in named
        if verb not in importlib.import_module(f"tidegate.cli.{noun}").command.commands
    }
    assert missing == set()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: str(part.relative_to(TEMPLATES)))
def test_no_template_marks_anything_as_safe_or_carries_inline_code(part: Path) -> None:
    text = part.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|<style|\sstyle=|\son[a-z]+=|javascript:", text)


@pytest.mark.parametrize("page", sorted(LIVE))
def test_every_live_region_has_its_partial_and_no_partial_is_forgotten(page: str) -> None:
    assert {path.stem for path in (TEMPLATES / page).glob("*.html")} == set(LIVE[page])


def test_every_form_carries_the_token_but_the_one_that_opens_the_session() -> None:
    forms = [
        (part.name, form)
        for part in PARTS
        for form in re.findall(r'<form[^>]*method="post".*?</form>', part.read_text(), re.DOTALL)
    ]
    assert len(forms) > 10
    bare = [one for one in forms if "m.csrf()" not in one[1] and '"/sign-in"' not in one[1]]
    assert bare == []
