"""Installer `raw_image`: streams a payload container straight into the slot (`agent.transfer`); nothing is stored beside it."""

from collections.abc import Iterator

from tidegate.agent.events import Download
from tidegate.agent.jobs import Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.transfer import Transfer
from tidegate.core.errors import DeviceError


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Stream the payload into the slot, from where it stopped.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    install = job.update.release.install
    device = world.board.open_slot(job.update.slot)
    try:
        if device.size < install.size:
            detail = f"{install.size} bytes into a slot of {device.size}"
            raise DeviceError("install.slot", detail)
        yield from Transfer(world, settings, job, token, device).run()
    finally:
        device.close()
