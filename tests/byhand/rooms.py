"""Rooms: a program started by hand as in a container, where no engine is: a root of its own, its own network card, processes and mounts.

A room holds the programs of this machine below `/usr`, read-only, and besides them what it was given: nothing else of this machine is seen in it, and
nothing that is done in it is seen outside. What stands in for an image is a folder with `etc`, `opt` and the like.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

#: The Python that programs of a room are made with, where it is not below /usr.
PYTHON: Final = Path(sys.base_prefix)
_LINKS: Final = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
_FOLDERS: Final = ("etc", "opt", "root", "run", "tmp", "usr", "proc", "dev", "sys", "mnt")
_OF_ETC: Final = (
    "passwd", "group", "nsswitch.conf", "ssl", "ca-certificates", "alternatives", "ld.so.cache",
    "localtime", "mime.types", "login.defs", "pip.conf", "resolv.conf", "hosts", "default/useradd",
    "postgresql-common",
)  # fmt: skip

#: $1: the root; $2: where binds are listed, "SOURCE TARGET ro|rw" a line; $3: "fresh" = the root is made of the image named by $4.
_MOUNTS: Final = r"""
set -e
root=$1 binds=$2 fresh=$3 image=$4; shift 4
mount --make-rprivate /
if [ "$fresh" = fresh ]; then
    mount -t tmpfs -o mode=755 room "$root"
    cp -a "$image/." "$root/"
fi
mount --bind -o ro /usr "$root/usr"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while read -r source target how; do
    if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$root$(dirname "$target")"; [ -e "$root$target" ] || : > "$root$target"; fi
    mount --bind "$source" "$root$target"
    [ "$how" = rw ] || mount -o remount,bind,ro "$root$target"
done < "$binds"
exec chroot "$root" "$@"
"""


def require_leave() -> None:
    """Skip, loudly, where nobody may make rooms."""
    if os.getuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("tier: rooms: root, and the Debian packages iproute2 and util-linux are wanted")


def skeleton(root: Path) -> Path:
    """Make the folders and the few files below `/etc` that every program wants."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("var/lib", "var/log", "var/cache", "var/tmp", "run/lock"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "var/run").symlink_to("/run")
    for name in _LINKS:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in _OF_ETC:
        _copy(Path("/etc", name), root / "etc" / name)
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif source.exists():
        shutil.copy(source, target)


@dataclass(frozen=True)
class Bind:
    """A file or folder that a room sees, at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass
class Room:
    """One room: what is in it and who works there.

    Attributes:
        root: its root, where a mount is put; the image itself where `fresh` is False, and what is done there stays.
        within: words before the command that choose a network, as `ip netns exec NAME`.
    """

    root: Path
    image: Path
    env: Mapping[str, str]
    user: str = "0"
    folder: str = "/"
    binds: Sequence[Bind] = ()
    within: Sequence[str] = ()
    fresh: bool = True
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def start(self, command: Sequence[str], log: Path) -> None:
        """Start the program as the first process of the room."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._log = log
        listed = log.with_suffix(".binds")
        given = [*self.binds, *_python()]
        listed.write_text(
            "".join(
                f"{one.source} {one.target} {'rw' if one.writable else 'ro'}\n" for one in given
            )
        )
        made = "fresh" if self.fresh else "kept"
        words = [
            *self.within, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts",
            "/bin/bash", "-c", _MOUNTS, "room", str(self.root), str(listed), made, str(self.image),
        ]  # fmt: skip
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*words, *self._inside(command)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def _inside(self, command: Sequence[str]) -> list[str]:
        who = self.user.partition(":")[0]
        put = f'cd {shlex.quote(self.folder)} && exec "$@"'
        set_by = [f"{name}={value}" for name, value in self.env.items()]
        clothes = [] if who in ("0", "root") else ["setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups"]  # fmt: skip
        return [*clothes, "env", "-i", *set_by, "/bin/sh", "-c", put, "sh", *command]

    @property
    def first(self) -> int:
        """Return the id of the room's first process, as this machine counts.

        Raises:
            AssertionError: nobody is in it.
        """
        assert self.process is not None
        until = time.monotonic() + 20
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                found = children.read_text().split()
                if found:
                    return int(found[0])
            time.sleep(0.02)
        raise AssertionError(f"nobody is in the room: {self._log.read_text()[-2000:]}")

    def run(
        self, command: Sequence[str], timeout_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run another program in the room, as `exec` of an engine does."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self._inside(command)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip

    def wait(self, timeout_s: float) -> int:
        """Wait until the program has ended; return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    @property
    def lives(self) -> bool:
        """Say whether the program runs."""
        return self.process is not None and self.process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM, patience_s: float = 30) -> None:
        """End the program: ask, wait, kill."""
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(self.first, how)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def _python() -> list[Bind]:
    return [] if PYTHON.is_relative_to("/usr") else [Bind(PYTHON, str(PYTHON))]
