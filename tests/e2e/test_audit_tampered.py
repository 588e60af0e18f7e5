"""Somebody with the database of a running server changes what operators did. `tidegate audit verify`, with a head that was kept, says what."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, insert, select
from tests import stores
from tests.e2e.served import Served, environment
from tests.unit.server.rig import Rig

from tidegate.core.audit import entry as entries
from tidegate.core.audit.entry import AuditRow
from tidegate.server import audit
from tidegate.server.store import Connection
from tidegate.server.store.audit_tables import audit as table
from tidegate.server.store.sqlite import DATABASE_NAME

pytestmark = pytest.mark.e2e
Rows = list[dict[str, Any]]
ACTS = 8


class Shop:
    """A running server whose log has some acts and one signed head; the head and the key that signs were kept elsewhere."""

    def __init__(self, place: stores.Place, work: Path) -> None:
        self.work, self.data = work, place.folder / "data"
        self._made(place.url)
        settings = work / "tidegate.toml"
        settings.write_text(f'[database]\nurl = "{place.url}"\n' if place.url else "")
        self.served = Served(self.data, "--config", str(settings))
        where = f"postgresql+psycopg:{place.url.partition(':')[2]}"
        self.engine: Engine = create_engine(
            where if place.url else f"sqlite+pysqlite:///{self.data / DATABASE_NAME}"
        )
        key = self.run("checkpoint", "--verifier")
        (work / "audit.key").write_text(key.stdout)
        self.export("kept.jsonl", "heads.txt")

    def _made(self, url: str) -> None:
        rig = Rig(self.data, now=time.time() - 7200, url=url)

        def act(conn: Connection) -> None:
            for number in range(ACTS):
                audit.record(conn, int(rig.now), "olga", "rollout.halt", f"r{number}", {})

        rig.write(act)
        rig.now += 3600
        rig.app.tick()
        rig.close()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        where = {
            "TIDEGATE_SERVER": f"http://127.0.0.1:{self.served.port}",
            "TIDEGATE_TOKEN_FILE": str(self.data / "bootstrap.token"),
        }
        command = [sys.executable, "-m", "tidegate.cli", "audit", *words]
        env = {**os.environ, **environment(), **where}
        return subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=self.work, timeout=100, check=False
        )  # fmt: skip

    def export(self, rows: str, heads: str) -> None:
        done = self.run("export", "-o", rows, "--checkpoints", heads)
        assert done.returncode == 0, done.stderr

    def tamper(self, change: Callable[[Rows], Rows]) -> None:
        """Write other rows into the database, as whoever holds it can, while the server runs."""
        with self.engine.begin() as conn:
            found = [
                dict(one) for one in conn.execute(select(table).order_by(table.c.seq)).mappings()
            ]
            conn.execute(delete(table))
            conn.execute(insert(table), change([dict(one) for one in found]))

    def verify(self) -> tuple[int, str]:
        """Export what the server has now, and hold it against the head that was kept."""
        (self.work / "now.jsonl").unlink(missing_ok=True)
        (self.work / "now.txt").unlink(missing_ok=True)
        self.export("now.jsonl", "now.txt")
        done = self.run("verify", "now.jsonl", "heads.txt", "--key", "audit.key")
        return done.returncode, done.stdout + done.stderr


def _edited(rows: Rows) -> Rows:
    rows[4]["actor"] = "eve"
    return rows


def _deleted(rows: Rows) -> Rows:
    return rows[:4] + rows[5:]


def _inserted(rows: Rows) -> Rows:
    later = [{**one, "seq": one["seq"] + 1} for one in rows[4:]]
    return [*rows[:4], {**rows[4], "actor": "eve", "hash": "0" * 64}, *later]


def _reordered(rows: Rows) -> Rows:
    rows[4], rows[5] = ({**rows[5], "seq": rows[4]["seq"]}, {**rows[4], "seq": rows[5]["seq"]})
    return rows


def _truncated(rows: Rows) -> Rows:
    return rows[:5]


def _forked(rows: Rows) -> Rows:
    """Another history, each hash made anew: sound by itself."""
    before, made = entries.ORIGIN, []
    for one in rows:
        row = AuditRow(
            seq=one["seq"], at=one["at"], actor="eve" if one["seq"] > 4 else one["actor"],
            action=one["action"], object=one["object"], detail=one["detail"],
            plan=one["plan_sha256"], request=one["request_id"], ip=one["ip"],
            before=one["before_sha256"], after=one["after_sha256"], hash="",
        )  # fmt: skip
        before = entries.seal(row, before).hash
        made.append({**one, "actor": row.actor, "hash": before})
    return made


@pytest.fixture(scope="module", params=stores.BACK_ENDS)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with stores.place(request.param, folder) as place:
        made = Shop(place, folder)
        yield made
        made.engine.dispose()
        made.served.kill()


TAMPERINGS = {
    "edited": _edited,
    "deleted": _deleted,
    "inserted": _inserted,
    "reordered": _reordered,
    "truncated": _truncated,
    "forked": _forked,
}


def test_what_nobody_touched_holds(shop: Shop) -> None:
    code, said = shop.verify()
    assert code == 0, said


@pytest.mark.parametrize("word", TAMPERINGS)
def test_what_was_done_to_the_log_of_a_running_server_is_named(shop: Shop, word: str) -> None:
    kept: Rows = []

    def change(rows: Rows) -> Rows:
        kept.extend(dict(one) for one in rows)
        return TAMPERINGS[word](rows)

    shop.tamper(change)
    try:
        code, said = shop.verify()
        assert code == 3, said
        assert word in said, said
    finally:
        shop.tamper(lambda _: kept)
