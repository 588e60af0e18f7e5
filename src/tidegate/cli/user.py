"""`tidegate user`: accounts of people."""

import click

from tidegate.cli._people import API, quoted, show_lines, when
from tidegate.cli.client import Client, with_client
from tidegate.cli.output import Output, with_output

_ROLES = click.Choice(["viewer", "uploader", "operator", "approver", "admin"])


@click.group("user")
def command() -> None:
    """Manage accounts: who may look, act, approve.

    \b
    tidegate user create olga --role operator
    tidegate user link admin
    """


@command.command("list")
@with_client
@with_output
def list_users(client: Client, out: Output) -> None:
    """List accounts.

    \b
    tidegate user list
    """
    items = client.get(f"{API}/accounts")["items"]
    rows = (
        items
        if out.json
        else [
            {**one, "created": when(one["created_at"]), "disabled": when(one["disabled_at"])}
            for one in items
        ]
    )
    out.table("users/1", rows, ("name", "role", "created", "disabled"))


@command.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True)
@with_client
@with_output
def create(name: str, role: str, client: Client, out: Output) -> None:
    """Make an account; its password is made of words and shown this once.

    \b
    tidegate user create olga --role operator
    """
    made = client.post(f"{API}/accounts", {"name": name, "role": role})
    out.note(f"{name} ({role}) can sign in at {client.server} with the password")
    show_lines(out, "user/1", made, [made["password"]])


@command.command("edit")
@click.argument("name")
@click.option("--role", type=_ROLES)
@click.option("--disable/--enable", "disabled", default=None)
@with_client
@with_output
def edit(name: str, role: str | None, disabled: bool | None, client: Client, out: Output) -> None:
    """Change a role, disable or enable an account. Its sessions end.

    \b
    tidegate user edit olga --role approver
    tidegate user edit olga --disable
    """
    found = client.patch(f"{API}/accounts/{quoted(name)}", {"role": role, "disabled": disabled})
    state = "disabled" if found["disabled_at"] else "enabled"
    show_lines(out, "user/1", found, [f"{name}: {found['role']}, {state}"])


@command.command("reset")
@click.argument("name")
@with_client
@with_output
def reset(name: str, client: Client, out: Output) -> None:
    """Give an account a new password, shown this once. Its sessions end.

    \b
    tidegate user reset admin
    """
    made = client.post(f"{API}/accounts/{quoted(name)}/reset", {})
    show_lines(out, "user/1", made, [made["password"]])


@command.command("link")
@click.argument("name", default="admin")
@with_client
@with_output
def link(name: str, client: Client, out: Output) -> None:
    """Make a link that signs an account in once, within an hour.

    \b
    tidegate user link admin
    """
    made = client.post(f"{API}/accounts/{quoted(name)}/ticket", {})
    show_lines(
        out, "link/1", {**made, "url": client.server + made["path"]}, [client.server + made["path"]]
    )
