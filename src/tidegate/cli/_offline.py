"""`tidegate release bundle`: a release for devices without a server."""

from pathlib import Path

import click

from tidegate.cli import _ceremony as ceremony
from tidegate.cli._anchor import explain_anchor, find_anchor
from tidegate.cli.client import with_client
from tidegate.cli.output import Output, with_output
from tidegate.client import Client
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.publisher import offline
from tidegate.publisher.bundle import read


def _documents(path: Path) -> list[bytes]:
    """Return the document in a file, or root and targets out of a bundle."""
    body = ceremony.read_document(path)
    if body[:1] == b"{":
        return [body]
    found = read(path).documents
    return [found[role] for role in ("root", "targets") if role in found]


@click.command("bundle")
@click.argument("release", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "given",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Roots and targets: files or bundles.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    help="File for the bundle [NAME.offline.bundle].",
)
@click.option(
    "--mirror", type=click.Path(path_type=Path), help="A directory laid out like a server, instead."
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="The root to believe (TIDEGATE_ROOT)."
)
@with_client
@with_output
def bundle_offline(
    release: Path,
    given: tuple[Path, ...],
    target: Path | None,
    mirror: Path | None,
    root: Path | None,
    client: Client,
    out: Output,
) -> None:
    """Make a bundle for a device without a server: stick or mirror.

    \b
    tidegate release bundle gw1-1.1.0.bundle
    tidegate release bundle gw1-1.1.0.bundle --with root.1.json --with targets.1.json
    """
    product = read(release).role.removeprefix("product/")
    if given:
        chain = offline.given([body for one in given for body in _documents(one)])
    else:
        anchor = find_anchor(root, client, out)
        if anchor is None:
            raise ConfigError("meta.no_root", f"{client.server} has published no root yet")
        try:
            chain = offline.fetched(client, anchor, product, now=ceremony.now())
        except PublisherError as error:
            raise explain_anchor(error, client) from error
    made = target or release.with_name(f"{release.stem}.offline.bundle")
    found = offline.write(release, chain, mirror or made, now=ceremony.now(), mirror=bool(mirror))
    out.note(f"{found.version}: roots {found.roots}, good until {ceremony.date(found.until)}")
    out.note(f"Next, on the device: tidegate-agent apply-now --bundle {mirror or made}")
    out.made(str(mirror or made))
