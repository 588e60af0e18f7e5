"""`tidegate token`: API tokens for programs."""

import click

from tidegate.cli._people import API, quoted, show_lines, when
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, with_output
from tidegate.core.amounts import parse_duration

_ROLES = click.Choice(["viewer", "uploader", "operator", "approver", "admin"])


@click.group("token")
def command() -> None:
    """Make and end API tokens.

    \b
    tidegate token create ci --role operator --expires 90d
    """


@command.command("list")
@with_client
@with_output
def list_tokens(client: Client, out: Output) -> None:
    """List API tokens, without their secrets.

    \b
    tidegate token list
    """
    items = client.get(f"{API}/tokens")["items"]
    rows = (
        items
        if out.json
        else [
            {**one, "expires": when(one["expires_at"]), "revoked": when(one["revoked_at"])}
            for one in items
        ]
    )
    out.table("tokens/1", rows, ("name", "role", "created_by", "expires", "revoked"))


@command.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True)
@click.option("--expires", default="90d", show_default=True, metavar="TIME")
@with_client
@with_output
def create(name: str, role: str, expires: str, client: Client, out: Output) -> None:
    """Make an API token; it is shown this once.

    \b
    tidegate token create ci --role operator
    """
    body = {"name": name, "role": role, "expires_in_s": parse_duration(expires, "--expires")}
    made = client.post(f"{API}/tokens", body)
    out.note(
        f"Token {name} ({role}), until {when(made['facts']['expires_at'])} UTC. Keep it in a file:"
    )
    show_lines(out, "token/1", made, [made["token"]])


@command.command("revoke")
@click.argument("name")
@with_client
@with_output
def revoke(name: str, client: Client, out: Output) -> None:
    """End an API token.

    \b
    tidegate token revoke ci
    """
    client.delete(f"{API}/tokens/{quoted(name)}")
    out.note(f"{name} is revoked.")
