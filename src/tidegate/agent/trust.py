"""The TUF client of a device: fetches with limits, keeps what was believed, decides nothing (`core.verify` does).

What is kept, and why a cut or a damaged file opens no way back: the last root and the versions seen stand in two checksummed copies
each; the other documents in one, and are fetched again when they are gone, because the versions seen outlive them.
"""

import hashlib
from typing import Final, TypeVar

import msgspec

from tidegate.agent import api
from tidegate.agent.journal import seal, unseal
from tidegate.agent.ports import Storage, Transport
from tidegate.core.errors import PublisherError, RequestError, TransferError
from tidegate.core.metadata import ROOT_MAX, TIMESTAMP_MAX, file_name
from tidegate.core.verify import ROOTS_MAX, Seen, TrustedSet

T = TypeVar("T")

_ROOT: Final = ("tuf.root.0", "tuf.root.1")
_SEEN: Final = ("tuf.seen.0", "tuf.seen.1")
_REPO: Final = "/d/v1/repo/"


class TrustStore:
    """One device's view of the repository.

    Args:
        storage: where the believed documents are kept.
        transport: where new ones come from.
        anchor: root that came with the image.
        now: reference for expiry, unix seconds.
    """

    def __init__(self, storage: Storage, transport: Transport, anchor: bytes, now: int) -> None:
        self._storage = storage
        self._transport = transport
        self._root = self._read(_ROOT) or anchor
        self._seen = _decode(self._read(_SEEN), Seen)
        self.trusted = TrustedSet(self._root, now=now, seen=self._seen)

    def at(self, now: int) -> "TrustStore":
        """Return the same view with another reference for expiry."""
        self.keep()
        return TrustStore(self._storage, self._transport, self._root, now)

    def refresh_root(self) -> None:
        """Walk the chain of roots to its end.

        Raises:
            PublisherError: `sig.*`.
            TransferError: the link failed.
        """
        trusted = self.trusted
        for _ in range(ROOTS_MAX):
            body = self._fetch(file_name("root", trusted.root.version + 1), ROOT_MAX, wanted=False)
            if body is None:
                return
            trusted.update_root(body)
            self._root = body
            self._write(_ROOT, body)

    def refresh(self, product: str) -> TrustedSet:
        """Take timestamp, snapshot, targets and the product's role; keep what was believed.

        Raises:
            PublisherError: `sig.*`. What was believed up to there is kept all the same.
            TransferError: the link failed.
        """
        trusted = self.trusted
        try:
            body = self._fetch(file_name("timestamp", None), TIMESTAMP_MAX)
            trusted.update_timestamp(body or b"")
            trusted.update_snapshot(self._document("snapshot"))
            trusted.update_targets(self._document("targets"))
            trusted.update_product(product, self._document(f"product/{product}"))
        finally:
            self.keep()
        return trusted

    def keep(self) -> None:
        """Make the versions seen durable, if they changed."""
        if self.trusted.seen != self._seen:
            self._seen = self.trusted.seen
            self._write(_SEEN, msgspec.json.encode(self._seen))

    def _document(self, role: str) -> bytes:
        info = self.trusted.expected(role)
        if info is None:
            raise PublisherError("sig.mix_and_match", f"snapshot does not name {role}")
        name = "tuf." + file_name(role, None)
        kept = self._read((name,))
        if kept is not None and info.sha256 == _sha256(kept):
            return kept
        body = self._fetch(file_name(role, info.version), self.trusted.limit(role)) or b""
        if info.sha256 == _sha256(body):
            self._write((name,), body)
        return body

    def _fetch(self, name: str, limit: int, *, wanted: bool = True) -> bytes | None:
        try:
            return api.call(self._transport, "GET", _REPO + name, limit=limit).body
        except RequestError as error:
            if not wanted:
                return None
            raise TransferError("download.refused", f"{name}: {error.detail}") from error
        except TransferError as error:
            if error.code == "download.truncated" and "over" in error.detail:
                raise PublisherError("sig.oversized", f"{name}: {error.detail}") from error
            raise

    def _read(self, names: tuple[str, ...]) -> bytes | None:
        for name in names:
            body = self._storage.read(name)
            opened = None if body is None else unseal(body)
            if opened is not None:
                return opened[1]
        return None

    def _write(self, names: tuple[str, ...], body: bytes) -> None:
        sealed = seal(0, body)
        for name in names:
            self._storage.write(name, sealed)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _decode(body: bytes | None, kind: type[T]) -> T | None:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        return None
