"""GRUB for the lab, on BIOS: core image, its start-up script and the product's own boot script, put onto a disk by plain writes."""

from pathlib import Path
from typing import Final

from lab import cache
from lab.tools import run

SCRIPT: Final = cache.ROOT / "boot" / "grub" / "tidegate.cfg"
_MODULES: Final = Path("/usr/lib/grub/i386-pc")
#: What the core image holds: disks, file systems, and the commands of the product's script.
_PARTS: Final = (
    *("biosdisk", "part_msdos", "fat", "ext2", "linux", "normal", "configfile", "loadenv", "test"),
    *("echo", "reboot", "serial", "terminal", "search", "search_label", "sleep", "boot"),
)
_EARLY: Final = """\
serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --label BOOT --set root
normal /grub/grub.cfg
"""
#: The lab's board: four partitions of an MBR, the kernel of a slot within it.
_BOARD: Final = """\
set timeout=0
set tidegate_env=($root)/grub/grubenv
set tidegate_dev_A=hd0,msdos2
set tidegate_root_A=/dev/vda2
set tidegate_initrd_A=/boot/initrd
set tidegate_dev_B=hd0,msdos3
set tidegate_root_B=/dev/vda3
set tidegate_initrd_B=/boot/initrd
set tidegate_args="ro console=ttyS0 quiet mitigations=off panic=-1 {arguments}"
source ($root)/grub/tidegate.cfg
"""
#: The first bytes of a disk are GRUB's; behind them stands the partition table.
_BOOT_CODE: Final = 440
_SECTOR: Final = 512


def core() -> Path:
    """Return GRUB's core image, from the cache."""

    def make(into: Path) -> None:
        early = into / "early.cfg"
        early.write_text(_EARLY)
        run(
            *("grub-mkimage", "-O", "i386-pc", "-d", _MODULES, "-p", "/grub", "-c", early),
            *("-o", into / "core.img", *_PARTS),
        )

    version = run("grub-mkimage", "--version")
    return cache.kept("grub", [version, _EARLY, *_PARTS], make) / "core.img"


def boot_files(scratch: Path, arguments: str = "") -> dict[str, bytes]:
    """Return the files of the boot partition: the board's script, the product's, and an empty record, which the product's script fills in.

    Args:
        scratch: a folder for a moment.
        arguments: more words for the kernel.
    """
    record = scratch / "grubenv"
    run("grub-editenv", record, "create")
    return {
        "grub/grub.cfg": _BOARD.format(arguments=arguments).encode(),
        "grub/tidegate.cfg": SCRIPT.read_bytes(),
        "grub/grubenv": record.read_bytes(),
    }


def install(disk: Path) -> None:
    """Write boot code and core image into the gap before the first partition."""
    code = (_MODULES / "boot.img").read_bytes()[:_BOOT_CODE]
    with disk.open("r+b") as file:
        file.write(code)
        file.seek(_SECTOR)
        file.write(core().read_bytes())
