"""Runs inside the recording machine as its only program: makes each rig's calls with the shipped code, and leaves a mark before and after each.

It is packed by `record.py`, next to `rigs.py`, with the agent of this checkout and a Python of the host.
"""

# ruff: noqa: BLE001, T201 - a bare machine without any other way to tell

import ctypes
import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from tests.crash.blocklog import writers
from tests.crash.blocklog.rigs import MOUNT, SLOTS, Call, Rig
from tests.crash.blocklog.rigs import RIGS as ALL

from tidegate.agent import bootloaders
from tidegate.agent.files import StateDirectory
from tidegate.agent.install.slot_file import SlotFile
from tidegate.agent.journal import Journal
from tidegate.agent.state import State

MARK = b"TIDEGATE MARK "
STATE = f"{MOUNT}/state"
_libc = ctypes.CDLL(None, use_errno=True)


def mount(device: str, kind: str) -> None:
    if _libc.mount(device.encode(), MOUNT.encode(), kind.encode(), 0, None):
        raise OSError(ctypes.get_errno(), f"mount {kind}")


def device_of(name: str) -> str:
    for one in Path("/sys/block").glob("vd*"):
        if (one / "serial").read_text().strip("\0\n ") == name[:20]:
            return f"/dev/{one.name}"
    raise FileNotFoundError(name)


class Marker:
    """Leaves marks in the last 4 KiB of a disk, past the caches: a mark flushes nothing and waits for nothing but itself."""

    def __init__(self, device: str) -> None:
        self._handle = os.open(device, os.O_RDWR | os.O_DIRECT)
        self._at = os.lseek(self._handle, 0, os.SEEK_END) - 4096
        self._block = mmap.mmap(-1, 4096)

    def mark(self, name: str) -> None:
        self._block[:] = (MARK + json.dumps(name).encode()).ljust(4096, b"\0")
        os.pwrite(self._handle, self._block, self._at)


def calls_of(rig: Rig, device: str) -> list[tuple[str, Callable[[], Any]]]:
    kind, _, name = rig.writer.partition(":")
    if kind == "journal":
        states = json.loads(Path("/rig/states.json").read_text())
        journal = Journal(StateDirectory(STATE))
        journal.read()
        return [(n, partial(journal.write, msgspec.json.decode(s, type=State))) for n, s in states]
    if kind == "bootloader":
        settings = {**rig.settings, "slots": SLOTS, "current": "A"}
        settings = json.loads(json.dumps(settings).replace("DEVICE", device))
        return [(one.name, partial(run_new, name, settings, one)) for one in rig.calls]
    if kind == "storage":
        directory = StateDirectory(STATE)
        return [(one.name, partial(run_storage, directory, one)) for one in rig.calls]
    target = SlotWriter(device) if kind == "slot" else getattr(writers, name)(device)
    return [(one.name, partial(run, target, one)) for one in rig.calls]


def run_new(name: str, settings: dict[str, Any], call: Call) -> None:
    # A back end is made anew for each call, as it is by each start of the agent.
    run(bootloaders.load(name, settings), call)


def run(target: Any, call: Call) -> None:
    getattr(target, call.verb)(*call.arguments)


def run_storage(target: StateDirectory, call: Call) -> None:
    name, *content = call.arguments
    getattr(target, call.verb)(name, *(one.encode() for one in content))


class SlotWriter:
    """Puts bytes into a slot as an installer does."""

    def __init__(self, device: str) -> None:
        self._slot = SlotFile(device, None)

    def put(self, offset: int, length: int, seed: int) -> None:
        self._slot.write_at(offset, bytes([seed]) * length)
        self._slot.flush()


def record(rig: Rig) -> None:
    device = device_of(rig.name)
    marker = Marker(device)
    if rig.medium != "raw":
        mount(device, rig.medium)
    os.sync()
    for name, call in calls_of(rig, device):
        marker.mark(name)
        call()
        marker.mark(f"{name}: returned")
        os.sync()
    marker.mark("end")
    if rig.medium != "raw" and _libc.umount(MOUNT.encode()):
        raise OSError(ctypes.get_errno(), "umount")


def main() -> None:
    wanted = sys.argv[1:]
    for rig in ALL:
        if rig.name in wanted:
            try:
                record(rig)
            except BaseException:
                print(f"FAILED {rig.name}\n{traceback.format_exc()}", flush=True)
                return
            print(f"RECORDED {rig.name}", flush=True)
    print("ALL RECORDED", flush=True)


if __name__ == "__main__":
    main()
