"""`agent.toml`: from fragments to one validated configuration.

Three shapes: fragments as they stand in files (`_read`), inputs merged and checked key by key (`_Inputs`), and `Config`, the only one that travels. All
mistakes are listed at once; nothing is started with one of them.

Order, lowest first: `/usr/lib/tidegate/agent.toml.d/*.toml` (the image), `/etc/tidegate/agent.toml`, `/etc/tidegate/agent.toml.d/*.toml` (the site),
`/run/tidegate/agent.toml.d/*.toml` (until reboot). A fragment of the same name higher up replaces the lower one; an empty one masks it. Then the environment,
`TIDEGATE_AGENT_<TABLE>_<KEY>`. With `--config FILE` only that file and its `FILE.d/*.toml` are read.
"""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from tidegate.agent import flow_values
from tidegate.agent.checkup import health_files, meter_files
from tidegate.agent.settings import Config, Settings
from tidegate.core import amounts
from tidegate.core.errors import ConfigError
from tidegate.core.hardware import Hardware
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import Component, Running

Parser = Callable[[object, str], Any]
T = TypeVar("T")
ENVIRONMENT: Final = "TIDEGATE_AGENT_"
SEARCHED: Final = (
    Path("/usr/lib/tidegate/agent.toml.d"),
    Path("/etc/tidegate/agent.toml"),
    Path("/etc/tidegate/agent.toml.d"),
    Path("/run/tidegate/agent.toml.d"),
)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ConfigError("config.invalid", f"{key} = {value!r}: a text in quotes belongs here")
    return value


def _flag(value: object, key: str) -> bool:
    if value in (True, "true", "on", "1"):
        return True
    if value in (False, "false", "off", "0"):
        return False
    raise ConfigError("config.invalid", f"{key} = {value!r}: true or false belongs here")


def _whole(value: object, key: str) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError("config.invalid", f"{key} = {value!r}: a whole number belongs here")
    return value


def _component(value: str, key: str) -> Component:
    """Read another component: its counter, and behind it the digest of its image where releases ask for that (`"40 9f86d0…"`)."""
    counter, _, digest = value.strip().partition(" ")
    found = {"counter": _whole(counter, key), "sha256": digest.strip() or None}
    try:
        return msgspec.convert(found, type=Component)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{key} = {value!r}: {error}") from error


def _texts(value: object, key: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [one.strip() for one in value.split(",")]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError("config.invalid", f"{key}: a list of texts belongs here")
    return tuple(value)


def _windows(value: object, key: str) -> tuple[str, ...]:
    found = _texts(value, key)
    if not found or "any" in found:
        return ()
    from tidegate.core.schedule import parse_windows

    parse_windows(found, key)
    return found


def _zone(value: object, key: str) -> str:
    name = _text(value, key)
    if name != "device":
        from tidegate.core.schedule import load_zone

        load_zone(name, key)
    return name


def _duration(value: object, key: str) -> int:
    return amounts.parse_duration(value, key)


def _size(value: object, key: str) -> int:
    return 0 if amounts.is_off(value) else amounts.parse_size(value, key)


def _rate(value: object, key: str) -> int:
    return 0 if amounts.is_off(value) else amounts.parse_rate(value, key)


def _interval(value: object, key: str) -> int:
    return 0 if value == "server" else amounts.parse_duration(value, key)


def _mode(value: object, key: str) -> int:
    text = _text(value, key)
    if not text.isdigit() or not set(text) <= set("01234567") or len(text) > 4:
        raise ConfigError("config.invalid", f'{key} = "{text}": a mode such as "0660"')
    return int(text, 8)


def _connectivity(value: object, key: str) -> str:
    if value not in ("always", "intermittent"):
        raise ConfigError("config.invalid", f'{key} = {value!r}: "always" or "intermittent"')
    return str(value)


def _step(value: object, key: str) -> str:
    if value not in ("never", "floor", "signed"):
        raise ConfigError("config.invalid", f'{key} = {value!r}: "never", "floor" or "signed"')
    return str(value)


def _key(value: object, key: str) -> str:
    text = _text(value, key)
    if text != "file" and not text.startswith("pkcs11:"):
        raise ConfigError(
            "config.invalid", f'{key} = "{text[:80]}": "file", or "pkcs11:token=...;object=..."'
        )
    return text


def _allowed(value: object, key: str) -> bool:
    if value not in ("allow", "deny"):
        raise ConfigError("config.invalid", f'{key} = {value!r}: "allow" or "deny"')
    return value == "allow"


#: Every key: how it is read, and its default. `...` = required.
KEYS: Final[dict[str, tuple[Parser, Any]]] = {
    "device.product": (_text, ...),
    "device.model": (_text, ...),
    "device.revision": (_whole, None),
    "device.revision_file": (_text, None),
    "device.id": (_text, None),
    "device.id_source": (_text, "machine-id"),
    "device.channel": (_text, "stable"),
    "device.region": (_text, ""),
    "device.site": (_text, ""),
    "device.connectivity": (_connectivity, "always"),
    "device.zone": (_zone, "UTC"),
    "device.installed_file": (_text, None),
    "device.key": (_key, "file"),
    "server.url": (_text, ...),
    "server.root": (_text, "/etc/tidegate/root.json"),
    "server.ca": (_text, None),
    "server.timeout": (_duration, 30),
    "server.claim_file": (_text, None),
    "bootloader.name": (_text, ...),
    "board.reboot": (_text, "systemctl reboot"),
    "installer.allow": (_texts, ("raw_image",)),
    "installer.spool": (_text, None),
    "poll.interval": (_interval, 0),
    "poll.stay_connected": (_flag, False),
    "poll.send_logs": (_flag, True),
    "download.window": (_windows, ()),
    "download.zone": (_zone, "device"),
    "download.rate": (_rate, 0),
    "download.rate_min": (_rate, 1024),
    "download.rate_grace": (_duration, 60),
    "download.reserve": (_size, 0),
    "download.sync": (_size, 16 << 20),
    "download.metered": (flow_values.metered, "allow"),
    "download.metered_file": (_text, None),
    "download.mirrors": (flow_values.mirrors, ()),
    "download.release_mirrors": (_allowed, True),
    "activate.window": (_windows, ()),
    "activate.zone": (_zone, "device"),
    "activate.defer_max": (_duration, 7 * 86_400),
    "activate.security_deadline": (flow_values.limit, None),
    "activate.offline_permit": (flow_values.limit, None),
    "activate.give_up": (flow_values.limit, None),
    "activate.reboot_delay": (_duration, 10),
    "health.confirm": (_text, "auto"),
    "health.dir": (_texts, health_files.FOLDERS),
    "health.warm_up": (_duration, 0),
    "health.errors_per_hour": (_whole, None),
    "health.drop": (_texts, ()),
    "inhibit.security_after": (flow_values.limit, None),
    "inhibit.dir": (_text, "/run/tidegate/inhibit.d"),
    "errors.file": (_text, None),
    "errors.metrics": (_text, None),
    "errors.metric": (_text, ""),
    "errors.journal": (_text, None),
    "errors.units": (_texts, ()),
    "watchdog.device": (_text, None),
    "watchdog.timeout": (_duration, 120),
    "watchdog.pretimeout": (_duration, 0),
    "watchdog.when": (_text, "trial"),
    "clock.step": (_step, "never"),
    "offline.bundles": (_allowed, False),
    "state.dir": (_text, "/var/lib/tidegate"),
    "socket.path": (_text, "/run/tidegate/agent.sock"),
    "socket.group": (_text, None),
    "socket.mode": (_mode, 0o660),
}
#: Tables whose keys are the site's own.
FREE: Final = ("device.attributes", "components")
TABLES: Final = frozenset(
    {one.partition(".")[0] for one in KEYS} | {"components", "slot", "metric"}
)


def read(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read, merge and validate the configuration.

    Args:
        path: this file and its drop-ins alone; None = the places of a device.
        environ: environment variables; None = none of them.

    Raises:
        ConfigError: one error that lists all mistakes, a line each.
    """
    return _collect(path, environ).finish()


def _collect(path: Path | None, environ: Mapping[str, str] | None) -> "_Inputs":
    inputs = _Inputs()
    for fragment in _fragments(path):
        inputs.add(fragment)
    inputs.add_environment(environ or {})
    return inputs


def _fragments(path: Path | None) -> list[Path]:
    if path is not None:
        drop_ins = sorted(path.with_name(path.name + ".d").glob("*.toml"))
        return [path, *drop_ins]
    by_name: dict[str, Path] = {}
    files: list[Path] = []
    for place in SEARCHED:
        if place.suffix == ".d":
            by_name.update({one.name: one for one in sorted(place.glob("*.toml"))})
    for place in SEARCHED:
        if place.is_file():
            files.append(place)
        files += [one for one in sorted(by_name.values()) if one.parent == place]
    if not files:
        raise ConfigError("config.missing", "no agent.toml: /etc/tidegate/agent.toml is not there")
    return files


class _Inputs:
    """Merged values with where they came from, and the mistakes found so far."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origin: dict[str, str] = {}
        self._free: dict[str, dict[str, str]] = {name: {} for name in FREE}
        self._boot: dict[str, dict[str, Any]] = {}
        self._installers: dict[str, dict[str, Any]] = {}
        self._slots: dict[str, dict[str, Any]] = {}
        self._beside: dict[str, dict[str, Any]] = {}
        self._meters: dict[str, object] = {}
        self._mistakes: list[str] = []

    # --- taking in ----------------------------------------------------------------------------------------------------

    def add(self, path: Path) -> None:
        """Take in one fragment."""
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            # At once: what a file that cannot be read does not say would be held against it line by line.
            raise ConfigError("config.invalid", f"{path}: {error}") from error
        for table, content in found.items():
            self._table(str(path), table, content)

    def _table(self, where: str, table: str, content: object) -> None:
        if table == "slot":
            self._take_slots(where, content)
            return
        if not isinstance(content, dict):
            self._unknown(where, table, set(TABLES))
            return
        if table == "metric":
            self._meters.update(content)
            return
        if table == "component":
            self._take_beside(where, content)
            return
        if table in FREE:
            self._free[table].update({str(k): str(v) for k, v in content.items()})
            return
        if table not in TABLES:
            self._unknown(where, table, set(TABLES))
            return
        for name, value in content.items():
            self._key(where, f"{table}.{name}", value)

    def _key(self, where: str, key: str, value: object) -> None:
        if key in FREE and isinstance(value, dict):
            self._free[key].update({str(k): str(v) for k, v in value.items()})
        elif key.startswith("bootloader.") and isinstance(value, dict):
            self._boot.setdefault(key.partition(".")[2], {}).update(value)
        elif key.startswith("installer.") and isinstance(value, dict):
            self._installers.setdefault(key.partition(".")[2], {}).update(value)
        elif key in KEYS:
            self._values[key] = value
            self._origin[key] = where
        else:
            self._unknown(where, key, set(KEYS) | set(FREE))

    def _unknown(self, where: str, key: str, known: set[str]) -> None:
        self._mistakes.append(f"{where}: unknown key {key}{did_you_mean(key, known)}")

    def _take_slots(self, where: str, content: object) -> None:
        if not isinstance(content, list):
            self._mistakes.append(f"{where}: slot is an array of tables: [[slot]]")
            return
        for one in content:
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or not name:
                self._mistakes.append(f"{where}: a [[slot]] without name")
                continue
            for key in set(one) - {"name", "path", "size"}:
                self._unknown(where, f"slot.{key}", {"slot.name", "slot.path", "slot.size"})
            self._slots.setdefault(name, {}).update(one)

    def _take_beside(self, where: str, content: dict[str, object]) -> None:
        for name, one in content.items():
            if not isinstance(one, dict):
                self._mistakes.append(f"{where}: [component.{name}] is a table")
                continue
            for key in set(one) - {"path"}:
                self._unknown(where, f"component.{name}.{key}", {f"component.{name}.path"})
            self._beside.setdefault(name, {}).update(one)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Take in `TIDEGATE_AGENT_…`; names that stand for no key are somebody else's."""
        for key in KEYS:
            name = ENVIRONMENT + key.upper().replace(".", "_")
            if name in environ:
                self._values[key] = environ[name]
                self._origin[key] = name

    # --- validating ---------------------------------------------------------------------------------------------------

    def finish(self) -> Config:
        """Validate everything; raise one error with all mistakes."""
        values = {key: self._value(key) for key in KEYS}
        slots = self._finish_slots()
        beside = self._finish_beside(values["state.dir"])
        values["component"] = tuple(beside)
        settings = self._settings(values) if not self._mistakes else None
        errors = self._read(health_files.error_source, values)
        watchdog = self._read(health_files.watchdog, values)
        meters = self._read(lambda _: meter_files.sources(self._meters), values)
        if self._mistakes or settings is None or errors is None:
            raise ConfigError("config.invalid", "\n".join(self._mistakes))
        name = values["bootloader.name"]
        return Config(
            settings=settings,
            url=values["server.url"],
            ca=values["server.ca"],
            timeout_s=float(values["server.timeout"]),
            slots=slots,
            beside=beside,
            bootloader=name,
            boot_settings={**self._boot.get(name, {}), "slots": list(slots)},
            reboot=values["board.reboot"],
            state_dir=values["state.dir"],
            errors=errors,
            meters=meters or (),
            watchdog=watchdog,
            inhibit_dir=values["inhibit.dir"],
            socket_path=values["socket.path"],
            socket_mode=values["socket.mode"],
            socket_group=values["socket.group"],
        )

    def lines(self, *, origin: bool) -> list[str]:
        """Return the values for people."""
        found = []
        for key in sorted(KEYS):
            where = self._origin.get(key, "default")
            found.append(f"{key} = {self._value(key)!r}" + (f"   # {where}" if origin else ""))
        return found

    def _value(self, key: str) -> Any:
        parser, default = KEYS[key]
        if key not in self._values:
            if default is ...:
                self._mistakes.append(f"{key} is missing")
                return None
            return default
        try:
            return parser(self._values[key], key)
        except ConfigError as error:
            self._mistakes.append(f"{self._origin[key]}: {error.detail}")
            return default

    def _finish_slots(self) -> dict[str, tuple[str, int | None]]:
        found: dict[str, tuple[str, int | None]] = {}
        for name, one in self._slots.items():
            if not isinstance(one.get("path"), str):
                self._mistakes.append(f"slot {name}: path is missing")
                continue
            try:
                size = (
                    amounts.parse_size(one["size"], f"slot {name}.size") if "size" in one else None
                )
            except ConfigError as error:
                self._mistakes.append(error.detail)
                continue
            found[name] = (one["path"], size)
        if len(self._slots) != 2:
            self._mistakes.append(f"[[slot]]: two are needed, {len(self._slots)} are there")
        return found

    def _finish_beside(self, state_dir: str) -> dict[str, str]:
        """Return the folder of each component that is kept beside the slots."""
        found: dict[str, str] = {}
        for name, one in self._beside.items():
            path = one.get("path", f"{state_dir}/components/{name}")
            if not isinstance(path, str) or not path.startswith("/"):
                self._mistakes.append(f"component.{name}.path: an absolute path belongs here")
                continue
            if path.rstrip("/") in {other.rstrip("/") for other in found.values()}:
                self._mistakes.append(f"component.{name}.path: {path} is another component's")
            if name in self._free["components"]:
                self._mistakes.append(
                    f"component.{name} and components.{name}: either this agent installs it, or something else does"
                )
            found[name] = path
        return found

    def _read(self, make: Callable[[Mapping[str, Any]], T], values: Mapping[str, Any]) -> T | None:
        """Make one part of the configuration; a mistake in it joins the others."""
        if self._mistakes:
            return None
        try:
            return make(values)
        except ConfigError as error:
            self._mistakes.append(error.detail)
        return None

    def _settings(self, values: dict[str, Any]) -> Settings | None:
        try:
            return _settings(values, self._free, self._installers)
        except ConfigError as error:
            self._mistakes.append(error.detail)
        except msgspec.ValidationError as error:
            self._mistakes.append(str(error))
        return None


def _settings(
    values: Mapping[str, Any],
    free: Mapping[str, dict[str, str]],
    installers: Mapping[str, dict[str, Any]],
) -> Settings:
    zone = values["device.zone"]
    anchor = Path(values["server.root"])
    made = Settings(
        device_id=_device_id(values),
        product=values["device.product"],
        hardware=Hardware(values["device.model"], _revision(values)),
        channel=values["device.channel"],
        attributes=free["device.attributes"],
        region=values["device.region"],
        site=values["device.site"],
        connectivity=values["device.connectivity"],
        anchor=_bytes(anchor, "server.root"),
        claim=_claim(values["server.claim_file"]),
        key=values["device.key"],
        installed=_installed(values["device.installed_file"]),
        components={
            name: _component(one, f"components.{name}") for name, one in free["components"].items()
        },
        beside=values["component"],
        allow=values["installer.allow"],
        installers=dict(installers),
        spool=values["installer.spool"] or f"{values['state.dir']}/spool",
        download_windows=values["download.window"],
        download_zone=_own(values["download.zone"], zone),
        activate_windows=values["activate.window"],
        activate_zone=_own(values["activate.zone"], zone),
        zone=zone,
        poll_interval_s=values["poll.interval"],
        stay_connected=values["poll.stay_connected"],
        send_logs=values["poll.send_logs"],
        rate=values["download.rate"],
        rate_min=values["download.rate_min"],
        clock_step=values["clock.step"],
        offline_bundles=values["offline.bundles"],
        rate_grace_s=values["download.rate_grace"],
        reserve_bytes=values["download.reserve"],
        hold_max_s=values["activate.defer_max"],
        manual_confirm=health_files.by_hand(values),
        health=health_files.policy(values),
        reboot_delay_s=values["activate.reboot_delay"],
        timeout_s=float(values["server.timeout"]),
        sync_bytes=values["download.sync"],
        metered=values["download.metered"],
        metered_file=values["download.metered_file"],
        mirrors=values["download.mirrors"],
        release_mirrors=values["download.release_mirrors"],
        security_deadline_s=values["activate.security_deadline"] or 0,
        inhibitors_after_s=values["inhibit.security_after"],
        give_up_s=values["activate.give_up"] or 0,
        offline_permit_s=values["activate.offline_permit"] or 0,
    )
    # A round trip checks what the wire will check: names, lengths, ranges.
    return msgspec.convert(msgspec.to_builtins(made), type=Settings)


def _device_id(values: Mapping[str, Any]) -> str:
    if values["device.id"] is not None:
        return str(values["device.id"])
    kind, _, path = str(values["device.id_source"]).partition(":")
    if kind == "machine-id":
        return _line(Path("/etc/machine-id"), "device.id_source")
    if kind == "serial":
        return _line(Path("/proc/device-tree/serial-number"), "device.id_source").strip("\0")
    if kind == "file" and path:
        return _line(Path(path), "device.id_source")
    raise ConfigError(
        "config.invalid", f"device.id_source = {kind!r}: machine-id, serial or file:PATH"
    )


def _revision(values: Mapping[str, Any]) -> int:
    if values["device.revision_file"] is not None:
        line = _line(Path(values["device.revision_file"]), "device.revision_file")
        return _whole(line, "device.revision_file")
    if values["device.revision"] is None:
        raise ConfigError("config.missing", "device.revision or device.revision_file is missing")
    return int(values["device.revision"])


def _installed(path: str | None) -> Running:
    """Read what the factory says of the image that it put in: a JSON object with `release_counter`, `security_version`, `version`, `sha256`."""
    if path is None:
        return Running()
    try:
        return msgspec.json.decode(_bytes(Path(path), "device.installed_file"), type=Running)
    except msgspec.DecodeError as error:
        raise ConfigError("config.invalid", f"device.installed_file: {error}") from error


def _claim(path: str | None) -> str | None:
    return (
        None if path is None or not Path(path).exists() else _line(Path(path), "server.claim_file")
    )


def _own(name: str, zone: str) -> str:
    return zone if name == "device" else name


def _line(path: Path, key: str) -> str:
    return _bytes(path, key).decode("utf-8", "replace").strip()


def _bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{key}: {path}: {error.strerror}") from error


def environment() -> Mapping[str, str]:
    """Return this process' environment."""
    return os.environ


def show(path: Path | None, environ: Mapping[str, str] | None, *, origin: bool) -> Sequence[str]:
    """Return the merged values, a line each, and where each came from.

    Raises:
        ConfigError: as `read`.
    """
    inputs = _collect(path, environ)
    inputs.finish()
    return inputs.lines(origin=origin)
