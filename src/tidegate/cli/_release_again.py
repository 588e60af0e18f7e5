"""`tidegate release re-release`: good bytes once more, under the next counter."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli._published import is_recalled, previous_role
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.client import Client
from tidegate.core.amounts import parse_duration
from tidegate.core.errors import PublisherError
from tidegate.publisher.manifest import source_date_epoch
from tidegate.publisher.rerelease import re_release

_FILE = click.Path(path_type=Path)


@click.command("re-release")
@click.argument("release")
@click.option("--version", help="Of the new release [the old one with .rCOUNTER].")
@click.option("--counter", type=click.IntRange(1, 0xFFFFFFFF), help="[the next one]")
@click.option("--previous", type=_FILE, help="What is published now: a bundle or product role.")
@click.option("--expires", default="180d", show_default=True, help="How long the role is good for.")
@click.option("--root", type=_FILE, help="The root to believe (TIDEGATE_ROOT).")
@click.option("--out", "folder", type=_FILE, default=".", help="Folder for the bundle [.].")
@with_client
@with_output
def re_release_command(
    release: str,
    version: str | None,
    counter: int | None,
    previous: Path | None,
    expires: str,
    root: Path | None,
    folder: Path,
    client: Client,
    out: Output,
) -> None:
    """Publish the same bytes under a new counter, unsigned.

    \b
    tidegate release re-release gw1-1.0.0
    tidegate release re-release gw1-1.0.0 --version 1.2.0 --previous gw1-1.1.0.bundle
    """
    before = previous_role(release.rpartition("-")[0], previous, root, client, out)
    if before is None:
        raise PublisherError("release.malformed", f"{release} is not published")
    made, targets = re_release(
        before,
        release,
        folder,
        now=source_date_epoch(ceremony.now()),
        version=version or "",
        counter=counter or 0,
        expires_s=parse_duration(expires, "--expires"),
    )
    new = targets[0].release
    # Who names files has no server to ask, or need not.
    if previous is None and is_recalled(client, release):
        out.note(f"{release} was recalled: these are the bytes that were called bad.")
    out.note(f"{release} again, as {new.name} (counter {new.release_counter}): the same bytes.")
    out.note(f"Next: tidegate release sign {made} --key KEY")
    out.made(str(made), release=new.name)
