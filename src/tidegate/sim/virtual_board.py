"""A virtual board for a real agent: two slot files, the `file` boot loader and a supervisor that is the hardware.

The supervisor takes the boot decision, gives the agent its slot and a new boot id, and starts it as a process. Exit code 75 is the reset
line: the board boots again. Any other end is a crash: the process is started again in the same boot, as a service manager would. A slot
without a file system does not boot and costs its try.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tidegate.agent.boot import file_record as boot_file
from tidegate.agent.bootloaders.file import SLOT_VARIABLE
from tidegate.agent.files import replace_file
from tidegate.core.errors import ConfigError
from tidegate.core.release import Running
from tidegate.sim.processes import end, environment

SLOTS: Final = ("A", "B")
#: The agent ends with this code when it wants the board reset.
RESET_CODE: Final = 75
BOOT_VARIABLE: Final = "TIDEGATE_BOOT_ID"
#: A crash is answered with a restart after this, in seconds.
RESTART_S: Final = 0.3
_SUPERBLOCK: Final = (1080, b"\x53\xef")


@dataclass(frozen=True, kw_only=True)
class BoardSpec:
    """What a new board is. `installed` describes the factory image.

    Attributes:
        server: URL of the control plane.
        anchor: root metadata that the image carries.
        slot_size: bytes of each slot file, in whole MiB.
        poll_s: how often the agent asks.
        ca: the only authority whose certificates the agent believes; None = those of this machine.
    """

    device_id: str
    product: str
    model: str
    rev: int
    server: str
    anchor: bytes
    claim: str
    image: Path
    installed: Running
    slot_size: int
    attributes: dict[str, str]
    poll_s: int = 2
    ca: Path | None = None


def make_board(folder: Path, spec: BoardSpec) -> None:
    """Make a board in `folder`: slots, boot record, anchor, configuration. An existing one is left as it is.

    Raises:
        ConfigError: the image does not fit into a slot.
    """
    if (folder / "agent.toml").exists():
        return
    if spec.image.stat().st_size > spec.slot_size:
        raise ConfigError("config.invalid", f"{spec.image.name} is larger than a slot")
    (folder / "inhibit.d").mkdir(parents=True, exist_ok=True)
    _fill(slot_path(folder, "A"), spec.image, spec.slot_size)
    _fill(slot_path(folder, "B"), None, spec.slot_size)
    (folder / "root.json").write_bytes(spec.anchor)
    (folder / "errors").write_text("0\n")
    (folder / "claim").write_text(spec.claim + "\n")
    (folder / "claim").chmod(0o600)
    (folder / "installed.json").write_bytes(msgspec.json.encode(spec.installed))
    record = boot_file.BootRecord(slots=SLOTS, primary="A")
    replace_file(folder / "boot.json", boot_file.encode(record))
    (folder / "agent.toml").write_text(_configuration(folder, spec))


def slot_path(folder: Path, slot: str) -> Path:
    """Return the file of a slot."""
    return folder / f"slot-{slot}.img"


def _fill(path: Path, image: Path | None, size: int) -> None:
    with path.open("wb") as out:
        if image is not None:
            with image.open("rb") as source:
                while piece := source.read(1 << 20):
                    out.write(piece)
        out.truncate(size)


def _configuration(folder: Path, spec: BoardSpec) -> str:
    slots = "".join(
        f'[[slot]]\nname = "{name}"\npath = {json.dumps(str(slot_path(folder, name)))}\n'
        f'size = "{spec.slot_size >> 20}MiB"\n'
        for name in SLOTS
    )
    attributes = "".join(f"{k} = {json.dumps(v)}\n" for k, v in sorted(spec.attributes.items()))
    ca = f"ca = {json.dumps(str(spec.ca))}\n" if spec.ca else ""
    return f"""# A virtual board, made by `tidegate sim board`.
[device]
id = {json.dumps(spec.device_id)}
product = {json.dumps(spec.product)}
model = {json.dumps(spec.model)}
revision = {spec.rev}
installed_file = {json.dumps(str(folder / "installed.json"))}
[device.attributes]
{attributes}
[server]
url = {json.dumps(spec.server)}
{ca}root = {json.dumps(str(folder / "root.json"))}
claim_file = {json.dumps(str(folder / "claim"))}
[state]
dir = {json.dumps(str(folder / "state"))}
[socket]
path = {json.dumps(str(folder / "agent.sock"))}
[inhibit]
dir = {json.dumps(str(folder / "inhibit.d"))}
{slots}[bootloader]
name = "file"
[bootloader.file]
path = {json.dumps(str(folder / "boot.json"))}
[board]
reboot = "exit:{RESET_CODE}"
[errors]
file = {json.dumps(str(folder / "errors"))}
[poll]
interval = "{spec.poll_s}s"
[activate]
reboot_delay = "0s"
"""


class VirtualBoard:
    """The hardware under one real agent.

    Attributes:
        boots: how often the board was reset and booted.
        crashes: how often the agent's process ended without asking for a reset.
        running: the slot that runs now.
    """

    def __init__(self, folder: Path, *, tell: Callable[[str], None] | None = None) -> None:
        """Use the board in `folder`; `run` switches it on."""
        self.folder = folder
        self.boots = 0
        self.crashes = 0
        self.running = ""
        self._tell = tell or (lambda _text: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The agent's process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Switch on, in a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="board", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Switch off."""
        self._stopping.set()
        process = self._process
        if process is not None:
            end(process)
        if self._thread is not None:
            self._thread.join(10)

    def kill_agent(self) -> bool:
        """`kill -9` of the agent's process. Returns whether there was one."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def run(self) -> None:
        """Be the hardware until `stop`."""
        while not self._stopping.is_set():
            slot = self._choose()
            if not _has_file_system(slot_path(self.folder, slot)):
                self._tell(f"slot {slot}: nothing that boots in it; the watchdog resets the board")
                self._stopping.wait(RESTART_S)
                continue
            self.running = slot
            self._run_boot(slot, secrets.token_hex(8))

    def _choose(self) -> str:
        (self.folder / "booted").unlink(missing_ok=True)
        path = self.folder / "boot.json"
        record = boot_file.decode(path.read_bytes())
        slot, after = boot_file.decide(record)
        if after != record:
            replace_file(path, boot_file.encode(after))
        self.boots += 1
        self._tell(f"boot {self.boots}: slot {slot}" + (" on trial" if after != record else ""))
        return slot

    def _run_boot(self, slot: str, boot_id: str) -> None:
        # What a contract can look for on a board without systemd: a mark of this boot, and a process that lives as long as the board is on.
        (self.folder / "core.pid").write_text(f"{os.getpid()}\n")
        (self.folder / "booted").write_text(f"{boot_id}\n")
        command = [sys.executable, "-m", "tidegate.agent.main", "run"]
        command += ["--config", str(self.folder / "agent.toml")]
        while not self._stopping.is_set():
            with (self.folder / "agent.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**environment(), SLOT_VARIABLE: slot, BOOT_VARIABLE: boot_id},
                )
            code = self._process.wait()
            if code == RESET_CODE:
                return
            if not self._stopping.is_set():
                self.crashes += 1
                self._tell(f"the agent ended with {code}; started again in the same boot")
                self._stopping.wait(RESTART_S)


def _has_file_system(path: Path) -> bool:
    offset, magic = _SUPERBLOCK
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(magic)) == magic


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until a condition holds; returns whether it did."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
