"""Who may connect at all: where a server listens in plain to others, its trusted proxies and its own machine."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tidegate.server.connections import Bounds, guarded
from tidegate.server.proxies import Proxies


class Transport(asyncio.Transport):
    """Stands for a connection from an address."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 5), "sockname": ("10.0.0.5", 8440)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def admitted(address: str, bounds: Bounds, count: int = 1) -> list[bool]:
    """Say of each of so many connections from an address whether it is taken."""

    async def connect() -> list[bool]:
        async def app(*_: Any) -> None:
            pass

        made: list[Transport] = []
        kind = guarded(bounds)
        config = uvicorn.Config(app, lifespan="off")
        config.load()
        for _ in range(count):
            one = Transport(address)
            kind(config, ServerState(), {}).connection_made(one)
            made.append(one)
        return [not one.aborted for one in made]

    return asyncio.run(connect())


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("127.0.0.1", True), ("::1", True), ("10.1.2.3", True), ("::ffff:10.1.2.3", True),
        ("192.0.2.1", False), ("2001:db8::1", False), ("11.0.0.1", False),
    ],
)  # fmt: skip
def test_in_plain_nobody_but_proxies_and_this_machine_may_connect(
    address: str, taken: bool
) -> None:
    closed = Bounds(0, Proxies(("10.0.0.0/8",)), proxies_only=True)
    assert admitted(address, closed) == [taken]
    assert admitted(address, closed._replace(proxies_only=False)) == [True]


def test_an_address_is_an_ipv6_network_where_whoever_has_it_has_all_of_it() -> None:
    bounds = Bounds(2, Proxies(()))
    assert admitted("2001:db8::1", bounds, 3) == [True, True, False]
    assert admitted("192.0.2.1", bounds._replace(per_address=0), 3) == [True] * 3
