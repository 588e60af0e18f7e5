"""Copies of the audit log's signed heads where this server cannot take them back: objects under a lock in a bucket, or files in a folder of another machine.

The newest head is sent as soon as it is signed, by a thread of its own: no place that is slow or gone holds anything up. One head vouches for all rows before
it, so one that was never sent is no gap. Copies are read with every version that a bucket holds: what was written over one, or hides it, stands beside it.
"""

import base64
import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from tidegate.core.errors import ConfigError, TidegateError
from tidegate.server import audit
from tidegate.server.audit import Signed
from tidegate.server.blobs import Where
from tidegate.server.config import Settings
from tidegate.server.store import Connection, Store

_NAME: Final = re.compile(r"(\d{16})-[0-9a-f]{16}\.txt")
#: Most bytes that are read of a copy; a note has some hundred.
_NOTE_MAX: Final = 65_536
#: A copy that is so much older than the head is warned of, in seconds.
LATE_S: Final = 1_800
_log = logging.getLogger("tidegate.audit")


def name_of(head: Signed) -> str:
    """Return the name of a head's copy: names are in the order of sizes, and the same head has the same one."""
    return f"{head.size:016}-{head.root[:16]}.txt"


class Copies(Protocol):
    """A place for copies. Calls may wait for a network."""

    def keep(self, name: str, note: str, until: int) -> None:
        """Keep a note under a name, not to be changed before `until` (unix seconds; 0 = as the place itself has it). Safe to repeat.

        Raises:
            TidegateError: `blobs.*`, `data.*`.
        """
        ...

    def notes(self) -> Iterator[tuple[str, str]]:
        """Yield (where it stands, note) of everything that is kept, every version of it; untrusted.

        Raises:
            TidegateError: `blobs.*`, `data.*`.
        """
        ...

    def newest(self) -> int:
        """Return how many rows the newest copy speaks of, by its name; 0 = there is none.

        Raises:
            TidegateError: `blobs.*`, `data.*`.
        """
        ...


class FolderCopies:
    """Copies as files: of a mount that another machine exports, append-only there."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made with the first copy."""
        self._folder = folder

    def keep(self, name: str, note: str, until: int) -> None:
        """Write a file, once; see `Copies.keep`. A folder knows no `until`: who may remove files there is for its machine to say."""
        del until
        path = self._folder / name
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        except FileExistsError:
            return
        except OSError as error:
            raise ConfigError("data.read_only", f"{path}: {error.strerror}") from error
        try:
            os.write(descriptor, note.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def notes(self) -> Iterator[tuple[str, str]]:
        """Read every file; see `Copies.notes`."""
        for path in self._files():
            with path.open("rb") as file:
                yield str(path), file.read(_NOTE_MAX).decode("utf-8", "replace")

    def newest(self) -> int:
        """Look at the names; see `Copies.newest`."""
        return max((_size(one.name) for one in self._files()), default=0)

    def _files(self) -> list[Path]:
        try:
            return sorted(one for one in self._folder.iterdir() if one.is_file())
        except OSError as error:
            raise ConfigError("config.unreadable", f"{self._folder}: {error.strerror}") from error


class BucketCopies:
    """Copies as objects, each under an object lock in compliance mode where `until` is said: nobody shortens that, not the owner of the bucket either."""

    def __init__(self, where: Where) -> None:
        """Use `s3://BUCKET/PREFIX`. Nothing is asked of the store yet.

        Raises:
            ConfigError: `config.missing`: boto3 is not here; `blobs.refused`, `config.invalid`.
        """
        from tidegate.server.blobs import s3

        parts = urlsplit(where.url)
        if not parts.netloc or parts.query or parts.fragment:
            raise ConfigError("config.invalid", f'"{where.url}" is not s3://BUCKET/PREFIX')
        self._asking = s3.asking
        self._client = s3.client_of(where, where.endpoint)
        self._bucket = parts.netloc
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def keep(self, name: str, note: str, until: int) -> None:
        """Put an object; see `Copies.keep`. A bucket without object lock refuses one that is to be locked."""
        body = note.encode()
        # stores ask for a checksum beside a lock; this is the one that all of them know, and no more than a checksum here
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        locked: dict[str, Any] = {}
        if until:
            locked = {
                "ObjectLockMode": "COMPLIANCE",
                "ObjectLockRetainUntilDate": datetime.fromtimestamp(until, UTC),
            }
        with self._asking("keep a checkpoint"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=f"{self._prefix}{name}",
                Body=body,
                ContentType="text/plain",
                ContentMD5=digest,
                **locked,
            )

    def notes(self) -> Iterator[tuple[str, str]]:
        """Read every version of every object; see `Copies.notes`."""
        for one in self._versions():
            key, version = str(one["Key"]), str(one["VersionId"])
            asked = {} if version == "null" else {"VersionId": version}
            with self._asking("read a checkpoint"):
                answer = self._client.get_object(Bucket=self._bucket, Key=key, **asked)
                body = answer["Body"].read(_NOTE_MAX)
            yield f"s3://{self._bucket}/{key} ({version})", body.decode("utf-8", "replace")

    def newest(self) -> int:
        """Look at the names; see `Copies.newest`."""
        names = (str(one["Key"]).removeprefix(self._prefix) for one in self._versions())
        return max(map(_size, names), default=0)

    def _versions(self) -> Iterator[dict[str, Any]]:
        with self._asking("list checkpoints"):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                yield from page.get("Versions", ())


def _size(name: str) -> int:
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def open_copies(url: str, where: Where) -> Copies:
    """Open a place: a folder, or `s3://BUCKET/PREFIX` at the store that `where` says.

    Raises:
        ConfigError: as `BucketCopies`.
    """
    if url.startswith("s3://"):
        return BucketCopies(where._replace(url=url))
    return FolderCopies(Path(url).expanduser())


def copies_of(settings: Settings) -> Copies | None:
    """Return the place that `[audit] copy` names; None where there is none.

    Raises:
        ConfigError: as `open_copies`.
    """
    if not settings.audit_copy:
        return None
    endpoint = settings.audit_copy_endpoint or settings.blobs_endpoint
    return open_copies(settings.audit_copy, settings.blobs._replace(endpoint=endpoint))


class Copier:
    """Sends the newest head, one at a time, off the way of everything else."""

    def __init__(self, settings: Settings) -> None:
        """Prepare to send where the settings say; nothing is asked yet."""
        self._settings = settings
        self._busy = threading.Lock()
        self._sent = -1
        #: What did not work the last time; empty = it did, or nothing was sent yet.
        self.wrong = ""

    def send(self, store: Store, now: int) -> threading.Thread | None:
        """Send the newest head unless it is there, or one is on its way; return the thread that does it."""
        if not self._settings.audit_copy or not self._busy.acquire(blocking=False):
            return None
        head = store.read(audit.newest_checkpoint)
        if head is None or head.size <= self._sent:
            self._busy.release()
            return None
        thread = threading.Thread(
            target=self._send, args=(head, now), name="audit copy", daemon=True
        )
        thread.start()
        return thread

    def _send(self, head: Signed, now: int) -> None:
        keep = self._settings.audit_copy_keep_s
        try:
            place = copies_of(self._settings)
            if place is not None:
                place.keep(name_of(head), head.note, now + keep if keep else 0)
            self._sent, self.wrong = head.size, ""
        except (TidegateError, OSError) as error:
            said = error.detail if isinstance(error, TidegateError) else str(error)
            if said != self.wrong:
                _log.error("the checkpoint of %d rows could not be copied: %s", head.size, said)
            self.wrong = said
        finally:
            self._busy.release()


def behind(conn: Connection, place: Copies, now: int) -> tuple[int, int]:
    """Return how many rows the newest copy speaks of, and how many of older heads it does not, though there was time to send them.

    Raises:
        TidegateError: `blobs.*`, `data.*`.
    """
    newest = place.newest()
    head = audit.newest_checkpoint(conn)
    late = head is not None and head.size > newest and now - head.at >= LATE_S
    return newest, head.size - newest if head is not None and late else 0
