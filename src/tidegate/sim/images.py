"""Images made from real files: the interpreter's own library, as a directory tree that an image builder packs. Never random bytes.

Two versions differ as two releases of a product do: a version file, one changed configuration, one more module.
"""

import io
import os
import shutil
import subprocess
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.core.errors import ConfigError
from tidegate.sim.disk import PAGE

#: What a small device carries: a few packages of the standard library.
SMALL: Final = ("json", "email", "logging", "http", "wsgiref")
#: Never packed: caches and tests differ from machine to machine and help nobody.
_SKIP: Final = frozenset({"__pycache__", "test", "tests", "site-packages", "dist-packages"})
#: Fixed identity of every file system made here: two images differ by their content, not by a random name.
_UUID: Final = "7d1e6a7e-0000-4000-8000-000000000001"
_BUILT_AT: Final = 1_767_225_600


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
            os.utime(path, (_BUILT_AT, _BUILT_AT), follow_symlinks=False)
        os.utime(folder, (_BUILT_AT, _BUILT_AT))
    return total


def find_mke2fs() -> Path:
    """Return mke2fs.

    Raises:
        ConfigError: `config.missing`; names the Debian package.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = shutil.which("mke2fs", path=path)
    if found is None:
        raise ConfigError(
            "config.missing", "mke2fs is not on this machine: install the package e2fsprogs"
        )
    return Path(found)


def make_ext4(tree: Path, image: Path, size: int) -> None:
    """Make an ext4 file system of exactly `size` bytes that holds `tree`. Needs no root.

    Raises:
        ConfigError: mke2fs is missing, or the tree does not fit.
    """
    command = [
        *(str(find_mke2fs()), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"),
        *("-O", "^has_journal,^resize_inode,^metadata_csum", "-U", _UUID),
        *("-E", f"hash_seed={_UUID},root_owner=0:0", "-L", "tidegate", "-d", str(tree)),
        *(str(image), str(size // 4096)),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_BUILT_AT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ConfigError("config.invalid", f"mke2fs: {done.stderr.strip()[-200:]}")


def make_packed(tree: Path) -> bytes:
    """Pack a tree into the bytes of an image without any tool: a tar of fixed order and times, in whole pages."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            info = tar.gettarinfo(str(path), str(path.relative_to(tree)))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = _BUILT_AT
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return out.getvalue() + bytes(-out.tell() % PAGE)
