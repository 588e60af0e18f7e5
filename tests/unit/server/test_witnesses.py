"""What a server shows its witnesses, and what it makes of what they bring."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, func, select
from tests.unit.server.rig import Device, Rig

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.audit.entry import AuditRow
from tidegate.core.audit.tree import proves_consistency
from tidegate.core.hardware import Hardware
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    AssignmentAnswer,
    AssignmentRequest,
    AuditNews,
    DeviceState,
    SlotState,
)
from tidegate.server import audit, witnesses
from tidegate.server.store import Connection, audit_tables, tables

ORIGIN = notes.origin_of("default")


@pytest.fixture
def device(rig: Rig) -> Device:
    rig.publish_trust()
    return rig.device("d1")


def fill(rig: Rig, count: int) -> str:
    """Write rows, have a head signed, and return it."""

    def work(conn: Connection) -> None:
        for number in range(count):
            audit.record(conn, int(rig.now), "olga", "x.y", str(number))

    rig.write(work)
    rig.now += 400
    rig.app.tick()
    found = rig.read(audit.newest_checkpoint)
    assert found is not None
    return str(found.note)


def ask(rig: Rig, device: Device, seen: str | None = None) -> AuditNews | None:
    slots = {"A": SlotState(state="confirmed", release_counter=1), "B": SlotState(state="empty")}
    state = DeviceState(
        hardware=Hardware(model="gw1", rev=1), channel="stable", agent="1.0.0", boot_id="b", running="A", slots=slots
    )  # fmt: skip
    request = AssignmentRequest(
        nonce=rig.random.randbytes(16).hex(), state=state, audit_seen=msgspec.UNSET if seen is None else seen
    )  # fmt: skip
    answer = device.ask("POST", "/d/v1/assignment", request).as_(AssignmentAnswer)
    return None if answer.audit is msgspec.UNSET else answer.audit


def told(rig: Rig) -> list[dict[str, Any]]:
    """Return what operators are owed about forks."""

    def read(conn: Connection) -> list[dict[str, Any]]:
        rows = conn.execute(select(tables.outbox.c.payload)).scalars().all()
        return [dict(one) for one in rows if one.get("event") == "audit.forked"]

    found: list[dict[str, Any]] = rig.read(read)
    return found


def rows_of(rig: Rig) -> list[AuditRow]:
    return [one for one in rig.read(audit.export) if one.action == witnesses.ACTION]


def signed(rig: Rig, size: int, root: bytes) -> str:
    head = Checkpoint(origin=ORIGIN, size=size, root=root)
    return notes.sign(head, rig.app.services.keys.audit)


def test_a_device_gets_a_head_then_proofs_and_nothing_twice(rig: Rig, device: Device) -> None:
    assert ask(rig, device) is None, "nothing was signed yet"
    first = fill(rig, 3)
    assert ask(rig, device) == AuditNews(checkpoint=first)
    assert ask(rig, device, first) is None
    second = fill(rig, 7)
    news = ask(rig, device, first)
    assert news is not None
    assert news.checkpoint == second
    old, new = notes.peek(first), notes.peek(second)
    assert proves_consistency(
        [bytes.fromhex(one) for one in news.proof],
        old=old.size, old_head=old.root, new=new.size, new_head=new.root,
    )  # fmt: skip
    assert told(rig) == []


def test_a_signed_head_of_another_history_is_written_down_and_told_once(
    rig: Rig, device: Device
) -> None:
    fill(rig, 5)
    other = signed(rig, 4, b"x" * 32)
    news = ask(rig, device, other)
    assert news is not None
    assert news.proof == ()
    (row,) = rows_of(rig)
    assert (row.object, row.actor, row.detail["note"]) == ("d1", "tidegate", other)
    assert [one["device"] for one in told(rig)] == ["d1"]
    ask(rig, device, other)
    assert len(rows_of(rig)) == len(told(rig)) == 1
    rig.now += 86_500
    rig.device("d2")
    ask(rig, rig.device("d3"), other)
    assert len(rows_of(rig)) == 2


def test_a_server_whose_log_was_cut_hears_of_it_from_its_devices(rig: Rig, device: Device) -> None:
    """A restored backup, or a thief: the device's head is longer than the log."""
    fill(rig, 9)
    seen = rig.read(audit.newest_checkpoint).note

    def cut(conn: Connection) -> None:
        rows = audit.export(conn)
        for table in (
            audit_tables.audit,
            audit_tables.audit_node,
            audit_tables.audit_head,
            audit_tables.audit_checkpoint,
        ):
            conn.execute(delete(table))
        for one in rows[:4]:
            audit.record(conn, one.at, one.actor, one.action, one.object, one.detail)

    rig.write(cut)
    rig.now += 400
    rig.app.tick()
    ask(rig, device, seen)
    assert rows_of(rig)[0].detail["note"] == seen


@pytest.mark.parametrize("note", ["nothing", "forged", "elsewhere", "huge"])
def test_what_nobody_signed_is_a_devices_invention(rig: Rig, device: Device, note: str) -> None:
    newest = fill(rig, 5)
    head = Checkpoint(origin=ORIGIN, size=4, root=b"x" * 32)
    seen = {
        "nothing": "nothing",
        "forged": notes.sign(head, Signer.from_seed(bytes(32))),
        "elsewhere": notes.sign(
            msgspec.structs.replace(head, origin="else/where"), rig.app.services.keys.audit
        ),
        "huge": notes.sign(msgspec.structs.replace(head, size=10**15), Signer.from_seed(bytes(32))),
    }[note]
    assert ask(rig, device, seen) == AuditNews(checkpoint=newest)
    assert told(rig) == []
    assert rows_of(rig) == []


def test_an_older_agent_says_nothing_and_gets_the_head(rig: Rig, device: Device) -> None:
    newest = fill(rig, 2)
    assert ask(rig, device) == AuditNews(checkpoint=newest)


def test_a_devices_word_is_told_once_a_day_and_a_proof_after_it_all_the_same(
    rig: Rig, device: Device
) -> None:
    fill(rig, 5)
    for _ in range(3):
        device.tell("security", reason=witnesses.FORK, detail="the log was rolled back")
    assert [one["device"] for one in told(rig)] == ["d1"]
    assert "rolled back" in told(rig)[0]["text"]
    ask(rig, device, signed(rig, 4, b"x" * 32))
    assert len(told(rig)) == 2
    rig.device("d2").tell("security", reason=witnesses.FORK, detail="again")
    assert len(told(rig)) == 2


def test_what_is_shown_costs_a_few_reads(rig: Rig, device: Device) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    first = fill(rig, 500)
    fill(rig, 500)
    key = rig.app.services.keys.audit.public
    seen: list[str] = []
    listener = lambda _c, _cu, statement, *_: seen.append(statement)  # noqa: E731
    event.listen(Engine, "before_cursor_execute", listener)
    try:
        news = rig.write(lambda conn: witnesses.hear(conn, 1, first, key, int(rig.now)))
    finally:
        event.remove(Engine, "before_cursor_execute", listener)
    assert news.proof
    assert len(seen) <= 6, seen
    assert (
        rig.read(
            lambda conn: conn.execute(select(func.count()).select_from(tables.outbox)).scalar()
        )
        == 0
    )
