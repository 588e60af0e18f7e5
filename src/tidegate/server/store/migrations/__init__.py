"""The schema's one linear history, run at start. Steps are additive, so that an older server and a newer one may overlap.

A step is `versions/NNNN_{pre,post}_what.py`: `pre` runs before the new code, `post` after the last old server is gone.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from tidegate.core.errors import ConfigError

#: The newest step, which this version of the code expects.
HEAD: Final = "0030"


def schema_version(conn: Connection) -> str | None:
    """Return the schema's version, or None for an empty database."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    found = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(found) if found is not None else None


def require_head(conn: Connection) -> None:
    """Make sure, outside of a transaction, that the schema is the one that this code knows.

    Raises:
        ConfigError: `data.newer_schema`, `data.older_schema`.
    """
    with conn.begin():
        if _is_older(conn):
            raise ConfigError(
                "data.older_schema",
                f"the database has schema {schema_version(conn) or 'none'}, this Tidegate wants {HEAD}",
            )


def upgrade(conn: Connection, *, locked: str = "SELECT 1", to: str = HEAD) -> None:
    """Bring the schema to a version in one transaction; does nothing where it is `HEAD` already.

    Args:
        conn: outside of a transaction.
        to: the version; others than the newest are for tests.
        locked: the statement that keeps other processes from doing the same at once, until the end of a transaction.

    Raises:
        ConfigError: `data.newer_schema`: a newer Tidegate made this database. Nothing was changed.
    """
    with conn.begin():
        if not _is_older(conn):
            return
    # alembic takes a third of a second to import: only when there is something to do
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = conn
    with conn.begin():
        conn.exec_driver_sql(locked)
        if _is_older(conn):
            command.upgrade(config, to)


def _is_older(conn: Connection) -> bool:
    present = schema_version(conn)
    if present == HEAD:
        return False
    if present is not None and (not present.isdigit() or present > HEAD):
        raise ConfigError(
            "data.newer_schema",
            f"the database has schema {present}, this Tidegate knows {HEAD}",
        )
    return True
