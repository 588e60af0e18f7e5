"""Debian's archive as the lab uses it: its own apt lists with source entries, in the cache; the system's configuration is read and never changed."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab import cache
from lab.tools import MissingError, run

_SYSTEM: Final = Path("/etc/apt")
#: Lists older than this are fetched anew, in seconds.
_STALE_S: Final = 86_400


def release() -> str:
    """Return the code name of the Debian release that this machine runs.

    Raises:
        MissingError: it is no Debian, or none with a name.
    """
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        text = ""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    if found is None or not re.search(r"^ID=debian$", text, re.MULTILINE):
        raise MissingError(
            "the lab takes kernel and U-Boot from Debian's archive: run it on Debian"
        )
    return found[1]


def source_package(name: str, into: Path) -> Path:
    """Fetch and unpack a source package into a folder; returns its tree. Signatures and hashes are checked by apt and dpkg-source."""
    run("apt-get", *_options(), "source", "-q", name, cwd=into)
    return next(one for one in into.iterdir() if one.is_dir())


def binary_package(name: str, into: Path) -> Path:
    """Fetch a binary package and unpack its files into a folder, without installing it; returns the folder."""
    run("apt-get", *_options(), "download", "-q", name, cwd=into)
    run("dpkg-deb", "-x", next(into.glob("*.deb")), into / "files")
    return into / "files"


def candidate(name: str, *, source: bool = False) -> str:
    """Return the version of a package that would be fetched."""
    if source:
        text = run("apt-cache", *_options(), "showsrc", "--only-source", name)
        versions = re.findall(r"^Version: (\S+)$", text, re.MULTILINE)
    else:
        text = run("apt-cache", *_options(), "show", "--no-all-versions", name)
        versions = re.findall(r"^Version: (\S+)$", text, re.MULTILINE)
    if not versions:
        raise MissingError(f"Debian's archive knows no package {name}")
    return " ".join(sorted(set(versions)))


def depends(name: str) -> list[str]:
    """Name what a package depends on directly."""
    text = run("apt-cache", *_options(), "depends", "--important", name)
    return re.findall(r"^\s+Depends: (\S+)$", text, re.MULTILINE)


def _options() -> list[str]:
    """Return apt's options for lists of our own; they are made and filled at the first call."""
    place = cache.folder() / f"apt-{release()}"
    options = [
        "-o", "Dir::Etc::sourcelist=/dev/null",
        "-o", f"Dir::Etc::sourceparts={place}/parts",
        "-o", f"Dir::State::lists={place}/lists",
        "-o", f"Dir::Cache={place}/cache",
        "-o", "APT::Sandbox::User=root",
        "-o", "Acquire::Languages=none",
    ]  # fmt: skip
    stamp = place / "stamp"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < _STALE_S:
        return options
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "parts" / "lab.sources").write_text("\n\n".join(_stanzas()) + "\n")
    try:
        run("apt-get", *options, "update", "-q")
    except RuntimeError as error:
        raise MissingError(f"Debian's archive is not reached: {error}") from error
    stamp.touch()
    return options


def _stanzas() -> Iterator[str]:
    """Yield the system's own entries for this release, each with sources and binaries."""
    code = release()
    suites = {code, f"{code}-updates", f"{code}-security"}
    found = False
    for path in sorted((_SYSTEM / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):\s*(.*)$", stanza, re.MULTILINE))
            if set(fields.get("Suites", "").split()) & suites:
                found = True
                yield "\n".join(f"{k}: {v}" for k, v in {**fields, "Types": "deb deb-src"}.items())
    lists = [_SYSTEM / "sources.list", *sorted((_SYSTEM / "sources.list.d").glob("*.list"))]
    for path in lists:
        for line in path.read_text().splitlines() if path.is_file() else ():
            words = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)$", line)
            if words is not None and words[3] in suites:
                found = True
                signed = re.search(r"signed-by=(\S+)", words["options"] or "")
                key = f"\nSigned-By: {signed[1]}" if signed else ""
                yield (
                    f"Types: deb deb-src\nURIs: {words[2]}\nSuites: {words[3]}\nComponents: {words[4]}{key}"
                )
    if not found:
        raise MissingError(f"no apt source of {code} is configured here")
