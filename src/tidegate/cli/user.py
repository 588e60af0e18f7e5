"""`tidegate user`: accounts of people."""

import click
import msgspec

from tidegate.cli._people import rows, show_lines, when
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_list, with_output
from tidegate.client import Client, structs
from tidegate.server.actors import ROLES

_ROLES = click.Choice(list(ROLES))
_GRANT = "ROLE or ROLE@SCOPE, where SCOPE is product:NAME or group:NAME; may be repeated."


@click.group("user")
def command() -> None:
    """Manage accounts: who may look, act, approve.

    \b
    tidegate user create olga --role operator
    tidegate user create lars --grant rollout-operator@product:gw1
    tidegate user link admin
    """


@command.command("list")
@with_client
@with_list(structs.AccountFacts)
def list_users(client: Client, out: Output) -> None:
    """List accounts.

    \b
    tidegate user list
    """
    items = rows(
        out,
        client.accounts_list().items,
        lambda one: {
            "holds": ", ".join(one.grants),
            "code": "yes" if one.second_factor else "no",
            "created": when(one.created_at),
            "disabled": when(one.disabled_at),
        },
    )
    out.table("users/1", items, ("name", "holds", "code", "origin", "created", "disabled"))


@command.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True)
@click.option("--grant", "grants", multiple=True, metavar="ROLE@SCOPE", help=_GRANT)
@click.option("--person", default="", metavar="NAME", help="Whose account it is, if not its own.")
@with_client
@with_output
def create(
    name: str, role: str, grants: tuple[str, ...], person: str, client: Client, out: Output
) -> None:
    """Make an account; its password is made of words and shown this once.

    \b
    tidegate user create olga --role operator
    tidegate user create lars --grant rollout-operator@product:gw1 --grant viewer
    """
    wanted = structs.NewAccount(name=name, role=role, grants=grants, person=person)
    made = client.accounts_create(wanted)
    held = ", ".join(grants) or role
    out.note(f"{name} ({held}) can sign in at {client.server} with the password")
    show_lines(out, "user/1", made, [made.password])


@command.command("edit")
@click.argument("name")
@click.option("--role", type=_ROLES)
@click.option("--grant", "grants", multiple=True, metavar="ROLE@SCOPE", help=_GRANT)
@click.option("--person", metavar="NAME", help="Whose account it is.")
@click.option("--disable/--enable", "disabled", default=None)
@with_client
@with_output
def edit(
    name: str,
    role: str | None,
    grants: tuple[str, ...],
    person: str | None,
    disabled: bool | None,
    client: Client,
    out: Output,
) -> None:
    """Replace what an account holds, say whose it is, disable or enable it. Its sessions end.

    \b
    tidegate user edit olga --role approver
    tidegate user edit olga --disable
    """
    change = structs.AccountChange(
        role=role, grants=grants or None, person=person, disabled=disabled
    )
    found = client.accounts_change(name, change)
    state = "disabled" if found.disabled_at else "enabled"
    show_lines(out, "user/1", found, [f"{name}: {', '.join(found.grants)}, {state}"])


@command.command("reset")
@click.argument("name")
@with_client
@with_output
def reset(name: str, client: Client, out: Output) -> None:
    """Give an account a new password, shown this once. Its sessions end.

    \b
    tidegate user reset admin
    """
    made = client.accounts_reset(name)
    show_lines(out, "user/1", made, [made.password])


@command.command("reset-second-factor")
@click.argument("name")
@with_client
@with_output
def reset_second_factor(name: str, client: Client, out: Output) -> None:
    """Take away the second factor of somebody who lost it. Their sessions end.

    \b
    tidegate user reset-second-factor olga
    """
    found = client.accounts_reset_second_factor(name)
    show_lines(out, "user/1", found, [f"{name} has no second factor any more."])


@command.command("link")
@click.argument("name", default="admin")
@with_client
@with_output
def link(name: str, client: Client, out: Output) -> None:
    """Make a link that signs an account in once, within an hour.

    \b
    tidegate user link admin
    """
    made = client.accounts_ticket(name)
    # the server may know better than we do how browsers reach it
    url = made.url or client.server + made.path
    show_lines(out, "link/1", {**msgspec.structs.asdict(made), "url": url}, [url])


@command.command("sessions")
@click.argument("name", default="")
@with_client
@with_list(structs.SessionFacts)
def sessions(name: str, client: Client, out: Output) -> None:
    """List sessions, of one account or of all.

    \b
    tidegate user sessions
    tidegate user sessions olga
    """
    items = rows(
        out,
        client.sessions_list(account=name).items,
        lambda one: {"since": when(one.created_at), "seen": when(one.seen_at)},
    )
    out.table("sessions/1", items, ("id", "account", "method", "address", "since", "seen"))


@command.command("end-session")
@click.argument("session_id", metavar="ID")
@with_client
@with_output
def end_session(session_id: str, client: Client, out: Output) -> None:
    """End a session, by its id.

    \b
    tidegate user end-session 5f0c8a1b2c3d4e5f
    """
    client.sessions_remove(session_id)
    out.note(f"{session_id} is ended.")


@command.command("requests")
@with_client
@with_list(structs.ConsentFacts)
def requests(client: Client, out: Output) -> None:
    """List what waits for a second person before an account is made, widened or taken over.

    \b
    tidegate user requests
    """
    items = rows(out, client.consents_list().items, lambda one: {"holds": ", ".join(one.grants)})
    out.table("consents/1", items, ("id", "act", "account", "holds", "asked_by", "state"))


@command.command("consent")
@click.argument("number", type=int)
@click.option("--decline", is_flag=True, help="Decline it instead.")
@with_client
@with_output
def consent(number: int, decline: bool, client: Client, out: Output) -> None:
    """Consent to what somebody else wants to do to an account; they do the same again then.

    \b
    tidegate user consent 3
    """
    done = client.consents_decline(number) if decline else client.consents_approve(number)
    show_lines(out, "consent/1", done, [f"{done.act} {done.account}: {done.state}"])
