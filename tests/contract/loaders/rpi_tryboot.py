"""`rpi_tryboot`: the firmware's reading of `autoboot.txt`, and a restart that is told what the back end asks for."""

import shutil
import uuid
from configparser import ConfigParser
from pathlib import Path

from tests.contract.rig import SLOTS, Rig

from tidegate.agent import bootloaders
from tidegate.agent.ports import ArguedReboot

SHIPPED = Path(__file__).resolve().parents[3] / "boot" / "rpi" / "autoboot.txt"


class Pi:
    """A board: its first partition, its boot id, and the flag of the firmware, which one start uses up."""

    def __init__(self, folder: Path) -> None:
        self.autoboot = folder / "autoboot.txt"
        self.boot_id = folder / "boot_id"
        self.tree = folder / "device-tree"
        shutil.copy(SHIPPED, self.autoboot)
        self.settings = {
            "autoboot": str(self.autoboot),
            "device_tree": str(self.tree),
            "boot_id": str(self.boot_id),
            "slots": SLOTS,
        }
        self.power_on(tryboot=False)

    def power_on(self, *, tryboot: bool) -> str:
        """Start, and return the slot of the partition that is taken."""
        text = self.autoboot.read_bytes()[:512].decode()
        parser = ConfigParser(comment_prefixes=("#",), inline_comment_prefixes=None)
        parser.read_string(text)
        assert parser["all"]["tryboot_a_b"] == "1"
        number = parser["tryboot" if tryboot else "all"]["boot_partition"]
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        told = self.tree / "chosen" / "bootloader"
        told.mkdir(parents=True, exist_ok=True)
        (told / "partition").write_bytes(int(number).to_bytes(4, "big"))
        return {"2": "A", "3": "B"}[number]

    def restart(self) -> str:
        """Restart as the agent does, with the argument that its boot loader asks for."""
        loader = bootloaders.load("rpi_tryboot", self.settings)
        assert isinstance(loader, ArguedReboot)
        argument = loader.reboot_argument()
        assert argument in (None, "0 tryboot")
        return self.power_on(tryboot=argument is not None)


def rig(folder: Path) -> Rig:
    """Make a board as it leaves the factory."""
    pi = Pi(folder)

    def damage() -> None:
        pi.autoboot.write_bytes(pi.autoboot.read_bytes()[:40])

    return Rig("rpi_tryboot", pi.settings, pi.restart, damage, tries_max=1)
