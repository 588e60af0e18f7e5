"""Images made from real files: the interpreter's own library, as a directory tree that an image builder packs. Never random bytes.

Two versions differ as two releases of a product do: a version file, one changed configuration, one more module.
"""

import io
import os
import shutil
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.sim.disk import PAGE

#: What a small device carries: a few packages of the standard library.
SMALL: Final = ("json", "email", "logging", "http", "wsgiref")
#: Never packed: caches and tests differ from machine to machine and help nobody.
_SKIP: Final = frozenset({"__pycache__", "test", "tests", "site-packages", "dist-packages"})
#: The time that every file bears, unix seconds.
BUILT_AT: Final = 1_767_225_600


@dataclass(frozen=True)
class TreeSpec:
    """What goes into an image.

    Attributes:
        version: text of the version file.
        packages: names in the interpreter's library; empty = all of it.
        extra: one more module that this version brought; empty = none.
        role: what the device is for; lets images of two device families differ.
        limit_bytes: take packages in order of name as long as they fit; 0 = take them all.
    """

    version: str
    packages: tuple[str, ...] = SMALL
    extra: str = ""
    role: str = "gateway"
    limit_bytes: int = 0


def library() -> Path:
    """Return the interpreter's own library."""
    return Path(sysconfig.get_paths()["stdlib"])


def make_tree(target: Path, spec: TreeSpec) -> int:
    """Write the tree of an image below `target`; returns its size in bytes."""
    lib = target / "usr" / "lib" / "python"
    lib.mkdir(parents=True, exist_ok=True)
    source = library()
    names = spec.packages or _all_that_fit(source, spec.limit_bytes)
    for name in (*names, *([spec.extra] if spec.extra else [])):
        _copy(source / name, lib / name)
    etc = target / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "os-release").write_text(
        f'NAME="Tidegate demo"\nVERSION_ID="{spec.version}"\nVARIANT_ID={spec.role}\n'
    )
    (etc / "gateway.conf").write_text(f"role = {spec.role}\nmodules = {len(names)}\n")
    return _settle(target)


def _all_that_fit(source: Path, limit: int) -> tuple[str, ...]:
    taken, total = [], 0
    for one in sorted(source.iterdir()):
        if one.name in _SKIP or one.name.startswith("config-"):
            continue
        size = sum(file.stat().st_size for file in _files(one))
        if limit and total + size > limit:
            continue
        taken.append(one.name)
        total += size
    return tuple(taken)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    return [
        one
        for one in path.rglob("*")
        if one.is_file() and not _SKIP.intersection(one.relative_to(path).parts)
    ]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        if source.name in _SKIP:
            return
        shutil.copytree(
            source,
            target,
            ignore=lambda _, names: [one for one in names if one in _SKIP],
            symlinks=True,
            dirs_exist_ok=True,
        )
    elif source.is_file() and not source.is_symlink():
        shutil.copyfile(source, target)


def _settle(target: Path) -> int:
    """Give everything the same times, so that the image depends on content only; returns the bytes in it."""
    total = 0
    for folder, _, files in os.walk(target, topdown=False):
        for name in files:
            path = Path(folder, name)
            total += path.lstat().st_size
            os.utime(path, (BUILT_AT, BUILT_AT), follow_symlinks=False)
        os.utime(folder, (BUILT_AT, BUILT_AT))
    return total


def make_packed(tree: Path) -> bytes:
    """Pack a tree into the bytes of an image without any tool: a tar of fixed order and times, in whole pages."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            info = tar.gettarinfo(str(path), str(path.relative_to(tree)))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = BUILT_AT
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return out.getvalue() + bytes(-out.tell() % PAGE)
