"""The guest's kernel and modules: Debian's cloud kernel, the installed one or else the package, unpacked and not installed."""

import gzip
import lzma
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import cache, debian

_META: Final = "linux-image-cloud-amd64"


@dataclass(frozen=True)
class Kernel:
    """A kernel that virtual machines boot.

    Attributes:
        image: what the boot loader loads.
        modules: the folder with its modules.
    """

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        """Its release, as `uname -r` tells it."""
        return self.modules.name

    def module(self, name: str) -> bytes | None:
        """Return a module, unpacked; None where it is built in or not there."""
        pattern = re.compile(re.sub(r"[-_]", "[-_]", name) + r"\.ko(\.xz|\.gz)?")
        for path in sorted(self.modules.rglob("*.ko*")):
            if pattern.fullmatch(path.name):
                body = path.read_bytes()
                unpack = {".xz": lzma.decompress, ".gz": gzip.decompress}.get(path.suffix)
                return body if unpack is None else unpack(body)
        return None


def kernel() -> Kernel:
    """Return the kernel; the package is fetched once where none is installed.

    Raises:
        lab.tools.MissingError: Debian's archive is not reached.
    """
    installed = _in(Path("/"))
    if installed is not None:
        return installed
    package = next(one for one in debian.depends(_META) if one.startswith("linux-image-"))
    place = cache.kept(
        "kernel", [package, debian.candidate(package)], lambda into: _fetch(package, into)
    )
    found = _in(place)
    assert found is not None, place
    return found


def _in(top: Path) -> Kernel | None:
    for image in sorted(top.glob("boot/vmlinuz-*-cloud-amd64"), reverse=True):
        modules = top / "lib" / "modules" / image.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return Kernel(image, modules)
    return None


def _fetch(package: str, into: Path) -> None:
    files = debian.binary_package(package, into)
    for name in ("boot", "lib"):
        shutil.move(files / name, into / name)
    shutil.rmtree(files)
    for left in into.glob("*.deb"):
        left.unlink()
