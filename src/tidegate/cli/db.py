"""`tidegate db`: the database behind a server: its schema, and moving to PostgreSQL. Run where the server runs, by whoever may read its settings."""

from pathlib import Path

import click

from tidegate.cli.output import Output, with_output
from tidegate.core.errors import ConfigError

_CONFIG = click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
_DATA = click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")


@click.group("db", short_help="The schema, and moving to PostgreSQL.")
def command() -> None:
    """Bring the schema of a server's database up to date, or move from SQLite to PostgreSQL.

    \b
    tidegate db upgrade --check
    tidegate db upgrade
    """


@command.command("upgrade")
@_CONFIG
@_DATA
@click.option("--check", is_flag=True, help="Change nothing; fail where there is something to do.")
@with_output
def upgrade(config: Path | None, data_dir: Path | None, check: bool, out: Output) -> None:
    """Bring the schema up to date, or make it in an empty database, in one transaction.

    Which database is said by the settings of the server: [database] url, TIDEGATE_DATABASE_URL, or a file in the data directory. Steps only add, so
    servers of the version before may go on meanwhile. A server on a file does this by itself when it starts.

    \b
    tidegate db upgrade --check
    TIDEGATE_DATABASE_URL=postgresql://tidegate@db.example/tidegate tidegate db upgrade
    """
    from tidegate.server.config import database_address, load
    from tidegate.server.store import opening
    from tidegate.server.store.migrations import HEAD

    settings = load(config, options={"data_dir": data_dir})
    folder, url = Path(settings.data_dir), database_address(settings)
    before = opening.schema(folder, url)
    if check:
        if before is None or before < HEAD:
            raise ConfigError(
                "data.older_schema",
                f"the database has schema {before or 'none'}, this Tidegate wants {HEAD}",
            )
        if before > HEAD:
            raise ConfigError(
                "data.newer_schema", f"the database has schema {before}, this Tidegate knows {HEAD}"
            )
    else:
        opening.upgrade(folder, url)
    text = f"schema {HEAD}, as it was" if before == HEAD else f"schema {before or 'none'} -> {HEAD}"
    out.data("db-upgrade/1", {"before": before, "after": HEAD}, text)
