"""Stand-ins for programs that this machine cannot run: they answer in the formats of the real ones, from files that a test writes.

systemctl: recorded from systemd 252 as PID 1 of a namespace. `docker container inspect`: written after Docker 28's documentation, not recorded.
"""

import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

SYSTEMCTL = r"""
    import json, pathlib, sys
    told = json.loads(pathlib.Path(__file__).with_name("systemd.json").read_text())
    words = [one for one in sys.argv[1:] if not one.startswith("-")]
    if words[0] == "is-system-running":
        print(told["state"])
        sys.exit(told["state"] != "running")
    if words[0] == "list-units":
        for unit in told["failed"]:
            print(f"{unit} loaded failed failed Something that failed")
        sys.exit(0)
    blocks = []
    for unit in words[1:]:
        active, restarts = told["units"].get(unit, (None, 0))
        load = "not-found" if active is None else "loaded"
        blocks.append(f"NRestarts={restarts}\nLoadState={load}\nActiveState={active or 'inactive'}\n")
    print("\n".join(blocks), end="")
"""
ENGINE = r"""
    import json, pathlib, sys
    told = json.loads(pathlib.Path(__file__).with_name("containers.json").read_text())
    name = sys.argv[-1]
    if name not in told:
        print()
        print(f"Error response from daemon: No such container: {name}", file=sys.stderr)
        sys.exit(1)
    print("[" + json.dumps(told[name][0]) + "," + json.dumps(told[name][1]) + "]")
"""


def program(folder: Path, name: str, source: str) -> None:
    """Put a program of Python into a folder that will be on PATH."""
    path = folder / name
    path.write_text("#!/usr/bin/env python3\n" + textwrap.dedent(source))
    path.chmod(0o755)


def on_path(folder: Path) -> Mapping[str, str]:
    """Return the environment in which a folder's programs are found first."""
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


class Journald:
    """A real systemd-journald in a mount namespace of its own, with nothing of this machine in it.

    Attributes:
        bin: folder with a `journalctl` that reads it.
    """

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.bin = folder
        self._process = process
        self.enter = ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", "--"]
        real = shutil.which("journalctl")
        path = folder / "journalctl"
        path.write_text(f'#!/bin/sh\nexec {" ".join(self.enter)} {real} "$@"\n')
        path.chmod(0o755)

    def log(self, message: str, priority: int = 3, count: int = 1) -> None:
        """Write entries, and wait until they can be read."""
        entry = f"MESSAGE={message}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=app\n".encode()
        code = (
            "import socket\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            f"for _ in range({count}):\n"
            f"    s.sendto({entry!r}, '/run/systemd/journal/socket')\n"
        )
        before = self.count()
        subprocess.run([*self.enter, "python3", "-c", code], check=True, timeout=20)
        until = time.monotonic() + 20
        while self.count() < before + count and time.monotonic() < until:
            time.sleep(0.02)

    def count(self) -> int:
        """Return how many entries there are."""
        command = [str(self.bin / "journalctl"), "--output=json", "--no-pager", "--quiet"]
        return subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.count(
            b"\n"
        )


@contextmanager
def journald(folder: Path) -> Iterator[Journald]:
    """Start one; skips where it cannot be."""
    daemon = Path("/lib/systemd/systemd-journald")
    if os.geteuid() != 0 or not daemon.exists() or shutil.which("nsenter") is None:
        pytest.skip("tier: a real journal; needs root, install the Debian package systemd")
    folder.mkdir()
    conf = folder / "journald.conf"
    conf.write_text("[Journal]\nStorage=volatile\nReadKMsg=no\nRateLimitIntervalSec=0\nAudit=no\n")
    script = (
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && "
        f"mount --bind {conf} /etc/systemd/journald.conf && exec {daemon}"
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        made = Journald(folder, process)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            probe = [*made.enter, "test", "-S", "/run/systemd/journal/socket"]
            if subprocess.run(probe, check=False, timeout=20).returncode == 0:
                break
            time.sleep(0.02)
        yield made
    finally:
        process.terminate()
        process.wait(20)
