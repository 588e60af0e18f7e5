"""`tidegate halt`: stop rollouts at once. It never asks."""

import click

from tidegate.cli._stop import narrow
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, give_up, with_output
from tidegate.client import Client, structs


@click.command("halt", short_help="Stop rollouts at once.")
@click.argument("names", metavar="ROLLOUT...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every active rollout.")
@click.option("--reason", metavar="TEXT", help="Why; it can also be written down afterwards.")
@with_client
@with_output
def command(
    names: tuple[str, ...], everything: bool, reason: str | None, client: Client, out: Output
) -> None:
    """Stop rollouts at once: no offer and no permit is given from then on.

    \b
    tidegate halt gw1-2.6.0 --reason "screens black in Lyon"
    tidegate halt --all
    """
    wanted = list(names)
    if everything:
        wanted += [one.name for one in client.rollouts_list(state="active,paused", limit=500)]
    if not wanted:
        if everything:
            out.note("nothing is active")
            return
        give_up("request.invalid", "name a rollout, or --all")
    for name in dict.fromkeys(wanted):
        narrow(client, out, "halt", name, structs.Act(reason=reason or ""))
