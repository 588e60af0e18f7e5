"""One device of a lab run: a disk from the factory, a machine, and what is true of it whatever its agent says."""

import hashlib
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import images, uboot
from lab.machine import Hardware, Machine, SilentError
from lab.plant import Plant, Release
from lab.report import BRICK, SILENT, Report
from lab.volume import Loss, Volume

#: What both shipped scripts print before they start a slot.
MARKER = r"^tidegate: pick=([AB])\b(.*)$"
_SLOTS = {"A": 2, "B": 3}
#: How a console ends that waits for a person, or a machine that has nothing to start: U-Boot's prompt, GRUB's, EFI's, and the BIOS' last words.
_DEAD_END: Final = re.compile(
    r"^(=> ?|grub(?: rescue)?> ?|Shell> ?|No bootable device\.?|Boot failed.*)\s*\Z", re.MULTILINE
)


@dataclass
class Device:
    """A device that left the factory with a release in slot A and nothing in B.

    Attributes:
        name: its id at the server.
        machine: its hardware; off at first.
    """

    name: str
    machine: Machine
    volume: Volume
    layout: images.Layout

    def cut(self, chance: random.Random, *, all_lost: bool = False) -> Loss:
        """Take its power away; what was not flushed may be lost, or is."""
        self.machine.kill()
        return self.volume.cut(chance, all_lost=all_lost)

    @contextmanager
    def watched(self, report: Report) -> Iterator[None]:
        """Count it if the device does not do in time what it is waited for to do: as a brick where it stands still for ever, else as no answer."""
        try:
            yield
        except SilentError:
            report.harm(BRICK if self.stands_still else SILENT)
            raise

    @property
    def stands_still(self) -> bool:
        """Whether nothing will ever go on by itself: it is off, or waits for a person."""
        return not self.machine.running or bool(_DEAD_END.search(self.machine.text))

    def image_digest(self, slot: str) -> str:
        """Return the digest of what stands in a slot."""
        part = _SLOTS[slot]
        digest = hashlib.sha256()
        with self.volume.image.open("rb") as file:
            file.seek(self.layout.start(part))
            left = self.layout.size(part)
            while left:
                piece = file.read(min(left, 1 << 20))
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Switch off and let go of the disk."""
        self.machine.kill()
        self.volume.close()


def make_uboot_device(
    folder: Path,
    plant: Plant,
    name: str,
    *,
    style: uboot.Style,
    accelerator: str,
    installed: Release,
    group: str = "all",
) -> Device:
    """Make a device with U-Boot.

    Args:
        folder: for its disk and its console's log.
        plant: whose device it is.
        name: its id.
        style: of the shipped script.
        accelerator: for QEMU.
        installed: what slot A holds.
        group: its attribute `stage`, for rollouts that ask for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layout = images.Layout()
    data = plant.factory(name, installed, group)
    data["factory/loader.toml"] = uboot.agent_settings(style).encode()
    disk = folder / "disk"
    images.make_disk(
        disk,
        layout=layout,
        boot=uboot.boot_files(style),
        slots=(installed.image, None),
        data=data,
    )
    volume = Volume(disk, folder / "s")
    firmware = ("-bios", str(uboot.rom(style)))
    machine = Machine(
        Hardware(firmware=firmware, accelerator=accelerator), volume, folder / "console.log"
    )
    return Device(name, machine, volume, layout)
