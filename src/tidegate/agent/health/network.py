"""Check `network`: the network is connected.

`needs` lists what must work, all of it: `route` (a default route), `dns:NAME`, `tcp:HOST:PORT`, `any_of:HOST:PORT,HOST:PORT` (one of them accepts a
connection). Without `needs`, a default route.
"""

import socket
from pathlib import Path

from tidegate.agent.health import PROBE_S, CheckSettings, texts
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.network"
_ROUTES = (Path("/proc/net/route"), Path("/proc/net/ipv6_route"))


def create(settings: CheckSettings) -> HealthProbe:
    """Make the probe."""
    needs = texts(settings, "needs") or ["route"]
    for one in needs:
        kind, _, rest = one.partition(":")
        if (kind != "route" and not rest) or kind not in ("route", "dns", "tcp", "any_of"):
            raise ConfigError("config.invalid", f"needs: {one[:64]!r} is not understood")
        for address in rest.split(",") if kind in ("tcp", "any_of") else ():
            _split(address)
    return Network(needs)


class Network:
    """Every need in turn."""

    def __init__(self, needs: list[str]) -> None:
        self._needs = needs

    def check(self, now: float) -> tuple[bool, str]:
        """Try every need; the first that fails is the detail."""
        for one in self._needs:
            kind, _, rest = one.partition(":")
            if not _works(kind, rest):
                return False, one
        return True, "connected"


def _works(kind: str, rest: str) -> bool:
    if kind == "route":
        return any(_default_route(path) for path in _ROUTES)
    if kind == "dns":
        try:
            return bool(socket.getaddrinfo(rest, None))
        except OSError:
            return False
    return any(_accepts(*_split(address)) for address in rest.split(","))


def _default_route(path: Path) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    if path.name == "route":
        return any(line.split()[1:2] == ["00000000"] for line in lines[1:])
    return any(
        line.startswith("0" * 32 + " 00") and not line.rstrip().endswith(" lo") for line in lines
    )


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_S):
            return True
    except OSError:
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError("config.invalid", f"needs: {address[:64]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
