"""What a mount of an ext4 volume finds after a power cut: e2fsck replays the journal on a copy and says whether more than that was
needed; debugfs takes the files out.

Both are of e2fsprogs: neither kernel nor agent have a part in it.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

#: e2fsck's exit codes: nothing to do; the journal was replayed, or something was put right.
_CLEAN: Final = (0, 1)
#: The kernel keeps these two sums of the superblock lazily, and adds them up anew at each mount.
_LAZY: Final = re.compile(r"Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.\nFix\? yes")
PROGRAMS: Final = ("e2fsck", "debugfs")


class DamagedExt4Error(Exception):
    """The volume, or a file on it, did not come back."""


def files(image: bytes | bytearray, folder: Path, path: str) -> dict[str, bytes]:
    """Return the files in the folder `path` of a volume, by name, as they are once the journal was replayed; they stay in `folder`, under `out`.

    Args:
        image: the volume; not changed.
        folder: for the copy; what is in it is overwritten.

    Raises:
        DamagedExt4Error: the volume does not come back by its journal alone.
    """
    copy = folder / "volume.ext4"
    copy.write_bytes(image)
    checked = _run("e2fsck", "-fy", str(copy))
    repaired = "? yes" in _LAZY.sub("", checked.stdout)
    if checked.returncode not in _CLEAN or repaired:
        raise DamagedExt4Error(checked.stdout)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    _run("debugfs", "-R", f'rdump "{path}" "{out}"', str(copy))
    taken = out / Path(path).name
    if not taken.is_dir():
        raise DamagedExt4Error(f"no folder {path}")
    return {one.name: one.read_bytes() for one in taken.iterdir()}


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
