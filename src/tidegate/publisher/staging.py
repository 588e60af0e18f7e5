"""A rollout mandate as people write it: `"1%@2026-11-25T08:00Z,10%@+1d,100%@+3d"`, on the command line, in `release.toml` or in a file of its own.

A step is a share and a time. A time with `+` counts from the first step, and the first step's own from when the release is built; what is signed are absolute
times, which `release build`, `sign` and `check` show.
"""

import datetime as dt
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.amounts import format_share, parse_duration, parse_share
from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.bucket import BUCKETS
from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean

_KEYS: Final = ("schema", "steps", "salt")
_SALT: Final = re.compile(r"(?:[0-9a-f]{2}){16,64}")
_SALT_BYTES: Final = 16
_EXAMPLE: Final = '"1%@2026-11-25T08:00Z,10%@+1d,100%@+3d"'


@dataclass(frozen=True)
class StagingSpec:
    """A mandate before it is known when the release is built.

    Attributes:
        steps: (share in basis points, unix seconds or None, seconds after the first step).
        salt: hex; empty = random bytes when it is built.
    """

    steps: tuple[tuple[int, int | None, int], ...]
    salt: str = ""

    def mandate(
        self, counter: int, now: int, randomness: Callable[[int], bytes] = os.urandom
    ) -> Mandate:
        """Return the mandate for a release that is built at `now` (unix seconds).

        Raises:
            ConfigError: `config.invalid`: the steps are not in order.
        """
        _, first, after_s = self.steps[0]
        base = now + after_s if first is None else first
        steps = []
        for number, (share, at, after) in enumerate(self.steps):
            opens = base if number == 0 else base + after if at is None else at
            steps.append(MandateStep(not_before=opens, bucket_max=share))
        try:
            found = Mandate(
                counter=counter, salt=self.salt or randomness(_SALT_BYTES).hex(), steps=tuple(steps)
            )
            return msgspec.convert(msgspec.to_builtins(found), type=Mandate)
        except ValueError as error:
            raise ConfigError("config.invalid", f"mandate: {error}") from error


def parse_staging(value: object, where: str = "mandate", *, salt: object = "") -> StagingSpec:
    """Read the steps of a mandate from a text, or a list of texts (untrusted).

    Raises:
        ConfigError: `config.invalid`, with the step that is wrong.
    """
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise ConfigError("config.invalid", f"{where}: steps as in {_EXAMPLE}")
    if not 1 <= len([one for one in texts if one.strip()]) <= 32 or "" in map(str.strip, texts):
        raise ConfigError("config.invalid", f"{where}: 1 to 32 steps, as in {_EXAMPLE}")
    if not isinstance(salt, str) or (salt and not _SALT.fullmatch(salt)):
        raise ConfigError("config.invalid", f"{where}: salt is 16 to 64 random bytes in hex")
    steps = tuple(_step(one.strip(), where) for one in texts)
    for number, (share, at, _) in enumerate(steps):
        before = steps[number - 1] if number else None
        if before is not None and share <= before[0]:
            raise ConfigError(
                "config.invalid", f"{where}: {texts[number].strip()!r} is not more than before it"
            )
        if share == 0 or (number and at is None and steps[number][2] == 0):
            raise ConfigError("config.invalid", f"{where}: {texts[number].strip()!r} opens nothing")
    return StagingSpec(steps, salt)


def read_staging(text: str) -> StagingSpec:
    """Read `--mandate`: the steps themselves, or the name of a TOML file with `steps` and, where builds must be repeatable, `salt`.

    Raises:
        ConfigError: `config.*`.
    """
    if "%" in text:
        return parse_staging(text, "--mandate")
    path = Path(text)
    try:
        plain: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError("config.invalid", f"{path.name}: {error}") from error
    for key in plain:
        if key not in _KEYS:
            raise ConfigError(
                "config.unknown_key", f'{path.name}: "{key}"{did_you_mean(key, _KEYS)}'
            )
    if plain.get("schema", 1) != 1:
        raise ConfigError("config.invalid", f"{path.name}: schema {plain['schema']} is not known")
    if "steps" not in plain:
        raise ConfigError("config.missing", f"{path.name}: steps")
    return parse_staging(plain["steps"], f"{path.name}: steps", salt=plain.get("salt", ""))


def describe(mandate: Mandate) -> tuple[str, ...]:
    """Return the steps of a mandate for people, in absolute times; the last line says who is left out, if anybody is."""
    lines = [
        f"{format_share(one.bucket_max)} from {_when(one.not_before)}" for one in mandate.steps
    ]
    most = mandate.steps[-1].bucket_max
    if most < BUCKETS:
        lines.append(
            f"nobody else, until a later product role widens it (now {format_share(most)})"
        )
    return tuple(lines)


def _step(text: str, where: str) -> tuple[int, int | None, int]:
    share, at, when = text.partition("@")
    if not at or not when.strip():
        raise ConfigError("config.invalid", f"{where}: {text[:60]!r} is no step: {_EXAMPLE}")
    points = parse_share(share.strip(), where)
    when = when.strip()
    if when.startswith("+"):
        return points, None, parse_duration(when[1:], where)
    try:
        parsed = dt.datetime.fromisoformat(when)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None or not 0 <= parsed.timestamp() < 1 << 32:
        raise ConfigError(
            "config.invalid",
            f'{where}: {when[:40]!r} is no time: "2026-11-25T08:00Z" with its zone, or "+1d"',
        )
    return points, int(parsed.timestamp()), 0


def _when(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
