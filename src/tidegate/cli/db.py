"""`tidegate db`: the database behind a server: its schema, and moving to PostgreSQL. Run where the server runs, by whoever may read its settings."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli._tenant import DEFAULT, placed, with_tenant
from tidegate.cli.output import Output, with_output
from tidegate.core.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.server.config import Settings

_CONFIG = click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
_DATA = click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")


@click.group("db", short_help="The schema, and moving to PostgreSQL.")
def command() -> None:
    """Bring the schema of a server's database up to date, or move from SQLite to PostgreSQL.

    \b
    tidegate db upgrade --check
    tidegate db upgrade
    tidegate db copy --from ./tidegate-data
    """


@command.command("upgrade")
@_CONFIG
@_DATA
@click.option("--check", is_flag=True, help="Change nothing; fail where there is something to do.")
@with_tenant
@with_output
def upgrade(
    config: Path | None, data_dir: Path | None, check: bool, tenant: str, out: Output
) -> None:
    """Bring the schema up to date, or make it in an empty database, in one transaction.

    Which database is said by the settings of the server: [database] url, TIDEGATE_DATABASE_URL, or a file in the data directory. Steps only add, so
    servers of the version before may go on meanwhile. A server on a file does this by itself when it starts.

    \b
    tidegate db upgrade --check
    TIDEGATE_DATABASE_URL=postgresql://tidegate@db.example/tidegate tidegate db upgrade
    """
    from tidegate.server.config import load
    from tidegate.server.store import opening
    from tidegate.server.store.migrations import HEAD

    settings = placed(load(config, options={"data_dir": data_dir}), tenant)
    folder, url = Path(settings.data_dir), settings.database_address
    before = opening.schema(folder, url, tenant)
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
        opening.upgrade(folder, url, tenant)
        for other in _others(settings) if url and tenant == DEFAULT else ():
            opening.upgrade(folder, url, other)
            out.note(f"  the schema of {other}, too")
    text = f"schema {HEAD}, as it was" if before == HEAD else f"schema {before or 'none'} -> {HEAD}"
    out.data("db-upgrade/1", {"before": before, "after": HEAD}, text)


def _others(settings: "Settings") -> list[str]:
    """Return the other tenants of a server, whose schemas follow."""
    from tidegate.server import tenants
    from tidegate.server.store import opening

    with opening.looking(Path(settings.data_dir), settings.database_address) as conn:
        return [one.name for one in tenants.listed(conn)]


@command.command("copy")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Data directory of a server on SQLite that was stopped.",
)
@click.option("--to", "target", help="postgresql://USER@HOST/DATABASE, without a password.")
@_CONFIG
@with_tenant
@with_output
def copy(source: Path, target: str | None, config: Path | None, tenant: str, out: Output) -> None:
    """Copy everything from SQLite to an empty PostgreSQL database: all of it, or nothing.

    Each table is read back and compared with what was sent before anything is kept. The file stays as it is; keys and payloads stay in their folders.
    Where --to is not given, it is the database of the server's settings. A password comes from there, too, or from where libpq looks for one (PGPASSFILE).

    \b
    tidegate db copy --from ./tidegate-data --to postgresql://tidegate@db.example/tidegate
    """
    from tidegate.server.address import require_no_password
    from tidegate.server.config import load
    from tidegate.server.store import opening
    from tidegate.server.tenants import check_name, folder_of

    if target is not None:
        require_no_password(target, "--to")
    settings = load(config, options={"database_url": target})
    url = settings.database_address
    if not url:
        raise ConfigError("config.missing", "--to, [database] url or TIDEGATE_DATABASE_URL")
    found = opening.copy(
        folder_of(source, check_name(tenant)),
        url,
        lambda one: out.note(f"  {one.table:20} {one.rows:>12,} rows  {one.digest[:16]}"),
        tenant,
    )
    rows = sum(one.rows for one in found)
    body = {"rows": rows, "tables": [one._asdict() for one in found]}
    text = (
        f"copied {rows:,} rows of {len(found)} tables\n"
        "Next:  start the server with [database] url, and not on the file any more"
    )
    out.data("db-copy/1", body, text)


@command.command("adopt-keys")
@_CONFIG
@_DATA
@with_tenant
@with_output
def adopt_keys(config: Path | None, data_dir: Path | None, tenant: str, out: Output) -> None:
    """Say that the online keys were replaced on purpose: those in this data directory count from now on.

    Servers of one database must all have the same keys, so one that has others does not start. Stop all of them, replace the keys, say so with this, and
    copy the folder `online` to the data directories of the others. Devices believe new keys when a new root names them.

    \b
    tidegate db adopt-keys --data /var/lib/tidegate
    """
    import os
    import time

    from tidegate.server import audit, online
    from tidegate.server.config import load
    from tidegate.server.store import Connection, opening, server_rows

    settings = placed(load(config, options={"data_dir": data_dir}), tenant)
    folder, url = Path(settings.data_dir), settings.database_address
    keys = online.open_keys(folder, os.urandom)
    now = int(time.time())

    def adopt(conn: Connection) -> bool:
        if server_rows.keys_held(conn) == keys.digest:
            return False
        server_rows.hold_keys(conn, keys.digest, now)
        audit.record(conn, now, "tidegate", "online_keys.adopt", keys.digest[:16])
        return True

    store = opening.open_store(folder, url=url, tenant=tenant)
    try:
        changed = store.write(adopt).result()
    finally:
        store.close()
    text = "these keys count from now on" if changed else "these keys counted already"
    out.data("db-adopt-keys/1", {"changed": changed, "digest": keys.digest}, text)
