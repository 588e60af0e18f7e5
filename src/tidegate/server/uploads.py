"""Large files that arrive in parts, over hours and broken lines, and become a bundle when they are whole.

The parts lie where blobs lie, and that place is asked how far a file came: whoever sends it may go on at any process, also after a restart.
What arrived is read back and held against the digest that was promised, then taken in like any bundle (`releases.accept_bundle`). That may take minutes, so
it is done beside: whoever sent it asks how it went. One file is looked at at a time; a process that dies in the middle of it leaves a mark that lapses.

An upload is seen by whoever began it, and by those who may publish everything; what a bundle may bring is decided by who has it completed.

Publishers may put parts right into an object store by links that are signed for it. That changes nothing here: what counts is what is read back.
"""

import hashlib
import logging
import threading
from collections.abc import Callable
from typing import IO, Any, Final, cast

import msgspec

from tidegate.core.errors import PublisherError, RequestError, TidegateError
from tidegate.server import audit, quotas, releases
from tidegate.server.actors import FLEET, Actor
from tidegate.server.blobs import Blob, Gathering
from tidegate.server.releases import Published
from tidegate.server.services import Services
from tidegate.server.store import Connection, upload_rows

#: A process that looks at a file says so this often, and is believed for that long, in seconds.
BEAT_S: Final = 15
BELIEVED_S: Final = 60
#: What became of a file is told for this long, in seconds.
TOLD_S: Final = 86_400
#: Most links that are given out at once.
LINKS_MAX: Final = 100
LISTED_MAX: Final = 500
_READ: Final = 1 << 20
_log = logging.getLogger("tidegate.uploads")


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file on its way here.

    Attributes:
        id: names it.
        sha256: of the whole, as promised.
        length: of the whole, in bytes.
        part_bytes: of every part but the last; a part begins at a multiple of it.
        offset: how many bytes are here, from the first on without a gap.
        state: `open`, `checking`, `done` or `failed`.
        direct: parts should be put where `links` say, past this server.
        created_by: who began it.
        created_at: unix seconds.
        expires_at: when it is forgotten, unless somebody goes on with it.
        published: what it brought, once it is done.
        code: why it was refused, or could not be looked at yet; empty otherwise.
        detail: the same in words.
    """

    id: str
    sha256: str
    length: int
    part_bytes: int
    offset: int
    state: str
    direct: bool
    created_by: str
    created_at: int
    expires_at: int
    published: Published | None = None
    code: str = ""
    detail: str = ""


class PartLink(msgspec.Struct, frozen=True, kw_only=True):
    """Where a part may be put, by PUT, for `expires_in_s` seconds. The address is a secret."""

    offset: int
    length: int
    url: str
    expires_in_s: int


class Uploads:
    """Takes files in. Every call may wait for a disk or a store: none belongs on an event loop."""

    def __init__(self, services: Services) -> None:
        """Work with these parts."""
        self._services = services
        self._store = services.store
        self._blobs = services.blobs
        self._settings = services.settings
        self._looking = threading.Lock()

    def begin(self, sha256: str, length: int, actor: Actor) -> Upload:
        """Begin a file, or go on with the one that the same person began.

        Raises:
            RequestError: `request.too_large`, `upload.quota`. TidegateError: `data.*`, `blobs.*`.
        """
        known = self._store.read(
            lambda conn: upload_rows.underway(conn, sha256, length, actor.name)
        )
        if known is not None:
            return self._shown(known)
        most = self._settings.upload_max
        if length > most:
            raise RequestError("request.too_large", f"at most {most} bytes are taken")
        name = self._services.randomness(16).hex()
        gathering = self._blobs.begin_upload(name, length)
        now = self._services.now
        row = {
            "id": name, "sha256": sha256, "length": length, "part_bytes": gathering.part_bytes,
            "handle": gathering.handle, "state": "open", "created_by": actor.name,
            "created_at": now, "expires_at": now + self._settings.uploads_life_s,
        }  # fmt: skip

        def work(conn: Connection) -> None:
            quota = quotas.uploads_max(conn, self._settings.uploads_quota)
            promised = upload_rows.promised_bytes(conn)
            if promised + length > quota:
                text = f"{promised} bytes are on their way, {length} more would pass {quota}"
                raise RequestError("upload.quota", text)
            upload_rows.add(conn, row)

        try:
            self._store.write(work).result()
        except BaseException:
            self._blobs.drop_upload(gathering)
            raise
        return self.show(name, actor)

    def show(self, name: str, actor: Actor) -> Upload:
        """Say how far a file is.

        Raises:
            RequestError: `request.not_found`.
        """
        return self._shown(self._row(name, actor))

    def newest(self, actor: Actor) -> list[Upload]:
        """Return the newest files that somebody sees, those that are over included."""
        rows = self._store.read(lambda conn: upload_rows.listed(conn, LISTED_MAX))
        return [self._shown(row) for row in rows if _sees(actor, row)]

    def append(self, name: str, offset: int, part: bytes, actor: Actor) -> int:
        """Add a part at `offset`, and return where the file ends then.

        Raises:
            RequestError: `request.not_found`; `request.conflict`: it ends elsewhere, or takes no more; `request.invalid`: no part.
        """
        row = self._open_row(name, actor)
        ends = self._blobs.append_upload(_gathering(row), offset, part)
        self._keep(row)
        return ends

    def links(self, name: str, offset: int, count: int, actor: Actor) -> list[PartLink]:
        """Say where the parts from `offset` on may be put, past this server.

        Raises:
            RequestError: `request.not_found`; `request.conflict`: parts come through this server alone, or it takes no more; `request.invalid`.
        """
        row = self._open_row(name, actor)
        gathering = _gathering(row)
        size = gathering.part_bytes
        if offset % size or not 0 <= offset < gathering.length:
            raise RequestError("request.invalid", f"a part begins at a multiple of {size}")
        offsets = range(offset, gathering.length, size)[: min(count, LINKS_MAX)]
        life_s = max(self._settings.link_s, 60)
        urls = self._blobs.part_links(gathering, offsets, life_s)
        if not urls:
            raise RequestError("request.conflict", "parts come through this server alone")
        self._keep(row)
        return [
            PartLink(
                offset=at, length=min(size, gathering.length - at), url=url, expires_in_s=life_s
            )
            for at, url in zip(offsets, urls, strict=True)
        ]

    def complete(self, name: str, actor: Actor) -> Upload:
        """Have a whole file looked at and published, beside. Asked again, it says how far that is.

        Raises:
            RequestError: `request.not_found`; `request.conflict`: some of it is missing.
        """
        row = self._row(name, actor)
        if row["state"] in {"done", "failed"}:
            return self._shown(row)
        gathering = _gathering(row)
        here = self._blobs.upload_offset(gathering)
        if here != gathering.length:
            text = f"{here} of {gathering.length} bytes are here"
            raise RequestError("request.conflict", text)
        now, holder = self._services.now, self._services.holder
        taken = self._store.write(
            lambda conn: upload_rows.take(conn, name, holder, now, now + BELIEVED_S)
        ).result()
        if taken:
            threading.Thread(
                target=self._look, args=(row, actor), name="upload", daemon=True
            ).start()
        return self.show(name, actor)

    def abort(self, name: str, actor: Actor) -> None:
        """Forget a file and its parts.

        Raises:
            RequestError: `request.not_found`; `request.conflict`: it is being looked at.
        """
        row = self._row(name, actor)
        if self._is_held(row):
            raise RequestError("request.conflict", "it is being looked at; wait until that is over")
        self._blobs.drop_upload(_gathering(row))
        self._store.write(lambda conn: upload_rows.remove(conn, name)).result()

    # --- looking at a whole file ---

    def _look(self, row: dict[str, Any], actor: Actor) -> None:
        """Check and publish; say how it went. Runs in a thread of its own, and ends with it whatever happens."""
        name, over = str(row["id"]), threading.Event()
        beat = threading.Thread(target=self._beat, args=(name, over), daemon=True)
        beat.start()
        try:
            with self._looking:
                values = self._judged(row, actor)
        except Exception:  # noqa: BLE001 - whatever it was, the file must not look busy for ever
            _log.exception("upload %s could not be looked at", name)
            values = {"state": "open", "code": "server.internal", "detail": "see the server's log"}
        finally:
            over.set()
            beat.join()
        if values["state"] != "open":
            values["expires_at"] = self._services.now + TOLD_S
        try:
            if values["state"] != "open":
                self._blobs.drop_upload(_gathering(row))
        except TidegateError as error:
            _log.warning("upload %s is over, but its parts stay: %s", name, error)
        values |= {"holder": "", "held_until": 0}
        self._store.write(lambda conn: upload_rows.put(conn, name, values)).result()

    def _judged(self, row: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Return what to write into the row. What may work later leaves it open, with the reason."""
        try:
            done = self._accepted(row, actor)
        except TidegateError as error:
            code, detail = error.code, error.detail[:1000]
            if error.retryable or code.startswith(("blobs.", "data.")):
                return {"state": "open", "code": code, "detail": detail}
            self._note(actor, "release.refused", "bundle", {"code": code, "detail": detail[:300]})
            return {"state": "failed", "code": code, "detail": detail}
        return {
            "state": "done", "published": msgspec.to_builtins(done), "code": "", "detail": "",
        }  # fmt: skip

    def _accepted(self, row: dict[str, Any], actor: Actor) -> Published:
        blob = self._blobs.open_upload(_gathering(row))
        if blob is None:
            raise RequestError("request.conflict", "some of it is missing")
        try:
            _require_digest(blob, str(row["sha256"]))
            file = cast("IO[bytes]", _File(blob))
            return releases.accept_bundle(self._services, file, actor=actor, now=self._services.now)
        finally:
            blob.close()

    def _beat(self, name: str, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            values = {"held_until": self._services.now + BELIEVED_S}
            try:
                self._store.write(_putting(name, values)).result()
            except TidegateError as error:
                _log.warning("upload %s: %s", name, error)

    def _note(self, actor: Actor, action: str, thing: str, detail: dict[str, Any]) -> None:
        now = self._services.now
        self._store.write(
            lambda conn: audit.record(conn, now, actor.name, action, thing, detail)
        ).result()

    # --- rows ---

    def _row(self, name: str, actor: Actor) -> dict[str, Any]:
        row = self._store.read(lambda conn: upload_rows.find(conn, name))
        if row is None or not _sees(actor, row):
            raise RequestError("request.not_found", "no such upload: it is over, or lapsed")
        return row

    def _open_row(self, name: str, actor: Actor) -> dict[str, Any]:
        row = self._row(name, actor)
        if row["state"] != "open" and self._is_held(row):
            raise RequestError("request.conflict", f"the upload is {row['state']}")
        if row["state"] in {"done", "failed"}:
            raise RequestError("request.conflict", f"the upload is {row['state']}")
        return row

    def _keep(self, row: dict[str, Any]) -> None:
        """Put off the end of a file that somebody goes on with; a write only where it matters."""
        until = self._services.now + self._settings.uploads_life_s
        if until - int(row["expires_at"]) > self._settings.uploads_life_s // 100:
            self._store.write(_putting(str(row["id"]), {"expires_at": until})).result()

    def _is_held(self, row: dict[str, Any]) -> bool:
        return row["state"] == "checking" and int(row["held_until"]) >= self._services.now

    def _shown(self, row: dict[str, Any]) -> Upload:
        over = row["state"] in {"done", "failed"}
        lost = row["state"] == "checking" and not self._is_held(row)
        published = row["published"]
        return Upload(
            id=row["id"],
            sha256=row["sha256"],
            length=row["length"],
            part_bytes=row["part_bytes"],
            offset=row["length"] if over else self._blobs.upload_offset(_gathering(row)),
            state="open" if lost else row["state"],
            direct=self._settings.uploads_direct and self._blobs.remote,
            created_by=row["created_by"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            published=msgspec.convert(published, Published) if published is not None else None,
            code=row["code"],
            detail=row["detail"],
        )


def sweep(services: Services, now: int) -> int:
    """Forget the files that nobody goes on with, and return how many. What the store does not let go is tried again the next time."""
    gone = 0
    for row in services.store.read(lambda conn: upload_rows.lapsed(conn, now)):
        try:
            services.blobs.drop_upload(_gathering(row))
        except TidegateError as error:
            _log.warning("upload %s lapsed, but its parts stay: %s", row["id"], error)
            continue
        services.store.write(_removing(str(row["id"]))).result()
        gone += 1
    return gone


class _File:
    """A blob as a stream, read from front to back."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        wanted = self._blob.size - self._at if count < 0 else count
        found = self._blob.read_at(self._at, wanted)
        self._at += len(found)
        return found


def _require_digest(blob: Blob, sha256: str) -> None:
    digest, at = hashlib.sha256(), 0
    while piece := blob.read_at(at, _READ):
        digest.update(piece)
        at += len(piece)
    if digest.hexdigest() != sha256:
        raise PublisherError("download.hash", f"what arrived is {digest.hexdigest()}, not {sha256}")


def _sees(actor: Actor, row: dict[str, Any]) -> bool:
    return row["created_by"] == actor.name or actor.allows("release.publish", FLEET)


def _gathering(row: dict[str, Any]) -> Gathering:
    return Gathering(row["id"], row["handle"], int(row["length"]), int(row["part_bytes"]))


def _putting(name: str, values: dict[str, Any]) -> Callable[[Connection], None]:
    return lambda conn: upload_rows.put(conn, name, values)


def _removing(name: str) -> Callable[[Connection], None]:
    return lambda conn: upload_rows.remove(conn, name)
