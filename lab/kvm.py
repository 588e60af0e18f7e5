"""Which accelerator QEMU can use here: found out by booting, since `/dev/kvm` may open and still not run the kernel."""

import os
import platform
import tempfile
from pathlib import Path
from typing import Final

from lab import cache, images
from lab.kernel import kernel
from lab.machine import Hardware, Machine, SilentError
from lab.tools import run

#: A kernel that has not reached user space under KVM by then never will, in seconds.
_PATIENCE_S: Final = 15.0


def accelerator() -> str:
    """Return `kvm` where a kernel boots with it, else `tcg`: emulation in software. Tried once for each machine and kernel."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    qemu = run("qemu-system-x86_64", "--version")
    place = cache.kept(
        "accelerator", [platform.platform(), _processor(), qemu, kernel().version], _try
    )
    return (place / "found").read_text()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((one for one in lines if one.startswith("model name")), "")


def _try(into: Path) -> None:
    # The initramfs finds no root and says so: that is as far as it has to come.
    direct = ("-kernel", str(kernel().image), "-initrd", str(images.initrd()), "-no-reboot")
    words = ("-append", "console=ttyS0 root=/dev/none quiet panic=-1")
    hardware = Hardware(
        firmware=direct, accelerator="kvm", extra=words, machine="q35", network=False
    )
    with tempfile.TemporaryDirectory() as scratch:
        disk = Path(scratch) / "disk"
        disk.write_bytes(bytes(1 << 20))
        machine = Machine(hardware, disk, into / "console.log")
        try:
            machine.start()
            machine.expect("INITRAMFS cannot mount", _PATIENCE_S)
        except SilentError:
            found = "tcg"
        else:
            found = "kvm"
        finally:
            machine.kill()
    (into / "found").write_text(found)
