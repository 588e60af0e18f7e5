"""Installers: how a payload gets to where it belongs. One file each; the `format` of a release is the file's name.

Every installer has `download(world, settings, job, token) -> Iterator[Reply]`:

* it writes only where `job` says: into the candidate slot, which was marked bad before, or beside the slots, where nothing is live yet;
* every reply says what is durable by then; after a cut it is called again with the last progress;
* it ends with `Downloaded` once everything was flushed, or raises: TransferError when the link failed, DeviceError when this device did, PublisherError
  when what was signed cannot be installed here.

Two more functions where they are needed:

* `read_back(world, settings, job)` raises unless what stands there, read from the medium, is what was signed. Without it the worker compares the slot's
  bytes with the signed digest. After it, what is staged is still inert.
* `change(world, settings, update, part, act) -> Done` makes an installer one for components beside the slots: `activate` makes what was staged live,
  `verify` asks after a restart whether it came up, `commit` says that it is for good, `roll_back` takes it back (`verify_back` asks after a restart whether
  that worked), `discard` cleans up, always as the last one. Each may be repeated, and is, after a cut at any moment.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, TypeVar, cast, runtime_checkable

import msgspec

from tidegate.agent.events import (
    Act,
    Download,
    ReadBack,
)
from tidegate.agent.jobs import Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.state import Update
from tidegate.core.errors import ConfigError, DeviceError


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A component did it. `restart`: it wants the device to restart. `final`: it cannot be taken back any more."""

    restart: bool = False
    final: bool = False


class Installer(Protocol):
    """What a module here offers."""

    def download(
        self, world: World, settings: Settings, job: Download, token: str | None
    ) -> Iterator[Reply]:
        """Stream the payload to where it belongs, from where it stopped."""
        ...


@runtime_checkable
class OwnReader(Protocol):
    """An installer that reads back by itself what it made."""

    def read_back(self, world: World, settings: Settings, job: ReadBack) -> None:
        """Raise DeviceError `install.readback` unless what stands there is what was signed."""
        ...


@runtime_checkable
class Beside(Protocol):
    """An installer for components beside the slots."""

    def change(self, world: World, settings: Settings, update: Update, part: int, act: Act) -> Done:
        """Make live, verify, commit, take back or clean up one piece of an update."""
        ...


def names() -> list[str]:
    """Name the installers that are shipped."""
    return sorted(one.name for one in pkgutil.iter_modules(__path__))


def load(name: str, allowed: tuple[str, ...]) -> Installer:
    """Return an installer.

    Raises:
        DeviceError: `install.installer`: not one of ours, or not allowed on this device.
    """
    if name not in names():
        raise DeviceError(
            "install.installer", f"no installer {name[:64]!r}; there are: {', '.join(names())}"
        )
    if name not in allowed:
        raise DeviceError("install.installer", f"installer {name!r} is not allowed on this device")
    return cast("Installer", importlib.import_module(f"{__name__}.{name}"))


def beside(name: str, allowed: tuple[str, ...]) -> Beside:
    """Return an installer for components beside the slots.

    Raises:
        DeviceError: `install.installer`: as `load`, or one that knows slots only.
    """
    found = load(name, allowed)
    if not isinstance(found, Beside):
        raise DeviceError(
            "install.installer", f"installer {name!r} writes slots, not components beside them"
        )
    return found


Options = TypeVar("Options")


def options(settings: Settings, name: str, kind: type[Options]) -> Options:
    """Return what `[installer.NAME]` holds.

    Raises:
        DeviceError: `install.installer`: a key that this installer does not know, or a wrong value.
    """
    try:
        return msgspec.convert(settings.installers.get(name, {}), kind)
    except msgspec.ValidationError as error:
        raise DeviceError(
            "install.installer",
            f"[installer.{name}]: {error}",
            hint="mend agent.toml; `tidegate-agent config check` looks at it",
        ) from error


def check(settings: Settings) -> None:
    """Look at what the configuration says of installers, before one of them is needed.

    Raises:
        ConfigError: `config.invalid`: an installer that is not there, or settings that it cannot take.
    """
    for name in sorted({*settings.allow, *settings.installers}):
        if name not in names():
            raise ConfigError(
                "config.invalid", f"[installer] {name[:64]!r} is none of: {', '.join(names())}"
            )
        kind = getattr(importlib.import_module(f"{__name__}.{name}"), "Options", _Nothing)
        try:
            options(settings, name, kind)
        except DeviceError as error:
            raise ConfigError("config.invalid", error.detail) from error


def ready(settings: Settings, name: str) -> None:
    """Ask an installer whether this board has what it needs; those that need nothing have no `ready`.

    Raises:
        DeviceError: `install.installer`.
    """
    ask = getattr(load(name, (name,)), "ready", None)
    if ask is not None:
        ask(settings)


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of an installer that has none."""
