"""Check `http`: an address on this device answers as it should.

`url` (http only: it is the device itself that is asked), `status` (default 200), `contains` (a text that the answer's first 64 KiB must hold).
"""

import http.client
from urllib.parse import urlsplit

from tidegate.agent.health import PROBE_S, CheckSettings, number, text
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    url = text(settings, "url")
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError("config.invalid", f"url = {url[:100]!r} is not http://…")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    wanted = number(settings, "status", 200)
    return Http(parts.hostname, parts.port or 80, path, wanted, text(settings, "contains", ""))


class Http:
    """One GET."""

    def __init__(self, host: str, port: int, path: str, status: int, contains: str) -> None:
        self._host = host
        self._port = port
        self._path = path
        self._status = status
        self._contains = contains.encode()

    def check(self, now: float) -> tuple[bool, str]:
        """Ask, and compare."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=PROBE_S)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            body = answer.read(64 << 10)
        except (OSError, http.client.HTTPException) as error:
            return False, f"{type(error).__name__}: {error}"[:200]
        finally:
            connection.close()
        if answer.status != self._status:
            return False, f"status {answer.status}"
        return self._contains in body, f"status {answer.status}"
