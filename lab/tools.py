"""Programs that the lab runs, each with the Debian package that brings it."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.cache import ROOT

#: Lists what the lab needs, a line each: program or file, Debian package, why.
_NEEDS: Final = ROOT / "tools" / "apt-needs"


class MissingError(Exception):
    """This machine cannot run the lab; the message says which Debian package it lacks."""


def needs() -> dict[str, str]:
    """Return what the lab needs: program (or the path of a file) → the Debian package that brings it."""
    found = re.search(r"^lab_needs='(.*?)'$", _NEEDS.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return {line.split()[0]: line.split()[1] for line in found[1].splitlines()}


def require() -> None:
    """Look for everything that the lab needs.

    Raises:
        MissingError: with the packages to install.
    """
    gone = [package for name, package in needs().items() if _path(name) is None]
    if gone:
        raise MissingError(f"install the Debian packages {' '.join(dict.fromkeys(gone))}")


def _path(name: str) -> str | None:
    if name.startswith("/"):
        return name if Path(name).exists() else None
    return shutil.which(
        name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    )


def find(name: str) -> str:
    """Return a program's path.

    Raises:
        MissingError: with the package that brings it.
    """
    found = _path(name)
    if found is None:
        raise MissingError(
            f"{name} is not here: install the Debian package {needs().get(name, name)}"
        )
    return found


def run(
    *words: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    log: Path | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        words: the program, looked up with `find`, and its arguments.
        cwd: where.
        env: variables on top of this process' own.
        text: what it reads.
        log: keep both its outputs there as well.

    Raises:
        MissingError: the program is not there.
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(
        [find(str(words[0])), *(str(word) for word in words[1:])],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if log is not None else subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if log is not None:
        log.write_text(done.stdout)
    if done.returncode:
        said = (done.stderr or done.stdout or "").strip()[-1500:]
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {said}")
    return done.stdout
