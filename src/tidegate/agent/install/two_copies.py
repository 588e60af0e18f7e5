"""What installers share that keep two copies of a component: the idle one is filled, made live by one switch, and switched back if it fails.

Nothing is destroyed before the update is over, so that every step may be repeated and taken back. A small record in the state directory says which copy
holds what and which was live before; it is written once the copy was read back right, and goes when the update is over.
"""

import hashlib

import msgspec

from tidegate.agent.events import Act, Download, ReadBack
from tidegate.agent.install.pipeline import pieces
from tidegate.agent.installers import Done
from tidegate.agent.ports import ComponentPlace, SlotDevice, World
from tidegate.agent.state import Update
from tidegate.core.errors import DeviceError
from tidegate.core.release import Install


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was staged. `copy` holds the bytes of `sha256`; `before` was live then; `tree` is the digest of what an archive became."""

    sha256: str
    copy: str
    before: str
    tree: str = ""


def idle(place: ComponentPlace) -> str:
    """Return the copy that may be written."""
    return "b" if place.live() == "a" else "a"


def read(world: World, component: str) -> Record | None:
    """Return the record of a component, or None; a damaged one is none."""
    body = world.storage.read(f"component.{component}")
    try:
        return None if body is None else msgspec.json.decode(body, type=Record)
    except msgspec.DecodeError:
        return None


def keep(world: World, component: str, record: Record) -> None:
    """Write the record down, durably."""
    world.storage.write(f"component.{component}", msgspec.json.encode(record))


def staged(world: World, job: Download | ReadBack) -> Record | None:
    """Return the record, if it is of what this job brings and is not live yet."""
    found = read(world, job.piece.component)
    return found if found is not None and found.sha256 == job.piece.install.sha256 else None


def require_digest(device: SlotDevice, install: Install) -> None:
    """Read an image from the medium and compare it with what was signed.

    Raises:
        DeviceError: `install.readback`.
    """
    device.flush()
    digest = hashlib.sha256()
    for piece in pieces(device, install.size):
        digest.update(piece)
    if digest.hexdigest() != install.sha256:
        raise DeviceError("install.readback", "what stands there is not what was signed")


def change(world: World, update: Update, part: int, act: Act) -> Done:
    """Switch, switch back, or clean up.

    Raises:
        DeviceError: `install.write`; `install.readback`: what was staged is not there any more.
    """
    piece = update.release.pieces[part]
    record = read(world, piece.component)
    mine = record is not None and record.sha256 == piece.install.sha256
    if record is None or not mine:
        if act == "activate":
            raise DeviceError("install.readback", f"{piece.component}: nothing is staged")
        return Done()
    place = world.board.component(piece.component)
    match act:
        case "activate":
            if place.live() != record.copy:
                place.make_live(record.copy)
        case "roll_back":
            if place.live() == record.copy:
                place.make_live(record.before)
        case "discard":
            if place.live() != record.copy:
                place.drop(record.copy)
            world.storage.delete(f"component.{piece.component}")
        case _:
            pass
    return Done()
