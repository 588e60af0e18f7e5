"""Make a file-system image of a directory, without root, reproducibly.

`mke2fs -d` copies the tree; identity (UUID, hash seed) and time are fixed, owners are root. What it takes from the host all the same (change
times and generations of inodes) is set afterwards with debugfs. One thing remains the host's: the order in which its file system lists a directory decides the
order of inodes, so the same bytes are promised for the same machine, not for every machine.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tidegate.core.errors import ConfigError

_UUID: Final = "7d1e6a7e-0000-4000-8000-000000000001"
_BLOCK: Final = 4096


def find_tool(name: str) -> Path:
    """Return a tool of e2fsprogs; it often lies outside a user's PATH.

    Raises:
        ConfigError: `config.missing`, naming the Debian package.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = shutil.which(name, path=path)
    if found is None:
        raise ConfigError("config.missing", f"{name} is not here: install the package e2fsprogs")
    return Path(found)


def make_ext4(tree: Path, image: Path, size: int, built_at: int) -> None:
    """Write an ext4 image of `tree` to `image`.

    Args:
        tree: the directory.
        image: replaced.
        size: bytes; cut to whole blocks.
        built_at: unix seconds that every file system time is set to.

    Raises:
        ConfigError: mke2fs is missing, or the tree does not fit.
    """
    image.unlink(missing_ok=True)
    command = [
        *(str(find_tool("mke2fs")), "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0"),
        *("-O", "^has_journal,^resize_inode", "-U", _UUID, "-L", "rootfs"),
        *("-E", f"hash_seed={_UUID},root_owner=0:0,lazy_itable_init=0", "-d", str(tree)),
        *(str(image), str(size // _BLOCK)),
    ]
    _run(command, built_at)
    _settle(image, built_at)


def _settle(image: Path, built_at: int) -> None:
    """Give every used inode the same times and generation: mke2fs takes them from the host and from chance."""
    debugfs = str(find_tool("debugfs"))
    listing = _run([debugfs, "-R", "stats", str(image)], built_at)
    total = next(
        (
            int(line.split(":")[1])
            for line in listing.splitlines()
            if line.startswith("Inode count")
        ),
        0,
    )
    free = next(
        (
            int(line.split(":")[1])
            for line in listing.splitlines()
            if line.startswith("Free inodes")
        ),
        0,
    )
    used = [2, *range(11, total - free + 1)]
    script = "".join(
        f"set_inode_field <{inode}> {name} {value}\n"
        for inode in used
        for name, value in (
            *((name, f"@{built_at}") for name in ("ctime", "atime", "mtime", "crtime")),
            *(
                (name, "0")
                for name in ("ctime_extra", "atime_extra", "mtime_extra", "crtime_extra")
            ),
            ("generation", "0"),
        )
    )
    _run([debugfs, "-w", "-f", "-", str(image)], built_at, script)


def _run(command: list[str], built_at: int, script: str = "") -> str:
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(built_at),
        "E2FSPROGS_FAKE_TIME": str(built_at),
        "LC_ALL": "C",
    }
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise ConfigError(
            "config.invalid", f"{Path(command[0]).name}: {done.stderr.strip()[-200:]}"
        )
    return done.stdout
