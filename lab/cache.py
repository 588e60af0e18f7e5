"""What takes long to make and does not change: kept by the digest of everything that it is made from."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Where things are kept; the variable lets several check-outs share them.
VARIABLE: Final = "TIDEGATE_LAB_CACHE"
_UNUSED_S: Final = 3 * 86_400


def folder() -> Path:
    """Return the cache's folder; made where it is missing."""
    found = Path(os.environ.get(VARIABLE) or ROOT / ".cache" / "lab")
    found.mkdir(parents=True, exist_ok=True)
    return found


def key(parts: Iterable[str | bytes | Path]) -> str:
    """Return a short digest over texts, bytes, and the names, modes and contents of files (a folder stands for all that is in it)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for path in _files(part):
                digest.update(f"{path.relative_to(part)} {path.stat().st_mode:o}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts
    )


def kept(name: str, parts: Iterable[str | bytes | Path], make: Callable[[Path], None]) -> Path:
    """Return the folder NAME-KEY in the cache, made by `make(folder)` where it is missing.

    It appears whole or not at all; of several processes that want it one makes it, and the others wait.
    """
    place = folder() / f"{name}-{key(parts)}"
    with _locked(place.with_name(f".{place.name}.lock")):
        if place.is_dir():
            os.utime(place)
            return place
        _forget(name, place.parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
        try:
            make(scratch)
            scratch.chmod(0o755)
            scratch.rename(place)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return place


def _forget(name: str, place: Path) -> None:
    """Remove what was kept under a name and has not been used for days: each change of the agent makes new images."""
    for one in place.glob(f"{name}-*"):
        if time.time() - one.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(one, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
