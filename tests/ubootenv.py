"""Debian's own `fw_printenv` and `fw_setenv` (libubootenv) over files: whether our reading and writing of U-Boot's environment is theirs."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tidegate.agent.boot.uboot_env import Environment, make_copy
from tidegate.agent.boot.uboot_store import Store, parse_places

SIZE = 0x1000
OFFSETS = (0x800, 0x3000)


class Tools:
    """A file with one or two copies of the environment, and the real tools on it.

    Args:
        folder: for the file, the configuration of the tools and our lock.
        copies: 1 or 2.
    """

    def __init__(self, folder: Path, copies: int) -> None:
        if shutil.which("fw_printenv") is None:
            pytest.skip("tier: fw_printenv is missing; install the Debian package libubootenv-tool")
        self.disk = folder / "disk.img"
        self.offsets = OFFSETS[:copies]
        self.disk.write_bytes(b"\xa5" * 0x5000)
        self.config = folder / "fw_env.config"
        lines = [f"{self.disk} {offset:#x} {SIZE:#x}" for offset in self.offsets]
        self.config.write_text("# the environment\n" + "\n".join(lines) + "\n")
        self.lock = folder / "lock"

    def store(self) -> Store:
        """Return ours."""
        return Store(parse_places(self.config.read_text(), "test"), lock=str(self.lock))

    def create(self, env: Mapping[str, str]) -> None:
        """Put a first environment where there is none, into the first copy, as a factory does."""
        entries = tuple(f"{key}={value}".encode() for key, value in env.items())
        body = make_copy(Environment(entries), SIZE, 0 if len(self.offsets) == 2 else None)
        with self.disk.open("r+b") as file:
            file.seek(self.offsets[0])
            file.write(body)

    def printed(self) -> dict[str, str] | None:
        """Return what fw_printenv reads; None where it says that there is no good copy."""
        done = subprocess.run(
            ["fw_printenv", "-c", str(self.config), "-f", "/nonexistent"],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return None
        lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def set(self, env: Mapping[str, str]) -> None:
        """Have fw_setenv write some variables at once; "" takes one away."""
        script = self.config.with_name("script")
        script.write_text("".join(f"{key}={value}\n" for key, value in env.items()))
        subprocess.run(
            ["fw_setenv", "-c", str(self.config), "-s", str(script)],
            check=True,
            capture_output=True,
        )
