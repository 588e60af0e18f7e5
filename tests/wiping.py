"""A database that a test has used, made as it was before: far cheaper than a new one for each of a thousand tests.

Only what was filled is emptied. Where anything but rows was changed, or somebody is still connected, the answer is no, and the database is thrown away.
"""

import time
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

#: Everything but rows: columns, indexes, constraints, triggers, the version of the schema, settings of the database.
_FORM: Final = """
SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT format('%s %s %s %s %s', c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull) AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
    UNION ALL SELECT format('%s %s', conrelid, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT format('%s %s', tgrelid, tgname) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'
    UNION ALL SELECT version_num FROM alembic_version
    UNION ALL SELECT format('%s %s', setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS found
"""
_LEAVING_S: Final = 0.5
_OTHERS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_TABLES: Final = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
    "AND NOT relispartition AND relname <> 'alembic_version' ORDER BY relname"
)
_SEQUENCES: Final = "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"


class Fresh(NamedTuple):
    """What a database is like that nobody has used: its form, and its tables, all of them empty."""

    form: str
    tables: list[str]


def look(conn: "psycopg.Connection[Any]") -> Fresh:
    """Return what a database is like that was just made."""
    tables = [name for (name,) in conn.execute(_TABLES)]
    assert not _filled(conn, tables), "the schema comes with rows, which `wipe` would take away"
    return Fresh(_form(conn), tables)


def wipe(conn: "psycopg.Connection[Any]", fresh: Fresh) -> bool:
    """Make a database what it was when it was fresh; False = it cannot be had as it was."""
    if not _alone(conn) or _form(conn) != fresh.form:
        return False
    filled = [sql.Identifier(name) for name in _filled(conn, fresh.tables)]
    moved = [sql.Identifier(name) for (name,) in conn.execute(_SEQUENCES)]
    with conn.transaction():
        if filled:
            conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(filled)))
        for name in moved:
            conn.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(name))
    return True


def _alone(conn: "psycopg.Connection[Any]") -> bool:
    """Say whether nobody else is connected: who has just left may take a moment to be gone."""
    end = time.monotonic() + _LEAVING_S
    while conn.execute(_OTHERS).fetchone() != (0,):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _form(conn: "psycopg.Connection[Any]") -> str:
    found = conn.execute(_FORM).fetchone()
    assert found is not None
    return str(found[0])


def _filled(conn: "psycopg.Connection[Any]", tables: list[str]) -> list[str]:
    asks = [
        sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(name, sql.Identifier(name))
        for name in tables
    ]
    return [name for (name,) in conn.execute(sql.SQL(" UNION ALL ").join(asks))]
