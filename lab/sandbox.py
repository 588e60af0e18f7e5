"""U-Boot as a process of this machine: its own shell, `saveenv` and boot counter, from Debian's source package, with a file for the eMMC.

A start takes a quarter of a second. Where it ends a slot would be started: the board's `tidegate_boot` switches the process off instead.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab import cache, debian
from lab.tools import run

#: The two copies of the environment on the disk, as in `sandbox.config`.
OFFSETS: Final = (0x80000, 0x90000)
SIZE: Final = 0x4000
SHIPPED: Final = cache.ROOT / "boot" / "uboot"
_CONFIG: Final = Path(__file__).with_name("sandbox.config")
_DROPPED: Final = re.compile(
    r"ENV_IS_|ENV_EXT4|ENV_SIZE|ENV_IMPORT|DM_BOOTCOUNT|AUTOBOOT|CONFIG_LTO"
)
_TIMEOUT_S: Final = 60.0
#: What the tests' board defines.
BOARD: Final[Mapping[str, str]] = {
    "tidegate_part_A": "2",
    "tidegate_part_B": "3",
    "tidegate_root_A": "/dev/vda2",
    "tidegate_root_B": "/dev/vda3",
    "tidegate_args": "console=ttyS0 panic=-1",
    "tidegate_boot": 'echo "started ${bootargs} from ${tidegate_part}"; poweroff',
}


class Sandbox:
    """A board.

    Args:
        folder: for its disk; U-Boot runs there.
    """

    def __init__(self, folder: Path) -> None:
        self._built = built()
        self._folder = folder
        self.disk = folder / "disk.img"
        self.disk.write_bytes(bytes(1 << 20))

    def lines(self) -> list[str]:
        """Return the lines of `fw_env.config`."""
        return [f"{self.disk} {offset:#x} {SIZE:#x}" for offset in OFFSETS]

    def fill(self, text: str, board: Mapping[str, str] = BOARD) -> None:
        """Put an environment from a text on the disk, by U-Boot's own tool, as a factory does."""
        console = {"stdin": "serial", "stdout": "serial", "stderr": "serial", "bootdelay": "-2"}
        lines = [f"{name}={value}" for name, value in {**board, **console}.items()]
        body = self._folder / "env.bin"
        run(
            "mkenvimage", "-r", "-s", hex(SIZE), "-o", body, "-",
            text=text + "\n".join(lines) + "\n",
        )  # fmt: skip
        with self.disk.open("r+b") as file:
            file.seek(OFFSETS[0])
            file.write(body.read_bytes())

    def power_on(self, script: str | None = None) -> list[str]:
        """Switch on, and return what the console said of slots when the board switched itself off.

        Args:
            script: what runs in place of `bootcmd`; at a `reset` it runs again.
        """
        words = [str(self._built / "u-boot"), "-d", str(self._built / "board.dtb")]
        done = subprocess.run(
            [*words, *(("-c", script) if script is not None else ())],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
        said = re.sub(r"\x1b\[[0-9;]*m|\r", "", done.stdout)
        found = [line for line in said.splitlines() if re.match("tidegate: |started ", line)]
        if not found or not found[-1].startswith("started "):
            raise AssertionError(f"no slot was started:\n{said[-2000:]}\n{done.stderr[-500:]}")
        return found


def script(board: Mapping[str, str] = BOARD) -> str:
    """Return the shipped script with a board's lines before it."""
    lines = [f"setenv {name} '{value}'\n" for name, value in board.items()]
    return "".join(lines) + (SHIPPED / "tidegate.cmd").read_text()


def built() -> Path:
    """Return the folder with U-Boot and its device tree, from the cache; the first call builds it (two minutes of CPU)."""
    version = debian.candidate("u-boot", source=True)
    return cache.kept("u-boot-sandbox", [version, _CONFIG, Path(__file__)], _build)


def _build(into: Path) -> None:
    tree = debian.source_package("u-boot", into)
    kept = [
        line
        for line in (tree / "configs" / "sandbox_defconfig").read_text().splitlines()
        if not _DROPPED.search(line)
    ]
    text = "\n".join(kept) + "\n" + _CONFIG.read_text()
    (tree / "configs" / "lab_defconfig").write_text(text)
    # The sandbox looks for its environment nowhere, whatever the configuration says.
    board = tree / "board" / "sandbox" / "sandbox.c"
    source = board.read_text()
    assert "\tENVL_NOWHERE,\n" in source
    board.write_text(source.replace("\tENVL_NOWHERE,\n", "\tENVL_MMC,\n"))
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "", "VIRTUAL_ENV": ""}
    run("make", "lab_defconfig", cwd=tree, env=env)
    jobs = f"-j{os.cpu_count() or 1}"
    run("make", "-s", jobs, "NO_SDL=1", "u-boot", "dtbs", cwd=tree, env=env, log=into / "build.log")
    _device_tree(tree, into / "board.dtb")
    (tree / "u-boot").rename(into / "u-boot")
    run("rm", "-rf", tree)
    for left in into.glob("u-boot_*"):
        left.unlink()


def _device_tree(tree: Path, made: Path) -> None:
    """Give the sandbox an eMMC with a file behind it."""
    compiler = str(tree / "scripts" / "dtc" / "dtc")
    base = tree / "arch" / "sandbox" / "dts" / "sandbox.dtb"
    text = run(compiler, "-q", "-I", "dtb", "-O", "dts", base)
    head, brace, tail = text.rpartition("};")
    assert "aliases {\n" in head
    head = head.replace("aliases {\n", 'aliases {\n\t\tmmc0 = "/mmc0";\n', 1)
    node = '\tmmc0 { compatible = "sandbox,mmc"; filename = "disk.img"; };\n'
    source = made.with_suffix(".dts")
    source.write_text(head + node + brace + tail)
    run(compiler, "-q", "-O", "dtb", "-o", made, source)
