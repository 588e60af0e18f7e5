"""Runs a boot loader's own program: bounded in time and output, and with one clear line when it fails."""

import os
from collections.abc import Sequence
from typing import Final

from tidegate.agent import programs
from tidegate.core.errors import DeviceError

#: Bytes of its complaints that are looked at: the end, where the reason stands.
_TAIL: Final = 4 << 10


def run(words: Sequence[str], timeout_s: float) -> str:
    """Run a program and return what it printed. Whatever it started ends with it.

    Args:
        words: the program and its arguments; no shell reads them.
        timeout_s: after this it is ended, in seconds.

    Raises:
        DeviceError: `activate.bootloader`: it is not there, failed, took too long, or printed what is no text.
    """
    name = " ".join(words)[:120]
    # Apart: what a program warns of is not what it answers. In memory: a device may have no place for it.
    with os.fdopen(os.memfd_create("complaints"), "w+b") as complaints:
        ran = programs.run(words, timeout_s, errors=complaints)
        complaints.seek(0, os.SEEK_END)
        complaints.seek(max(0, complaints.tell() - _TAIL))
        complaint = complaints.read()
    if ran.code is None:
        raise DeviceError("activate.bootloader", ran.problem)
    if ran.code != 0:
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        said = f": {lines[-1][:200]}" if lines else ""
        raise DeviceError("activate.bootloader", f"{name}: exit code {ran.code}{said}")
    try:
        return ran.output.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeviceError("activate.bootloader", f"{name}: printed no text") from error
