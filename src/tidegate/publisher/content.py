"""From what a team names in its manifest to what is packed, and what is signed about it, by the type of a component.

The same folder and the same time give the same bytes.
"""

import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from tidegate.core.archive import measure
from tidegate.core.content import keep_of
from tidegate.core.errors import ConfigError
from tidegate.core.release import Install
from tidegate.core.ustar import END, header, padding
from tidegate.publisher.image import make_ext4
from tidegate.publisher.manifest import ComponentSpec
from tidegate.publisher.pack import Packed

#: How compressed tar files begin. They are unpacked again: the payload is compressed anyway, and better.
_COMPRESSED: Final[dict[bytes, Callable[[Path], IO[bytes]]]] = {
    b"\x1f\x8b": lambda path: cast("IO[bytes]", gzip.GzipFile(path)),
    b"\x28\xb5\x2f\xfd": zstandard.open,
    b"\xfd7zXZ": lzma.LZMAFile,
}


def image_of(component: ComponentSpec, folder: Path, now: int) -> Path:
    """Return the file that is packed: the one that was named, or one made from the directory that was.

    Args:
        component: from the manifest.
        folder: where it may be made.
        now: unix seconds that everything made bears.

    Raises:
        ConfigError: it cannot be made.
    """
    if component.source.is_file():
        return (
            _plain(component.source, folder) if component.format == "archive" else component.source
        )
    make = _MAKERS.get(component.format)
    if make is None:
        takes = ", ".join(sorted(_MAKERS))
        raise ConfigError("config.invalid", f"{component.name}: only {takes} take a directory")
    image = folder / f"{component.name}.image"
    make(component, image, now)
    return image


def signed_of(component: ComponentSpec, image: Path, packed: Packed) -> dict[str, object]:
    """Say what the payload unpacks to, and what stands there afterwards where that is something else.

    Raises:
        PublisherError: `sig.malformed`: an archive that no device takes.
    """
    inside = Install(size=packed.image_size, sha256=packed.image_sha256)
    if component.format == "archive":
        with image.open("rb") as file:
            size, digest = measure(file.read, keep_of(component.settings))
        return {"install": Install(size=size, sha256=digest), "package": inside}
    if component.installed is None:
        return {"install": inside}
    with component.installed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    install = Install(size=component.installed.stat().st_size, sha256=digest)
    return {"install": install, "package": inside}


def _plain(source: Path, folder: Path) -> Path:
    with source.open("rb") as file:
        head = file.read(8)
    opener = next((one for magic, one in _COMPRESSED.items() if head.startswith(magic)), None)
    if opener is None:
        return source
    plain = folder / f"{source.name}.tar"
    try:
        with opener(source) as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ConfigError("config.unreadable", f"{source}: {error}"[:200]) from error
    return plain


def _ext4(component: ComponentSpec, image: Path, now: int) -> None:
    make_ext4(component.source, image, component.size, now)


def _tar(component: ComponentSpec, image: Path, now: int) -> None:
    """Write the tree of a directory as a tar file, in order of names."""
    keep = keep_of(component.settings)
    mask = 0o7777 if "special_bits" in keep else 0o777
    with tarfile.open(image, "w", format=tarfile.PAX_FORMAT) as out:
        for path in (component.source, *sorted(component.source.rglob("*"))):
            found = path.lstat()
            name = path.relative_to(component.source).as_posix()
            member = tarfile.TarInfo(f"./{name}" if name != "." else ".")
            member.mode, member.mtime = stat.S_IMODE(found.st_mode) & mask, now
            if "owners" in keep:
                member.uid, member.gid = found.st_uid, found.st_gid
            if stat.S_ISLNK(found.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.fspath(path.readlink())
                member.mode = 0o777
                out.addfile(member)
            elif stat.S_ISDIR(found.st_mode):
                member.type = tarfile.DIRTYPE
                out.addfile(member)
            elif stat.S_ISREG(found.st_mode):
                member.size = found.st_size
                with path.open("rb") as file:
                    out.addfile(member, file)
            else:
                raise ConfigError("config.invalid", f"{path}: neither file, folder nor link")


def _files(component: ComponentSpec, image: Path, now: int) -> None:  # noqa: ARG001 - its format holds no time
    """Write the files of a directory one after the other, for an update module."""
    with image.open("wb") as out:
        for path in sorted(component.source.iterdir()):
            if not path.is_file() or path.is_symlink():
                raise ConfigError("config.invalid", f"{path}: an update module gets plain files")
            size = path.stat().st_size
            out.write(header(path.name, size))
            with path.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
            out.write(padding(size))
        out.write(END)


_MAKERS: Final[dict[str, Callable[[ComponentSpec, Path, int], None]]] = {
    "raw_image": _ext4,
    "archive": _tar,
    "module": _files,
}
