"""U-Boot for the lab, built from Debian's own source package: a redundant environment on FAT, boot counting, and the shipped scripts of `boot/uboot`.

A board of ours in two styles. What the board itself must define stands in `boards/`; everything else is what the product ships.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

from lab import cache, debian
from lab.tools import run

Style = Literal["order", "bootcount"]
STYLES: Final[tuple[Style, ...]] = ("order", "bootcount")
#: The two copies of the environment on the FAT partition, as U-Boot is configured to look for them.
COPIES: Final = ("uboot.env", "uboot-redund.env")
ENV_BYTES: Final = 0x4000

_HERE: Final = Path(__file__).parent
_CONFIG: Final = _HERE / "uboot.config"
_BOARDS: Final = _HERE / "boards"
_SHIPPED: Final = cache.ROOT / "boot" / "uboot"
_BASE: Final = "qemu-x86_defconfig"


def rom(style: Style) -> Path:
    """Return `u-boot.rom` for QEMU's `-bios`, with the style's default environment; the first call builds it (about a minute of CPU).

    Raises:
        lab.tools.MissingError: a tool is missing, or Debian's archive cannot be reached.
    """
    version = debian.candidate("u-boot", source=True)
    texts = [default_environment(one) for one in STYLES]
    return cache.kept("u-boot", [version, _CONFIG, *texts], _build) / f"{style}.rom"


def default_environment(style: Style) -> str:
    """Return what is compiled in: the board's own lines, and the shipped ones of that style."""
    own = (_BOARDS / "qemu-x86.env").read_text()
    shipped = _SHIPPED / "tidegate-bootcount.env"
    return own + (_BOARDS / "order.env" if style == "order" else shipped).read_text()


def boot_files(style: Style) -> dict[str, bytes]:
    """Return what the factory puts on the boot partition: both copies of the environment, made by U-Boot's own tool, and the shipped script."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = [one for one in default_environment(style).splitlines() if not one.startswith("#")]
        if style == "order":
            lines += ["BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=0"]
        text = "\n".join(filter(None, lines)) + "\n"
        run("mkenvimage", "-r", "-s", str(ENV_BYTES), "-o", folder / "env", "-", text=text)
        blob = (folder / "env").read_bytes()
        files = dict.fromkeys(COPIES, blob)
        if style == "order":
            source = _SHIPPED / "tidegate.cmd"
            script = folder / "boot.scr"
            run("mkimage", "-A", "x86", "-T", "script", "-C", "none", "-d", source, script)
            files["boot.scr"] = script.read_bytes()
        return files


def agent_settings(style: Style) -> str:
    """Return the fragment of `agent.toml` that says so to the agent."""
    lines = ", ".join(f'"/boot/{name} 0x0 {ENV_BYTES:#x}"' for name in COPIES)
    return f'[bootloader]\nname = "uboot"\n[bootloader.uboot]\nstyle = "{style}"\nenv = [{lines}]\n'


def _build(into: Path) -> None:
    tree = debian.source_package("u-boot", into)
    configs = tree / "configs"
    text = (configs / _BASE).read_text() + _CONFIG.read_text()
    (configs / "lab_defconfig").write_text(text)
    # Debian's own Python has what U-Boot's tools import; whichever comes first on the caller's PATH may not.
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "", "VIRTUAL_ENV": ""}
    for style in STYLES:
        (tree / "lab.env").write_text(default_environment(style))
        run("make", "lab_defconfig", cwd=tree, env=env)
        log = into / f"{style}.log"
        run("make", "-s", f"-j{os.cpu_count() or 1}", cwd=tree, env=env, log=log)
        shutil.copy2(tree / "u-boot.rom", into / f"{style}.rom")
    shutil.rmtree(tree)
    for left in into.glob("u-boot_*"):
        left.unlink()
