"""systemd-boot for the lab, on OVMF: the EFI system partition with one entry and one kernel a slot."""

import shutil
from pathlib import Path
from typing import Final

from lab import systemd_image as image

PROGRAM: Final = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
FIRMWARE: Final = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
VARIABLES: Final = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_ENTRY: Final = """\
title Slot {slot}
linux /{slot}/vmlinuz
initrd /{slot}/initrd
options root={root} tidegate.slot={slot} ro console=ttyS0 quiet mitigations=off panic=-1 {arguments}
"""
#: Before the factory's device was ever updated: A is committed, and B holds nothing.
ENTRIES: Final = {"A": "tidegate-2-a.conf", "B": "tidegate-1-b+0.conf"}
_ROOTS: Final = {"A": "/dev/vda2", "B": "/dev/vda3"}


def boot_files(arguments: str = "") -> dict[str, bytes]:
    """Return the files of the EFI system partition. The kernels stand on it, one folder a slot: systemd-boot reads no other file system.

    Args:
        arguments: more words for the kernel.
    """
    made = image.base()
    files = {
        "EFI/BOOT/BOOTX64.EFI": PROGRAM.read_bytes(),
        "loader/loader.conf": b"timeout 0\n",
    }
    for slot, name in ENTRIES.items():
        entry = _ENTRY.format(slot=slot, root=_ROOTS[slot], arguments=arguments)
        files[f"loader/entries/{name}"] = entry.encode()
        for part in ("vmlinuz", "initrd"):
            files[f"{slot}/{part}"] = (made / part).read_bytes()
    return files


def firmware(folder: Path) -> tuple[str, ...]:
    """Return QEMU's arguments for OVMF; its variables are a file of this machine's own."""
    own = folder / "efi-variables"
    shutil.copyfile(VARIABLES, own)
    flash = "if=pflash,format=raw"
    return (
        *("-drive", f"{flash},unit=0,readonly=on,file={FIRMWARE}"),
        *("-drive", f"{flash},unit=1,file={own}"),
    )
