"""Backups of a server on SQLite and a folder, taken while it serves; looked through; and brought back into an empty directory.

Order makes a backup whole: first the database, as it is at one moment, then the blobs. A blob is there before the transaction that names it and is not
removed afterwards, so whatever that database names is found. It is checked all the same: a backup that lacks one is not kept.

A manifest holds size and SHA-256 of every file. A backup is a folder, or one file (an uncompressed tar of that folder). Nothing in it is believed before it
was looked at: only names that the manifest may hold are written at all.

In every backup, and so in whatever is brought back from one by whatever means, lies a file `not-held`: no server starts beside it. `held.hold` says what has
to be done first, and `tidegate restore` does it.

The online keys are left out unless they are asked for: who has them can speak as this server.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, Protocol

import msgspec

from tidegate import __version__
from tidegate.core.errors import BusyError, ConfigError, RequestError
from tidegate.server import online
from tidegate.server.blobs import Blobs
from tidegate.server.blobs.local import FULL
from tidegate.server.store import Connection, admin_log, audit_rows, blob_rows, hot
from tidegate.server.store.migrations import HEAD, schema_version
from tidegate.server.store.sqlite import DATABASE_NAME, damage
from tidegate.server.store.sqlite_copy import copy, looking_at_copy

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
#: No server starts on a data directory that holds this: it went back in time, and its rollouts have to be held first.
NOT_HELD: Final = "not-held"
#: In the data directory: when it was last backed up, and where to.
LAST_NAME: Final = "last-backup.json"
_TLS: Final = "tls"
_PIECE: Final = 1 << 20
_MANIFEST_MAX: Final = 256 << 20
_NAMES: Final = re.compile(
    r"tidegate\.db|not-held|online\.pub\.json|blobs/([0-9a-f]{2})/\1[0-9a-f]{62}"
    r"|(?:online|tls)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    `made_at`: unix seconds of the moment that the database shows. `schema`: its migration. `with_keys`: whether the online keys are in it.
    `blobs`: where they are kept, when that is elsewhere and they are not in it; empty = they are.
    `events`, `gate_epoch`, `audit`: how far it had come: position of the newest event, gate epoch, number of the newest act in the log.
    """

    format: int
    tidegate: str
    schema: str
    made_at: int
    with_keys: bool
    blobs: str = ""
    events: int
    gate_epoch: int
    audit: int
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Return how many bytes all files have."""
        return sum(one.size for one in self.files)


class Elsewhere(NamedTuple):
    """An object store that has the blobs, and its URL."""

    url: str
    blobs: Blobs


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """The last backup of a data directory."""

    at: int
    to: str


# --- taking one --------------------------------------------------------------------------------------------------------


def back_up(
    data_dir: Path,
    target: Path,
    now: int,
    *,
    with_keys: bool = False,
    elsewhere: Elsewhere | None = None,
) -> Manifest:
    """Back up a data directory, also while it is served; durable on return.

    Args:
        data_dir: of a server on SQLite.
        target: a folder that is not there yet or is empty; or a file, where the name ends in `.tar`.
        now: unix seconds.
        with_keys: whether the online keys and the keys of TLS go with it.
        elsewhere: the object store that has the blobs; they are looked for there, and stay there. None = the folder of the data directory.

    Raises:
        RequestError: `backup.exists`. ConfigError: `backup.none`, `backup.incomplete`, `data.*`. BusyError: `data.full`.
    """
    if not (data_dir / DATABASE_NAME).is_file():
        raise ConfigError("backup.none", f"{data_dir} holds no SQLite database")
    _require_free(target)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    try:
        with _onto(target):
            manifest = _gather(data_dir, part, now, elsewhere, with_keys=with_keys)
            (part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            _sync_tree(part)
            if target.suffix == ".tar":
                _pack(part, manifest, target)
            else:
                part.replace(target)
            _sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _note(data_dir, Last(at=now, to=str(target)))
    return manifest


def _require_free(target: Path) -> None:
    empty = target.is_dir() and not any(target.iterdir()) and target.suffix != ".tar"
    if target.exists() and not empty:
        raise RequestError("backup.exists", f"{target} is there already")


def _gather(
    data_dir: Path, part: Path, now: int, elsewhere: Elsewhere | None, *, with_keys: bool
) -> Manifest:
    copy(data_dir, part / DATABASE_NAME)
    (part / NOT_HELD).write_text("tidegate restore --hold-only --data DIRECTORY\n")
    files = [_described(part, DATABASE_NAME), _described(part, NOT_HELD)]
    with looking_at_copy(part / DATABASE_NAME) as conn:
        named = blob_rows.named(conn)
        schema = schema_version(conn) or ""
        events, epoch = hot.newest_position(conn), admin_log.gate_epoch(conn)
        acts = audit_rows.newest_seq(conn)
    if elsewhere is None:
        files += _blobs(data_dir, part, named)
    else:
        for digest, size in named.items():
            _require_size(digest, size, elsewhere.blobs.size(digest))
    kept = [online.PUBLIC_NAME]
    if with_keys:
        for folder in (online.FOLDER, _TLS):
            inside = sorted((data_dir / folder).glob("*")) if (data_dir / folder).is_dir() else []
            kept += [f"{folder}/{one.name}" for one in inside if one.is_file()]
    for name in kept:
        if (data_dir / name).is_file() and _NAMES.fullmatch(name):
            (part / name).parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(data_dir / name, part / name)
            (part / name).chmod(0o600)
            files.append(_described(part, name))
    return Manifest(
        format=FORMAT,
        tidegate=__version__,
        schema=schema,
        made_at=now,
        with_keys=with_keys,
        blobs=elsewhere.url if elsewhere is not None else "",
        events=events,
        gate_epoch=epoch,
        audit=acts,
        files=tuple(files),
    )


def _blobs(data_dir: Path, part: Path, named: dict[str, int]) -> Iterator[File]:
    """Take in every blob that is named: linked where that can be, since a blob never changes, else copied."""
    for digest, size in sorted(named.items()):
        name = f"blobs/{digest[:2]}/{digest}"
        source, target = data_dir / name, part / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            try:
                os.link(source, target)
            except FileNotFoundError:
                raise
            except OSError:  # another disk, or one that cannot link
                shutil.copyfile(source, target)
                target.chmod(0o600)
        except FileNotFoundError:
            _require_size(digest, size, None)
        found = target.stat().st_size
        _require_size(digest, size, found)
        yield File(path=name, size=found, sha256=digest)


def _require_size(digest: str, wanted: int, found: int | None) -> None:
    if found is None:
        raise ConfigError("backup.incomplete", f"blob {digest} is not there")
    if wanted not in {blob_rows.UNSAID, found}:
        text = f"blob {digest} has {found} bytes instead of {wanted}"
        raise ConfigError("backup.incomplete", text)


def _described(folder: Path, name: str) -> File:
    with (folder / name).open("rb") as file:
        digest, size = _digest(file)
    return File(path=name, size=size, sha256=digest)


def _pack(part: Path, manifest: Manifest, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.writing")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name in (MANIFEST, *(one.path for one in manifest.files)):
                    tar.add(part / name, arcname=name, recursive=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _note(data_dir: Path, last: Last) -> None:
    """Note that a backup was taken, for whoever looks after it."""
    part = data_dir / f".{LAST_NAME}.part"
    with contextlib.suppress(OSError):  # of a directory that is only read
        part.write_bytes(msgspec.json.encode(last))
        part.replace(data_dir / LAST_NAME)


def last_of(data_dir: Path) -> Last | None:
    """Return what is known of the last backup of a data directory."""
    try:
        return msgspec.json.decode((data_dir / LAST_NAME).read_bytes(), type=Last)
    except (OSError, msgspec.DecodeError):
        return None


# --- looking through one -------------------------------------------------------------------------------------------------


class _Source(Protocol):
    """A backup that is read."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file of it. Raises KeyError or OSError where it is not there."""
        ...

    def names(self) -> set[str]:
        """Return the names of all files that are there."""
        ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> IO[bytes]:
        return (self._folder / name).open("rb")

    def names(self) -> set[str]:
        found = (one for one in self._folder.rglob("*") if one.is_file() or one.is_symlink())
        return {one.relative_to(self._folder).as_posix() for one in found}


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {one.name: one for one in tar.getmembers() if one.isfile()}

    def open(self, name: str) -> IO[bytes]:
        found = self._tar.extractfile(self._members[name])
        return found if found is not None else io.BytesIO()

    def names(self) -> set[str]:
        return set(self._tar.getnames())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[_Source, Manifest]]:
    """Open a backup (untrusted) and read its manifest.

    Raises:
        RequestError: `backup.unreadable`.
    """
    try:
        if path.is_dir():
            source: _Source = _Folder(path)
            yield source, _manifest(source, path)
            return
        with tarfile.open(path, mode="r:") as tar:
            source = _Tar(tar)
            yield source, _manifest(source, path)
    except (OSError, tarfile.TarError) as error:
        raise RequestError("backup.unreadable", f"{path}: {error}") from error


def _manifest(source: _Source, path: Path) -> Manifest:
    try:
        with source.open(MANIFEST) as file:
            found = msgspec.json.decode(file.read(_MANIFEST_MAX), type=Manifest)
    except KeyError as error:
        raise RequestError("backup.unreadable", f"{path} has no {MANIFEST}") from error
    except msgspec.DecodeError as error:
        raise RequestError("backup.unreadable", f"{path}/{MANIFEST}: {error}") from error
    if found.format != FORMAT:
        raise RequestError("backup.unreadable", f"{path}: format {found.format} is not known here")
    names = [one.path for one in found.files]
    strange = [one for one in names if not _NAMES.fullmatch(one)]
    if strange or len(set(names)) != len(names) or not {DATABASE_NAME, NOT_HELD} <= {*names}:
        raise RequestError("backup.unreadable", f"{path}: its manifest names what no backup has")
    return found


def verify(path: Path) -> Manifest:
    """Read every byte of a backup and look at its database; return its manifest.

    Raises:
        RequestError: `backup.unreadable`, `backup.damaged`: names the first that is wrong.
    """
    with _opened(path) as (source, manifest), tempfile.TemporaryDirectory() as scratch:
        extra = source.names() - {one.path for one in manifest.files} - {MANIFEST}
        if extra:
            raise RequestError("backup.damaged", f"{min(extra)} does not belong to it")
        for one in manifest.files:
            with _part_of(source, one) as file:
                if one.path == DATABASE_NAME and not path.is_dir():
                    _write(file, Path(scratch) / DATABASE_NAME, one)
                else:
                    _compare(one, *_digest(file))
        _look(path if path.is_dir() else Path(scratch), manifest)
    return manifest


def _look(folder: Path, manifest: Manifest) -> None:
    """Look at the database of a backup: whole, of a schema that is known, and with every blob that it names."""
    try:
        with looking_at_copy(folder / DATABASE_NAME) as conn:
            wrong = damage(conn) or _unknown_schema(conn)
            lacks = blob_rows.named(conn).keys() - {
                one.sha256 for one in manifest.files if one.path.startswith("blobs/")
            }
    except ConfigError as error:
        raise RequestError("backup.damaged", error.detail) from error
    if manifest.blobs:
        lacks = set()
    if wrong or lacks:
        text = wrong or f"blob {min(lacks)} is named by the database and not there"
        raise RequestError("backup.damaged", text)


def _unknown_schema(conn: Connection) -> str:
    version = schema_version(conn)
    if version is None or version > HEAD:
        return f"schema {version}; this Tidegate knows {HEAD}"
    return ""


@contextlib.contextmanager
def _part_of(source: _Source, wanted: File) -> Iterator[IO[bytes]]:
    try:
        file = source.open(wanted.path)
    except (KeyError, FileNotFoundError) as error:
        raise RequestError("backup.damaged", f"{wanted.path} is not there") from error
    with file:
        yield file


def _compare(wanted: File, digest: str, size: int) -> None:
    if (digest, size) != (wanted.sha256, wanted.size):
        raise RequestError("backup.damaged", f"{wanted.path} is not what the manifest says")


# --- bringing one back -----------------------------------------------------------------------------------------------------


def bring_back(path: Path, target: Path) -> Manifest:
    """Write a backup into an empty data directory, checked on the way; durable on return. The rollouts in it have still to be held (`held.hold`).

    Args:
        path: the backup (untrusted).
        target: a folder that is not there yet or is empty.

    Raises:
        RequestError: `backup.exists`: something is in the target; `backup.unreadable`, `backup.damaged`. BusyError: `data.full`. Nothing is left there then.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError("backup.exists", f"{target} is not empty")
    part = target.with_name(f".{target.name}.restoring")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700, parents=True)
    try:
        with _opened(path) as (source, manifest), _onto(target):
            for one in manifest.files:
                place = part / one.path
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _part_of(source, one) as file:
                    _write(file, place, one)
        _look(part, manifest)
        _sync_tree(part)
        if target.exists():
            target.rmdir()
        part.replace(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def require_held(data_dir: Path) -> None:
    """Refuse a data directory that went back in time and was not held.

    Raises:
        ConfigError: `backup.not_held`.
    """
    if (data_dir / NOT_HELD).exists():
        raise ConfigError("backup.not_held", f"{data_dir} was brought back from a backup")


def mark_held(data_dir: Path) -> None:
    """Let servers start again; after `held.hold` is durable."""
    (data_dir / NOT_HELD).unlink(missing_ok=True)
    _sync(data_dir)


@contextlib.contextmanager
def _onto(target: Path) -> Iterator[None]:
    """Say of a disk that is full that it is, and whose."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise BusyError("data.full", f"the disk of {target} is full") from error
        raise


def _write(file: IO[bytes], place: Path, wanted: File) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as made:
        digest, size = _digest(file, made)
        made.flush()
        os.fsync(made.fileno())
    _compare(wanted, digest, size)


def _digest(file: IO[bytes], copy_to: IO[bytes] | None = None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        if copy_to is not None:
            copy_to.write(piece)
    return digest.hexdigest(), size


def _sync_tree(folder: Path) -> None:
    for one in folder.rglob("*"):
        _sync(one)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
