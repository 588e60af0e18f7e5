"""A PostgreSQL database that was made with a language of people, which sorts other than by code points: the hosted ones usually are."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, insert
from tests import postgres

from tidegate.server.store import admin_incidents, audit_rows, tables
from tidegate.server.store.postgres import PostgresStore, open_store, upgrade_schema

#: In the order of their code points. English puts `_` before `-`, and small letters beside capitals.
NAMES = ("A-2", "B-1", "a-1", "a1", "a_1", "b")
STATES = ("failed", "lost", "reverted")


@pytest.fixture
def english() -> Iterator[PostgresStore]:
    server = postgres.server()
    with server.connect() as conn:
        conn.execute(
            "CREATE DATABASE english TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
    url = server.url("english")
    upgrade_schema(url)
    store = open_store(url, durable=False)
    yield store
    store.close()
    server.drop(url)


def _filled(conn: Connection) -> int:
    """Have a rollout in which every device came to its end in the same second, each in another way; return its row."""
    release = conn.execute(
        insert(tables.release).values(
            name="gw1-1", product="gw1", version="1", counter=1, security_version=1, release_sha256="0", channels=[], kind="feature",
            state="live", published_at=1, published_by="test", signers=[],
        ).returning(tables.release.c.id)
    ).scalar_one()  # fmt: skip
    rollout = conn.execute(
        insert(tables.rollout).values(
            name="r", release_id=release, product="gw1", state="active", policy={}, rings=[], isolated=[], approvals=[], delivery={},
            because=[], created_at=1, created_by="test",
        ).returning(tables.rollout.c.id)
    ).scalar_one()  # fmt: skip
    for number, name in enumerate(reversed(NAMES)):
        row = conn.execute(
            insert(tables.device).values(
                id=name, public_key="", keytype="ed25519", key_sha256=name, state="accepted", product="gw1", model="gw1", rev=1,
                variant="gw1-r1", channel="stable", attributes={}, slots={}, refuses=[], inhibitors=[], enrolled_at=1,
            ).returning(tables.device.c.row)
        ).scalar_one()  # fmt: skip
        conn.execute(
            insert(tables.update).values(
                id=name, rollout_id=rollout, device_row=row, state=STATES[number % 3], ring="fleet", variant="gw1-r1", from_counter=0,
                release_counter=1, offered_at=1, state_at=7,
            )
        )  # fmt: skip
    return int(rollout)


def test_pages_of_an_incident_leave_nobody_out_and_name_nobody_twice(
    english: PostgresStore,
) -> None:
    rollout = english.write(_filled).result(30)
    found: list[str] = []
    after = 0, ""

    def page(conn: Connection) -> list[admin_incidents.Outcome]:
        return admin_incidents.outcomes(conn, rollout, states=STATES, after=after, limit=1)

    while told := english.read(page):
        found.append(told[0].device)
        after = told[0].state_at, told[0].device
    assert found == list(NAMES)


def test_the_acts_on_one_noun_are_found(english: PostgresStore) -> None:
    actions = ("rollout.halt", "rollout.Zap", "rollouts.halt", "rollout", "release.recall")

    def work(conn: Connection) -> None:
        for one in actions:
            conn.execute(
                insert(tables.audit).values(
                    at=1, actor="a", action=one, object="c", detail={}, hash="h"
                )
            )

    english.write(work).result(30)
    found = english.read(lambda conn: list(audit_rows.entries(conn, action="rollout.")))
    assert [one.action for one in found] == ["rollout.halt", "rollout.Zap"]
