"""This device: slots as block devices or files, the boot's name, the power switch, the clock."""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH112, PTH123, PTH208

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from tidegate.agent.ports import (
    ArguedReboot,
    Bootloader,
    ComponentPlace,
    Proof,
    SlotDevice,
    SlotName,
)
from tidegate.core.errors import DeviceError

#: Set by whoever starts a virtual board: the name of this boot.
BOOT_VARIABLE: Final = "TIDEGATE_BOOT_ID"
#: Where the kernel says the name of this boot.
BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
#: Where the kernel keeps what it said before it went down, and where systemd-pstore(8) puts that away.
PSTORE: Final = ("/sys/fs/pstore", "/var/lib/systemd/pstore")
_WATCHDOGS: Final = "/sys/class/watchdog"
#: `WDIOF_CARDRESET` of linux/watchdog.h: the board was last reset by its watchdog.
_CARD_RESET: Final = 0x20

#: `adjtimex(2)`: the state in which nobody synchronises the clock, and room for any layout of `struct timex`.
_TIME_ERROR: Final = 5
_TIMEX_ROOM: Final = 512
#: A battery-backed clock that is kept in local time differs by less than this from the system's, in seconds.
_RTC_AGREES_S: Final = 86_400


class SystemClock:
    """`agent.ports.ProvenClock` of the running system. `monotonic` goes on while the device sleeps.

    Args:
        rtc: where the kernel lists battery-backed clocks.
    """

    def __init__(self, rtc: str = "/sys/class/rtc") -> None:
        self._rtc = rtc

    def now(self) -> float:
        """Unix seconds by the system's clock."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the system's start, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(max(0.0, seconds))

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable bytes of the kernel."""
        return os.urandom(count)

    def proof(self) -> Proof:
        """Say what vouches for `now`: the kernel's own word (NTP, PTP), else a battery-backed clock that says the same."""
        if _synchronised():
            return "synced"
        try:
            names = sorted(os.listdir(self._rtc))
        except OSError:
            return "none"
        return "rtc" if any(self._agrees(name) for name in names) else "none"

    def set(self, at: float) -> bool:
        """Set the system's clock; False where this process may not."""
        try:
            time.clock_settime(time.CLOCK_REALTIME, at)
        except OSError:
            return False
        return True

    def _agrees(self, name: str) -> bool:
        try:
            with open(f"{self._rtc}/{name}/since_epoch", "rb") as file:
                told = int(file.read(32))
        except (OSError, ValueError):
            return False
        return abs(told - self.now()) < _RTC_AGREES_S


def _synchronised() -> bool:
    """Ask the kernel whether something disciplines the clock (`adjtimex(2)`, modes 0: nothing is changed)."""
    # Only the worker comes here: ctypes would cost the resident process a MiB.
    import ctypes

    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_ROOM)))
    return 0 <= state < _TIME_ERROR


class RealBoard:
    """`agent.ports.Board` from the configuration.

    Args:
        slots: path and size (None for block devices) by name, two of them.
        bootloader: who decides what boots.
        beside: the folder of each component beside the slots, by name.
        reboot: a command; or `exit:N`: end this process with that code, for virtual boards whose supervisor starts it again.
        seen: file that remembers what of earlier boots was reported.
    """

    def __init__(
        self,
        slots: Mapping[SlotName, tuple[str, int | None]],
        bootloader: Bootloader,
        reboot: str,
        seen: str,
        beside: Mapping[str, str] | None = None,
    ) -> None:
        self.bootloader: Bootloader = bootloader
        self._beside = dict(beside or {})
        self._slots = dict(slots)
        self._reboot = reboot
        self._seen = seen
        self._boot_id = os.environ.get(BOOT_VARIABLE) or _system_boot_id()
        self.exit_code: int | None = None

    def slots(self) -> tuple[SlotName, SlotName]:
        """The names of the two slots."""
        first, second = self._slots
        return first, second

    def open_slot(self, slot: SlotName) -> SlotDevice:
        """Open a slot's bytes. The running slot is never opened for writing.

        Raises:
            DeviceError: `install.slot`.
        """
        path, size = self._candidate(slot)
        if os.path.isdir(path):
            raise DeviceError("install.slot", f"{path} is a folder: only archives go into it")
        # The worker's business alone.
        from tidegate.agent.install.slot_file import SlotFile

        return SlotFile(path, size)

    def slot_folder(self, slot: SlotName) -> str:
        """Return the folder of a slot that is one.

        Raises:
            DeviceError: `install.slot`.
        """
        path, _ = self._candidate(slot)
        if not os.path.isdir(path):
            raise DeviceError("install.slot", f"{path} is no folder: archives go into folders only")
        return path

    def component(self, name: str) -> ComponentPlace:
        """Return where a component is kept.

        Raises:
            DeviceError: `install.slot`.
        """
        # The worker's business alone.
        from tidegate.agent.install.component_folder import ComponentFolder

        if name not in self._beside:
            raise DeviceError("install.slot", f"no [component.{name[:64]}] in agent.toml")
        return ComponentFolder(self._beside[name])

    def _candidate(self, slot: SlotName) -> tuple[str, int | None]:
        if slot not in self._slots or slot == self.bootloader.current():
            raise DeviceError("install.slot", f"slot {slot[:64]!r} is running, or not there")
        return self._slots[slot]

    def boot_id(self) -> str:
        """A name for this boot."""
        return self._boot_id

    def reboot(self) -> None:
        """Restart the device, or let this process end with the code agreed on.

        Raises:
            DeviceError: `activate.bootloader`: the command failed.
        """
        kind, _, code = self._reboot.partition(":")
        if kind == "exit":
            self.exit_code = int(code)
            return
        command = self._reboot.split()
        loader = self.bootloader
        argument = loader.reboot_argument() if isinstance(loader, ArguedReboot) else None
        if argument is not None:
            # `systemctl reboot` takes it as an option; `reboot` of systemd, of SysV and of vendors as its last word.
            option = "--reboot-argument=" if command[0].endswith("systemctl") else ""
            command.append(f"{option}{argument}")
        try:
            subprocess.run(command, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise DeviceError("activate.bootloader", f"reboot: {error}"[:200]) from error

    def boot_log(self, armed_boot: str) -> str:
        """The end of the previous boot: what the kernel kept (pstore), and its journal where that is kept and is not the boot that set the boot flag."""
        # Loaded in a trial only.
        from tidegate.agent.checkup import evidence

        return evidence.previous(self._seen, armed_boot)

    def running_log(self) -> str:
        """The end of this boot: its journal, or the kernel's own messages."""
        from tidegate.agent.checkup import evidence

        return evidence.running()

    def whole_log(self) -> str:
        """The ends of this boot's log and of the one before: journals, or the kernel's own messages."""
        from tidegate.agent.checkup import evidence

        return evidence.whole()

    def log_kept(self) -> None:
        """Remember what the kernel kept, so that it is reported once. Costs one look where nothing is kept."""
        if not any(_listed(one) for one in PSTORE):
            return
        from tidegate.agent.checkup import evidence

        evidence.remember(self._seen)

    def last_words(self) -> str:
        """Say whether the kernel left a panic behind that was not there before. Costs one look where nothing is kept."""
        if not any(_listed(one) for one in PSTORE):
            return ""
        from tidegate.agent.checkup import evidence

        return "panic" if evidence.panicked(self._seen) else ""

    def watchdog_reset(self) -> bool:
        """Say whether a watchdog's driver reports that it made this boot (`WDIOF_CARDRESET`)."""
        for name in _listed(_WATCHDOGS):
            with contextlib.suppress(OSError, ValueError):
                if int(_read(f"{_WATCHDOGS}/{name}/bootstatus"), 0) & _CARD_RESET:
                    return True
        return False


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _system_boot_id() -> str:
    try:
        return _read(BOOT_ID).decode().strip()
    except OSError:
        return os.urandom(16).hex()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)
