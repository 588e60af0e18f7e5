"""Where metrics are read from: a file, or an address on this device. Bounded in bytes and time."""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

import contextlib
import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tidegate.agent.checkup.metric_text import READ_MAX, Wanted, total
from tidegate.core.errors import ConfigError

_PIECE = 64 << 10


class MetricSource:
    """One metric of one file or endpoint.

    Args:
        source: a path, or `http://HOST[:PORT]/…`.
        wanted: which samples.
        timeout_s: for the whole answer.

    Raises:
        ConfigError: `config.invalid`: neither.
    """

    def __init__(self, source: str, wanted: Wanted, timeout_s: float) -> None:
        self._source = source
        self._wanted = wanted
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(source)
            self._http = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            raise ConfigError("config.invalid", f"{source[:100]!r}: {error}") from error
        if not self._http and not source.startswith("/"):
            raise ConfigError("config.invalid", f"{source[:100]!r} is neither a path nor http://…")

    def value(self) -> tuple[float | None, str]:
        """Return (the number, "") or (None, why there is none)."""
        try:
            lines = self._over_http() if self._http else self._from_file()
            found = total(lines, self._wanted)
        except (OSError, http.client.HTTPException, ValueError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return None, f"{self._source}: {words}"[:200]
        if found is None:
            return None, f"{self._source} has no {self._wanted.name}"[:200]
        return found, ""

    def _from_file(self) -> Iterator[bytes]:
        with open(self._source, "rb") as file:
            left = READ_MAX
            while left > 0:
                line = file.readline(_PIECE)
                if not line:
                    return
                left -= len(line)
                yield line

    def _over_http(self) -> Iterator[bytes]:
        parts = urlsplit(self._source)
        until = time.monotonic() + self._timeout_s
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=self._timeout_s
        )
        with contextlib.closing(connection):
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"accept": "text/plain;version=0.0.4"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise OSError(0, f"status {answer.status}")
            rest, left = b"", READ_MAX
            while left > 0:
                if time.monotonic() > until:
                    raise TimeoutError(0, f"no whole answer in {self._timeout_s:g} s")
                piece = answer.read1(_PIECE)
                if not piece:
                    break
                left -= len(piece)
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
                rest = rest[:READ_MAX]
            yield rest
