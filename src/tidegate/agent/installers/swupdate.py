"""Installer `swupdate`: hands an SWU file to the board's own SWUpdate, started for this one job.

The release's `image` is the `.swu`, `installed` the image inside that SWUpdate writes into the slot. Both are signed; the slot is read back against the second,
whatever SWUpdate says. SWUpdate still checks its own signature with its own key.

It is kept from the boot loader's record (no boot loader interface, no markers): a `bootenv` section of the SWU has no effect, and nothing boots the slot
before Tidegate has leave to. Its sockets lie in a directory of this run, so that a daemon of the same name is not disturbed.

`[installer.swupdate]`: `program` (default `swupdate`), `key` (certificate or public key, `-k`; needed unless your build checks no signatures), `select`
(which set and mode of the `sw-description` writes the candidate; `{slot}` is its name; default `stable,{slot}`), `hardware` (`-H`; default MODEL:REVISION of
the device), `arguments` (further ones, a list), `timeout_s` (default 3600).
"""

import os
import tempfile
from collections.abc import Iterator

import msgspec

from tidegate.agent.events import Download
from tidegate.agent.install import spool
from tidegate.agent.install.tool import Tool, require
from tidegate.agent.installers import options
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.core.errors import DeviceError


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[installer.swupdate]`."""

    program: str = "swupdate"
    key: str = ""
    select: str = "stable,{slot}"
    hardware: str = ""
    arguments: tuple[str, ...] = ()
    timeout_s: int = 3600


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Fetch the file and have SWUpdate install it.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    chosen = options(settings, "swupdate", Options)

    def install(path: str) -> Iterator[Quiet]:
        # Not in the spool: its sockets' paths have at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="tg-") as folder:
            tool = Tool(
                _command(chosen, settings, job.update.slot, path),
                timeout_s=chosen.timeout_s,
                environment={"TMPDIR": folder},
            )
            yield from tool.run()
        if tool.status != 0:
            raise DeviceError("install.installer", f"swupdate: {_fault(tool)}")

    yield from spool.through(world, settings, job, token, install)


def ready(settings: Settings) -> None:
    """Ask whether SWUpdate is here, and its key.

    Raises:
        DeviceError: `install.installer`.
    """
    chosen = options(settings, "swupdate", Options)
    require(chosen.program, "SWUpdate")
    if chosen.key and not os.path.exists(chosen.key):  # noqa: PTH110 - as elsewhere here
        raise DeviceError("install.installer", f"[installer.swupdate] key: no {chosen.key}")


def _command(chosen: Options, settings: Settings, slot: str, path: str) -> list[str]:
    hardware = chosen.hardware or f"{settings.hardware.model}:{settings.hardware.rev}"
    return [
        *(chosen.program, "-i", path, "-H", hardware),
        *(("-k", chosen.key) if chosen.key else ()),
        *("-e", chosen.select.replace("{slot}", slot)),
        *("--bootloader", "none", "--no-transaction-marker", "--no-state-marker"),
        *chosen.arguments,
    ]


def _fault(tool: Tool) -> str:
    """Return the first error it named: the later ones only repeat that it failed."""
    for line in tool.output.splitlines():
        if "ERROR" in line and "]" in line:
            return line.rpartition("] ")[2].removeprefix(": ").strip()[:300]
    return tool.last() or f"exit status {tool.status}"
