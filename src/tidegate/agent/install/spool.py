"""A package on its way to a foreign installer: kept in one file, whole and proved before the installer sees it, gone afterwards.

For installers that cannot take a stream. At most one package is kept: one of another release makes room first.
"""

# pathlib would cost the worker nothing, but the rest of this layer speaks of paths as texts.
# ruff: noqa: PTH103, PTH118

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from typing import Final

import msgspec

from tidegate.agent.events import Download, Downloaded, Progressed
from tidegate.agent.files import sync_directory
from tidegate.agent.install.pipeline import pieces
from tidegate.agent.install.slot_file import SlotFile
from tidegate.agent.install.transfer import Transfer
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.core.errors import DeviceError, TransferError

#: Pieces (a MiB each) between two signs of life while a package is hashed.
_QUIET: Final = 16
_SUFFIX: Final = ".package"

#: Hands a package's path to the installer; yields signs of life, raises DeviceError when it failed.
Install = Callable[[str], Iterator[Quiet]]


def through(
    world: World, settings: Settings, job: Download, token: str | None, install: Install
) -> Iterator[Reply]:
    """Fetch the package of `job` into the spool from where it stopped, prove it, and install it.

    Args:
        world: the device's ports.
        settings: `spool` is the directory; `reserve_bytes` stay free.
        job: what to fetch, and how far it got before.
        token: bearer token, or None without a server.
        install: called with the path of the whole, proved package; it may be called again after a cut.

    Raises:
        TransferError: `download.*`.
        PublisherError: the payload is not what was signed.
        DeviceError: `download.space`, `install.*`.
    """
    path = _place(settings, job)
    device = SlotFile(path, job.piece.unpacked.size)
    try:
        sync_directory(settings.spool)
        done: Downloaded | None = None
        for reply in Transfer(world, settings, job, token, device).run():
            if isinstance(reply, Downloaded):
                done = reply
                break
            yield reply
        if done is None:
            return
        right = yield from _is_right(device, job)
    finally:
        device.close()
    if not right:
        _remove(path)
        nothing = msgspec.structs.replace(done.progress, segments=0, since=0)
        yield Progressed(now=done.now, progress=nothing)
        raise TransferError("download.hash", "the spooled package is not what was signed any more")
    yield from install(path)
    _remove(path)
    yield msgspec.structs.replace(done, now=max(0, int(world.clock.now())))


def _place(settings: Settings, job: Download) -> str:
    """Return the file for this package, and make room for it."""
    piece = job.piece
    name = f"{piece.full.sha256}{_SUFFIX}"
    path = os.path.join(settings.spool, name)
    try:
        os.makedirs(settings.spool, mode=0o700, exist_ok=True)
        for one in os.scandir(settings.spool):
            if one.name.endswith(_SUFFIX) and one.name != name:
                _remove(one.path)
        held = 0
        with contextlib.suppress(FileNotFoundError):
            held = os.stat(path).st_blocks * 512  # noqa: PTH116 - as above
        found = os.statvfs(settings.spool)
    except OSError as error:
        raise DeviceError("install.write", f"{settings.spool}: {error.strerror}") from error
    free = found.f_bavail * found.f_frsize
    needed = max(0, piece.unpacked.size - held) + settings.reserve_bytes
    if free < needed:
        detail = f"{settings.spool}: {needed} bytes are needed, {free} are free"
        raise DeviceError("download.space", detail)
    return path


def _is_right(device: SlotFile, job: Download) -> Generator[Quiet, None, bool]:
    """Hash the whole file: what lay here since an earlier attempt may have been changed."""
    wanted = job.piece.unpacked
    digest = hashlib.sha256()
    for number, piece in enumerate(pieces(device, wanted.size)):
        digest.update(piece)
        if number % _QUIET == 0:
            yield Quiet()
    return digest.hexdigest() == wanted.sha256


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - as above
