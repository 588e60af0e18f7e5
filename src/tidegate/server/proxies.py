"""Who a request really comes from, where a proxy that is trusted stands in front: the newest address of `X-Forwarded-For` that is not one of its kind.

From anybody else the header is a stranger's text and changes nothing.
"""

import functools
import ipaddress
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

Scope = MutableMapping[str, Any]
_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
#: Addresses of one header that are looked at, from its end.
_MOST: Final = 20


class Proxies:
    """Proxies that are trusted, by network."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Trust these: networks in the usual form, checked already."""
        self._networks = tuple(ipaddress.ip_network(one) for one in networks)
        self.trust = functools.lru_cache(maxsize=1024)(self._trusts)

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self._networks)

    def _trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in one for one in self._networks)

    def look_through(self, scope: Scope) -> None:
        """Put the real address and scheme into a request that a trusted proxy passed on."""
        client = scope.get("client")
        if not client or not self.trust(client[0]):
            return
        passed: list[str] = []
        for name, value in scope["headers"]:
            if name == _FOR:
                passed += value.decode("latin-1").split(",")
            elif name == _PROTO and value in {b"http", b"https"}:
                scope["scheme"] = value.decode()
        for text in reversed(passed[-_MOST:]):
            address = _address(text.strip())
            if address is None:
                return  # whatever it is, nobody is believed beyond it
            scope["client"] = (str(address), 0)
            if not self.trust(str(address)):
                return


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
