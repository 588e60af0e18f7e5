"""Scenarios: a repository does something, a client is told to look, and what it believes afterwards is compared with what it should."""

import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.clients import Ours, Theirs
from tests.conformance.repository import Repository
from tests.unit.core.repo import DAY, NOW


class Lab:
    """One repository and one client of it.

    Attributes:
        trace: what came of each step: whether it succeeded, and which documents were believed after it.
        problem: why the last step failed.
    """

    def __init__(self, folder: Path, kind: type[Ours | Theirs]) -> None:
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True)
        self.repo = Repository()
        self.client = kind(folder, self.repo)
        self.trace: list[tuple[str, bool, list[tuple[str, int]]]] = []
        self.problem: Exception | None = None
        self._folder = folder

    def init(self, root: bytes | None = None) -> None:
        """Give the client its first root; the repository's own unless told otherwise."""
        self.client.init(self.repo.files["1.root.json"] if root is None else root)

    def refresh(self, *, days: float = 0) -> bool:
        """Have the client look, `days` from now; returns whether it was content."""
        return self._step("refresh", lambda: self.client.refresh(NOW + int(days * DAY)))

    def download(self, *names: str) -> bool:
        """Have the client look, and fetch targets."""
        return self._step("download", lambda: self.client.download(names, NOW))

    def _step(self, name: str, act: Callable[[], None]) -> bool:
        self.problem = None
        try:
            act()
        except self.client.refusals as error:
            self.problem = error
        self.trace.append((name, self.problem is None, self.roles()))
        return self.problem is None

    def damage(self, *roles: str) -> None:
        """Spoil what the client keeps of some roles."""
        for role in roles:
            self.client.damage(role)

    def forget(self) -> None:
        """Take everything from the client that it keeps."""
        shutil.rmtree(self._folder / "metadata")
        (self._folder / "metadata").mkdir()

    # --- what the client believes ---

    def roles(self) -> list[tuple[str, int]]:
        """Return name and version of every document that the client shows."""
        found = []
        for place in sorted((self._folder / "metadata").glob("*.json")):
            try:
                version = json.loads(place.read_bytes())["signed"]["version"]
            except (ValueError, KeyError, TypeError):
                version = -1
            found.append((place.name.removesuffix(".json"), version))
        return found

    def version(self, role: str) -> int | None:
        return dict(self.roles()).get(role)

    def body(self, role: str) -> bytes:
        return (self._folder / "metadata" / f"{role}.json").read_bytes()

    def downloaded(self) -> list[bytes]:
        """Return the contents that were fetched and believed, sorted."""
        return sorted(one.read_bytes() for one in (self._folder / "targets").iterdir())


@dataclass(frozen=True)
class Scenario:
    """One scenario with its cases; a scenario without any has the one case None."""

    name: str
    run: Callable[[Lab, Any], None]
    cases: Mapping[str, Any]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    cases: Mapping[str, Any] | None = None,
) -> Callable[[Callable[[Lab, Any], None]], Callable[[Lab, Any], None]]:
    """Register a function under its name."""

    def register(run: Callable[[Lab, Any], None]) -> Callable[[Lab, Any], None]:
        name = run.__name__
        SCENARIOS[name] = Scenario(name, run, {"": None} if cases is None else cases)
        return run

    return register


def cases() -> list[tuple[str, str]]:
    """Return every scenario with each of its cases."""
    for module in ("top_roles", "root_role", "lower_roles"):
        importlib.import_module(f"tests.conformance.{module}")
    return [(one.name, case) for one in SCENARIOS.values() for case in one.cases]
