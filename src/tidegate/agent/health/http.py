"""Check `http`: an address on this device answers as it should.

`url` (http only: it is the device itself that is asked), `status` (default 200), `contains` (a text that the answer's first 64 KiB must hold). Redirects are
not followed: they are a status.
"""

import http.client
import time
from urllib.parse import urlsplit

from tidegate.agent.health import CheckSettings, Place, number, text
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"
KNOWN = frozenset({"url", "status", "contains"})
_BODY_MAX = 64 << 10


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    url = text(settings, "url")
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError("config.invalid", f"url = {url[:100]!r}: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError("config.invalid", f"url = {url[:100]!r} is not http://…")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    where = (parts.hostname, port)
    wanted = number(settings, "status", 200)
    return Http(where, path, wanted, text(settings, "contains", ""), place.timeout_s)


class Http:
    """One GET, within one time."""

    def __init__(
        self, where: tuple[str, int], path: str, status: int, contains: str, timeout_s: float
    ) -> None:
        self._where = where
        self._path = path
        self._status = status
        self._contains = contains.encode()
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Ask, and compare."""
        until = time.monotonic() + self._timeout_s
        connection = http.client.HTTPConnection(*self._where, timeout=self._timeout_s)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            body = b""
            while len(body) < _BODY_MAX and (piece := answer.read1(_BODY_MAX - len(body))):
                body += piece
                if time.monotonic() > until:
                    return False, f"no whole answer in {self._timeout_s:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return False, f"{type(error).__name__}: {error}"[:200]
        finally:
            connection.close()
        if answer.status != self._status:
            return False, f"status {answer.status}"
        found = self._contains in body
        return found, f"status {answer.status}" + (
            "" if found else ", without what it must contain"
        )
