"""What `agent.toml` says of the device's own metrics: tables `[metric.NAME]`, each read from one place."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tidegate.agent.settings import MeterSource
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import NAMED_MAX

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PLACES: Final = ("file", "command", "metrics")
_KEYS: Final = (*_PLACES, "metric", "kind")
#: Counted by `[errors]`, and told beside the others.
_TAKEN: Final = "errors"


def sources(tables: Mapping[str, object]) -> tuple[MeterSource, ...]:
    """Return where each metric is read.

    Args:
        tables: of `[metric]`, by name.

    Raises:
        ConfigError: `config.invalid`: all mistakes, a line each.
    """
    mistakes: list[str] = []
    found = []
    if len(tables) > NAMED_MAX:
        mistakes.append(f"[metric.…]: {len(tables)} are there, at most {NAMED_MAX} are told")
    for name, one in tables.items():
        try:
            found.append(_source(name, one))
        except ConfigError as error:
            mistakes.append(error.detail)
    if mistakes:
        raise ConfigError("config.invalid", "\n".join(mistakes))
    return tuple(found)


def _source(name: str, one: object) -> MeterSource:
    if not isinstance(one, dict):
        raise _wrong(name[:40], "a table belongs here: [metric.NAME]")
    if not _NAME.fullmatch(name) or name == _TAKEN:
        raise _wrong(name[:40], "a name of small letters, digits and _ belongs here, not errors")
    for key in one:
        if key not in _KEYS:
            raise _wrong(f"{name}.{key}", f"no such key{did_you_mean(key, _KEYS)}")
    places = [key for key in _PLACES if key in one]
    if len(places) != 1:
        raise _wrong(name, f"one of {', '.join(_PLACES)} belongs here")
    kind = one.get("kind", "gauge")
    if kind not in ("gauge", "counter"):
        raise _wrong(f"{name}.kind", "gauge or counter belongs here")
    return MeterSource(
        name=name,
        file=_path(name, one.get("file")),
        command=_command(name, one.get("command")),
        metrics=_text(f"{name}.metrics", one.get("metrics")),
        metric=_text(f"{name}.metric", one.get("metric")) or "",
        counter=kind == "counter",
    )


def _path(name: str, value: Any) -> str | None:
    path = _text(f"{name}.file", value)
    if path is not None and not path.startswith("/"):
        raise _wrong(f"{name}.file", "an absolute path belongs here")
    return path


def _command(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise _wrong(f"{name}.command", "a list of words belongs here")
    if not value[0].startswith("/"):
        raise _wrong(f"{name}.command", "an absolute path of a program belongs here first")
    return tuple(value)


def _text(where: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _wrong(where, "a text belongs here")
    return value


def _wrong(where: str, what: str) -> ConfigError:
    return ConfigError("config.invalid", f"metric.{where}: {what}")
