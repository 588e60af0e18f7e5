"""Boot loaders: who decides what boots. One file each; `[bootloader] name` in `agent.toml` is the file's name.

A back end is a module with `create(settings) -> Bootloader` (`agent.ports.Bootloader`). What must hold (`tests/contract/test_bootloader.py`):

* each change is one atomic, durable write; after a cut it is old or new, never half; each may be repeated;
* `current` is what this system was booted from, not what would be booted next;
* reading never changes anything; a damaged record raises DeviceError `activate.bootloader` and is never taken for a default;
* the loader spends a try before it boots a slot on trial, and goes back to the primary by itself when none is left.
"""

from collections.abc import Mapping
from typing import Protocol, cast

from tidegate.agent import backends
from tidegate.agent.ports import Bootloader
from tidegate.core.errors import ConfigError

#: What `[bootloader.NAME]` holds, with the slots' names under `slots`.
BootSettings = Mapping[str, object]


class Backend(Protocol):
    """What a module here offers."""

    def create(self, settings: BootSettings) -> Bootloader:
        """Make the boot loader. Raises ConfigError for settings that cannot work."""
        ...


def names() -> list[str]:
    """Name the boot loaders that are shipped."""
    import pkgutil  # costs 0.7 MiB: only where names are asked for

    found = (one.name for one in pkgutil.iter_modules(__path__))
    return sorted(found)


def load(name: str, settings: BootSettings) -> Bootloader:
    """Make a boot loader by name.

    Raises:
        ConfigError: `config.invalid`: no such back end, or settings that cannot work.
    """
    backend = cast("Backend | None", backends.find(__name__, name))
    if backend is None:
        raise ConfigError(
            "config.invalid",
            f"[bootloader] name {name[:64]!r} is none of: {', '.join(names())}",
        )
    return backend.create(settings)
