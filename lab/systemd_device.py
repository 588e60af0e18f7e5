"""Devices of the second kind: a product with systemd behind GRUB or systemd-boot, on the same disk as the first kind's."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab import grub, images, systemd_boot
from lab import systemd_image as image
from lab.device import Device
from lab.machine import Hardware, Machine
from lab.plant import Plant, Release
from lab.volume import Volume

_MEMORY_MIB: Final = 320
#: Memory above this is not the kernel's: what it writes there (ramoops) is still there after a reset.
_KERNEL_MIB: Final = 304
_RAMOOPS: Final = f"mem={_KERNEL_MIB}M lab.ramoops={_KERNEL_MIB << 20:#x}"

#: What a quiet machine boots in, twice over, in seconds; and the most that a busy one is given.
_BITE_S: Final = 40
_BITE_MAX_S: Final = 240
_WATCHDOG: Final = """\
[watchdog]
device = "/dev/watchdog"
timeout = "{bite_s}s"
when = "always"

[server]
timeout = "5s"
"""


def busy() -> float:
    """Say how many want each processor of this machine, at least 1: guests count true time, of which a busy machine gives them little."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def bite_s() -> int:
    """Return after how long the watchdog bites who does not feed it, in seconds."""
    return min(int(_BITE_S * busy()), _BITE_MAX_S)


def make_grub_device(
    folder: Path,
    plant: Plant,
    name: str,
    *,
    accelerator: str,
    installed: Release,
    watchdog_s: int = 0,
) -> Device:
    """Make a device with a PC's BIOS and GRUB.

    Args:
        folder: for its disk and its console's log.
        plant: whose device it is.
        name: its id.
        accelerator: for QEMU.
        installed: what slot A holds; an image with a kernel in it.
        watchdog_s: with a hardware watchdog that bites after so long (`bite_s`). It runs from the first moment of user space on, as if the boot loader had
            started it. 0 = none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = plant.factory(name, installed)
    data["factory/loader.toml"] = b'[bootloader]\nname = "grub"\n'
    files = grub.boot_files(folder, f"{_RAMOOPS} {_bite(watchdog_s)}")
    made = _device(folder, name, files, installed, data, accelerator, (), watchdog_s)
    grub.install(made.volume.image)
    return made


def make_efi_device(
    folder: Path,
    plant: Plant,
    name: str,
    *,
    accelerator: str,
    installed: Release,
    watchdog_s: int = 0,
) -> Device:
    """Make a device with EFI firmware and systemd-boot; the arguments are those of `make_grub_device`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = plant.factory(name, installed)
    data["factory/loader.toml"] = (
        b'[bootloader]\nname = "systemd_boot"\n[bootloader.systemd_boot]\nesp = "/boot"\n'
    )
    files = systemd_boot.boot_files(_bite(watchdog_s))
    firmware = systemd_boot.firmware(folder)
    return _device(folder, name, files, installed, data, accelerator, firmware, watchdog_s)


def _bite(watchdog_s: int) -> str:
    return f"lab.watchdog={watchdog_s}" if watchdog_s else ""


def _device(
    folder: Path,
    name: str,
    boot: Mapping[str, bytes],
    installed: Release,
    data: Mapping[str, bytes],
    accelerator: str,
    firmware: tuple[str, ...],
    watchdog_s: int,
) -> Device:
    if watchdog_s:
        settings = _WATCHDOG.format(bite_s=watchdog_s)
        data = {**data, "factory/watchdog.toml": settings.encode()}
    data = {**data, "tidegate/factory": b""}
    disk = folder / "disk"
    images.make_disk(disk, layout=image.LAYOUT, boot=boot, slots=(installed.image, None), data=data)
    volume = Volume(disk, folder / "s")
    hardware = Hardware(
        firmware=firmware,
        machine="q35",
        accelerator=accelerator,
        memory_mib=_MEMORY_MIB,
        extra=("-device", "i6300esb") if watchdog_s else (),
    )
    return Device(name, Machine(hardware, volume, folder / "console.log"), volume, image.LAYOUT)
