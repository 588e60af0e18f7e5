"""Runs a boot loader's own program: bounded in time and output, and with one clear line when it fails."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from tidegate.core.errors import DeviceError

_OUTPUT_MAX: Final = 64 << 10


def run(words: Sequence[str], timeout_s: float) -> str:
    """Run a program and return what it printed. Whatever it started ends with it.

    Args:
        words: the program and its arguments; no shell reads them.
        timeout_s: after this it is ended, in seconds.

    Raises:
        DeviceError: `activate.bootloader`: it is not there, failed, took too long, or printed what is no text.
    """
    name = " ".join(words)[:120]
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError("activate.bootloader", f"{name}: {error.strerror}") from error
    with process:
        try:
            out, complaint = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                "activate.bootloader", f"{name}: no answer within {timeout_s:g} s"
            ) from error
        finally:
            # Its children as well: one that holds the pipe would keep us waiting.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        lines = complaint[-_OUTPUT_MAX:].decode("utf-8", "replace").strip().splitlines()
        said = f": {lines[-1][:200]}" if lines else ""
        raise DeviceError("activate.bootloader", f"{name}: exit code {process.returncode}{said}")
    try:
        return out[:_OUTPUT_MAX].decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeviceError("activate.bootloader", f"{name}: printed no text") from error
