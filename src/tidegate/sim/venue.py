"""Where a demo plays: the address of a server, and whom to believe about it. It is told to the processes of the demo, so it holds no secret."""

import ssl
from urllib.parse import urlsplit

import msgspec

from tidegate.sim.link import HttpWire

_PORTS = {"http": 80, "https": 443}


class Venue(msgspec.Struct, frozen=True, kw_only=True):
    """A server.

    Attributes:
        url: `http://HOST[:PORT]` or `https://…`.
        ca: PEM file of the only authority to be believed; empty = those of this machine.
    """

    url: str
    ca: str = ""

    @property
    def host(self) -> str:
        """Return the name of the server."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Return its port."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    def wire(self) -> HttpWire:
        """Return a connection to it."""
        if urlsplit(self.url).scheme == "http":
            return HttpWire(self.host, self.port)
        context = ssl.create_default_context(cafile=self.ca or None)
        return HttpWire(self.host, self.port, context=context)
