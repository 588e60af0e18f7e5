"""Large bundles over REST, in parts: begun, sent at an offset, gone on with after a cut, completed, aborted."""

import asyncio
from typing import Annotated, Final

import msgspec
from litestar import Controller, Response, delete, get, head, patch, post
from litestar.exceptions import HTTPException
from litestar.params import JSONBody, QueryParameter

from tidegate.core.errors import RequestError
from tidegate.server.api.desk import (
    ABOUT,
    BODY,
    INSIDE,
    PERMISSION,
    REFUSALS,
    ApiRequest,
    DeskDep,
    Name,
)
from tidegate.server.api.intake import PIECE_S
from tidegate.server.uploads import LINKS_MAX, PartLink, Upload

_OPT: Final = {PERMISSION: "release.publish", ABOUT: INSIDE, REFUSALS: (502,)}
Offset = Annotated[int, QueryParameter(ge=0, le=1 << 50)]


class NewUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to come: the SHA-256 of the whole file, and its length in bytes."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    length: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]


class WantedLinks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which parts somebody wants to put into the store."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
    count: Annotated[int, msgspec.Meta(ge=1, le=LINKS_MAX)] = 16


class UploadList(msgspec.Struct, frozen=True, kw_only=True):
    """Files on their way here, newest first."""

    items: list[Upload]


class PartLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Where parts may be put."""

    items: list[PartLink]


class UploadRoutes(Controller):
    """Files on their way here."""

    path = "/uploads"
    tags = ("uploads",)

    @get("", opt=_OPT)
    async def list_uploads(self, request: ApiRequest, desk: DeskDep) -> UploadList:
        """List files on their way here, and those that came to an end lately."""
        return UploadList(items=await desk.beside(desk.uploads.newest, request.user))

    @post("", opt=_OPT, status_code=200)
    async def begin(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewUpload]) -> Upload:
        """Begin a bundle of this digest and length, or find the one that you began: `offset` says where to go on."""
        return await desk.beside(desk.uploads.begin, data.sha256, data.length, request.user)

    @get("/{name:str}", opt=_OPT)
    async def show(self, request: ApiRequest, desk: DeskDep, name: Name) -> Upload:
        """Say how far a file is, and what became of it."""
        return await desk.beside(desk.uploads.show, name, request.user)

    @head("/{name:str}", opt=_OPT, include_in_schema=False)
    async def measure(self, request: ApiRequest, desk: DeskDep, name: Name) -> Response[None]:
        """Say in headers how far a file is: `Upload-Offset`, `Upload-Length`."""
        found = await desk.beside(desk.uploads.show, name, request.user)
        told = {"Upload-Offset": str(found.offset), "Upload-Length": str(found.length)}
        return Response(None, headers={**told, "Cache-Control": "no-store"})

    @patch(
        "/{name:str}",
        opt={**_OPT, BODY: "application/octet-stream"},
        request_max_body_size=None,
    )
    async def append(
        self, request: ApiRequest, desk: DeskDep, name: Name, offset: Offset
    ) -> Upload:
        """Add bytes at `offset`, which must be where the file ends now. Whole parts are kept, also of a body that breaks off; the rest is sent again."""
        found = await desk.beside(desk.uploads.show, name, request.user)
        held = bytearray()
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(PIECE_S):
                    piece = await anext(stream, None)
            except (TimeoutError, HTTPException) as error:
                raise RequestError("request.invalid", "the body broke off") from error
            if piece is None:
                break
            held += piece
            if offset + len(held) > found.length:
                raise RequestError("request.too_large", f"the file has {found.length} bytes")
            while len(held) >= found.part_bytes:
                part = bytes(held[: found.part_bytes])
                del held[: found.part_bytes]
                offset = await desk.beside(desk.uploads.append, name, offset, part, request.user)
        if held and offset + len(held) == found.length:
            await desk.beside(desk.uploads.append, name, offset, bytes(held), request.user)
        return await desk.beside(desk.uploads.show, name, request.user)

    @post("/{name:str}/links", opt=_OPT, status_code=200)
    async def links(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[WantedLinks]
    ) -> PartLinks:
        """Say where parts may be put right into the object store, by PUT. What was put there is read back before it is used."""
        links = desk.uploads.links
        found = await desk.beside(links, name, data.offset, data.count, request.user)
        return PartLinks(items=found)

    @post("/{name:str}/complete", opt=_OPT, status_code=202)
    async def complete(self, request: ApiRequest, desk: DeskDep, name: Name) -> Upload:
        """Have a whole file checked and published as a bundle. It is done beside: ask for the upload until its state is `done` or `failed`."""
        return await desk.beside(desk.uploads.complete, name, request.user)

    @delete("/{name:str}", opt=_OPT)
    async def abort(self, request: ApiRequest, desk: DeskDep, name: Name) -> None:
        """Forget a file and all that came of it."""
        await desk.beside(desk.uploads.abort, name, request.user)
