"""Runs scenarios x policies x seeds, a process a core, and keeps every result: what was computed once is not computed again.

A result's key holds the scenario, the policy, the seed, and a digest of the code that made it: of the simulator for peers, of the gate as well for
Tidegate's own policies. A comparison that was interrupted goes on where it stopped.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import msgspec

from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.catalog import NAMED, make_policy, ours
from tidegate.sim.fleet.draw import Half, draw
from tidegate.sim.fleet.nulls import Kind, null_set
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.spec import Scenario

Drawing: TypeAlias = Half | Kind


@dataclass(frozen=True)
class Job:
    """One run to make."""

    scenario: Scenario
    policy: str
    seed: int

    @property
    def key(self) -> str:
        """Return what names the result of this job, with this code."""
        plain = msgspec.json.encode(self.scenario, order="deterministic")
        code = code_digest(gate=self.policy in ours())
        # A name may come to mean other settings: a peer's result belongs to its settings.
        policy = NAMED.get(self.policy, self.policy)
        text = b"\0".join((plain, policy.encode(), str(self.seed).encode(), code.encode()))
        return hashlib.sha256(text).hexdigest()[:32]

    def run(self) -> Outcome:
        """Play it."""
        return Play(self.scenario, make_policy(self.policy), self.policy, self.seed).run()


class Cache:
    """Results by key, one JSON line each; appended as they come."""

    def __init__(self, folder: Path | None) -> None:
        """Open the cache of a folder; None = keep nothing.

        Raises:
            ConfigError: `config.unreadable`.
        """
        self._found: dict[str, Outcome] = {}
        self._path = None if folder is None else folder / "results.jsonl"
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        except OSError as error:
            raise ConfigError("config.unreadable", f"{self._path}: {error.strerror}") from error
        for line in lines:
            try:
                plain = json.loads(line)
                self._found[plain["key"]] = msgspec.convert(plain["outcome"], Outcome)
            except (ValueError, KeyError, msgspec.ValidationError):
                continue  # cut off by an interruption, or of another version: it is computed again

    def get(self, job: Job) -> Outcome | None:
        """Return the result of a job, if it is there."""
        return self._found.get(job.key)

    def put(self, job: Job, outcome: Outcome) -> None:
        """Keep a result."""
        self._found[job.key] = outcome
        if self._path is not None:
            line = msgspec.json.encode({"key": job.key, "outcome": outcome})
            with self._path.open("ab") as file:
                file.write(line + b"\n")


@cache
def code_digest(*, gate: bool) -> str:
    """Return a digest of the sources that a result depends on: of the gate's, or of any peer's."""
    whole = hashlib.sha256()
    for path in sources(gate=gate):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def sources(*, gate: bool) -> list[Path]:
    """Return the files that a result depends on."""
    here = Path(__file__).parent
    package = here.parents[1]
    found = [*_python(here), *_python(package / "rollout" / "evidence")] if gate else _python(here)
    kept = [one for one in found if one.name not in _BESIDE and (gate or one.name not in _OURS)]
    return [*kept, package / "core" / "bucket.py"] if gate else kept


def _python(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


#: Files that no result depends on: they draw, read and sum up, or keep the server's single devices.
_BESIDE = frozenset(
    {
        *("compare.py", "summary.py", "page.py", "draw.py", "nulls.py", "reader.py"),
        *("roster.py", "pairs.py"),
    }
)
#: Files that no peer's result depends on.
_OURS = frozenset({"gate.py", "arrays.py", "errors.py", "catalog.py"})


def jobs_of(
    scenarios: Sequence[Scenario], policies: Sequence[str], seeds: int, first: int | None = None
) -> list[Job]:
    """Return every scenario under every policy with `seeds` seeds each, counted from the scenario's own (or from `first`)."""
    return [
        Job(scenario, policy, (scenario.seed if first is None else first) + number)
        for number in range(seeds)
        for scenario in scenarios
        for policy in policies
    ]


def drawn_jobs(count: int, seed: int, which: Drawing, policies: Sequence[str]) -> list[Job]:
    """Return so many bad and so many good draws of a half, or so many releases of a null set, under every policy.

    The scenario is the draw: one seed each, and another one in every scenario.
    """
    scenarios: list[Scenario] = []
    match which:
        case "clean" | "limit":
            scenarios = null_set(count, seed, which)
        case "tune" | "report":
            for bad in (True, False):
                scenarios += draw(count, seed, which, bad=bad)
    return [
        Job(one, name, seed * 1_000_003 + number)
        for number, one in enumerate(scenarios)
        for name in policies
    ]


def run_all(
    jobs: Sequence[Job],
    cache_: Cache,
    *,
    processes: int = 1,
    tell: Callable[[int, int], None] = lambda _done, _whole: None,
) -> list[Outcome]:
    """Run what is not in the cache.

    Args:
        jobs: what is wanted; results come in this order.
        cache_: results of before; new ones go in.
        processes: how many at once.
        tell: called with (done, of how many) after each.
    """
    found: dict[int, Outcome] = {}
    missing: list[tuple[int, Job]] = []
    for number, job in enumerate(jobs):
        known = cache_.get(job)
        if known is None:
            missing.append((number, job))
        else:
            found[number] = known
    tell(len(found), len(jobs))
    for number, outcome in _run(missing, processes):
        found[number] = outcome
        cache_.put(jobs[number], outcome)
        tell(len(found), len(jobs))
    return [found[number] for number in range(len(jobs))]


def _run(missing: Iterable[tuple[int, Job]], processes: int) -> Iterator[tuple[int, Outcome]]:
    work = list(missing)
    if processes <= 1 or len(work) < 2:
        yield from map(_one, work)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_one, work)


def _one(work: tuple[int, Job]) -> tuple[int, Outcome]:
    number, job = work
    return number, job.run()
