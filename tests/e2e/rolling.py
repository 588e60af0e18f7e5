"""A rolling upgrade under load: replicas of the version before are replaced one by one by the present one while devices ask, tell and are let go.

`python -m tests.e2e.rolling --times 5` is `make rolling-load`. The old version is real: a tree of this repository's history (`previous`). It makes the
database and starts the rollout; the present one migrates it beneath the running replicas. As long as there are both, a halt is acknowledged by each in turn,
and the other kind is the one that may not let anybody go past it. What is counted afterwards is what is counted behind faults (`ledger`).
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from tests import postgres
from tests.e2e import ledger, previous
from tests.e2e.breaking import Replica
from tests.e2e.crowd import Watch
from tests.e2e.faults import Patient, Teller
from tests.e2e.ledger import Lost

_CONFIG: Final = """
[plan]
tick = "1s"
[log]
level = "warning"
"""
_SHARED: Final = "[data]\nshared = true\n"
#: What a replica that goes, or is not there yet, may answer: nothing at all, or that somebody should come again.
_AGAIN: Final = {"0", "503"}


class Report(Lost, kw_only=True):
    """What was done, and what was counted."""

    devices: int
    replicas: int
    #: Halts by who acknowledged them and who else there was: "old", "new", "old beside new", "new beside old".
    halts: dict[str, int]
    refused: dict[str, int]
    seconds: float

    @property
    def strange(self) -> dict[str, int]:
        """Return what was answered that no device expects of a server that is upgraded."""
        return {one: found for one, found in self.refused.items() if one not in _AGAIN}


@dataclass
class _Show:
    """The replicas, and who halts."""

    replicas: list[Replica]
    operator: Patient
    watch: Watch
    chance: random.Random
    open_s: float
    quiet_s: float
    halts: Counter[str] = field(default_factory=Counter)

    def _of(self, *, old: bool) -> list[int]:
        return [n for n, one in enumerate(self.replicas) if (one.code is not None) == old]

    async def halt_everywhere(self, times: int) -> None:
        """Have the rollout halted so often by each kind of replica that there is, and resumed by the other where there is one."""
        for _ in range(times):
            for old in (True, False):
                mine, others = self._of(old=old), self._of(old=not old)
                if mine:
                    await self._halt(mine, others, "old" if old else "new")

    async def _halt(self, mine: Sequence[int], others: Sequence[int], kind: str) -> None:
        watch, chance = self.watch, self.chance
        before = watch.grants
        for _ in range(60):  # on a machine that has other work, too
            await asyncio.sleep(self.open_s * (0.5 + chance.random()))
            if watch.grants > before:
                break
        assert watch.grants > before, "nobody was let go any more"
        await self._do(chance.choice(mine), "halt")
        watch.quiet_since = time.monotonic()
        await asyncio.sleep(self.quiet_s * (0.5 + chance.random()))
        watch.quiet_since = None
        await self._do(chance.choice(others or mine), "resume")
        self.halts[f"{kind} beside {'new' if kind == 'old' else 'old'}" if others else kind] += 1

    async def _do(self, replica: int, verb: str) -> None:
        """Carry it out at this very one: all of them are up."""
        status = await asyncio.to_thread(self.operator.act, replica, verb)
        assert status == 200, (verb, replica, status)

    async def replace(self, replica: Replica) -> None:
        """Do what `systemctl restart` does after a package was put in: the old one ends in order, the new one starts."""
        assert await asyncio.to_thread(replica.stop) == 0
        replica.code = None
        await asyncio.to_thread(replica.start)


async def _story(show: _Show, devices: list[Teller], url: str, times: int) -> None:
    crowd = [asyncio.create_task(one.live()) for one in devices]
    try:
        await show.halt_everywhere(times)
        if url:  # a file is brought up to date by the first new process
            await asyncio.to_thread(previous.upgrade, None, url)
            await show.halt_everywhere(times)
        for replica in show.replicas:
            await show.replace(replica)
            await show.halt_everywhere(times)
    finally:
        show.watch.stopping = True
        await asyncio.gather(*crowd)


@contextlib.contextmanager
def _database(back_end: str) -> Iterator[str]:
    if back_end == "sqlite":
        yield ""
        return
    with postgres.database(postgres.Server.database) as url:
        yield url


def run(
    folder: Path,
    *,
    back_end: str,
    devices: int,
    times: int = 1,
    replicas: int = 3,
    open_s: float = 1.0,
    quiet_s: float = 1.0,
    pause_s: float = 0.5,
    seed: int = 1,
) -> Report:
    """Tell the whole story once.

    Args:
        folder: an empty one.
        back_end: `stores.BACK_ENDS`; several processes share a directory on SQLite.
        devices: how many of them.
        times: halts by each kind of replica at each stage.
        replicas: server processes.
        open_s, quiet_s: how long the rollout is open, and halted, on average.
        pause_s: between two questions of a device.
        seed: of the moments.
    """
    code = previous.tree(folder / "previous")
    data, config = folder / "data", folder / "tidegate.toml"
    with _database(back_end) as url:
        config.write_text(_CONFIG + (f'[database]\nurl = "{url}"\n' if url else _SHARED))
        if url:
            previous.upgrade(code, url)
        known = previous.prepare(code, data, devices, url)
        watch = Watch()
        began = time.monotonic()
        running: list[Replica] = []
        try:
            for number in range(replicas):
                log = folder / f"replica{number}.log"
                running.append(Replica(data, config, log, code=code))
            operator = Patient(list(running), (data / "bootstrap.token").read_text().strip())
            operator.create()
            ports = [one.port for one in running]
            tellers = [Teller(*one, ports, watch, pause_s=pause_s) for one in known]
            show = _Show(running, operator, watch, random.Random(seed), open_s, quiet_s)
            asyncio.run(_story(show, tellers, url, times))
        finally:
            for one in running:
                one.kill()
        return Report(
            devices=devices,
            replicas=replicas,
            halts=dict(sorted(show.halts.items())),
            refused={str(one): found for one, found in sorted(watch.codes.items())},
            seconds=round(time.monotonic() - began, 1),
            **ledger.count(data, tellers, watch, url),
        )


def main() -> int:
    """Run the long form and print what was counted; exit code 1 where something was lost."""
    parser = argparse.ArgumentParser(description="Replace replicas by newer ones under load.")
    parser.add_argument("--devices", type=int, default=300)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--store", default="postgres")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-rolling-"))
    try:
        report = run(
            folder, back_end=given.store, devices=given.devices, times=given.times,
            replicas=given.replicas, pause_s=1.0, open_s=2.0, seed=given.seed,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    return 0 if report.kept and not report.strange and report.asked_in_quiet else 1


if __name__ == "__main__":
    sys.exit(main())
