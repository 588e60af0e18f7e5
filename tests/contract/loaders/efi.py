"""`efi`: the boot manager of the UEFI specification (3.1), over a folder in the form of efivarfs."""

import struct
from pathlib import Path

from tests.contract.rig import SLOTS, Rig

GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


class Firmware:
    """Variables in a folder, and what the boot manager does with them at power-on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def put(self, name: str, value: bytes) -> None:
        (self.folder / f"{name}-{GUID}").write_bytes(b"\x07\0\0\0" + value)

    def get(self, name: str) -> bytes | None:
        path = self.folder / f"{name}-{GUID}"
        return path.read_bytes()[4:] if path.exists() else None

    def add_entry(self, number: int, label: str, attributes: int = 1) -> None:
        """Make a load option: attributes, length of the path list, description, path list."""
        path = b"\x7f\xff\x04\x00"
        option = struct.pack("<IH", attributes, len(path)) + label.encode("utf-16-le") + b"\0\0"
        self.put(f"Boot{number:04X}", option + path)

    def order(self, *numbers: int) -> None:
        self.put("BootOrder", struct.pack(f"<{len(numbers)}H", *numbers))

    def numbers(self, name: str) -> list[int]:
        value = self.get(name) or b""
        return [one for (one,) in struct.iter_unpack("<H", value)]

    def power_on(self, slots: dict[int, str]) -> str:
        """Delete `BootNext` and start it; without one, the first of `BootOrder` that can be started."""
        wanted = self.numbers("BootNext")
        (self.folder / f"BootNext-{GUID}").unlink(missing_ok=True)
        for number in [*wanted, *self.numbers("BootOrder")]:
            if number in slots:
                self.put("BootCurrent", struct.pack("<H", number))
                return slots[number]
        raise AssertionError("nothing can be booted: this board is a brick")


def rig(folder: Path) -> Rig:
    """Make a board with two committed slots between the network and a shell."""
    firmware = Firmware(folder / "efivars")
    firmware.add_entry(0, "UEFI Shell")
    firmware.add_entry(0x1A, "Tidegate A")
    firmware.add_entry(0x1B, "Tidegate B")
    firmware.order(0x1A, 0x1B, 0)
    firmware.put("BootCurrent", struct.pack("<H", 0x1A))

    def damage() -> None:
        firmware.put("BootOrder", b"\x1a")

    return Rig(
        "efi",
        {"vars": str(firmware.folder), "slots": SLOTS},
        lambda: firmware.power_on({0x1A: "A", 0x1B: "B"}),
        damage,
        tries_max=1,
    )
