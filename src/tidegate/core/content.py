"""What is inside a payload whose installer interprets it: read by whoever publishes as on the device, so that no device is sent what it refuses."""

from collections.abc import Callable, Iterator
from typing import Final

from tidegate.core.archive import KEEP, measure
from tidegate.core.errors import PublisherError
from tidegate.core.release import InstallSettings, Part
from tidegate.core.ustar import Reader

Read = Callable[[int], bytes]
#: Most files that an update module is given.
FILES_MAX: Final = 1000


def keep_of(settings: InstallSettings) -> frozenset[str]:
    """Return what an archive's signers want kept.

    Raises:
        PublisherError: `compat.agent`: a word that this version does not know.
    """
    found = settings.get("keep", [])
    keep = frozenset(found) if isinstance(found, list) else frozenset({str(found)})
    unknown = sorted(keep - KEEP)
    if unknown:
        raise PublisherError(
            "compat.agent",
            f"archive: keep = {unknown[0][:40]!r} is none of {', '.join(sorted(KEEP))}",
        )
    return keep


def module_of(settings: InstallSettings) -> str:
    """Return the name of the update module that a release wants, a plain file name.

    Raises:
        PublisherError: `sig.malformed`.
    """
    name = settings.get("module")
    plain = isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()
    if not isinstance(name, str) or not plain or not name.isascii() or len(name) > 64:
        raise PublisherError("sig.malformed", f"module = {name!r:.80} is no update module's name")
    return name


def file_names(read: Read) -> tuple[str, ...]:
    """Return the names of the files in an update module's payload, in order.

    Raises:
        PublisherError: `sig.malformed`: not a flat list of plain files, each once.
    """
    names = tuple(name for name, _ in files_of(Reader(read)))
    if not names:
        raise PublisherError("sig.malformed", "module payload: no files")
    return names


def files_of(reader: Reader) -> Iterator[tuple[str, int]]:
    """Yield name and size of each file in an update module's payload; `reader.pieces()` gives the content of the present one.

    Raises:
        PublisherError: `sig.malformed`: not a flat list of plain files, each once.
    """
    names: set[str] = set()
    while (found := _next(reader)) is not None:
        name = found[0]
        plain = name.isprintable() and "/" not in name and not name.startswith(".")
        if not name or not plain or name in names:
            raise PublisherError("sig.malformed", f"module payload: file {name[:80]!r}")
        names.add(name)
        if len(names) > FILES_MAX:
            raise PublisherError("sig.malformed", f"module payload: over {FILES_MAX} files")
        yield found


def _next(reader: Reader) -> tuple[str, int] | None:
    try:
        return reader.next()
    except PublisherError as error:
        raise PublisherError("sig.malformed", f"module payload: {error.detail}") from error


def _archive(part: Part, read: Read) -> None:
    if measure(read, keep_of(part.settings)) != (part.install.size, part.install.sha256):
        raise PublisherError(
            "release.malformed", f"{part.component}: the archive is not the tree that was signed"
        )


def _module(part: Part, read: Read) -> None:
    module_of(part.settings)
    file_names(read)


_CHECKS: Final[dict[str, Callable[[Part, Read], None]]] = {"archive": _archive, "module": _module}


def check_content(part: Part, read: Read) -> None:
    """Hold what a payload unpacks to against what its installer takes. Formats that are copied as they are have no inside.

    Args:
        part: what was signed.
        read: the unpacked bytes, from the beginning; fewer than asked for only at the end.

    Raises:
        PublisherError: `sig.malformed`, `release.malformed`, `compat.agent`.
    """
    check = _CHECKS.get(part.format)
    if check is not None:
        check(part, read)
