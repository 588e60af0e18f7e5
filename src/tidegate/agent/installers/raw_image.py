"""Installer `raw_image`: streams a payload container straight into the slot (`agent.install.transfer`); nothing is stored beside it.

What came is judged as it comes; unpacking and writing go on beside the link, in up to two threads. Slots are written and read back past the page cache
(`O_DIRECT`) where the system allows: an update does not push out what the applications have cached, and the read-back reads the medium. Elsewhere the cache
is written out and dropped before anything is read back.

Of a component beside the slots the image is one file, in two copies; the link `current` names the live one.
"""

# What an installer is given, it need not use.
# ruff: noqa: ARG001

from collections.abc import Iterator
from contextlib import closing

from tidegate.agent.events import Act, Download, ReadBack
from tidegate.agent.install import two_copies
from tidegate.agent.install.transfer import Transfer
from tidegate.agent.installers import Done
from tidegate.agent.jobs import Reply
from tidegate.agent.places import in_slot
from tidegate.agent.ports import SlotDevice, World
from tidegate.agent.settings import Settings
from tidegate.agent.state import Update
from tidegate.core.errors import DeviceError


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Stream the payload into the slot or the idle copy, from where it stopped.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    install = job.piece.install
    with closing(_open(world, job)) as device:
        if device.size < install.size:
            detail = f"{install.size} bytes into a slot of {device.size}"
            raise DeviceError("install.slot", detail)
        yield from Transfer(world, settings, job, token, device).run()


def read_back(world: World, settings: Settings, job: ReadBack) -> None:
    """Read the image from the medium and compare it with what was signed.

    Raises:
        DeviceError: `install.readback`.
    """
    with closing(_open(world, job)) as device:
        two_copies.require_digest(device, job.piece.install)
    if in_slot(job.update, job.part):
        return
    place = world.board.component(job.piece.component)
    copy = two_copies.idle(place)
    record = two_copies.Record(sha256=job.piece.install.sha256, copy=copy, before=place.live())
    two_copies.keep(world, job.piece.component, record)


def change(world: World, settings: Settings, update: Update, part: int, act: Act) -> Done:
    """Switch between the two copies of a component.

    Raises:
        DeviceError: see `two_copies.change`.
    """
    return two_copies.change(world, update, part, act)


def _open(world: World, job: Download | ReadBack) -> SlotDevice:
    if in_slot(job.update, job.part):
        return world.board.open_slot(job.update.slot)
    place = world.board.component(job.piece.component)
    return place.open(two_copies.idle(place), job.piece.install.size)
