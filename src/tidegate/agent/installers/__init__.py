"""Installers: how a payload gets into a slot. One file each; the `format` of a release is the file's name.

An installer is a module with one function, `download(world, settings, job, token) -> Iterator[Reply]`:

* it writes only to `job.update.slot`, which was marked bad before;
* every reply says what is durable by then; after a cut it is called again with the last progress;
* it ends with `Downloaded` once everything was flushed, or raises: TransferError when the link failed, DeviceError when this device did, PublisherError
  when what was signed cannot be installed here.

Reading the slot back is not its business: the worker does that for all of them.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, TypeVar, cast

import msgspec

from tidegate.agent.events import (
    Download,
)
from tidegate.agent.jobs import Reply
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.core.errors import ConfigError, DeviceError


class Installer(Protocol):
    """What a module here offers."""

    def download(
        self, world: World, settings: Settings, job: Download, token: str | None
    ) -> Iterator[Reply]:
        """Stream the payload into the slot, from where it stopped."""
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


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of an installer that has none."""
