"""A store is of one tenant: rows that it adds say so, it sees no other's, and a database is opened for nobody else."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, func, select, text
from tests import stores

from tidegate.core.errors import ConfigError
from tidegate.server.store import (
    Store,
    admin_accounts,
    admin_log,
    audit_rows,
    changes,
    opening,
    release_queries,
    tables,
)
from tidegate.server.store.migrations import upgrade
from tidegate.server.store.release_queries import DocumentRow
from tidegate.server.store.scope import Scope, tenant_of
from tidegate.server.store.sqlite import DATABASE_NAME, _engine

NOW = 1_900_000_000


class Pair:
    """Two tenants of one server: folders of their own, and on PostgreSQL one database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.opened: list[Store] = []

    def folder_of(self, tenant: str) -> Path:
        return self.folder / tenant

    def open(self, tenant: str, *, as_tenant: str = "") -> Store:
        folder = self.folder_of(tenant)
        opening.upgrade(folder, self.url, tenant)
        made = opening.open_store(folder, url=self.url, durable=False, tenant=as_tenant or tenant)
        self.opened.append(made)
        return made


@pytest.fixture(params=stores.BACK_ENDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with stores.place(request.param, tmp_path) as place:
        made = Pair(tmp_path, place.url)
        yield made
        for one in made.opened:
            one.close()


def _fill(conn: Connection) -> None:
    """Add a row in each way that there is: by SQLAlchemy alone, many at once, by hand, and by the store itself."""
    admin_accounts.add_account(
        conn,
        {"name": "olga", "password_hash": "", "role": "viewer", "grants": [], "created_at": NOW},
    )
    release_queries.put_document(conn, DocumentRow("root", 1, b"{}", NOW, NOW))
    audit_rows.set_head(conn, 1, "h")
    audit_rows.add_nodes(conn, [(0, 0, b"a"), (0, 1, b"b")])
    admin_log.raise_epoch(conn, NOW)
    changes.bump(conn, "gate", "1", NOW)


def _tenants(conn: Connection) -> dict[str, set[str]]:
    """Return the names in the tenant column of each table that has rows."""
    found = {
        one.name: set(conn.execute(select(one.c.tenant).distinct()).scalars())
        for one in tables.metadata.sorted_tables
    }
    return {name: names for name, names in found.items() if names}


def test_every_row_says_whose_it_is_and_nobody_sees_anothers(pair: Pair) -> None:
    acme, rival = pair.open("acme"), pair.open("rival-2")
    acme.follow()
    acme.write(_fill).result()

    found = acme.read(_tenants)
    wanted = {"account", "audit_head", "audit_node", "repository", "gate", "change", "cell"}
    assert wanted | ({"peer"} if pair.url else set()) == set(found)
    assert all(names == {"acme"} for names in found.values())
    assert acme.read(tenant_of) == acme.scope.tenant == "acme"
    assert set(rival.read(_tenants)) == {"cell"}
    assert rival.read(lambda conn: admin_accounts.account(conn, "olga")) is None

    rival.write(_fill).result()
    assert rival.read(_tenants)["account"] == {"rival-2"}
    assert (
        acme.read(lambda conn: conn.execute(select(func.count(tables.account.c.id))).scalar()) == 1
    )


def test_a_database_is_opened_for_nobody_else(pair: Pair) -> None:
    pair.open("acme").close()
    pair.open("rival-2").close()
    if pair.url:
        # the rows of one tenant in the schema of another, as a copy that went wrong would leave them
        with psycopg.connect(pair.url, autocommit=True) as conn:
            conn.execute("UPDATE tidegate_rival_2.cell SET tenant = 'acme'")
        folder, tenant = pair.folder_of("rival-2"), "rival-2"
    else:
        folder, tenant = pair.folder_of("acme"), "rival-2"
    with pytest.raises(ConfigError, match='belongs to the tenant "acme"') as refused:
        opening.open_store(folder, url=pair.url, tenant=tenant)
    assert refused.value.code == "data.other_tenant"
    with (
        pytest.raises(ConfigError, match="belongs to"),
        opening.looking(folder, pair.url, tenant),
    ):
        pass


def test_what_was_in_use_before_there_were_tenants_is_the_default_ones(tmp_path: Path) -> None:
    engine = _engine(tmp_path / DATABASE_NAME, durable=False, own=Scope())
    with engine.connect() as conn:
        upgrade(conn, to="0020")
        with conn.begin():
            conn.execute(
                text(
                    "INSERT INTO audit (at, actor, action, object, detail, hash) "
                    "VALUES (1, 'a', 'b', 'c', '{}', 'h')"
                )
            )
    engine.dispose()
    with pytest.raises(ConfigError, match='belongs to the tenant "default"'):
        opening.open_store(tmp_path, tenant="acme")
    opening.open_store(tmp_path).close()


def test_tenants_do_not_wait_for_one_another(pair: Pair) -> None:
    acme, rival = pair.open("acme"), pair.open("rival-2")

    def inside(conn: Connection) -> None:
        _fill(conn)
        rival.write(_fill).result(30)

    acme.write(inside).result(60)
    assert set(acme.read(_tenants)) >= {"account"}
