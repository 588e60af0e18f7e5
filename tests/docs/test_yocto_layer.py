"""The Yocto layer names what exists. It is not built here, and its README says so."""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYER = ROOT / "packaging" / "yocto"


def recipe() -> str:
    (path,) = LAYER.rglob("*.bb")
    return path.read_text()


def test_the_recipe_is_of_this_version() -> None:
    (path,) = LAYER.rglob("*.bb")
    source = (ROOT / "src" / "tidegate" / "__init__.py").read_text()
    version = re.search(r'__version__ = "(.+)"', source)
    assert version is not None
    assert path.name == f"tidegate-agent_{version[1]}.bb"


def test_every_file_that_it_installs_is_there() -> None:
    named = re.findall(r"\$\{S\}/([\w./-]+)", recipe())
    assert "packaging/tidegate-agent.service" in named
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_the_licence_is_the_one_that_was_read() -> None:
    said = re.search(r"file://LICENSE;md5=([0-9a-f]{32})", recipe())
    assert said is not None
    found = hashlib.md5((ROOT / "LICENSE").read_bytes(), usedforsecurity=False)
    assert said[1] == found.hexdigest()


def test_every_dependency_of_the_agent_is_a_package_of_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0]
    wanted = {re.split(r"[><=]", one)[0] for one in re.findall(r'"([^"]+)"', lines)}
    needs = set(re.findall(r"[\w-]+", recipe().partition("RDEPENDS")[2].partition('"\n')[0]))
    # Zones come from the system's own files there.
    assert {f"python3-{one}" for one in wanted - {"tzdata"}} | {"tzdata"} <= needs


def test_braces_and_quotes_are_closed() -> None:
    text = recipe()
    assert text.count("{") == text.count("}")
    for line in re.sub(r"\\\n", "", text).splitlines():
        if re.match(r"[A-Z_]+[\w:${}]* [?+.]*= ", line):
            assert line.count('"') == 2, line
