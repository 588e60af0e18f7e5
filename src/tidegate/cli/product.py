"""`tidegate product`: products and their keys."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli.output import Output, with_output
from tidegate.cli.targets import announce
from tidegate.core.errors import PublisherError
from tidegate.core.metadata import RoleKeys
from tidegate.publisher.ceremony import begin_targets
from tidegate.publisher.keyfile import read_public

_FILE = click.Path(path_type=Path)


@click.group("product")
def command() -> None:
    """Name products and the keys that sign their releases.

    \b
    tidegate product add gw1 --key rita.pub.json --key sam.pub.json --needs 2
    """


@command.command("add")
@click.argument("name")
@click.option("--key", "keys", type=_FILE, multiple=True, required=True, help="A public key.")
@click.option("--needs", type=click.IntRange(1, 32), default=1, show_default=True)
@click.option(
    "--previous", type=_FILE, help="The present targets; without it, these are the first."
)
@click.option("--out", "target", type=_FILE, default="targets.draft.json", show_default=True)
@with_output
def add(
    name: str,
    keys: tuple[Path, ...],
    needs: int,
    previous: Path | None,
    target: Path,
    out: Output,
) -> None:
    """Draft targets that let these keys sign a product's releases.

    \b
    tidegate product add gw1 --key rita.pub.json --key sam.pub.json --needs 2
    tidegate product add gw2 --key rita.pub.json --previous targets.1.json
    """
    role = RoleKeys(tuple(read_public(one).key for one in keys), needs)
    if len({key.identity for key in role.keys}) != len(role.keys):
        raise PublisherError("key.duplicate", f"{name}: one public key was named twice")
    if needs > len(role.keys):
        raise PublisherError("sig.threshold", f"{name}: {needs} needed of {len(role.keys)} keys")
    draft = begin_targets({name: role}, previous=ceremony.optional(previous), now=ceremony.now())
    announce(draft, target, out)
