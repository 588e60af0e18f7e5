"""Who says "not now", on the resident side: applications that hold a connection open, and files in a directory. Light.

Three ways in, for three kinds of software. A program that speaks to the socket holds its inhibitor as long as its connection is open: when it crashes, the
inhibitor is gone. A script leaves one behind for a time (`--for`): it stands in a file of the directory, outlives a restart of the agent, and ends by the
clock that counts the seconds of this boot, which nobody sets. And anything that can write a file can put one into the directory by hand.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH103, PTH108, PTH123

import contextlib
import os
from collections.abc import Callable
from typing import Final

import msgspec

from tidegate.agent.ports import Clock
from tidegate.core.errors import DeviceError, RequestError

#: Begins the second line of a file that ends by itself: seconds of this boot's clock.
UNTIL_MARK: Final = b"until-boot "
#: Files that the agent made; only those are removed by name.
OURS: Final = "agent-"
#: Most inhibitors that connections hold at once.
HELD_MAX: Final = 64
#: Most files of the directory that are read.
LISTED_MAX: Final = 64
_TEXT_MAX: Final = 120


class Inhibitor(msgspec.Struct, frozen=True, kw_only=True):
    """One that a connection holds. `until_mono`: seconds of this boot's clock; 0 = as long as the connection."""

    who: str
    why: str
    until_mono: float = 0.0


class Inhibitors:
    """All that says "not now" on one device.

    Args:
        clock: of this boot.
        listed: reads the directory.
    """

    def __init__(self, clock: Clock, listed: Callable[[], tuple[str, ...]]) -> None:
        self._clock = clock
        self._listed = listed
        self._held: dict[str, Inhibitor] = {}
        self._count = 0
        #: Where files are left; "" = nowhere (a simulator).
        self.directory = ""

    def now(self) -> tuple[str, ...]:
        """Say in words who says "not now" at this moment; empty = nobody."""
        mono = self._clock.monotonic()
        for name in [
            name for name, one in self._held.items() if one.until_mono and one.until_mono <= mono
        ]:
            del self._held[name]
        held = tuple(f"{one.who}: {one.why}" for one in self._held.values())
        return held + self._listed()

    def hold(self, who: str, why: str, for_s: int) -> str:
        """Take one that a connection holds; return its name.

        Raises:
            RequestError: `request.rate_limited`: there are too many.
        """
        if len(self._held) >= HELD_MAX:
            raise RequestError("request.rate_limited", f"{HELD_MAX} inhibitors are held already")
        self._count += 1
        name = f"c{self._count}"
        until = self._clock.monotonic() + for_s if for_s else 0.0
        self._held[name] = Inhibitor(who=_plain(who), why=_plain(why), until_mono=until)
        return name

    def drop(self, name: str) -> None:
        """Let one go that a connection held. Safe to repeat."""
        self._held.pop(name, None)

    def leave(self, who: str, why: str, for_s: int) -> str:
        """Leave one in a file that ends after `for_s` seconds of this boot; return its name.

        Raises:
            DeviceError: `install.write`: the file cannot be written.
        """
        name = OURS + os.urandom(4).hex()
        until = int(self._clock.monotonic()) + for_s
        body = f"{_plain(who)}: {_plain(why)}\n".encode() + UNTIL_MARK + b"%d\n" % until
        path = f"{self.directory}/{name}"
        try:
            os.makedirs(self.directory, exist_ok=True)
            with open(f"{self.directory}/.{name}", "wb") as file:
                file.write(body)
            os.rename(f"{self.directory}/.{name}", path)  # noqa: PTH104 - see above
        except OSError as error:
            raise DeviceError("install.write", f"{path}: {error.strerror}") from error
        return name

    def end(self, name: str) -> None:
        """Take away a file that `leave` made.

        Raises:
            RequestError: `request.not_found`.
        """
        if not name.startswith(OURS) or not name.removeprefix(OURS).isalnum():
            raise RequestError("request.not_found", f"no inhibitor {name[:40]!r} that was left")
        try:
            os.unlink(f"{self.directory}/{name}")
        except OSError as error:
            raise RequestError("request.not_found", f"no inhibitor {name[:40]!r}") from error


def listed(directory: str, boot_s: float) -> tuple[str, ...]:
    """Read the directory: one file each, its first line the reason. A file of the agent's own that is over is removed.

    Args:
        directory: need not be there.
        boot_s: seconds of this boot's clock.
    """
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(directory), key=lambda one: one.name)[:LISTED_MAX]:
            if entry.name.startswith(".") or not entry.is_file():
                continue
            line, over = _read(entry.path, boot_s)
            if over:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
                continue
            found.append(f"{entry.name}: {line}" if line else entry.name)
    return tuple(found)


def _read(path: str, boot_s: float) -> tuple[str, bool]:
    """Return a file's first line, and whether its time is over. One that cannot be read holds: it was put there for a reason."""
    try:
        with open(path, "rb") as file:
            first, _, rest = file.read(1024).partition(b"\n")
    except OSError:
        return "", False
    over = False
    if rest.startswith(UNTIL_MARK):
        digits = rest.removeprefix(UNTIL_MARK).split(b"\n")[0].strip()
        over = digits.isdigit() and len(digits) < 16 and int(digits) <= boot_s
    return _plain(first[:200].decode("utf-8", "replace")), over


def _plain(text: str) -> str:
    """Return a text that a line of a status can hold."""
    return "".join(one if one.isprintable() else "?" for one in text)[:_TEXT_MAX]
