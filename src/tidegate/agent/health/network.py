"""Check `network`: the network is connected.

`needs` lists what must work, all of it: `route` (a default route), `address:INTERFACE` (it is up and has an address beside link-local ones), `dns:NAME`,
`tcp:HOST:PORT`, `any_of:HOST:PORT,HOST:PORT` (one of them accepts a connection), `server` (the control plane that the device is configured for accepts a
connection). Without `needs`, a default route. That a report could be delivered is never a condition: a server that is down must not take devices back.
"""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.agent import programs
from tidegate.agent.health import CheckSettings, Place, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.network"
KNOWN = frozenset({"needs"})
_ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))
_BARE = ("route", "server")
_WITH = ("address", "dns", "tcp", "any_of")
#: Flags of a route in /proc/net (linux/route.h): usable; and one that refuses.
_UP, _REJECT = 0x1, 0x200


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    needs = texts(settings, "needs") or ["route"]
    for one in needs:
        kind, _, rest = one.partition(":")
        if not (kind in _WITH and rest) and one not in _BARE:
            raise ConfigError("config.invalid", f"needs: {one[:64]!r} is not understood")
        for address in rest.split(",") if kind in ("tcp", "any_of") else ():
            _split(address)
    if "server" in needs and not place.server:
        raise ConfigError("config.missing", "needs: server, and this device has none")
    return Network(needs, place.server, place.timeout_s)


class Network:
    """Every need in turn, all within one time."""

    def __init__(self, needs: list[str], server: str, timeout_s: float) -> None:
        self._needs = needs
        self._server = server
        self._timeout_s = timeout_s

    def check(self, now: float) -> tuple[bool, str]:
        """Try every need; the first that fails is the detail."""
        until = time.monotonic() + self._timeout_s
        for one in self._needs:
            kind, _, rest = one.partition(":")
            if not self._works(kind, rest, until):
                return False, f"no {one}"[:200]
        return True, "connected"

    def _works(self, kind: str, rest: str, until: float) -> bool:
        match kind:
            case "route":
                return any(_default_route(path) for path in _ROUTES)
            case "address":
                return _has_address(rest, until)
            case "dns":
                return _resolves(rest)
            case "server":
                return _accepts(*_of_server(self._server), until)
            case _:
                return any(_accepts(*_split(address), until) for address in rest.split(","))


def _resolves(name: str) -> bool:
    # Bounded by the round that it is part of: the resolver of the C library knows no other limit.
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def _default_route(path: Path) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    if path.name == "route":
        # Iface Destination Gateway Flags RefCnt Use Metric Mask …
        rows = [line.split() for line in lines[1:]]
        return any(
            len(row) > 7 and row[1] == row[7] == "00000000" and _usable(row[3]) for row in rows
        )
    # destination length source length gateway metric references use flags device
    rows = [line.split() for line in lines]
    return any(
        len(row) > 9
        and row[0] == "0" * 32
        and row[1] == "00"
        and row[9] != "lo"
        and _usable(row[8])
        for row in rows
    )


def _usable(flags: str) -> bool:
    return bool(int(flags, 16) & _UP) and not int(flags, 16) & _REJECT


def _has_address(interface: str, until: float) -> bool:
    command = ["ip", "-oneline", "address", "show", "dev", interface, "scope", "global", "up"]
    ran = programs.run(command, max(0.1, until - time.monotonic()))
    return ran.code == 0 and any(
        word in (b"inet", b"inet6")
        for line in ran.output.splitlines()
        for word in line.split()[2:3]
    )


def _accepts(host: str, port: int, until: float) -> bool:
    try:
        with socket.create_connection((host, port), timeout=max(0.1, until - time.monotonic())):
            return True
    except (OSError, UnicodeError):
        return False


def _of_server(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ConfigError("config.invalid", f"needs: {address[:64]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
