"""`tidegate claim`: tokens that let new devices in."""

import os
from pathlib import Path
from typing import Any

import click

from tidegate.cli._people import rows, show_lines, when
from tidegate.cli._sorting import with_sort
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_list, with_output
from tidegate.client import Client, structs
from tidegate.core.amounts import parse_duration
from tidegate.core.errors import ConfigError


@click.group("claim")
def command() -> None:
    """Make and end claim tokens: with one, a device joins without a person looking at it.

    \b
    tidegate claim create gw1 --count 500 --out claim.token
    """


@command.command("create")
@click.argument("product")
@click.option("--name", metavar="NAME", default="", help="To find it again.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--expires", default="30d", show_default=True, metavar="TIME")
@click.option("--group", metavar="GROUP", help="Devices that join come into this group.")
@click.option("--serials", type=click.Path(path_type=Path), help="File: one serial number a line.")
@click.option("--out", "target", type=click.Path(path_type=Path), help="Write it here, mode 0600.")
@with_client
@with_output
def create(
    product: str,
    name: str,
    count: int,
    expires: str,
    group: str | None,
    serials: Path | None,
    target: Path | None,
    client: Client,
    out: Output,
) -> None:
    """Make a claim token; it is shown this once.

    \b
    tidegate claim create gw1
    tidegate claim create gw1 --count 500 --expires 7d --group line-4 --out claim.token
    """
    wanted = structs.NewClaim(
        product=product,
        name=name,
        max_count=count,
        expires_in_s=parse_duration(expires, "--expires"),
        group=group,
        serials=serials.read_text().split() if serials else None,
    )
    made = client.claims_create(wanted)
    until = when(made.claim.expires_at)
    out.note(f"Claim {made.name}: {count:,} devices of {product}, until {until} UTC.")
    if target is None:
        show_lines(out, "claim/1", made, [made.token])
        return
    _write_secret(target, made.token + "\n")
    out.note(f"Written {target}, for you alone.")
    out.made(made.name)


@command.command("list")
@with_sort(Client.claims_list)
@with_client
@with_list(structs.ClaimFacts)
def list_claims(sort: Any, client: Client, out: Output) -> None:
    """List claims, without their secrets.

    \b
    tidegate claim list
    """
    items = rows(
        out,
        client.claims_list(sort=sort),
        lambda one: {"expires": when(one.expires_at), "revoked": when(one.revoked_at)},
    )
    columns = (
        "name",
        "product",
        "group_name",
        "used",
        "max_count",
        "expires",
        "revoked",
        "created_by",
    )
    out.table("claims/1", items, columns)


@command.command("revoke")
@click.argument("name")
@with_client
@with_output
def revoke(name: str, client: Client, out: Output) -> None:
    """End a claim; devices that joined by it stay.

    \b
    tidegate claim revoke line-4
    """
    found = client.claims_revoke(name)
    said = f"{name} is revoked; {found.used:,} devices joined by it"
    show_lines(out, "claim/1", found, [said])


def _write_secret(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    with os.fdopen(handle, "w") as file:
        file.write(text)
    path.chmod(0o600)
