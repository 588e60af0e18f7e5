"""Blobs in S3-compatible storage: `PREFIX/ab/abcd…`, and files that arrive in parts at `PREFIX/uploads/NAME`.

**Written once.** Small blobs are put in one request, large ones as a multipart upload, which has no name before it is completed; the digest is checked before
either. Where the store honours `If-None-Match` (RFC 9110, 13.1.2), what is there already is not written again. Every request's body is signed
(`x-amz-content-sha256`), so that a store that checks signatures notices what changed on the way.

**Read with suspicion.** A range is asked for under the tag that the blob had when it was opened, and the answer must be that range, of that length, under that
tag. Anything else is `blobs.untrue`, never bytes. Whether the bytes are right, digests say: this server reads payloads back before it publishes them, and every
device asks again.

Credentials come by boto3's usual chain (environment, profile, instance) and are neither taken from our settings nor logged; errors name the store's code, not
its text. Nothing here retries for ever: bounded attempts, bounded waits.
"""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from tidegate.core.errors import (
    BusyError,
    ConfigError,
    PublisherError,
    RequestError,
    TidegateError,
    TransferError,
)
from tidegate.server.blobs import Gathering, Where, require_part

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )
    from urllib3.exceptions import HTTPError
except ImportError as error:  # pragma: no cover - an install without the extra
    raise ConfigError(
        "config.missing", f"[blobs] url: {error}", hint="pip install 'tidegate[s3]'"
    ) from error

#: Of a part, in bytes; S3 takes nothing below 5 MiB but as the last one, and 10,000 parts at most.
PART_BYTES: Final = 8 << 20
_PARTS_MAX: Final = 9_000
#: Most bytes that one ranged request asks for: what a device that left would have cost for nothing.
_SPAN_BYTES: Final = 32 << 20
#: How often a read goes on where the connection broke.
_READ_TRIES: Final = 3
_ATTEMPTS: Final = 4
_CONNECT_S: Final = 5
_READ_S: Final = 20
#: A store that says nothing while it puts the parts of a large object together is waited for; asked again meanwhile, some lose both. In seconds.
_TOGETHER_S: Final = 600
#: How long a URL is given out again rather than made anew (0.8 ms each), in seconds, and how many are kept.
_LINK_KEPT_S: Final = 60
_LINKS_MAX: Final = 1_000
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
#: Codes and statuses for "there is none", "it is there already", "not known here".
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_THERE: Final = frozenset({"412", "PreconditionFailed"})
_UNKNOWN: Final = frozenset({"501", "NotImplemented"})


class S3Blob:
    """An open blob: a stream that is opened anew wherever the next read goes on elsewhere."""

    def __init__(self, client: Any, bucket: str, key: str, head: "_Head") -> None:
        """Read the object that had this head."""
        self._client = client
        self._where = {"Bucket": bucket, "Key": key, "IfMatch": head.etag}
        self._etag = head.etag
        self._body: Any = None
        self._at = self._end = 0
        self.size = head.size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`; see `Blob.read_at`."""
        found = bytearray()
        wanted = min(count, self.size - offset)
        tries = _READ_TRIES
        while len(found) < wanted:
            try:
                found += self._read_on(offset + len(found), wanted - len(found))
            except BusyError:
                tries -= 1
                # a request that failed was tried often enough; a body that broke off goes on where it did
                if self._body is None or not tries:
                    raise
                self.close()
        return bytes(found)

    def close(self) -> None:
        """Let the connection go. Safe to repeat."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _read_on(self, offset: int, count: int) -> bytes:
        with asking("read"):
            if self._body is None or offset != self._at or self._at >= self._end:
                self._begin(offset)
            piece: bytes = self._body.read(min(count, self._end - self._at))
        if not piece:
            raise BusyError("blobs.unreachable", "read: the answer ended early")
        self._at += len(piece)
        return piece

    def _begin(self, offset: int) -> None:
        self.close()
        end = min(self.size, offset + _SPAN_BYTES)
        answer = self._client.get_object(**self._where, Range=f"bytes={offset}-{end - 1}")
        self._body = answer["Body"]
        told = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if told is None or tuple(map(int, told.groups())) != (offset, end - 1, self.size):
            self._untrue("another range than asked for")
        if answer.get("ContentLength") != end - offset:
            self._untrue("another length than asked for")
        if answer.get("ETag") != self._etag:
            self._untrue("another object than was opened")
        self._at, self._end = offset, end

    def _untrue(self, what: str) -> None:
        self.close()
        raise TransferError("blobs.untrue", f"read: {what}")


class _Head(NamedTuple):
    """What the store says of an object."""

    size: int
    etag: str


class S3Blobs:
    """Blobs in one bucket, below one prefix.

    Args:
        client: of boto3; safe to share between threads.
        patient: another, which waits while the store puts a large object together, and does not ask again meanwhile.
        signer: one that signs URLs for devices; it may know the store by another address.
        bucket: its name.
        prefix: in front of every key, without a slash at its end; may be empty.
    """

    remote = True

    def __init__(self, client: Any, patient: Any, signer: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._patient = patient
        self._signer = signer
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        #: Whether the store knows `If-None-Match`; learned from its first refusal.
        self._conditional = True
        self._links: dict[tuple[str, int], tuple[float, str]] = {}
        self._lock = threading.Lock()

    # --- blobs ---

    def put(self, sha256: str, pieces: Iterable[bytes]) -> int:
        """Store bytes that must have this digest; see `Blobs.put`. One part is held in memory."""
        key = self._key(sha256)
        parts = _parts(pieces, PART_BYTES)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            _require_digest(hashlib.sha256(first).hexdigest(), sha256)
            written = self._once("put", self._client.put_object, Key=key, Body=first)
            count = len(first)
        else:
            written, count = self._put_parts(sha256, key, first, second, parts)
        stored = self.size(sha256)
        if stored != count:
            if written:
                self.delete(sha256)
            raise TransferError("blobs.untrue", f"{count} bytes were put, {stored} are there")
        return count

    def _put_parts(
        self, sha256: str, key: str, first: bytes, second: bytes, rest: Iterator[bytes]
    ) -> tuple[bool, int]:
        """Put a blob part by part; whether it was not there before, and how many bytes it has."""
        where = {"Bucket": self._bucket, "Key": key}
        with asking("begin an upload"):
            handle = str(self._client.create_multipart_upload(**where)["UploadId"])
        digest, count, made = hashlib.sha256(), 0, []
        try:
            for number, part in enumerate(_chain(first, second, rest), start=1):
                digest.update(part)
                count += len(part)
                made.append(self._put_part(key, handle, number, part))
            _require_digest(digest.hexdigest(), sha256)
            written = self._once(
                "complete an upload",
                self._patient.complete_multipart_upload,
                Key=key,
                UploadId=handle,
                MultipartUpload={"Parts": made},
            )
        except BaseException:
            self._abort(key, handle)
            raise
        if not written:
            self._abort(key, handle)
        return written, count

    def _put_part(self, key: str, handle: str, number: int, part: bytes) -> dict[str, Any]:
        with asking("write a part"):
            answer = self._client.upload_part(
                Bucket=self._bucket, Key=key, UploadId=handle, PartNumber=number, Body=part
            )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def open(self, sha256: str) -> S3Blob | None:
        """Open a blob (untrusted text), or None."""
        if not _DIGEST.fullmatch(sha256):
            return None
        return self._open(self._key(sha256))

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, or None."""
        if not _DIGEST.fullmatch(sha256):
            return None
        head = self._head(self._key(sha256))
        return head.size if head is not None else None

    def delete(self, sha256: str) -> None:
        """Remove a blob. Safe to repeat."""
        key = self._key(sha256)
        with self._lock:
            self._links = {name: one for name, one in self._links.items() if name[0] != sha256}
        with asking("delete"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def empty(self) -> None:
        """Remove everything; see `Blobs.empty`. Where the bucket keeps versions, they stay until its own rules take them."""
        ours = re.compile(
            re.escape(self._prefix) + r"(?:[0-9a-f]{2}/[0-9a-f]{64}|uploads/[A-Za-z0-9_-]+)"
        )
        with asking("list"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            begun = [one for page in pages for one in page.get("Uploads", ())]
        for one in begun:
            if ours.fullmatch(str(one["Key"])):
                self._abort(str(one["Key"]), str(one["UploadId"]))
        with asking("empty"):
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            ):
                for one in page.get("Contents", ()):
                    if ours.fullmatch(str(one["Key"])):
                        self._client.delete_object(Bucket=self._bucket, Key=one["Key"])

    def link(self, sha256: str, life_s: int) -> str | None:
        """Return a URL for a blob, good for at least `life_s` - 60 seconds; see `Blobs.link`."""
        if not _DIGEST.fullmatch(sha256):
            return None
        now = time.monotonic()
        with self._lock:
            kept = self._links.get((sha256, life_s))
        if kept is not None and now < kept[0]:
            return kept[1]
        if self.size(sha256) is None:
            return None
        where = {"Bucket": self._bucket, "Key": self._key(sha256)}
        with asking("sign a link"):
            url: str = self._signer.generate_presigned_url("get_object", where, ExpiresIn=life_s)
        with self._lock:
            if len(self._links) >= _LINKS_MAX:
                self._links.clear()
            self._links[sha256, life_s] = (now + min(_LINK_KEPT_S, life_s // 2), url)
        return url

    # --- files that arrive in parts ---

    def begin_upload(self, name: str, length: int) -> Gathering:
        """Make room for a file; see `Blobs.begin_upload`."""
        most = -(-length // _PARTS_MAX)
        part_bytes = max(PART_BYTES, -(-most // (1 << 20)) << 20)
        with asking("begin an upload"):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._upload_key(name)
            )
        return Gathering(name, str(answer["UploadId"]), length, part_bytes)

    def upload_offset(self, upload: Gathering) -> int:
        """Return how many bytes are here without a gap. The store itself is asked, so that any process knows."""
        parts = self._listed(upload)
        if parts is None:
            head = self._head(self._upload_key(upload.name))
            return head.size if head is not None else 0
        return _contiguous(upload, parts)

    def append_upload(self, upload: Gathering, offset: int, part: bytes) -> int:
        """Add a part; see `Blobs.append_upload`. Adding the same part twice is adding it once."""
        require_part(upload, offset, part)
        here = self.upload_offset(upload)
        if here != offset:
            raise RequestError("request.conflict", f"the upload ends at {here}")
        number = offset // upload.part_bytes + 1
        self._put_part(self._upload_key(upload.name), upload.handle, number, part)
        return offset + len(part)

    def part_links(self, upload: Gathering, offsets: Sequence[int], life_s: int) -> list[str]:
        """Return where parts can be put by whoever sends them, past this server."""
        where = {
            "Bucket": self._bucket,
            "Key": self._upload_key(upload.name),
            "UploadId": upload.handle,
        }
        with asking("sign a link"):
            return [
                self._signer.generate_presigned_url(
                    "upload_part",
                    {**where, "PartNumber": offset // upload.part_bytes + 1},
                    ExpiresIn=life_s,
                )
                for offset in offsets
            ]

    def open_upload(self, upload: Gathering) -> S3Blob | None:
        """Put the parts together and open the whole; None while some are missing."""
        key = self._upload_key(upload.name)
        parts = self._listed(upload)
        if parts is not None:
            if _contiguous(upload, parts) != upload.length:
                return None
            count = -(-upload.length // upload.part_bytes)
            made = [{"PartNumber": one["PartNumber"], "ETag": one["ETag"]} for one in parts[:count]]
            with asking("complete an upload"):
                self._patient.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=key,
                    UploadId=upload.handle,
                    MultipartUpload={"Parts": made},
                )
        blob = self._open(key)
        if blob is not None and blob.size != upload.length:
            raise TransferError("blobs.untrue", f"{blob.size} bytes were put together")
        return blob

    def drop_upload(self, upload: Gathering) -> None:
        """Forget a file and all its parts. Safe to repeat."""
        key = self._upload_key(upload.name)
        self._abort(key, upload.handle)
        with asking("delete"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    # --- asking the store ---

    def _listed(self, upload: Gathering) -> list[dict[str, Any]] | None:
        """Return the parts that are there, in order; None when there is no such upload any more (it was put together, or forgotten)."""
        found: list[dict[str, Any]] = []
        where = {
            "Bucket": self._bucket,
            "Key": self._upload_key(upload.name),
            "UploadId": upload.handle,
        }
        try:
            with asking("list parts", spare=frozenset({"NoSuchUpload", *_ABSENT})):
                marker = 0
                while True:
                    page = self._client.list_parts(**where, PartNumberMarker=marker)
                    found += page.get("Parts", ())
                    after = int(page.get("NextPartNumberMarker") or 0)
                    if not page.get("IsTruncated") or after <= marker:
                        return found
                    marker = after
        except ClientError:
            return None

    def _once(self, what: str, call: Any, **given: Any) -> bool:
        """Write an object, unless it is there already; say whether it was written."""
        if self._conditional:
            try:
                with asking(what, spare=_THERE | _UNKNOWN):
                    call(Bucket=self._bucket, **given, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in _THERE or _status(error) in _THERE:
                    return False
                self._conditional = False
            else:
                return True
        with asking(what):
            call(Bucket=self._bucket, **given)
        return True

    def _head(self, key: str) -> _Head | None:
        try:
            with asking("look", spare=_ABSENT):
                answer = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError:
            return None
        return _Head(int(answer["ContentLength"]), str(answer.get("ETag", "")))

    def _open(self, key: str) -> S3Blob | None:
        head = self._head(key)
        return S3Blob(self._client, self._bucket, key, head) if head is not None else None

    def _abort(self, key: str, handle: str) -> None:
        """Have the store forget parts. Where it cannot be told, its own rule for incomplete uploads has to."""
        with contextlib.suppress(TidegateError, ClientError), asking("abort an upload"):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=handle)

    def _key(self, sha256: str) -> str:
        if not _DIGEST.fullmatch(sha256):
            raise RequestError("request.invalid", "not a SHA-256 digest")
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    def _upload_key(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise RequestError("request.invalid", "an upload is named by letters, digits, - and _")
        return f"{self._prefix}uploads/{name}"


def create(where: Where, folder: Path) -> S3Blobs:  # noqa: ARG001 - as every back end is made
    """Make the back end that `[blobs]` describes. Nothing is asked of the store yet.

    Raises:
        ConfigError: `config.invalid`, `config.unreadable`; `blobs.refused`: no such profile.
    """
    parts = urlsplit(where.url)
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ConfigError("config.invalid", f'[blobs] url: "{where.url}" is not s3://BUCKET/PREFIX')
    ca_file = where.ca_file
    if ca_file and not Path(ca_file).is_file():
        raise ConfigError("config.unreadable", f"[blobs] ca_file: {ca_file}")
    client = client_of(where, where.endpoint)
    public = where.public_endpoint
    signer = client_of(where, public) if public else client
    patient = client_of(where, where.endpoint, read_s=_TOGETHER_S, attempts=1)
    return S3Blobs(client, patient, signer, parts.netloc, parts.path.strip("/"))


def client_of(where: Where, endpoint: str, *, read_s: int = 0, attempts: int = _ATTEMPTS) -> Any:
    """Make a client of boto3 for a store; nothing is asked of it yet.

    Raises:
        ConfigError: `blobs.refused`: no such profile.
    """
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=read_s or _READ_S,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=64,
        tcp_keepalive=True,
        signature_version="s3v4",
        s3={"addressing_style": where.addressing, "payload_signing_enabled": True},
        # the newer checksums in trailers are not known to every store; bodies are signed instead
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with asking("begin"):
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=where.region or None,
            verify=where.ca_file or None,
            config=config,
        )


# --- what the store says ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def asking(what: str, *, spare: frozenset[str] = frozenset()) -> Iterator[None]:
    """Turn what boto3 raises into our errors, but for answers of the store whose code or status is in `spare`."""
    try:
        yield
    except ClientError as error:
        if _code(error) in spare or _status(error) in spare:
            raise
        raise _refused(error, what) from None
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise ConfigError(
            "blobs.refused", f"{what}: {type(error).__name__}: no credentials"
        ) from None
    except (BotoCoreError, HTTPClientError, HTTPError, OSError) as error:
        raise BusyError("blobs.unreachable", f"{what}: {type(error).__name__}") from None
    except RecursionError:
        # boto3 follows a store that answers 301 to everything until it cannot any more
        raise ConfigError("blobs.refused", f"{what}: redirects without end") from None
    except ValueError as error:
        raise ConfigError("config.invalid", f"[blobs] {what}: {error}"[:200]) from None


def _refused(error: ClientError, what: str) -> TidegateError:
    """Name an answer of the store. Its own text is left out: it may repeat names of keys."""
    code, status = _code(error), _status(error)
    said = f"{what}: {code[:60]} ({status})"
    if status in {"429", "409"} or status.startswith("5") or code in {"SlowDown", "RequestTimeout"}:
        return BusyError("blobs.unreachable", said)
    if status in {"412", "416"} or status.startswith("2"):
        return TransferError("blobs.untrue", said)
    return ConfigError("blobs.refused", said)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> str:
    return str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


# --- parts --------------------------------------------------------------------------------------------------------------


def _parts(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in parts of `size`, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _chain(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


def _contiguous(upload: Gathering, parts: Sequence[dict[str, Any]]) -> int:
    """Return how far parts reach from the first on. Whoever put them may have put anything: one of a wrong size ends it."""
    at = 0
    for number, part in enumerate(parts, start=1):
        wanted = min(upload.part_bytes, upload.length - at)
        if int(part["PartNumber"]) != number or int(part["Size"]) != wanted or not wanted:
            break
        at += wanted
    return at


def _require_digest(found: str, sha256: str) -> None:
    if found != sha256:
        raise PublisherError("download.hash", f"the bytes are {found}, not {sha256}")
