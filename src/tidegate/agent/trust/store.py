"""The TUF client of a device: fetches with limits, keeps what was believed, decides nothing (`core.verify` does).

What is kept, and why a cut or a damaged file opens no way back: the last root and the versions seen stand in two checksummed copies
each; the other documents in one, and are fetched again when they are gone, because the versions seen outlive them. A document is
kept only after it was believed; a timestamp that had expired is not.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeVar

import msgspec

from tidegate.agent.journal import seal, unseal
from tidegate.agent.net import fetch
from tidegate.agent.ports import Clock, Storage, Transport
from tidegate.core.caps import ROOT_MAX, TIMESTAMP_MAX
from tidegate.core.delegations import TargetInfo, find_target
from tidegate.core.errors import PublisherError, TransferError
from tidegate.core.metadata import file_name, product_role
from tidegate.core.verify import ROOTS_MAX, Seen, TrustedSet

T = TypeVar("T")

_ROOT: Final = ("tuf.root.0", "tuf.root.1")
_SEEN: Final = ("tuf.seen.0", "tuf.seen.1")
_PREFIX: Final = "tuf."
_REPO: Final = "/d/v1/repo/"
_NAME_MAX: Final = 120


class TrustStore:
    """One device's view of the repository.

    Attributes:
        trusted: what is believed.
        condition: `ok`; `blank`: nothing had been kept (a new device, or one that lost everything); `degraded`: what was kept is damaged in both copies.
            Unless it is `ok`, only an answer bound to a nonce shows that the repository is not an old one: without one, install nothing.

    Args:
        storage: where the believed documents are kept.
        transport: where new ones come from.
        anchor: root that came with the image.
        now: reference for expiry, unix seconds.
        clock: measures how fast documents come.
        repo: path of the repository on the server, with a slash at its end.
        strict: demand length and digest of every document. Only the conformance client switches it off.

    Raises:
        PublisherError: `sig.*`: the anchor is no root.
    """

    def __init__(
        self,
        storage: Storage,
        transport: Transport,
        anchor: bytes,
        now: int,
        *,
        clock: Clock,
        repo: str = _REPO,
        strict: bool = True,
    ) -> None:
        self._storage = storage
        self._transport = transport
        self._anchor = anchor
        self._clock = clock
        self._repo = repo
        self._strict = strict
        self._damaged = False
        root, seen = self._read_pair(_ROOT), self._read_pair(_SEEN)
        self._seen = _decode(seen, Seen)
        self._damaged = self._damaged or (seen is not None and self._seen is None)
        self.trusted = self._start(root, now)
        self.condition: Literal["ok", "blank", "degraded"] = "ok"
        if self._damaged:
            self.condition = "degraded"
        elif self._seen is None:
            self.condition = "blank" if root is None else "degraded"

    def at(self, now: int) -> "TrustStore":
        """Return the same view with another reference for expiry."""
        self.keep()
        made = TrustStore(
            self._storage,
            self._transport,
            self._anchor,
            now,
            clock=self._clock,
            repo=self._repo,
            strict=self._strict,
        )
        made.condition = self.condition
        return made

    def refresh_root(self) -> None:
        """Walk the chain of roots to its end, at most `ROOTS_MAX` at once; the rest is for the next time.

        Raises:
            PublisherError: `sig.*`.
            TransferError: the link failed.
        """
        trusted = self.trusted
        for _ in range(ROOTS_MAX):
            body = self._fetch(file_name("root", trusted.root.version + 1), ROOT_MAX)
            if body is None:
                return
            trusted.update_root(body)
            self._write(_ROOT, body)

    def refresh_top(self) -> TrustedSet:
        """Take timestamp, snapshot and targets; keep what was believed.

        Raises:
            PublisherError: `sig.*`. What was believed up to there is kept all the same.
            TransferError: the link failed.
        """
        trusted = self.trusted
        try:
            self._take_timestamp()
            self._take("snapshot", trusted.update_snapshot)
            self._take("targets", trusted.update_targets)
        finally:
            self.keep()
        return trusted

    def refresh(self, product: str) -> TrustedSet:
        """Take timestamp, snapshot, targets and the product's role; keep what was believed.

        Raises:
            PublisherError: `sig.*`. What was believed up to there is kept all the same.
            TransferError: the link failed.
        """
        trusted = self.refresh_top()
        self._take(product_role(product), lambda body: trusted.update_product(product, body))
        return trusted

    def find(self, path: str) -> TargetInfo | None:
        """Search all delegations for a target; `refresh_top` comes first.

        Raises:
            PublisherError: `sig.*`.
            TransferError: the link failed.
        """

        def take(role: str, delegator: str | None) -> None:
            self._take(role, lambda body: self.trusted.update_role(role, delegator, body))

        return find_target(self.trusted, path, take)

    def keep(self) -> None:
        """Make the versions seen durable, if they changed.

        What is damaged stays so until a timestamp was believed again: nothing that was read offline makes a device forget that it lost its memory.
        """
        if self.condition == "degraded":
            if self.trusted.timestamp is None:
                return
            self._write(_ROOT, self.trusted.root.body)
        if self.trusted.seen != self._seen:
            self._seen = self.trusted.seen
            self._write(_SEEN, msgspec.json.encode(self._seen))

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Return every document that is kept, under its name without a number."""
        yield file_name("root", None), self.trusted.root.body
        for name in self._storage.names():
            if name.startswith(_PREFIX) and name.endswith(".json"):
                body = self._read(name)
                if body is not None:
                    yield name.removeprefix(_PREFIX), body

    # --- taking ---

    def _take_timestamp(self) -> None:
        """Take the kept one first: it bars older ones, and another content of its own version."""
        trusted, name = self.trusted, _kept_name("timestamp")
        kept = None if trusted.recovered else self._read(name)
        if kept is not None:
            _believed(lambda: trusted.update_timestamp(kept, cached=True))
        body = self._wanted(file_name("timestamp", None), TIMESTAMP_MAX)
        if trusted.update_timestamp(body):
            self._write((name,), body)

    def _take(self, role: str, take: Callable[[bytes], None]) -> None:
        """Have a document taken that timestamp or snapshot names: the kept one if it is that, else a fetched one."""
        info = self.trusted.expected(role)
        if info is None:
            raise PublisherError("sig.mix_and_match", f"snapshot does not name {role}")
        name = _kept_name(role)
        kept = self._read(name)
        if kept is not None and info.sha256 == _sha256(kept):
            take(kept)
            return
        if kept is not None and info.sha256 is None and _believed(lambda: take(kept)):
            return
        version = info.version if self._numbered else None
        body = self._wanted(file_name(role, version), self.trusted.limit(role))
        take(body)
        self._write((name,), body)

    @property
    def _numbered(self) -> bool:
        # Tidegate serves numbered files whatever root says; foreign repositories mean what they say.
        return self._strict or bool(self.trusted.root.signed.consistent_snapshot)

    def _wanted(self, name: str, limit: int) -> bytes:
        body = self._fetch(name, limit)
        if body is None:
            raise TransferError("download.refused", f"{name[:200]}: the server does not have it")
        return body

    def _fetch(self, name: str, limit: int) -> bytes | None:
        return fetch.document(self._transport, self._repo + name, limit=limit, clock=self._clock)

    # --- keeping ---

    def _start(self, root: bytes | None, now: int) -> TrustedSet:
        """Start from the root kept last; from the image's own when that is newer, or the kept one cannot be read."""

        def make(body: bytes) -> TrustedSet:
            return TrustedSet(body, now=now, seen=self._seen, strict=self._strict)

        ours = make(self._anchor)
        if root is None or root == self._anchor:
            return ours
        try:
            kept = make(root)
        except PublisherError:
            self._damaged = True
            return ours
        return kept if kept.root.version >= ours.root.version else ours

    def _read_pair(self, names: tuple[str, str]) -> bytes | None:
        """Read the first copy that is whole, and mend the other."""
        bodies = [self._read(name) for name in names]
        whole = next((body for body in bodies if body is not None), None)
        if whole is None:
            self._damaged = self._damaged or any(
                self._storage.read(name) is not None for name in names
            )
            return None
        for name, body in zip(names, bodies, strict=True):
            if body != whole:
                self._write((name,), whole)
        return whole

    def _read(self, name: str) -> bytes | None:
        body = self._storage.read(name)
        opened = None if body is None else unseal(body)
        return None if opened is None else opened[1]

    def _write(self, names: tuple[str, ...], body: bytes) -> None:
        sealed = seal(0, body)
        for name in names:
            self._storage.write(name, sealed)


def _believed(take: Callable[[], object]) -> bool:
    try:
        take()
    except PublisherError:
        return False
    return True


def _kept_name(role: str) -> str:
    """Return where a document is kept. A role's name is another's text: it is quoted, and shortened where it is long."""
    name = file_name(role, None)
    if len(name) > _NAME_MAX:
        name = f"{name[:40]}.{_sha256(role.encode())}.json"
    return _PREFIX + name


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _decode(body: bytes | None, kind: type[T]) -> T | None:
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        return None
