"""`tidegate restore`: bring a backup back, and hold what may not go on by it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli._people import when
from tidegate.cli._tenant import placed, with_tenant
from tidegate.cli.output import Output, with_output

if TYPE_CHECKING:
    from tidegate.server.held import Held

_SHOWN = 12


@click.command("restore", short_help="Bring a backup back; every rollout is held.")
@click.option("--from", "source", type=click.Path(path_type=Path, exists=True), help="A backup.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="An empty data directory.")
@click.option(
    "--hold-only",
    is_flag=True,
    help="The data was brought back by other means: hold its rollouts.",
)
@click.option("--config", "config", type=click.Path(path_type=Path), help="tidegate.toml")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), help="Data directory.")
@with_tenant
@with_output
def command(
    source: Path | None,
    target: Path | None,
    config: Path | None,
    data_dir: Path | None,
    *,
    tenant: str,
    hold_only: bool,
    out: Output,
) -> None:
    """Bring a backup back into an empty data directory, with every rollout held.

    The server that is brought back does not know what was halted, isolated, recalled or revoked after the backup. So it lets nobody go: active and completed
    rollouts are paused, scheduled ones are drafts, and everybody signs in anew. Look at each before you resume it: `tidegate rollout resume NAME`.

    \b
    tidegate restore --from /srv/backup/2026-11-29.tar --to ./tidegate-data
    tidegate restore --hold-only --data ./tidegate-data
    """
    from tidegate.server import held, online
    from tidegate.server.backup import bring_back, mark_held
    from tidegate.server.config import load
    from tidegate.server.store.opening import open_store

    now, url = int(time.time()), ""
    if hold_only and source is None and target is None:
        settings = placed(load(config, options={"data_dir": data_dir}), tenant)
        folder, made_at = Path(settings.data_dir), None
        url = settings.database_address
    elif source is not None and target is not None and not hold_only:
        folder, made_at = target, bring_back(source, target).made_at
    else:
        raise click.UsageError("give --from and --to, or --hold-only with --data or --config")
    store = open_store(folder, url=url, tenant=tenant)
    try:
        done = store.write(lambda conn: held.hold(conn, now, made_at)).result()
    finally:
        store.close()
    mark_held(folder)
    keys = (folder / online.FOLDER).is_dir()
    body = {"data": str(folder), "keys": keys, "held": done}
    out.data("restore/1", body, "\n".join([*_lines(done, made_at), str(folder)]))
    if not keys:
        out.note(
            f"warning: there are no online keys. Put them into {folder / online.FOLDER} before the first start: "
            "new ones would need a new root, signed by people"
        )
    out.note(
        "API tokens, accounts and devices that were revoked since the backup are good again: revoke them anew"
    )
    out.note(
        "Next: tidegate serve, tidegate rollout list, and `tidegate rollout resume NAME` for each that may go on"
    )


def _lines(done: "Held", made_at: int | None) -> list[str]:
    lines = []
    if made_at is not None:
        lines.append(f"Brought back as it was at {when(made_at)} UTC")
    lines.append(f"{done.missing_s:,} s are missing; deadlines moved by as much")
    for names, became in ((done.paused, "paused"), (done.drafts, "drafts again")):
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        lines.append(f"{len(names)} rollouts are {became}{': ' if names else ''}{shown}")
    return lines
