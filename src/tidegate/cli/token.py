"""`tidegate token`: API tokens for programs."""

import click

from tidegate.cli._people import rows, show_lines, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration
from tidegate.server.actors import ROLES

_ROLES = click.Choice(list(ROLES))


@click.group("token")
def command() -> None:
    """Make and end API tokens.

    \b
    tidegate token create ci --role operator --expires 90d
    """


@command.command("list")
@with_client
@with_list(structs.TokenFacts)
def list_tokens(client: Client, out: Output) -> None:
    """List API tokens, without their secrets.

    \b
    tidegate token list
    """
    items = rows(
        out,
        client.tokens_list().items,
        lambda one: {
            "holds": ", ".join(one.grants),
            "used": when(one.last_used_at),
            "expires": when(one.expires_at),
            "revoked": when(one.revoked_at),
        },
    )
    out.table("tokens/1", items, ("name", "holds", "created_by", "used", "expires", "revoked"))


@command.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True)
@click.option(
    "--grant",
    "grants",
    multiple=True,
    metavar="ROLE@SCOPE",
    help="ROLE or ROLE@SCOPE, where SCOPE is product:NAME or group:NAME; may be repeated.",
)
@click.option(
    "--expires", metavar="TIME", help="How long it lives.  [default: as the server says, 90d]"
)
@click.option(
    "--from", "addresses", multiple=True, metavar="NETWORK", help="Good from there alone."
)
@with_client
@with_output
def create(
    name: str,
    role: str,
    grants: tuple[str, ...],
    expires: str | None,
    addresses: tuple[str, ...],
    client: Client,
    out: Output,
) -> None:
    """Make an API token; it is shown this once.

    \b
    tidegate token create ci --role operator
    tidegate token create ci --grant release-uploader@product:gw1 --from 192.0.2.0/24
    """
    lives = parse_duration(expires, "--expires") if expires else None
    wanted = structs.NewToken(
        name=name, role=role, grants=grants, addresses=addresses, expires_in_s=lives
    )
    made = client.tokens_create(wanted)
    held = ", ".join(made.facts.grants)
    out.note(f"Token {name} ({held}), until {when(made.facts.expires_at)} UTC. Keep it in a file:")
    show_lines(out, "token/1", made, [made.token])


@command.command("revoke")
@click.argument("name")
@with_client
@with_output
def revoke(name: str, client: Client, out: Output) -> None:
    """End an API token.

    \b
    tidegate token revoke ci
    """
    client.tokens_remove(name)
    out.note(f"{name} is revoked.")
