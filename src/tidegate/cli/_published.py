"""What is published now: from files, or from the server, verified from the root that this machine believes."""

from pathlib import Path

from tidegate.cli import _ceremony as ceremony
from tidegate.cli._anchor import explain_anchor, find_anchor
from tidegate.cli.output import Output
from tidegate.client import Client
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.metadata import product_role
from tidegate.core.verify import TrustedSet
from tidegate.publisher.bundle import read
from tidegate.publisher.publish import published


def published_now(
    product: str | None, root: Path | None, client: Client, out: Output
) -> TrustedSet | None:
    """Return what the server has published, verified from the root that this machine believes; None when it has published nothing.

    Raises:
        PublisherError: `sig.*`.
    """
    anchor = find_anchor(root, client, out)
    if anchor is None:
        return None
    try:
        return published(client, anchor, product, now=ceremony.now())
    except PublisherError as error:
        raise explain_anchor(error, client) from error


def previous_role(
    product: str, given: Path | None, root: Path | None, client: Client, out: Output
) -> bytes | None:
    """Return the product role that is published now: from a file, or verified from the server.

    Raises:
        PublisherError: `sig.*`, `release.malformed`. ConfigError: `config.unreadable`.
    """
    if given is None:
        trusted = published_now(product, root, client, out)
        found = trusted.roles.get(product_role(product)) if trusted is not None else None
        return found.body if found is not None else None
    body = ceremony.read_document(given)
    if body[:1] == b"{":
        return body
    document = read(given).documents.get(product_role(product))
    if document is None:
        raise PublisherError("release.malformed", f"{given} holds nothing of {product}")
    return document


def targets_now(given: Path | None, root: Path | None, client: Client, out: Output) -> bytes:
    """Return the targets role that is published now: from a file, or verified from the server.

    Raises:
        ConfigError: `meta.no_root`. PublisherError: `sig.*`.
    """
    if given is not None:
        body = ceremony.read_document(given)
        return body if body[:1] == b"{" else read(given).documents["targets"]
    trusted = published_now(None, root, client, out)
    if trusted is None:
        raise ConfigError("meta.no_root", f"{client.server} has published no targets yet")
    return trusted.targets.body


def is_recalled(client: Client, release: str) -> bool:
    """Say whether a published release is recalled; no if the server does not say so to who asks: it only adds a warning."""
    try:
        return client.releases_show(release).state == "recalled"
    except RequestError:
        return False
