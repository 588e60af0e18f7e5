"""`tidegate audit` against a server: what is kept elsewhere shows what was done to its database."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete
from tests.e2e.test_api_cli import cli, served
from tests.unit.server.rig import Rig

from tidegate.server import audit
from tidegate.server.store import Connection, audit_tables

pytestmark = pytest.mark.e2e
Cli = Callable[..., tuple[int, str, str]]
__all__ = ["cli", "served"]


def act(rig: Rig, count: int, actor: str = "olga") -> None:
    def work(conn: Connection) -> None:
        for number in range(count):
            audit.record(
                conn, int(rig.now), actor, "rollout.halt", f"r{number}", {"reason": "smoke"}
            )

    rig.write(work)
    rig.now += 1_000
    rig.app.tick()


def rewrite(rig: Rig, actor: str) -> None:
    """What a thief of the database and of the audit key does: another history from row 3 on, whole, with heads of its own."""

    def work(conn: Connection) -> None:
        rows = audit.export(conn)
        for table in (
            audit_tables.audit,
            audit_tables.audit_node,
            audit_tables.audit_head,
            audit_tables.audit_checkpoint,
        ):
            conn.execute(delete(table))
        for row in rows:
            who = actor if row.seq >= 3 else row.actor
            audit.record(conn, row.at, who, row.action, row.object, row.detail)

    rig.write(work)
    rig.now += 1_000
    rig.app.tick()


def test_a_log_is_listed_exported_and_verified_elsewhere(served: Rig, cli: Cli) -> None:
    act(served, 5)
    code, out, err = cli("audit", "list", "--action", "rollout.")
    assert code == 0, err
    assert out.count("rollout.halt") == 5
    assert "smoke" in out
    code, out, _ = cli("audit", "checkpoint", "--verifier")
    Path("audit.key").write_text(out)
    assert cli("audit", "export", "-o", "audit.jsonl", "--checkpoints", "heads.txt")[0] == 0
    code, out, err = cli("audit", "verify", "audit.jsonl", "heads.txt", "--key", "audit.key")
    assert code == 0, err
    assert "whole up to row 6" in out
    code, out, _ = cli("audit", "export")
    assert out == Path("audit.jsonl").read_text()


def test_a_watcher_sees_a_history_that_was_written_anew_with_the_servers_own_key(
    served: Rig, cli: Cli
) -> None:
    act(served, 5)
    Path("audit.key").write_text(cli("audit", "checkpoint", "--verifier")[1])
    look = ("audit", "watch", "held.txt", "--key", "audit.key", "--once")
    assert cli(*look)[0] == 0
    act(served, 3)
    assert cli(*look)[0] == 0
    assert cli(*look)[0] == 0, "nothing new is no news"
    assert Path("held.txt").read_text().count("\u2014 ") == 2
    rewrite(served, "eve")
    act(served, 4, "eve")
    code, _, err = cli(*look)
    assert code == 3
    assert "does not go on from that of 9" in err
    cli("audit", "export", "-o", "audit.jsonl", "--checkpoints", "heads.txt")
    assert cli("audit", "verify", "audit.jsonl", "heads.txt", "--key", "audit.key")[0] == 0, (
        "by itself it is whole"
    )
    code, out, _ = cli(
        "audit", "verify", "audit.jsonl", "heads.txt", "held.txt", "--key", "audit.key"
    )
    assert code == 3
    assert "forked" in out


def test_a_watcher_sees_a_log_that_was_rolled_back(served: Rig, cli: Cli) -> None:
    act(served, 5)
    Path("audit.key").write_text(cli("audit", "checkpoint", "--verifier")[1])
    look = ("audit", "watch", "held.txt", "--key", "audit.key", "--once")
    assert cli(*look)[0] == 0

    def cut(conn: Connection) -> None:
        rows = audit.export(conn)
        for table in (
            audit_tables.audit,
            audit_tables.audit_node,
            audit_tables.audit_head,
            audit_tables.audit_checkpoint,
        ):
            conn.execute(delete(table))
        for row in rows[:3]:
            audit.record(conn, row.at, row.actor, row.action, row.object, row.detail)

    served.write(cut)
    served.app.tick()
    code, _, err = cli(*look)
    assert code == 3
    assert "of 3 rows does not go on from that of 6" in err
