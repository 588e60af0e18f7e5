"""Publish: send a bundle to a server, and learn what the server has published.

How a request travels is the caller's (`Api`): the command line brings its client, the simulator its own. The server verifies everything again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tidegate.core.bundle import CONTENT_TYPE
from tidegate.core.errors import RequestError
from tidegate.core.metadata import file_name, parse_snapshot, parse_timestamp, product_role

Progress = Callable[[int, int], None]


class Api(Protocol):
    """What this module needs of an HTTP client; `tidegate.cli.client.Client` is one."""

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """Read; decoded JSON."""
        ...

    def get_bytes(self, path: str) -> bytes:
        """Read bytes as they are."""
        ...

    def upload(
        self,
        path: str,
        file: Path,
        *,
        content_type: str,
        query: Mapping[str, object] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Stream a file as the body of a POST."""
        ...


def publish_bundle(api: Api, path: Path, *, progress: Progress | None = None) -> Any:
    """Send a bundle; the server's answer.

    Raises:
        TidegateError: as the server says, with the codes that a device would give.
    """
    return api.upload("/api/v1/bundles", path, content_type=CONTENT_TYPE, progress=progress)


def published(api: Api, role: str) -> bytes | None:
    """Return the document of a role as it is published now, unverified; None when there is none.

    Raises:
        TidegateError: the server cannot be reached.
    """
    timestamp = _optional(api, file_name("timestamp", None))
    if timestamp is None:
        return None
    snapshot = _optional(
        api, file_name("snapshot", parse_timestamp(timestamp).signed.snapshot_meta.version)
    )
    if snapshot is None:
        return None
    meta = parse_snapshot(snapshot).signed.meta.get(f"{role}.json")
    return None if meta is None else _optional(api, file_name(role, meta.version))


def published_product(api: Api, product: str) -> bytes | None:
    """Return the product role as it is published now, unverified; None when there is none."""
    return published(api, product_role(product))


def published_root(api: Api) -> bytes | None:
    """Return the newest root that is published, unverified; None when there is none."""
    newest = None
    for version in range(1, 1 << 16):
        body = _optional(api, file_name("root", version))
        if body is None:
            break
        newest = body
    return newest


def _optional(api: Api, name: str) -> bytes | None:
    try:
        return api.get_bytes(f"/d/v1/repo/{name}")
    except RequestError as error:
        if error.code == "request.not_found":
            return None
        raise
