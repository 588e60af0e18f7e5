"""The log in the database: rows, tree and signed heads that cannot part, whatever is done to one of them."""

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, insert, select, update
from tests.unit.server.rig import START, Rig
from tests.unit.server.test_api_routes import Api

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit import entry as entries
from tidegate.core.audit import tree
from tidegate.core.audit.entry import AuditRow
from tidegate.core.audit.examine import Heads, examine
from tidegate.core.codec import canonical
from tidegate.server import audit
from tidegate.server.store import Connection, audit_rows, audit_tables, tables
from tidegate.server.store.sqlite import DATABASE_NAME, open_store

ORIGIN = notes.origin_of("default")


@pytest.fixture
def api(rig: Rig) -> Api:
    return Api(rig)


def fill(rig: Rig, count: int, at: int = START) -> None:
    def work(conn: Connection) -> None:
        for number in range(count):
            audit.record(conn, at, "olga", "x.y", str(number), {"n": number})

    rig.write(work)


def heads(rig: Rig, *found: str) -> Heads:
    made = Heads([notes.verifier_of(ORIGIN, rig.app.services.keys.audit.public)], ORIGIN)
    for one in found:
        made.add(one, "here")
    return made


def head(rig: Rig) -> audit.Signed:
    found: audit.Signed | None = rig.read(audit.newest_checkpoint)
    assert found is not None
    return found


def change(rig: Rig, seq: int, **values: object) -> None:
    rig.write(
        lambda conn: conn.execute(
            update(tables.audit).where(tables.audit.c.seq == seq).values(**values)
        )
    )


def test_a_head_is_signed_five_minutes_after_the_last_one_or_a_thousand_rows(rig: Rig) -> None:
    rig.app.tick()
    assert rig.read(audit.newest_checkpoint) is None, "nothing is signed of an empty log"
    fill(rig, 3)
    rig.app.tick()
    assert head(rig).size == 3
    fill(rig, 2)
    rig.now += audit.CHECKPOINT_S - 1
    rig.app.tick()
    assert head(rig).size == 3
    rig.now += 1
    rig.app.tick()
    assert head(rig).size == 5
    rig.now += 10 * audit.CHECKPOINT_S
    rig.app.tick()
    assert head(rig).size == 5, "nothing new, nothing signed"
    fill(rig, audit.CHECKPOINT_ROWS, int(rig.now))
    rig.app.tick()
    assert head(rig).size == 1005
    assert [one.size for one in rig.read(audit.checkpoints)] == [3, 5, 1005]


def test_heads_are_signed_although_the_clock_was_set_back(rig: Rig) -> None:
    fill(rig, 1)
    rig.app.tick()
    fill(rig, 1)
    rig.now -= 86_400
    rig.app.tick()
    assert head(rig).size == 2


def test_a_head_is_what_everybody_computes_and_stands_in_the_servers_own_log(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    fill(rig, 7)
    with caplog.at_level(logging.INFO, "tidegate.audit"):
        rig.app.tick()
    signed = head(rig)
    rows = [msgspec.json.encode(one) for one in rig.read(audit.export)]
    found = examine(rows, heads(rig, signed.note))
    assert found.ok
    assert (found.root, found.covered) == (signed.root, 7)
    (line,) = [one for one in caplog.messages if one.startswith(notes.LOG_LINE)]
    assert list(notes.notes_in([line])) == [(1, signed.note)]


def test_proofs_lead_from_every_row_and_every_head_to_the_newest(rig: Rig) -> None:
    fill(rig, 23)
    rig.app.tick()
    rows = rig.read(audit.export)
    final = head(rig)
    for old in range(1, 24):
        proof = rig.read(lambda conn, old=old: audit.consistency(conn, old, 0))
        old_head = rig.read(lambda conn, old=old: audit.root_at(conn, old))
        assert (proof.size, proof.root) == (23, final.root)
        assert tree.proves_consistency(
            [bytes.fromhex(one) for one in proof.hashes],
            old=old, old_head=old_head, new=23, new_head=bytes.fromhex(final.root),
        )  # fmt: skip
        shown = rig.read(lambda conn, old=old: audit.inclusion(conn, old, 0))
        assert tree.proves_inclusion(
            [bytes.fromhex(one) for one in shown.hashes],
            leaf=entries.leaf(entries.canon(rows[old - 1])),
            index=old - 1, size=23, head=bytes.fromhex(final.root),
        )  # fmt: skip


def test_an_act_that_is_undone_leaves_nothing(rig: Rig) -> None:
    fill(rig, 2)

    def fails(conn: Connection) -> None:
        audit.record(conn, START, "olga", "x.y", "z")
        raise ValueError("no")

    with pytest.raises(ValueError):
        rig.write(fails)
    fill(rig, 1)
    assert [one.seq for one in rig.read(audit.export)] == [1, 2, 3]
    assert rig.read(audit.verify).ok


@pytest.mark.parametrize(
    "values", [{"actor": "eve"}, {"detail": {"n": 9}}, {"ip": "::1"}, {"hash": "0" * 64}]
)
def test_a_row_that_is_changed_in_the_database_is_named(rig: Rig, values: dict[str, Any]) -> None:
    fill(rig, 9)
    change(rig, 4, **values)
    assert rig.read(audit.verify).broken_at == 4


def test_a_history_that_is_written_anew_as_a_whole_is_found_by_its_signed_head(rig: Rig) -> None:
    fill(rig, 9)
    rig.app.tick()
    signed = head(rig)

    def forge(conn: Connection) -> None:
        rows = audit.export(conn)
        for table in (audit_tables.audit, audit_tables.audit_node, audit_tables.audit_head):
            conn.execute(delete(table))
        for row in rows:
            actor = "eve" if row.seq == 4 else row.actor
            audit.record(conn, row.at, actor, row.action, row.object, row.detail)

    rig.write(forge)
    found = rig.read(audit.verify)
    assert (found.ok, found.broken_at) == (False, 9)
    rows = [msgspec.json.encode(one) for one in rig.read(audit.export)]
    assert [one.kind for one in examine(rows, heads(rig, signed.note)).faults] == ["forked"]


def test_rows_that_vanish_leave_a_gap_and_no_number_is_used_twice(rig: Rig) -> None:
    fill(rig, 5)
    rig.write(lambda conn: conn.execute(delete(tables.audit).where(tables.audit.c.seq > 3)))
    assert rig.read(audit.verify).broken_at == 4
    fill(rig, 1)
    assert [one.seq for one in rig.read(audit.export)] == [1, 2, 3, 6]
    assert rig.read(audit.verify).broken_at == 4


def test_nodes_that_vanish_are_an_error_with_a_code_and_not_a_proof(rig: Rig, api: Api) -> None:
    fill(rig, 8)
    rig.app.tick()
    rig.write(
        lambda conn: conn.execute(
            delete(audit_tables.audit_node).where(audit_tables.audit_node.c.level == 2)
        )
    )
    answer = api.call("GET", "/audit/proofs/consistency?from=4")
    assert (answer.status, answer.code) == (500, "audit.mismatch")


@pytest.mark.parametrize("table", ["audit_node", "audit_head", "audit_checkpoint", "audit"])
def test_nobody_keeps_a_halt_from_going_through_by_damaging_the_log(rig: Rig, table: str) -> None:
    fill(rig, 7)
    rig.app.tick()
    rig.write(lambda conn: conn.execute(delete(getattr(audit_tables, table))))
    fill(rig, 2)
    rig.now += 1000
    rig.app.tick()
    assert [one.object for one in rig.read(audit.newest)[:2]] == ["1", "0"]
    assert rig.read(audit.verify).ok is (table in {"audit_head", "audit_checkpoint"})


def test_what_an_older_server_writes_beside_this_one_is_taken_into_the_tree(rig: Rig) -> None:
    fill(rig, 3)

    def as_before(conn: Connection) -> None:
        """The statement and the hash of the version before there was a tree."""
        newest = conn.execute(
            select(tables.audit.c.seq, tables.audit.c.hash)
            .order_by(tables.audit.c.seq.desc())
            .limit(1)
        ).one()
        row = {
            "seq": newest.seq + 1,
            "at": START,
            "actor": "old",
            "action": "a.b",
            "object": "c",
            "detail": {"n": 1},
        }
        hash_ = entries.link(newest.hash, canonical(row))
        conn.execute(insert(tables.audit).values(tenant="default", hash=hash_, **row))

    rig.write(as_before)
    rig.write(as_before)
    rig.app.tick()
    assert head(rig).size == 5
    fill(rig, 1)
    assert rig.read(audit.verify).ok
    assert rig.read(audit_rows.head)[0] == 6


def test_a_database_from_before_there_was_a_tree_gets_one_and_keeps_its_hashes(
    tmp_path: Path,
) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from tidegate.server.store import migrations

    folder = tmp_path / "data"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder / DATABASE_NAME}")
    kept: list[str] = []
    with engine.connect() as conn, conn.begin():
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = conn
        command.upgrade(config, "0012")
        before = ""
        for seq in range(1, 1203):
            row = {
                "seq": seq,
                "at": START + seq,
                "actor": "olga",
                "action": "a.b",
                "object": "ö",
                "detail": {"n": seq},
            }
            before = entries.link(before, canonical(row))
            if seq != 700:  # somebody took one out, long ago
                conn.exec_driver_sql(
                    "INSERT INTO audit (seq, tenant, at, actor, action, object, detail, hash) VALUES (?, 'default', ?, ?, ?, ?, ?, ?)",
                    (seq, row["at"], "olga", "a.b", "ö", json.dumps(row["detail"]), before),
                )
                kept.append(before)
    engine.dispose()
    store = open_store(folder, durable=False)
    try:
        assert [one.hash for one in store.read(audit.export)] == kept
        assert store.read(audit_rows.head) == (1202, kept[-1])
        assert store.read(audit.verify).broken_at == 700, "what was wrong before still is"
        frontier = tree.Frontier()
        held = {one.seq: one for one in store.read(audit.export)}
        for seq in range(1, 1203):
            row_ = held.get(seq)
            frontier.add(entries.leaf(entries.canon(row_)) if row_ else entries.MISSING)
        assert store.read(lambda conn: audit.root_at(conn, 1202)) == frontier.head()
    finally:
        store.close()


def test_appending_does_not_read_the_log(rig: Rig) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    fill(rig, 1023)
    seen: list[str] = []
    listener = lambda _c, _cu, statement, *_: seen.append(statement)  # noqa: E731
    event.listen(Engine, "before_cursor_execute", listener)
    try:
        fill(rig, 1)
    finally:
        event.remove(Engine, "before_cursor_execute", listener)
    asked = [one for one in seen if "advisory_xact_lock" not in one]
    assert len(asked) <= 6, asked


def test_rows_are_found_by_who_what_and_when(rig: Rig, api: Api) -> None:
    fill(rig, 3)
    rig.write(lambda conn: audit.record(conn, START + 100, "eve", "rollout.halt", "gw1-2"))
    rig.write(lambda conn: audit.record(conn, START + 200, "eve", "rollouts.other", "gw1-2"))
    rig.write(lambda conn: audit.record(conn, START + 300, "eve", "rollout.resume", "gw1-3"))

    def objects(query: str) -> list[str]:
        return [one["object"] for one in api.get(f"/audit/entries?{query}")["items"]]

    assert objects("action=rollout.") == ["gw1-3", "gw1-2"]
    assert objects("action=rollout.halt") == ["gw1-2"]
    assert objects("actor=olga") == ["2", "1", "0"]
    assert objects("object=gw1-2") == ["gw1-2", "gw1-2"]
    assert objects(f"since={START + 100}&until={START + 200}") == ["gw1-2", "gw1-2"]
    first = api.get("/audit/entries?actor=olga&limit=2")
    assert [one["object"] for one in first["items"]] == ["2", "1"]
    rest = api.get(f"/audit/entries?actor=olga&limit=2&cursor={first['next']}")
    assert ([one["object"] for one in rest["items"]], rest["next"]) == (["0"], None)


def test_an_export_is_whole_whatever_its_length(rig: Rig, api: Api) -> None:
    fill(rig, 1234)
    rig.app.tick()
    answer = api.call("GET", "/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = examine(answer.body.splitlines(), heads(rig, api.get("/audit/checkpoint")["note"]))
    assert found.ok
    assert found.covered == found.rows == 1234 + len(api.tokens)
    tail = api.call("GET", "/audit/export?after=1230").body.splitlines()
    assert msgspec.json.decode(tail[0], type=AuditRow).seq == 1231


def test_no_proof_of_what_is_not_there(rig: Rig, api: Api) -> None:
    for query in (
        "consistency?from=99",
        "consistency?from=1&to=99",
        "inclusion?row=99",
        "inclusion?row=0",
        "consistency?from=0",
    ):
        assert api.call("GET", f"/audit/proofs/{query}").status == 400
    assert api.call("GET", "/audit/checkpoint").code == "request.not_found"


def test_the_request_behind_an_act_is_recorded_and_told_to_the_caller(api: Api) -> None:
    sent = api.call(
        "POST", "/groups", {"name": "g", "query": "model = gw1"}, x_request_id="my-request-1"
    )
    assert sent.headers["x-request-id"] == "my-request-1"
    (row,) = api.get("/audit?action=group.")["items"]
    assert (row["request"], row["ip"]) == ("my-request-1", "192.0.2.1")
    edited = api.call("PUT", "/groups/g", {"query": "model = gw2"}, x_request_id="<bad>\n")
    row = api.get("/audit?action=group.edit")["items"][0]
    assert row["request"] == edited.headers["x-request-id"]
    assert len(row["request"]) == 16
    assert row["before"] == entries.digest("model = gw1")
    assert row["after"] == entries.digest("model = gw2")


def test_what_no_request_asked_for_names_none(rig: Rig) -> None:
    fill(rig, 1)
    assert rig.read(audit.export)[0].ip == ""
