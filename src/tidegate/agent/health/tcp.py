"""Check `tcp`: something on this device accepts a connection, and greets as it should.

`address`: `HOST:PORT`, or a list `addresses`, all of which must accept. `greets`: a text that must be among the first bytes that it sends by itself
(`"SSH-2.0"`, `"220 "`). `unix`: paths of sockets, in the same way.
"""

import socket
import time

from tidegate.agent.health import CheckSettings, Place, text, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.service"
KNOWN = frozenset({"address", "addresses", "unix", "greets"})
_GREETING_MAX = 4096


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    one = text(settings, "address", "")
    addresses = [*texts(settings, "addresses"), *([one] if one else [])]
    paths = texts(settings, "unix")
    if not addresses and not paths:
        raise ConfigError("config.missing", "address, addresses or unix: where?")
    split = [_split(one) for one in addresses]
    return Tcp(split, paths, text(settings, "greets", "").encode(), place.timeout_s)


class Tcp:
    """Every address in turn, all within one time."""

    def __init__(
        self, addresses: list[tuple[str, int]], paths: list[str], greets: bytes, timeout_s: float
    ) -> None:
        self._addresses = addresses
        self._paths = paths
        self._greets = greets
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Connect; the first that does not answer is the detail."""
        until = time.monotonic() + self._timeout_s
        name = ""
        try:
            for host, port in self._addresses:
                name = f"{host}:{port}"
                with socket.create_connection((host, port), timeout=_left(until)) as connection:
                    self._listen(connection, until)
            for path in self._paths:
                name = path
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    connection.settimeout(_left(until))
                    connection.connect(path)
                    self._listen(connection, until)
        except (OSError, UnicodeError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return False, f"{name}: {words}"[:200]
        return True, "accepts"

    def _listen(self, connection: socket.socket, until: float) -> None:
        heard = b""
        while self._greets and self._greets not in heard:
            connection.settimeout(_left(until))
            piece = connection.recv(_GREETING_MAX)
            heard += piece
            if not piece or len(heard) >= _GREETING_MAX:
                raise OSError(0, "does not greet as it should")


def _left(until: float) -> float:
    return max(0.05, until - time.monotonic())


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ConfigError("config.invalid", f"{address[:64]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
