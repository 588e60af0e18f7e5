"""`tidegate backup`: a copy of this server's data, taken while it serves, and whether such a copy is whole."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli._people import when
from tidegate.cli._tenant import placed, with_tenant
from tidegate.cli.output import Output, with_output
from tidegate.core.amounts import format_size
from tidegate.core.errors import ConfigError

if TYPE_CHECKING:
    from tidegate.server.backup import Manifest


@click.group("backup", invoke_without_command=True, short_help="Copy this server's data.")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="A folder that is not there yet, or a file NAME.tar.",
)
@click.option("--with-keys", is_flag=True, help="The online keys and those of TLS, too.")
@click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")
@with_tenant
@with_output
@click.pass_context
def command(
    ctx: click.Context,
    target: Path | None,
    config: Path | None,
    data_dir: Path | None,
    *,
    tenant: str,
    with_keys: bool,
    out: Output,
) -> None:
    """Copy this server's database and artifacts, also while it serves.

    The database is copied as it is at one moment; artifacts are linked on the same disk, else copied. Bring a copy to another machine: one on the same
    disk goes with it. The online keys are left out unless --with-keys is given: who has them can speak as this server. Keep those apart, once.

    A server on PostgreSQL is backed up with PostgreSQL's own tools (docs/guides/back-up-and-restore.md).

    \b
    tidegate backup --to /srv/backup/2026-11-29
    tidegate backup --to /srv/backup/2026-11-29.tar --with-keys
    tidegate backup verify /srv/backup/2026-11-29
    """
    if ctx.invoked_subcommand is not None:
        return
    if target is None:
        raise click.UsageError("--to is missing: where to", ctx)
    from tidegate.server.backup import Elsewhere, back_up
    from tidegate.server.blobs import open_blobs
    from tidegate.server.config import load

    settings = placed(load(config, options={"data_dir": data_dir}), tenant)
    if settings.database_url:
        raise ConfigError("backup.none", "this server is on PostgreSQL")
    folder, elsewhere = Path(settings.data_dir), None
    if settings.blobs_url:
        elsewhere = Elsewhere(settings.blobs_url, open_blobs(settings.blobs, folder))
    made = back_up(folder, target, int(time.time()), with_keys=with_keys, elsewhere=elsewhere)
    out.data("backup/1", _plain(made, target), f"{_said(made)}\n{target}")
    if made.blobs:
        out.note(f"Artifacts stay in {made.blobs}: all that the database names were found there")
    if with_keys:
        out.note(
            "warning: the online keys are in it, in the clear (mode 0600): who reads it can speak as this server"
        )
    else:
        out.note("The online keys are not in it: keep a copy of them apart (--with-keys, once)")


@command.command("verify", short_help="Is a copy whole?")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@with_output
def verify_command(path: Path, out: Output) -> None:
    """Read every byte of a backup, and look at its database. Exit code 1 when anything is not what its manifest says.

    \b
    tidegate backup verify /srv/backup/2026-11-29.tar
    """
    from tidegate.server.backup import verify

    found = verify(path)
    out.data("backup/1", _plain(found, path), f"{_said(found)}\nwhole")


def _plain(made: "Manifest", path: Path) -> dict[str, object]:
    return {
        "path": str(path),
        "tidegate": made.tidegate,
        "schema": made.schema,
        "made_at": made.made_at,
        "with_keys": made.with_keys,
        "blobs": made.blobs,
        "files": len(made.files),
        "size": made.size,
        "events": made.events,
        "gate_epoch": made.gate_epoch,
    }


def _said(made: "Manifest") -> str:
    return (
        f"Backup of {when(made.made_at)} UTC by Tidegate {made.tidegate}, schema {made.schema}: "
        f"{len(made.files)} files, {format_size(made.size)}, events up to {made.events}"
    )
