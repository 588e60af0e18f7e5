"""The static files: read once, served from memory under an address that names their content."""

import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Final

#: The character set is added where they are sent, as to every text.
TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    body: bytes
    media_type: str
    digest: str


class Assets:
    """All static files by path below `static/`. A path that is not one of them finds nothing: there is no file system behind an address."""

    def __init__(self) -> None:
        """Read the files of the package."""
        self._files: dict[str, Asset] = {}
        root = importlib.resources.files("tidegate.server.web") / "static"
        for path, entry in _walk(root, ""):
            suffix = path[path.rfind(".") :]
            if suffix in TYPES:
                body = entry.read_bytes()
                self._files[path] = Asset(body, TYPES[suffix], hashlib.sha256(body).hexdigest())

    def get(self, path: str) -> Asset | None:
        """Return the file at `path` (untrusted)."""
        return self._files.get(path)

    def url(self, path: str) -> str:
        """Return the address of a file, which changes with its content so that it can be kept for ever.

        Raises:
            KeyError: there is no such file.
        """
        return f"/static/{path}?v={self._files[path].digest[:12]}"

    def paths(self) -> tuple[str, ...]:
        """Return every path served."""
        return tuple(sorted(self._files))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        else:
            yield path, entry
