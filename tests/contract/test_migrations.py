"""The schema's history, walked up on each back end."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from tests import stores
from tests.postgres import Server, database

from tidegate.core.errors import ConfigError
from tidegate.server.store import migrations
from tidegate.server.store.migrations import HEAD, require_head, schema_version, upgrade

VERSIONS = sorted(
    path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("0*.py")
)


@pytest.fixture(params=stores.BACK_ENDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database, whose transactions hold changes of the schema as well."""
    if request.param == "sqlite":
        made = create_engine(f"sqlite+pysqlite:///{tmp_path / 'empty.db'}")

        @event.listens_for(made, "connect")
        def _connected(connection: object, _: object) -> None:
            connection.isolation_level = None  # type: ignore[attr-defined]

        @event.listens_for(made, "begin")
        def _began(conn: Connection) -> None:
            conn.exec_driver_sql("BEGIN IMMEDIATE")

        yield made
        made.dispose()
        return
    with database(Server.database) as url:
        made = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        yield made
        made.dispose()


def test_the_newest_step_is_what_the_code_wants() -> None:
    assert VERSIONS[-1] == HEAD


def test_each_step_can_be_made_alone_and_in_the_end_the_schema_is_that_of_the_tables(
    engine: Engine,
) -> None:
    with engine.connect() as conn:
        for version in VERSIONS:
            upgrade(conn, to=version)
            with conn.begin():
                assert schema_version(conn) == version
        with conn.begin():
            assert stores.differences(conn) == []


def on_postgres(engine: Engine) -> bool:
    return engine.dialect.name == "postgresql"


def test_what_was_there_outlives_each_step(engine: Engine) -> None:
    with engine.connect() as conn:
        upgrade(conn, to=VERSIONS[0])
        with conn.begin():
            conn.execute(text("INSERT INTO lease (name, holder, expires_at) VALUES ('n', 'h', 1)"))
            conn.execute(
                text(
                    "INSERT INTO audit (at, actor, action, object, detail, hash) "
                    "VALUES (1, 'a', 'b', 'c', '{}', 'h')"
                )
            )
        upgrade(conn)
        with conn.begin():
            assert conn.execute(text("SELECT name FROM lease")).scalar() == "n"
            assert conn.execute(text("SELECT actor FROM audit")).scalar() == "a"


def test_a_step_that_fails_leaves_the_schema_as_it_was(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    with engine.connect() as conn:
        upgrade(conn, to=VERSIONS[1])
        monkeypatch.setattr(op, "create_table", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            upgrade(conn)
        monkeypatch.undo()
        with conn.begin():
            assert schema_version(conn) == VERSIONS[1]
            assert not inspect(conn).has_table("retired_key")
        upgrade(conn)
        require_head(conn)


@pytest.mark.parametrize(
    ("version", "code"),
    [("9001", "data.newer_schema"), ("0003", "data.older_schema"), ("x", "data.newer_schema")],
)
def test_a_schema_that_is_not_known_is_refused_in_both_directions(
    engine: Engine, version: str, code: str
) -> None:
    with engine.connect() as conn:
        with pytest.raises(ConfigError) as caught:
            require_head(conn)
        assert caught.value.code == "data.older_schema"
        upgrade(conn, to="0003")
        with conn.begin():
            conn.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
        with pytest.raises(ConfigError) as caught:
            require_head(conn)
        assert caught.value.code == code
