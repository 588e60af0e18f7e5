"""Every verb of the command line and of the pages has a route, or a reason why not; and every route is somebody's."""

import importlib.util
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/reference/openapi.json").read_text())
OPERATIONS = {
    one["operationId"]: path
    for path, item in DOCUMENT["paths"].items()
    for one in item.values()
    if path.startswith("/api/v1/")
}


def _table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_api", ROOT / "tools/docs_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return _table()


def test_every_command_and_every_route_has_its_line(table: ModuleType) -> None:
    assert len(table.commands()) > 100
    assert len(table.operations()) > 110
    assert table.unexplained() == []
    assert sorted(set(table.CALLS) - set(table.commands())) == []


def test_a_command_or_a_route_without_a_line_is_told(
    table: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(table.CALLS, "halt")
    monkeypatch.delitem(table.CALLS, "device hold")
    monkeypatch.delitem(table.ROUTES_ALONE, "jobs_create")
    assert {"halt", "jobs_create", "device hold"} <= set(table.unexplained())
    with pytest.raises(SystemExit, match="no line for: device hold, halt"):
        table.page()


def test_every_route_that_is_named_is_there(table: ModuleType) -> None:
    named = {one for calls in (*table.CALLS.values(), *table.FORMS.values()) for one in calls}
    assert sorted(named - set(OPERATIONS)) == []
    beginnings = tuple(table.ROUTES_ALONE)
    assert [one for one in beginnings if not any(o.startswith(one) for o in OPERATIONS)] == []


def test_every_form_of_the_pages_has_a_route_or_says_why_not(table: ModuleType) -> None:
    posts: set[str] = set()
    for file in (ROOT / "src/tidegate/server/web").rglob("*.py"):
        found = re.findall(r'@post\(\s*"([^"]+)"', file.read_text())
        posts |= {re.sub(r"\{[^}]*\}", "{}", one) for one in found}
    assert len(posts) >= 10
    missing = [
        one
        for one in sorted(posts)
        if one not in table.FORMS and not one.startswith(tuple(table.FORMS_ALONE))
    ]
    assert missing == []


def test_what_commands_call_is_what_their_files_say(table: ModuleType) -> None:
    """The table is written by hand; here the operations that the files of the commands name are held against it."""
    told: dict[ModuleType, set[str]] = {}
    for name, command in table.commands().items():
        module = inspect.getmodule(inspect.unwrap(command.callback))
        assert module is not None
        told.setdefault(module, set()).update(table.CALLS.get(name, ()))
    said = {module: _operations(inspect.getsource(module)) for module in told}
    missing = {module.__name__: sorted(said[module] - told[module]) for module in told}
    assert {name: calls for name, calls in missing.items() if calls} == {}
    assert len([calls for calls in said.values() if calls]) > 12


def _operations(source: str) -> set[str]:
    named = {one.removesuffix("_dry_run") for one in re.findall(r"\b[cC]lient\.(\w+)", source)}
    return named & set(OPERATIONS)
