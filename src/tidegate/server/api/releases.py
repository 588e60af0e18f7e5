"""Releases and the published trust over REST: bundles in, releases listed and recalled, root and targets published, the server's own public keys."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from litestar import Controller, get, post
from litestar.params import JSONBody

from tidegate.core.errors import RequestError, TidegateError
from tidegate.server import inquiry, recalls, releases
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    BODY,
    INSIDE,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    Desk,
    DeskDep,
    DryRun,
    Name,
    Text,
    Yes,
)
from tidegate.server.api.paging import Cursor, Limit
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.wire import Because, Releases, Version
from tidegate.server.auth import Actor
from tidegate.server.blobs.local import require_space, translated
from tidegate.server.facts import ReleaseFacts
from tidegate.server.recalls import Recalled
from tidegate.server.releases import Published

_ROLE_MAX: Final = 512 << 10
_DISK_FROM: Final = 1 << 20


class ReleaseRoutes(Controller):
    """Releases and bundles."""

    tags = ("releases",)

    @get(
        "/releases",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.RELEASES},
        sync_to_thread=True,
    )
    def list_releases(
        self,
        request: ApiRequest,
        desk: DeskDep,
        product: Text = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Releases:
        """List releases, newest first unless `sort` says otherwise; by `counter` takes a `product`."""
        order = sorting.RELEASES.order(sort, cursor)
        items, more = desk.read(
            lambda conn: inquiry.releases(
                conn, product=product, order=order, limit=limit, sight=request.user.sight
            )
        )
        return Releases(items=items, next=sorting.RELEASES.cursor(sort, more))

    @get(
        "/releases/{name:str}",
        opt={PERMISSION: "fleet.read", ABOUT: "release"},
        sync_to_thread=True,
    )
    def show(self, desk: DeskDep, name: Name) -> ReleaseFacts:
        """Return a release with its artifacts and what was signed about them."""
        return desk.read(lambda conn: inquiry.release(conn, name))

    @post(
        "/releases/{name:str}/recall",
        opt={PERMISSION: "release.recall", ABOUT: "release"},
        sync_to_thread=True,
        status_code=200,
    )
    def recall(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[Because],
        only_check: DryRun = False,
    ) -> Recalled:
        """Never offer a release again, and end every rollout of it. It cannot be undone."""
        actor = request.user
        return desk.write(
            lambda conn: recalls.recall(conn, name, data.reason, actor, desk.now),
            dry_run=only_check,
        )

    @post(
        "/bundles",
        opt={PERMISSION: "release.publish", ABOUT: INSIDE, BODY: "application/x-tar"},
        status_code=200,
        request_max_body_size=None,
    )
    async def upload(self, request: ApiRequest, desk: DeskDep, dry_run: Yes = False) -> Published:
        """Take in a signed bundle (a tar file as the whole body), checked as a device would check it. The same bundle again changes nothing."""
        if dry_run:
            raise RequestError(
                "request.invalid", "a bundle is checked with `tidegate release check`"
            )
        most = desk.services.settings.upload_max
        declared = request.headers.get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared) > most:
            raise RequestError("request.too_large", f"at most {most} bytes are taken")
        folder = Path(desk.services.settings.data_dir)
        with _room(), tempfile.SpooledTemporaryFile(max_size=_DISK_FROM, dir=str(folder)) as file:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise RequestError("request.too_large", f"at most {most} bytes are taken")
                # what is small stays in memory, and goes to the disk as a whole when it is not small any more
                require_space(folder, len(piece) if size - len(piece) > _DISK_FROM else size)
                await asyncio.to_thread(file.write, piece)
            file.seek(0)
            return await desk.beside(_accept, desk, request.user, file)


class TrustRoutes(Controller):
    """What is published above the products, and the server's own keys."""

    tags = ("trust",)

    @get("/online-keys", opt={PERMISSION: "fleet.read", ABOUT: LISTED}, sync_to_thread=False)
    def online_keys(self, desk: DeskDep) -> dict[str, Any]:
        """Return the public halves of the server's keys, as the root ceremony takes them."""
        return desk.services.keys.public()

    @post(
        "/root",
        opt={PERMISSION: "root.publish", ABOUT: WHOLE, BODY: "application/json"},
        status_code=200,
    )
    async def root(self, request: ApiRequest, desk: DeskDep) -> Version:
        """Publish a root that its holders have signed (the document as the whole body)."""
        body = await _small(request)
        return await asyncio.to_thread(_publish, desk, request.user, "root", body)

    @post(
        "/targets",
        opt={PERMISSION: "root.publish", ABOUT: WHOLE, BODY: "application/json"},
        status_code=200,
    )
    async def targets(self, request: ApiRequest, desk: DeskDep) -> Version:
        """Publish a targets role that its holders have signed."""
        body = await _small(request)
        return await asyncio.to_thread(_publish, desk, request.user, "targets", body)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Say of a disk that is full that it is; also when the last of a file is written as it is closed."""
    try:
        yield
    except OSError as error:
        raise translated(error) from error


def _accept(desk: Desk, actor: Actor, file: Any) -> Published:
    try:
        return releases.accept_bundle(desk.services, file, actor=actor, now=desk.now)
    except TidegateError as error:
        code, detail = error.code, error.detail[:300]
        desk.write(
            lambda conn: desk.note(
                conn, actor, "release.refused", "bundle", code=code, detail=detail
            )
        )
        raise


def _publish(desk: Desk, actor: Actor, role: str, body: bytes) -> Version:
    publish = releases.publish_root if role == "root" else releases.publish_targets
    version = publish(desk.services, body, actor=actor, now=desk.now)
    return Version(role=role, version=version)


async def _small(request: ApiRequest) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _ROLE_MAX:
            raise RequestError("request.too_large", f"at most {_ROLE_MAX} bytes are taken")
    return bytes(body)
