"""U-Boot for the lab, built from Debian's own source package: a redundant environment on FAT, and boot counting."""

import os
from pathlib import Path
from typing import Final

from lab import cache, debian
from lab.tools import run

_CONFIG: Final = Path(__file__).with_name("uboot.config")
_BASE: Final = "qemu-x86_defconfig"


def rom() -> Path:
    """Return `u-boot.rom` for QEMU's `-bios`; the first call builds it (about a minute of CPU).

    Raises:
        lab.tools.MissingError: a tool, or Debian's archive, cannot be reached.
    """
    version = debian.candidate("u-boot", source=True)
    return cache.kept("u-boot", [version, _CONFIG], _build) / "u-boot.rom"


def _build(into: Path) -> None:
    tree = debian.source_package("u-boot", into)
    configs = tree / "configs"
    text = (configs / _BASE).read_text() + _CONFIG.read_text()
    (configs / "lab_defconfig").write_text(text)
    # Debian's own Python has what U-Boot's tools import; whichever comes first on the caller's PATH may not.
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "", "VIRTUAL_ENV": ""}
    run("make", "lab_defconfig", cwd=tree, env=env)
    run("make", "-s", f"-j{os.cpu_count() or 1}", cwd=tree, env=env, log=into / "build.log")
    (tree / "u-boot.rom").rename(into / "u-boot.rom")
    run("rm", "-rf", tree)
    for left in into.glob("u-boot_*"):
        left.unlink()
