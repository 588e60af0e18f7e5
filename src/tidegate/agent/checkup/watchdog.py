"""The hardware watchdog: fed while an image on trial is healthy, so that one that hangs is taken back by the boot loader.

Whoever holds the device feeds it, and only from the loop itself: a loop that hangs feeds nothing. From the moment at which a trial is lost the food stops as
well: the device has until the time-out to go back in order, and is reset when it cannot even do that. A device that is configured for it and not there, or
that somebody else holds (systemd's `RuntimeWatchdogSec`), is a problem that is told, never a reason not to run.

Source: Documentation/watchdog/watchdog-api.rst of Linux. `WDIOC_SETTIMEOUT` and `WDIOC_SETPRETIMEOUT` are the same numbers on every architecture, which holds
for no other request that is of use here: the rest is read from `/sys/class/watchdog`.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import contextlib
import errno
import os
import struct
from typing import Final, Literal, Protocol

from tidegate.agent.settings import WatchdogSettings
from tidegate.agent.state import Confirming, Reverting, State, Testing

_SET_TIMEOUT: Final = 0xC0045706
_SET_PRETIMEOUT: Final = 0xC0045708
SYSFS: Final = "/sys/class/watchdog"
#: Without a timer of its own the loop may sleep for ever.
NEVER: Final = float("inf")
#: Times that a watchdog is fed before it would bite.
_MEALS: Final = 3
_INT: Final = struct.Struct("i")

#: `fed`: it is fed; `starved`: it runs, and gets nothing any more; `off`: it is not wanted.
Care = Literal["fed", "starved", "off"]


def care(state: State, *, always: bool) -> Care:
    """Say how the watchdog is to be treated now. Pure.

    Args:
        state: what the agent knows.
        always: fed outside trials too.
    """
    phase = state.phase
    if isinstance(phase, Testing | Confirming):
        return "fed"
    if isinstance(phase, Reverting) and phase.slot == state.current:
        # The running image is lost. Going back takes seconds; what takes longer hangs.
        return "starved"
    return "fed" if always else "off"


class Driver(Protocol):
    """The device, as far as it is used."""

    def open(self, path: str) -> int:
        """Open it for writing: this starts it. Raises OSError."""
        ...

    def request(self, handle: int, number: int, value: int) -> int:
        """Make a request with a number that it answers with one. Raises OSError."""
        ...

    def write(self, handle: int, data: bytes) -> None:
        """Write: any byte feeds, `V` before the end stops it where it lets itself be stopped. Raises OSError."""
        ...

    def close(self, handle: int) -> None:
        """Let it go. Raises OSError."""
        ...

    def attribute(self, path: str, name: str) -> str:
        """Return what the kernel says of it, "" where it says nothing."""
        ...


class Kernel:
    """`Driver` of the running kernel."""

    def open(self, path: str) -> int:
        """Open the device."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def request(self, handle: int, number: int, value: int) -> int:
        """Make a request."""
        import fcntl

        return int(_INT.unpack(fcntl.ioctl(handle, number, _INT.pack(value)))[0])

    def write(self, handle: int, data: bytes) -> None:
        """Write."""
        os.write(handle, data)

    def close(self, handle: int) -> None:
        """Let it go."""
        os.close(handle)

    def attribute(self, path: str, name: str) -> str:
        """Read one file of `/sys/class/watchdog`."""
        # The plain name is that of the first one.
        device = os.path.basename(path)  # noqa: PTH119 - pathlib, as above
        device = "watchdog0" if device == "watchdog" else device
        try:
            with open(f"{SYSFS}/{device}/{name}", encoding="ascii", errors="replace") as file:
                return file.read(256).strip()
        except OSError:
            return ""


class Watchdog:
    """Holds the device while it is wanted.

    Args:
        settings: which device, and its times.
        driver: what it is reached through.

    Attributes:
        problem: why it does not work, or "".
    """

    def __init__(self, settings: WatchdogSettings, driver: Driver | None = None) -> None:
        self._settings = settings
        self._driver = driver or Kernel()
        self._handle: int | None = None
        self._timeout_s = 0
        self._given_up = False
        self._told = ""
        self.problem = ""

    @property
    def interval_s(self) -> float:
        """How often `tend` must be called, in seconds; infinity while it does not run."""
        return NEVER if self._handle is None else max(1.0, self._timeout_s / _MEALS)

    def tend(self, state: State, *, ending: bool = False) -> None:
        """Feed it, or not, as the state says. Called from the loop after every step.

        Args:
            state: what the agent knows.
            ending: the device is about to restart: a shutdown that hangs is cut off.
        """
        wanted = care(state, always=self._settings.always)
        if ending or wanted == "starved":
            return
        if wanted == "fed":
            self._feed()
        elif self._handle is not None and not self._must_go_on():
            self._stop()

    def release(self, state: State) -> None:
        """Let it go as the process ends: stopped, but for a trial, which nobody would watch from then on."""
        if self._handle is None:
            return
        on_trial = care(state, always=False) != "off"
        if on_trial:
            self._let_go()
        else:
            self._stop()

    def _feed(self) -> None:
        if self._handle is None:
            self._open()
        if self._handle is None:
            return
        try:
            self._driver.write(self._handle, b"\0")
        except OSError as error:
            self._complain(f"cannot be fed: {error.strerror}")

    def _open(self) -> None:
        if self._given_up:
            return
        settings = self._settings
        try:
            self._handle = self._driver.open(settings.device)
        except OSError as error:
            # Whoever else holds it does so for good: it is not asked for again and again.
            self._given_up = True
            busy = "; systemd holds it? RuntimeWatchdogSec=off, or no [watchdog] here"
            held = busy if error.errno == errno.EBUSY else ""
            self._complain(f"cannot be opened: {error.strerror}{held}")
            return
        self._timeout_s = self._set_timeout(settings.timeout_s)
        if self._timeout_s < settings.least_s:
            self._given_up = True
            self._complain(
                f"bites after {self._timeout_s} s; a server that does not answer may take {settings.least_s} s"
            )
            self._stop()
            return
        if settings.pretimeout_s:
            with contextlib.suppress(OSError):
                self._driver.request(self._handle, _SET_PRETIMEOUT, settings.pretimeout_s)

    def _set_timeout(self, wanted_s: int) -> int:
        """Ask for a time-out. Return what it really is, in seconds; 0 where nobody says."""
        assert self._handle is not None  # noqa: S101 - opened by the caller; for the type checker
        try:
            return self._driver.request(self._handle, _SET_TIMEOUT, wanted_s)
        except OSError:
            told = self._driver.attribute(self._settings.device, "timeout")
            return int(told) if told.isdigit() else 0

    def _must_go_on(self) -> bool:
        """Say whether it cannot be stopped, and would bite a healthy device: then it is fed as long as this agent runs."""
        if self._driver.attribute(self._settings.device, "nowayout") == "0":
            return False
        self._feed()
        return True

    def _stop(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._driver.write(self._handle, b"V")
        self._let_go()

    def _let_go(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                self._driver.close(handle)

    def _complain(self, words: str) -> None:
        # Once for each, not at every meal.
        if words != self._told:
            self._told = words
            self.problem = f"watchdog: {self._settings.device} {words}"
