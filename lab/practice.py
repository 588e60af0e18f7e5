"""A board to practise on: `python -m lab.practice make FOLDER`, `start FOLDER`, `image VERSION FILE`. What `docs/guides/port-a-board.md` begins with.

It is bare: two slots, of which the first holds a system, and a boot loader that knows the first one only. Nothing of it trusts or asks any server.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from lab import grub, images, kvm, tools
from lab.machine import Hardware, Machine

LAYOUT: Final = images.Layout()
#: The image of the board says nothing of updates; who ports it does.
BARE: Final[dict[str, str | None]] = {"etc/tidegate/agent.toml": None}
#: The start-up script that a board has before anybody thought of updates.
PLAIN: Final = """\
set timeout=0
linux (hd0,msdos2)/boot/vmlinuz root=/dev/vda2 ro console=ttyS0 quiet
initrd (hd0,msdos2)/boot/initrd
boot
"""


def image(version: str, fault: str = "") -> Path:
    """Return the image of a version, from the cache."""
    return images.slot(version, fault, files=BARE)


def make(folder: Path) -> Path:
    """Make the board's disk in `folder`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "disk.img"
    disk.unlink(missing_ok=True)
    images.make_disk(
        disk,
        layout=LAYOUT,
        boot={"grub/grub.cfg": PLAIN.encode()},
        slots=(image("1.0.0"), None),
        # A person sits at its console.
        data={"factory/person": b""},
    )
    grub.install(disk)
    return disk


def hardware() -> Hardware:
    """Return what the board is made of."""
    return Hardware(machine="pc", accelerator=kvm.accelerator())


def start(folder: Path) -> None:
    """Become the board, with its console on this terminal; Ctrl-A and then X pulls the plug. Does not return."""
    disk = folder / "disk.img"
    if not disk.exists():
        raise SystemExit(f"no {disk}: make it first: python -m lab.practice make {folder}")
    command = Machine(hardware(), disk, folder / "console.log").command("mon:stdio")
    os.execvp(command[0], command)


def main(arguments: list[str]) -> None:
    """Carry out one command."""
    parser = argparse.ArgumentParser(prog="python -m lab.practice", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (("make", "make a bare board"), ("start", "switch it on")):
        commands.add_parser(name, help=about).add_argument("folder", type=Path)
    one = commands.add_parser("image", help="write an image of its system")
    one.add_argument("version")
    one.add_argument("file", type=Path)
    one.add_argument("--fault", choices=sorted(filter(None, images.FAULTS)), default="")
    options = parser.parse_args(arguments)
    try:
        tools.require()
        if options.command == "make":
            print(f"{make(options.folder)} is a disk with a boot partition, two slots and data.")
        elif options.command == "image":
            shutil.copyfile(image(options.version, options.fault), options.file)
        else:
            start(options.folder)
    except tools.MissingError as missing:
        raise SystemExit(f"{missing}\nor let `tools/apt-needs lab` install them") from missing


if __name__ == "__main__":
    main(sys.argv[1:])
