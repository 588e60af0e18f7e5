"""Installer `archive`: makes a file tree out of a tar file, in a slot that is a folder or in the idle copy of a component beside the slots.

The archive is fetched into the spool and held against its signed digest before a byte of it is interpreted. Refused are names that are absolute or climb
out, links that lead out of the tree, devices, FIFOs, sparse files, names twice, and whatever no plain tree needs; a hard link must name a file that came
before. The tree is read back from the medium and compared with its own signed digest, which covers names, kinds, modes and contents.

`keep` of the release's component says what is kept that is refused or left out otherwise: `owners` (numbers of user and group; the agent must be root),
`special_bits` (set-user-ID, set-group-ID, sticky), `absolute_links` (for root file systems). A slot's `path` must name a folder, where its file system is
mounted. A component's two trees are `a` and `b` in its folder; the link `current` names the live one.
"""

from collections.abc import Iterator

from tidegate.agent.events import Act, Download, ReadBack
from tidegate.agent.install import spool, two_copies, unpack
from tidegate.agent.installers import Done
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.places import in_slot
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.state import Update
from tidegate.core.content import keep_of
from tidegate.core.errors import DeviceError


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Fetch the archive and make its tree.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    keep = keep_of(job.piece.settings)
    folder = _folder(world, job)

    def install(path: str) -> Iterator[Quiet]:
        yield Quiet()
        if not in_slot(job.update, job.part):
            place = world.board.component(job.piece.component)
            place.drop(two_copies.idle(place))
        unpack.unpack(path, folder, keep)

    yield from spool.through(world, settings, job, token, install)


def read_back(world: World, settings: Settings, job: ReadBack) -> None:  # noqa: ARG001 - as every installer's
    """Read the tree from the medium and compare it with what was signed.

    Raises:
        DeviceError: `install.readback`.
    """
    folder = _folder(world, job)
    install = job.piece.install
    if unpack.tree_digest(folder, keep_of(job.piece.settings)) != (install.size, install.sha256):
        raise DeviceError("install.readback", f"{folder}: not the tree that was signed")
    if not in_slot(job.update, job.part):
        place = world.board.component(job.piece.component)
        copy = two_copies.idle(place)
        record = two_copies.Record(sha256=install.sha256, copy=copy, before=place.live())
        two_copies.keep(world, job.piece.component, record)


def change(world: World, settings: Settings, update: Update, part: int, act: Act) -> Done:  # noqa: ARG001 - as every installer's
    """Switch between the two trees of a component.

    Raises:
        DeviceError: see `two_copies.change`.
    """
    return two_copies.change(world, update, part, act)


def _folder(world: World, job: Download | ReadBack) -> str:
    if in_slot(job.update, job.part):
        return world.board.slot_folder(job.update.slot)
    place = world.board.component(job.piece.component)
    return f"{place.path}/{two_copies.idle(place)}"
