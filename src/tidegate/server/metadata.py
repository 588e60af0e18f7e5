"""The published repository: offline-signed documents taken in after a device's own checks, snapshot and timestamp re-signed by the online keys.

All is kept in the database and served from memory. Versions of the online roles follow the clock, so that a server restored from a backup never goes back.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote

from tidegate.core import accept
from tidegate.core.errors import BusyError, ConfigError, PublisherError
from tidegate.core.keys import Signer
from tidegate.core.metadata import (
    MetaInfo,
    RootDocument,
    TargetsDocument,
    file_name,
    keys_of,
    make_snapshot,
    make_timestamp,
    online_version,
    parse_root,
    parse_targets,
    product_role,
    products_of,
    root_extra,
    sign,
)
from tidegate.core.protocol import RepoBinding
from tidegate.core.verify import walk_repository
from tidegate.server.online import OnlineKeys
from tidegate.server.store import Connection, changes, release_queries
from tidegate.server.store.release_queries import DocumentRow

TIMESTAMP_S: Final = 2 * 86_400
SNAPSHOT_S: Final = 14 * 86_400
#: How many versions of a document besides root stay reachable for devices that are in the middle of a refresh.
_KEPT: Final = 4
#: How often a version is tried for before somebody else is let do it.
_CLAIMS: Final = 8


class _View(NamedTuple):
    files: Mapping[str, bytes]
    newest: Mapping[str, DocumentRow]
    epoch: int


_EMPTY: Final = _View({}, {}, 0)


class Repository:
    """What devices fetch under `/d/v1/repo/`. Reading is safe from any thread."""

    def __init__(
        self, keys: OnlineKeys, *, timestamp_s: int = TIMESTAMP_S, snapshot_s: int = SNAPSHOT_S
    ) -> None:
        """Use the online keys; `load` fills it.

        Args:
            keys: the server's.
            timestamp_s: how long a timestamp is good for, in seconds.
            snapshot_s: how long a snapshot is.
        """
        self._keys = keys
        self._timestamp_s = timestamp_s
        self._snapshot_s = snapshot_s
        self._view = _EMPTY

    def file(self, name: str) -> bytes | None:
        """Return a document by the name (untrusted) under which it is served, percent-decoded or not; None where there is none."""
        return self._view.files.get(unquote(name))

    @property
    def binding(self) -> RepoBinding | None:
        """Return the versions that assignments are bound to; None before anything can be installed."""
        newest = self._view.newest
        if "timestamp" not in newest:
            return None
        return RepoBinding(
            root_min=newest["root"].version,
            timestamp_min=newest["timestamp"].version,
            snapshot_min=newest["snapshot"].version,
        )

    @property
    def epoch(self) -> int:
        """Return the epoch of the director's authority; 1 before there is a root."""
        return self._view.epoch or 1

    @property
    def versions(self) -> dict[str, tuple[int, int]]:
        """Return (version, expiry in unix seconds) of every role."""
        return {role: (row.version, row.expires_at) for role, row in self._view.newest.items()}

    def load(self, conn: Connection) -> None:
        """Read what is published."""
        self._view = _view(release_queries.documents(conn, _KEPT))

    def refresh(self, conn: Connection) -> None:
        """Show what was published since, here or by another process."""
        self._show(_view(release_queries.documents(conn, _KEPT)))

    # --- publishing; each inside the caller's transaction on the writer ---

    def root(self, conn: Connection) -> RootDocument | None:
        """Return the present root, or None."""
        row = release_queries.newest_document(conn, "root")
        return parse_root(row.body) if row else None

    def targets(self, conn: Connection) -> TargetsDocument | None:
        """Return the present targets role, or None."""
        row = release_queries.newest_document(conn, "targets")
        return parse_targets(row.body) if row else None

    def require_own_keys(self, conn: Connection) -> None:
        """Make sure that root, where there is one, names the online keys of this process.

        Raises:
            ConfigError: `key.missing`.
        """
        root = self.root(conn)
        if root is not None:
            self._require_own_keys(root)

    def products(self, conn: Connection) -> tuple[str, ...]:
        """Return the products that the present targets role delegates; none before there is one."""
        targets = self.targets(conn)
        return products_of(targets) if targets is not None else ()

    def publish_root(
        self, conn: Connection, body: bytes, now: int, *, alone: bool = True
    ) -> RootDocument:
        """Take in the next root (untrusted bytes). The same one again changes nothing.

        With `alone` false nothing is visible before `complete`: a document that changes keys may come together with those that the new keys signed.

        Raises:
            PublisherError: as `core.accept.accept_root`. ConfigError: `key.missing`: it names online keys that are not this server's.
        """
        previous = release_queries.newest_document(conn, "root")
        document = accept.accept_root(body, previous=previous.body if previous else None, now=now)
        self._require_own_keys(document)
        self._put(conn, "root", document.version, document.expires_at, body, now)
        if alone:
            self.complete(conn, now)
        return document

    def publish_targets(
        self, conn: Connection, body: bytes, now: int, *, alone: bool = True
    ) -> TargetsDocument:
        """Take in the next targets role (untrusted bytes); `alone` as for `publish_root`.

        Raises:
            PublisherError: as `core.accept.accept_targets`; `meta.no_root`.
        """
        root = self._required_root(conn)
        previous = release_queries.newest_document(conn, "targets")
        document = accept.accept_targets(
            body, root=root, previous=previous.body if previous else None, now=now
        )
        self._put(conn, "targets", document.version, document.expires_at, body, now)
        if alone:
            self.complete(conn, now)
        return document

    def publish_product(
        self, conn: Connection, product: str, body: bytes, now: int, *, alone: bool = True
    ) -> accept.AcceptedProduct:
        """Take in a product role (untrusted bytes). Its payloads must be stored already; `alone` as for `publish_root`.

        Raises:
            PublisherError: as `core.accept.accept_release`; `meta.no_root`.
        """
        accepted = self.check_product(conn, product, body, now)
        document = accepted.document
        role = product_role(product)
        self._put(conn, role, document.version, document.expires_at, body, now)
        if alone:
            self.complete(conn, now)
        return accepted

    def complete(self, conn: Connection, now: int) -> None:
        """Sign snapshot and timestamp over what was taken in, and look at the whole as a device does.

        Raises:
            PublisherError: `sig.*`: together they are nothing that a device would take.
        """
        self._resign(conn, now, force=True)

    def check_product(
        self, conn: Connection, product: str, body: bytes, now: int
    ) -> accept.AcceptedProduct:
        """Say what publishing a product role would bring, without doing it; raises like `publish_product`."""
        self._required_root(conn)
        targets = self.targets(conn)
        if targets is None:
            raise PublisherError("meta.no_root", "no targets role is published yet")
        previous = release_queries.newest_document(conn, product_role(product))
        return accept.accept_release(
            body,
            product=product,
            targets=targets,
            previous=previous.body if previous else None,
            now=now,
        )

    def renew(self, conn: Connection, now: int) -> bool:
        """Re-sign snapshot and timestamp where half of their time is over; say whether it was done."""
        return self._resign(conn, now, force=False)

    def begin(self, conn: Connection, now: int) -> bool:
        """Sign anew at a start where time has gone on since the last version; say whether it was done.

        This may be yesterday's backup: devices have seen later versions, and believe only what is later than those. Versions follow the clock, so what is
        signed now is. Where versions are not behind the clock nothing is signed, so that starts do not run ahead of it.

        Raises:
            PublisherError: `sig.*`: root does not name this server's keys, after a theft or a loss.
        """
        newest = release_queries.newest_document(conn, "timestamp")
        if newest is None or newest.version >= now // 60:
            return False
        return self._resign(conn, now, force=True)

    def _required_root(self, conn: Connection) -> RootDocument:
        root = self.root(conn)
        if root is None:
            raise PublisherError("meta.no_root", "no root of trust is published yet")
        return root

    def _require_own_keys(self, root: RootDocument) -> None:
        extra = root_extra(root)
        named = {
            "snapshot": keys_of(root, "snapshot").keys,
            "timestamp": keys_of(root, "timestamp").keys,
            "director": tuple(extra.keys("director").values()),
        }
        for role, keys in named.items():
            own: Signer = getattr(self._keys, role)
            if own.public.identity not in {key.identity for key in keys}:
                raise ConfigError(
                    "key.missing", f"root names another {role} key than this server's"
                )

    def _put(
        self, conn: Connection, role: str, version: int, expires_at: int, body: bytes, now: int
    ) -> None:
        row = DocumentRow(role, version, body, expires_at, now)
        release_queries.put_document(conn, row)
        changes.bump(conn, "release", role, now)

    def _resign(self, conn: Connection, now: int, *, force: bool) -> bool:
        """Sign snapshot and timestamp anew, then look at the whole as a device does before it becomes visible."""
        targets = release_queries.newest_document(conn, "targets")
        if targets is None or release_queries.newest_document(conn, "root") is None:
            return False
        snapshot = release_queries.newest_document(conn, "snapshot")
        timestamp = release_queries.newest_document(conn, "timestamp")
        if force or snapshot is None or _half_over(snapshot, now):
            snapshot = self._sign_snapshot(conn, now)
        elif timestamp is not None and not _half_over(timestamp, now):
            self._catch_up(conn, timestamp)
            return False
        self._sign_timestamp(conn, snapshot, now)
        view = _view(release_queries.documents(conn, _KEPT))
        anchor = view.files.get(file_name("root", 1))
        if anchor is None:
            raise PublisherError("sig.mix_and_match", "the first root is not there")
        walk_repository(_by_served_name(view.files), anchor=anchor, now=now)
        changes.after_commit(conn, lambda: self._show(view))
        changes.notify(conn, "metadata", "timestamp")
        return True

    def _catch_up(self, conn: Connection, newest: DocumentRow) -> None:
        """Show what another replica published: a device that asks both must not be taken back."""
        shown = self._view.newest.get("timestamp")
        if shown is None or shown.version < newest.version:
            view = _view(release_queries.documents(conn, _KEPT))
            changes.after_commit(conn, lambda: self._show(view))

    def _show(self, view: _View) -> None:
        """Show a view, unless a newer one is shown already."""
        shown, new = (one.newest.get("timestamp") for one in (self._view, view))
        if shown is None or (new is not None and new.version >= shown.version):
            self._view = view

    def _sign_snapshot(self, conn: Connection, now: int) -> DocumentRow:
        infos = {
            row.role: MetaInfo(row.version, len(row.body), row.sha256)
            for row in release_queries.newest_offline(conn)
        }
        expires = now + self._snapshot_s

        def make(version: int) -> bytes:
            made = make_snapshot(
                version=version, expires_at=expires, issued_at=now, documents=infos
            )
            return sign(made, self._keys.snapshot)

        return _claim(conn, "snapshot", make, expires, now)

    def _sign_timestamp(self, conn: Connection, snapshot: DocumentRow, now: int) -> None:
        expires = now + self._timestamp_s
        info = MetaInfo(snapshot.version, len(snapshot.body), snapshot.sha256)

        def make(version: int) -> bytes:
            made = make_timestamp(version=version, expires_at=expires, issued_at=now, snapshot=info)
            return sign(made, self._keys.timestamp)

        _claim(conn, "timestamp", make, expires, now)


def _claim(
    conn: Connection, role: str, make: Callable[[int], bytes], expires: int, now: int
) -> DocumentRow:
    """Sign the next version of an online role that no other replica has; whoever comes second takes the one after it.

    Raises:
        BusyError: `server.busy`: others were faster every time.
    """
    for _ in range(_CLAIMS):
        previous = release_queries.newest_document(conn, role)
        version = online_version(now, previous.version if previous else 0)
        row = DocumentRow(role, version, make(version), expires, now)
        if release_queries.put_document(conn, row):
            return row
    raise BusyError("server.busy", f"{role} is being signed by other replicas")


def _half_over(row: DocumentRow, now: int) -> bool:
    return now >= (row.created_at + row.expires_at) // 2


def _view(rows: list[DocumentRow]) -> _View:
    files: dict[str, bytes] = {}
    newest: dict[str, DocumentRow] = {}
    for row in rows:
        if row.role not in newest or newest[row.role].version < row.version:
            newest[row.role] = row
        if row.role != "timestamp":
            files[unquote(file_name(row.role, row.version))] = row.body
    if "timestamp" in newest:
        files[file_name("timestamp", None)] = newest["timestamp"].body
    epoch = root_extra(parse_root(newest["root"].body)).authorities.epoch if "root" in newest else 0
    return _View(files, newest, epoch)


def _by_served_name(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files under the names that `core.metadata.file_name` gives them."""
    return {name.replace("/", "%2F"): body for name, body in files.items()}
