"""One guard of one route is removed, each in turn: what holds routes and roles together must turn red.

The matrix of `test_roles_and_routes` derives what it expects from what routes declare. So that is held against what was reviewed: for the API, its checked-in
description; for pages, `tests/golden/pages.txt`. That the guard is asked is seen by taking it away: whoever was refused gets in, or is refused behind it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from tests.unit.server.caller import Route
from tests.unit.server.test_roles_and_routes import Callers, _declared, _looked_at, callers

from tidegate.server import scopes
from tidegate.server.actors import ROLES
from tidegate.server.scopes import ABOUT, ANYBODY, PERMISSION, WHOLE

__all__ = ["callers"]
_ROOT: Final = Path(__file__).parents[3]
PAGES: Final = _ROOT / "tests" / "golden" / "pages.txt"
API: Final = _ROOT / "docs" / "reference" / "openapi.json"


def reviewed() -> set[str]:
    """Return what routes are to declare."""
    found = set(PAGES.read_text().splitlines())
    for path, told in json.loads(API.read_text())["paths"].items():
        for method, operation in told.items() if path.startswith("/api/") else ():
            found.add(f"{method.upper()} {path} {operation.get('x-tidegate-permission', ANYBODY)}")
    return found


def declared(app: Litestar) -> set[str]:
    """Return what routes declare; of pages, what they are about as well."""
    found = set()
    for one in _declared(app):
        path = one.path.replace(":str}", "}").replace(":int}", "}")
        if path.startswith("/api/"):
            found.add(f"{one.method} {path} {one.permission or '-'}")
        else:
            found.add(f"{one.method} {path} {one.permission or '-'} {one.about or '-'}")
    return found


def unlike(app: Litestar) -> list[str]:
    """Return where routes declare something else than was reviewed."""
    return sorted(declared(app) ^ reviewed())


def handlers(app: Litestar) -> Iterator[tuple[str, HTTPRouteHandler]]:
    """Yield every handler that declares a permission and answers more than HEAD, with its path."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler):
                continue
            methods = handler.http_methods - {"HEAD", "OPTIONS"}
            if methods and PERMISSION in handler.opt and route.path[:13] != "/api/openapi/":
                yield route.path, handler


def test_what_routes_declare_is_what_was_reviewed(callers: Callers) -> None:
    assert unlike(callers.app) == [], f"{PAGES.name} and {API.name} say what is to be declared"


def test_a_route_that_declares_another_permission_or_another_thing_is_seen(
    callers: Callers,
) -> None:
    seen = 0
    for path, handler in handlers(callers.app):
        told: Any = handler.opt[PERMISSION]
        verbs = told if isinstance(told, dict) else {"": told}
        changes: list[dict[str, object]] = []
        for verb, permission in verbs.items():
            for other in {ANYBODY, "fleet.read", "rollout.operate"} - {permission}:
                weaker = {**told, verb: other} if isinstance(told, dict) else other
                changes.append({**handler.opt, PERMISSION: weaker})
        if handler.opt.get(ABOUT) not in {WHOLE, None} and not path.startswith("/api/"):
            changes.append({**handler.opt, ABOUT: WHOLE})
        before = dict(handler.opt)
        for change in changes:
            handler.opt.clear()
            handler.opt.update(change)
            assert unlike(callers.app), (path, change)
            seen += 1
        handler.opt.clear()
        handler.opt.update(before)
    assert seen > 300
    assert unlike(callers.app) == []


def _stranger(route: Route) -> str:
    """Return a role that lacks what a route takes, one that may look if there is one; empty where every role has it."""
    lacking = [role for role, may in ROLES.items() if route.permission not in may]
    return min(lacking, key=lambda role: (role != "viewer", role), default="")


def test_without_the_guard_a_stranger_is_let_through_or_refused_once_more_behind_it(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in: list[Route] = []
    refused: list[Route] = []
    for route in _looked_at(callers.app):
        who = _stranger(route)
        if route.is_open or not who:
            continue
        assert callers.call(route, (who,)).status == 403, route
        with monkeypatch.context() as removed:
            removed.setattr(scopes, "check", lambda *_: None)
            status = callers.call(route, (who,)).status
        (refused if status == 403 else let_in).append(route)
    # What the matrix asks of each of these is not so any more: it is red.
    assert len(let_in) > 100
    assert {one.permission.partition(".")[0] for one in refused} <= {"rollout"}, refused
