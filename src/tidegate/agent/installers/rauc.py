"""Installer `rauc`: hands a RAUC bundle (`.raucb`) to the board's own RAUC, over its command line and so over D-Bus.

The release's `image` is the bundle, `installed` the image inside that RAUC writes into the slot. Both are signed; the slot is read back against the second,
whatever RAUC says. RAUC still checks its own signature against its own keyring.

What must hold on the board: `activate-installed=false` in `[system]` of RAUC's configuration, so that nothing boots the slot before Tidegate has leave to; a
slot type that is copied as it is (`raw`, or an image for `ext4` that is not resized); and slots whose `bootname` is the slot's name in `agent.toml`.

`[installer.rauc]`: `program` (default `rauc`), `config` (default `/etc/rauc/system.conf`, only read), `timeout_s` (default 3600).
"""

import configparser
import json
from collections.abc import Iterator

import msgspec

from tidegate.agent.events import Download
from tidegate.agent.install import spool
from tidegate.agent.install.tool import Tool, require
from tidegate.agent.installers import options
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.core.errors import BusyError, DeviceError

#: What RAUC says while another installation is under way, for one that an agent began before it was killed.
_BUSY = "Already processing"
#: `rauc status` answers at once, or not at all.
_STATUS_S = 30.0


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[installer.rauc]`."""

    program: str = "rauc"
    config: str = "/etc/rauc/system.conf"
    timeout_s: int = 3600


def download(world: World, settings: Settings, job: Download, token: str | None) -> Iterator[Reply]:
    """Fetch the bundle and have RAUC install it.

    Raises:
        TransferError, PublisherError, DeviceError: see the package.
    """
    chosen = options(settings, "rauc", Options)
    slot = job.update.slot
    _require_inert(chosen)
    yield from _require_target(world, chosen, slot)

    def install(path: str) -> Iterator[Quiet]:
        tool = Tool([chosen.program, "install", path], timeout_s=chosen.timeout_s)
        yield from tool.run()
        if tool.status != 0:
            if _BUSY in tool.output:
                raise BusyError("install.installer", "rauc still installs what it was told before")
            raise DeviceError("install.installer", f"rauc: {_fault(tool)}")
        _require_quiet(world, slot)

    yield from spool.through(world, settings, job, token, install)


def ready(settings: Settings) -> None:
    """Ask whether RAUC is here, and keeps its hands off the boot loader.

    Raises:
        DeviceError: `install.installer`.
    """
    chosen = options(settings, "rauc", Options)
    require(chosen.program, "RAUC")
    _require_inert(chosen)


def _require_inert(chosen: Options) -> None:
    """Refuse a RAUC that would activate what it installs: leave to do so is asked for later."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        with open(chosen.config, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as elsewhere here
            parser.read_file(file)
        word = parser.get("system", "activate-installed", fallback="true")
    except (OSError, configparser.Error) as error:
        detail = f"{chosen.config}: {getattr(error, 'strerror', None) or error}"
        raise DeviceError("install.installer", detail[:300]) from error
    if word.strip().lower() not in ("false", "0"):
        raise DeviceError(
            "install.installer",
            f"{chosen.config} lets RAUC boot what it installs: [system] activate-installed=false belongs there",
        )


def _require_target(world: World, chosen: Options, slot: str) -> Iterator[Quiet]:
    """Refuse before anything is fetched when RAUC would write another slot than the candidate."""
    tool = Tool([chosen.program, "status", "--output-format=json"], timeout_s=_STATUS_S)
    yield from tool.run()
    try:
        found = json.loads(next(one for one in tool.output.splitlines() if one.startswith("{")))
        booted = str(found["booted"])
        names = {
            str(s.get("bootname")): str(s.get("state")) for d in found["slots"] for s in d.values()
        }
    except (StopIteration, ValueError, KeyError, AttributeError, TypeError) as error:
        detail = f"rauc status: {tool.last() or 'no answer'}; is the rauc service running?"
        raise DeviceError("install.installer", detail) from error
    current = world.board.bootloader.current()
    if booted != current and names.get(current) != "booted":
        raise DeviceError(
            "install.installer", f"rauc runs from {booted[:64]!r}, and Tidegate from {current!r}"
        )
    if slot not in names:
        detail = f"rauc knows no slot with bootname={slot}; it has: {', '.join(sorted(names))}"
        raise DeviceError("install.installer", detail[:300])


def _require_quiet(world: World, slot: str) -> None:
    """Undo and refuse an activation that RAUC made all the same."""
    loader = world.board.bootloader
    if loader.primary() == slot or loader.state(slot) == "trial":
        loader.mark_bad(slot)
        raise DeviceError("install.installer", "rauc activated the slot without leave; undone")


def _fault(tool: Tool) -> str:
    for line in reversed(tool.output.splitlines()):
        kind, _, rest = line.partition(":")
        if kind.strip() == "LastError" and rest.strip():
            return rest.strip()[:300]
    return tool.last() or f"exit status {tool.status}"
