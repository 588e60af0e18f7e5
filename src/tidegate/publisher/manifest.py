"""`release.toml` and `health.toml`: what a team writes about a release, read strictly and turned into what is signed."""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.amounts import is_off, parse_duration, parse_size
from tidegate.core.content import keep_of, module_of
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.hardware import HardwareRange
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import (
    HealthCheck,
    HealthContract,
    InstallSettings,
    Mirrors,
    Requirement,
)
from tidegate.core.supply.documents import LIMITS
from tidegate.publisher.staging import StagingSpec, parse_staging

#: How long a release allows the way back to its predecessor, unless it says otherwise.
FALLBACK_S: Final = 30 * 86_400
_DAY: Final = 86_400
#: Types whose `image` is a package of another installer.
PACKAGES: Final = frozenset({"rauc", "swupdate"})

#: What the installer of a type is told: keys of `[[component]]` that are signed as they stand.
SETTINGS: Final[dict[str, frozenset[str]]] = {
    "archive": frozenset({"keep"}),
    "module": frozenset({"module", "meta_data", "rollback"}),
}
_READERS: Final[dict[str, Callable[[InstallSettings], object]]] = {
    "archive": keep_of,
    "module": module_of,
}

_TOP: Final = frozenset(
    {
        *("schema", "product", "version", "counter", "security_version", "kind", "channels"),
        *("contract", "notes", "from", "min_agent", "source", "fallback", "fallback_to", "expires"),
        *("hardware", "component", "requires", "mandate", "attachments", "mirrors"),
    }
)
_HEALTH: Final = frozenset(
    {"schema", "name", "warm_up", "every", "give_up", "errors_per_hour", "check"}
)


@dataclass(frozen=True)
class ComponentSpec:
    """One artifact to be built: an image file, or a directory that becomes an ext4 image of `size` bytes.

    Attributes:
        hardware: what this one is made for, where that is not what the whole release is made for.
        health: its own contract; None = the release's.
        attachments: its own, as (kind, file), beside the release's.
        installed: the image inside, where `source` is a package of a foreign installer: what stands in the slot afterwards.
        settings: what its installer is told, signed.
        beside: components of this release that it is installed with, all or none; () = an artifact of its own.
    """

    name: str
    format: str
    source: Path
    size: int
    hardware: tuple[HardwareRange, ...] = ()
    health: HealthContract | None = None
    attachments: tuple[tuple[str, Path], ...] = ()
    installed: Path | None = None
    settings: InstallSettings = field(default_factory=dict)
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReleaseSpec:
    """A release as its team describes it; see `docs/reference/payload.md` for what becomes of it."""

    product: str
    version: str
    counter: int
    security_version: int
    kind: str
    channels: tuple[str, ...]
    hardware: tuple[HardwareRange, ...]
    components: tuple[ComponentSpec, ...]
    health: HealthContract
    notes: str
    source: str
    min_agent: str | None
    from_counters: tuple[tuple[int, int], ...]
    requires: tuple[Requirement, ...]
    fallback_s: int
    expires_s: int
    #: Counters that a way back is allowed to, instead of the predecessor; () = the predecessor.
    fallback_to: tuple[int, ...] = ()
    #: Offline-signed staging; None = rings alone decide.
    mandate: StagingSpec | None = None
    #: What is attached to every component, as (kind, file).
    attachments: tuple[tuple[str, Path], ...] = ()
    #: Where devices may fetch the payloads, in the order in which they try.
    mirrors: tuple[str, ...] = ()


def read_release(path: Path) -> ReleaseSpec:
    """Read a release manifest and the health contract that it names.

    Raises:
        ConfigError: `config.*`, naming file and key.
    """
    plain = _toml(path)
    where = path.name
    _known(plain, _TOP, where)
    contract = plain.get("contract")
    health = read_health(path.parent / str(contract)) if contract else HealthContract()
    components = tuple(
        _component(one, path.parent, f"{where}: [[component]]")
        for one in _tables(plain, "component")
    )
    if not components:
        raise ConfigError("config.missing", f"{where}: [[component]]")
    _check_parts(components, where)
    expires = str(plain.get("expires", "180d"))
    return ReleaseSpec(
        product=_text(plain, "product", where),
        version=_text(plain, "version", where),
        counter=_number(plain, "counter", where),
        security_version=_number(plain, "security_version", where, 0),
        kind=_text(plain, "kind", where, "feature"),
        channels=tuple(_texts(plain, "channels", where)) or ("stable",),
        hardware=tuple(_hardware(one, where) for one in _hardware_tables(plain, where)),
        components=components,
        health=health,
        notes=_notes(plain, path.parent),
        source=_text(plain, "source", where, ""),
        min_agent=_text(plain, "min_agent", where, "") or None,
        from_counters=_counters(plain.get("from"), where),
        requires=tuple(_requirement(one, where) for one in _tables(plain, "requires")),
        fallback_s=_fallback(plain.get("fallback"), where),
        expires_s=parse_duration(expires, f"{where}: expires"),
        fallback_to=_fallback_to(plain.get("fallback_to", []), where),
        mandate=parse_staging(plain["mandate"], f"{where}: mandate")
        if "mandate" in plain
        else None,
        attachments=_attachments(plain, path.parent, where),
        mirrors=_mirrors(plain.get("mirrors", []), where),
    )


def read_health(path: Path) -> HealthContract:
    """Read a health contract.

    Raises:
        ConfigError: `config.*`, naming file and key.
    """
    plain = _toml(path)
    where = path.name
    _known(plain, _HEALTH, where)
    checks = tuple(_check(one, where) for one in _tables(plain, "check"))
    values = {
        "warmup_s": parse_duration(plain.get("warm_up", "10m"), f"{where}: warm_up"),
        "timeout_s": parse_duration(plain.get("give_up", "30m"), f"{where}: give_up"),
        "interval_s": parse_duration(plain.get("every", "10s"), f"{where}: every"),
        "error_rate_per_hour": plain.get("errors_per_hour"),
        "checks": msgspec.to_builtins(checks),
    }
    try:
        made = msgspec.convert(values, type=HealthContract)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{where}: {error}") from error
    names = [one.name for one in made.checks]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ConfigError("config.invalid", f"{where}: two checks are called {twice}")
    if made.timeout_s <= made.warmup_s:
        raise ConfigError(
            "config.invalid", f"{where}: give_up must be longer than warm_up, or nothing is kept"
        )
    return made


def source_date_epoch(default: int) -> int:
    """Return the time that what is built bears: `SOURCE_DATE_EPOCH`, else `default`. Same time, same inputs: same bytes.

    Raises:
        ConfigError: `config.invalid`.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return default
    if not text.isdecimal() or not 0 < int(text) < 1 << 32:
        raise ConfigError("config.invalid", f"SOURCE_DATE_EPOCH={text!r} is no unix time")
    return int(text)


def _check(plain: dict[str, Any], where: str) -> HealthCheck:
    own = ("name", "type", "optional")
    settings = {key: value for key, value in plain.items() if key not in own}
    kind = _text(plain, "type", f"{where}: [[check]]")
    made = {"name": plain.get("name", kind), "kind": kind, "settings": settings}
    if plain.get("optional", False) is not False:
        made["optional"] = plain["optional"]
    try:
        return msgspec.convert(made, type=HealthCheck)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{where}: [[check]] {kind}: {error}") from error


def _component(plain: dict[str, Any], folder: Path, where: str) -> ComponentSpec:
    known = {"name", "type", "image", "directory", "size", "hardware", "contract", "attachments"}
    kind = _text(plain, "type", where, "raw_image")
    own = SETTINGS.get(kind, frozenset())
    _known(plain, frozenset({*known, *own, "installed", "with"}), where)
    image, directory = plain.get("image"), plain.get("directory")
    if (image is None) == (directory is None):
        raise ConfigError("config.invalid", f"{where}: either image or directory")
    source = folder / str(image or directory)
    if not (source.is_file() if image else source.is_dir()):
        raise ConfigError("config.unreadable", f"{where}: {source} is not there")
    size = parse_size(plain.get("size", "64MiB"), f"{where}: size") if directory else 0
    contract = plain.get("contract")
    hardware = _hardware_tables(plain, where) if "hardware" in plain else []
    return ComponentSpec(
        _text(plain, "name", where, "rootfs"),
        kind,
        source,
        size,
        hardware=tuple(_hardware(one, where) for one in hardware),
        health=read_health(folder / str(contract)) if contract else None,
        attachments=_attachments(plain, folder, where),
        installed=_installed(plain, folder, where),
        settings=_settings({key: plain[key] for key in own if key in plain}, kind, where),
        beside=_with(plain.get("with", []), where),
    )


def _settings(found: dict[str, Any], kind: str, where: str) -> InstallSettings:
    """Read what an installer is told, and hold it against what devices take."""
    try:
        settings = msgspec.convert(found, type=InstallSettings)
        if kind in _READERS:
            _READERS[kind](settings)
    except (msgspec.ValidationError, PublisherError) as error:
        raise ConfigError("config.invalid", f"{where}: {error}") from error
    return settings


def _with(value: object, where: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) and one for one in names):
        raise ConfigError("config.invalid", f'{where}: with = "rootfs", or a list of components')
    return tuple(names)


def _check_parts(components: tuple[ComponentSpec, ...], where: str) -> None:
    """What is installed with another component needs one that is an artifact of its own, and has no hardware, contract or attachments of its own."""
    names = [one.name for one in components]
    if len(set(names)) != len(names):
        raise ConfigError(
            "config.invalid", f"{where}: [[component]] {max(names, key=names.count)} twice"
        )
    leads = {one.name for one in components if not one.beside}
    for one in components:
        for name in one.beside:
            if name not in leads:
                raise ConfigError(
                    "config.invalid",
                    f'{where}: {one.name}: with = "{name[:64]}" is no component of this release without a `with` of its own',
                )
        if one.beside and (one.hardware or one.health or one.attachments):
            raise ConfigError(
                "config.invalid",
                f"{where}: {one.name}: hardware, contract and attachments are those of {one.beside[0]}",
            )


def _installed(plain: dict[str, Any], folder: Path, where: str) -> Path | None:
    """Return the image inside a package; a foreign installer's release without one could not be read back from the slot."""
    kind, name = _text(plain, "type", where, "raw_image"), plain.get("installed")
    if (name is not None) != (kind in PACKAGES):
        does = "needs" if kind in PACKAGES else "takes no"
        raise ConfigError(
            "config.invalid",
            f'{where}: type = "{kind}" {does} installed = "FILE", the image inside the package',
        )
    if name is None:
        return None
    path = folder / str(name)
    if not path.is_file() or not path.stat().st_size:
        raise ConfigError("config.unreadable", f"{where}: {path} is not there, or empty")
    return path


def _attachments(plain: dict[str, Any], folder: Path, where: str) -> tuple[tuple[str, Path], ...]:
    """Read `[attachments]`: each kind names a file, or a list of them."""
    table = plain.get("attachments", {})
    if not isinstance(table, dict):
        raise ConfigError("config.invalid", f"{where}: [attachments] is a table")
    _known(table, frozenset(LIMITS), f"{where}: [attachments]")
    found = []
    for kind, value in table.items():
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(one, str) and one for one in names):
            raise ConfigError(
                "config.invalid", f'{where}: [attachments] {kind} = "file", or a list of files'
            )
        found += [(kind, folder / one) for one in names]
    return tuple(found)


def _hardware_tables(plain: dict[str, Any], where: str) -> list[dict[str, Any]]:
    found = plain.get("hardware")
    tables = found if isinstance(found, list) else [found] if isinstance(found, dict) else []
    if not tables:
        raise ConfigError("config.missing", f"{where}: [hardware]")
    return tables


def _hardware(plain: dict[str, Any], where: str) -> HardwareRange:
    _known(plain, frozenset({"model", "revisions", "exclude"}), f"{where}: [hardware]")
    low, dash, high = str(plain.get("revisions", "0-65535")).partition("-")
    try:
        values = {
            "model": plain.get("model"),
            "rev_min": int(low),
            "rev_max": int(high if dash else low),
            "exclude_revs": plain.get("exclude", []),
        }
        return msgspec.convert(values, type=HardwareRange)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError("config.invalid", f"{where}: [hardware]: {error}") from error


def _requirement(plain: dict[str, Any], where: str) -> Requirement:
    try:
        return msgspec.convert(plain, type=Requirement)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{where}: [[requires]]: {error}") from error


def _counters(value: object, where: str) -> tuple[tuple[int, int], ...]:
    """Read `"90.."`, `"90..117"` or a list of those: the counters that may come here directly."""
    found = []
    for text in [] if value is None else value if isinstance(value, list) else [value]:
        low, dots, high = str(text).partition("..")
        if not low.isdecimal() or (high and not high.isdecimal()):
            raise ConfigError("config.invalid", f'{where}: from = "90..117" or "90.."')
        found.append((int(low), int(high) if high else 0xFFFFFFFF if dots else int(low)))
    return tuple(found)


def _fallback(value: object, where: str) -> int:
    if value is None:
        return FALLBACK_S
    return 0 if is_off(value) else parse_duration(value, f"{where}: fallback")


def _fallback_to(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(one) is int and one > 0 for one in value):
        raise ConfigError("config.invalid", f"{where}: fallback_to is a list of counters")
    return tuple(value)


def _mirrors(value: object, where: str) -> tuple[str, ...]:
    try:
        return msgspec.convert(value, type=Mirrors)
    except msgspec.ValidationError as error:
        raise ConfigError(
            "config.invalid",
            f"{where}: mirrors is a list of addresses such as https://cdn.example/gw1, {error}",
        ) from error


def _notes(plain: dict[str, Any], folder: Path) -> str:
    name = str(plain.get("notes", ""))
    path = folder / name
    if name and "\n" not in name and len(name) < 200 and path.is_file():
        return path.read_text(errors="replace")[:2000]
    return name[:2000]


def _toml(path: Path) -> dict[str, Any]:
    try:
        plain = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError("config.unreadable", f"{path} is not there") from error
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError("config.invalid", f"{path.name}: {error}") from error
    if plain.get("schema", 1) != 1:
        raise ConfigError("config.invalid", f"{path.name}: schema {plain['schema']} is not known")
    return plain


def _known(plain: dict[str, Any], known: frozenset[str], where: str) -> None:
    for key in plain:
        if key not in known:
            raise ConfigError("config.unknown_key", f'{where}: "{key}"{did_you_mean(key, known)}')


def _tables(plain: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = plain.get(key, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(plain: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = plain.get(key, default)
    if value is None:
        raise ConfigError("config.missing", f"{where}: {key}")
    if not isinstance(value, str):
        raise ConfigError("config.invalid", f'{where}: {key} = "…" is a text')
    return value


def _texts(plain: dict[str, Any], key: str, where: str) -> list[str]:
    value = plain.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError("config.invalid", f"{where}: {key} is a list of texts")
    return value


def _number(plain: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = plain.get(key, default)
    if value is None:
        raise ConfigError("config.missing", f"{where}: {key}")
    if type(value) is not int or value < 0:
        raise ConfigError("config.invalid", f"{where}: {key} is a whole number")
    return value
