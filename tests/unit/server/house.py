"""One server in process with several tenants: each is asked through the front, at its own host."""

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.unit.server.rig import Answer, Rig, ask

from tidegate.core import codec
from tidegate.server.app import App, create_app
from tidegate.server.cells import Cells
from tidegate.server.config import Settings
from tidegate.server.front import Front
from tidegate.server.operations import auth_of

OWN = "ota.example.com"


class Tenant(Rig):
    """A tenant's cell, with what operators, publishers and devices do there."""

    def __init__(self, house: "House", name: str, made: dict[str, Any], seed: int) -> None:
        self.house, self.name, self.token = house, name, str(made["token"])
        self.host = str(made["tenant"]["host"])
        self.loop, self.address = house.rig.loop, None
        self.random, self.offline = Random(seed), {}

    @property
    def app(self) -> App:  # type: ignore[override]
        cell = self.house.cells.of_name(self.name)
        assert cell is not None
        assert cell.app is not None, cell.wrong
        return cell.app

    @property
    def now(self) -> float:
        return self.house.rig.now

    @now.setter
    def now(self, now: float) -> None:
        self.house.rig.now = now

    @property
    def door(self) -> Any:
        """The front, at this tenant's host."""

        async def at_host(scope: Any, receive: Any, send: Any) -> None:
            others = [one for one in scope["headers"] if one[0] != b"host"]
            headers = [*others, (b"host", self.host.encode())]
            await self.house.front({**scope, "headers": headers}, receive, send)

        return at_host

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return self.house.ask(self.host, method, path, body, **headers)

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Ask the API, as the owner of this tenant."""
        return self.house.call(self.host, self.token, method, path, body)


class House:
    """A server: its default tenant (`rig`), and others as they are added."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.rig = Rig(folder, more={"external_url": f"https://{OWN}", **more})
        self._seed = 100
        self.open()
        auth = auth_of(self.rig.app.services)
        auth.first_account(int(self.rig.now))
        self.token = auth.local_token(int(self.rig.now), "")

    def open(self) -> None:
        """Put the front before the server that the rig has now."""
        self.cells = Cells(self.rig.app, self._opened)
        self.front = Front(self.rig.app, self.cells)
        self.cells.arrange()

    def _opened(self, settings: Settings) -> App:
        self._seed += 1
        seeded = Random(self._seed)
        return create_app(settings, clock=lambda: self.rig.now, randomness=seeded.randbytes)

    def settle(self) -> None:
        """Do what the front does when tenants come or go."""
        self.cells.arrange()
        for app in self.cells.moved()[1]:
            app.close()

    def ask(self, host: str, method: str, path: str, body: object = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else codec.encode(body) if body is not None else b""
        named = {"host": host, **{name.replace("_", "-"): one for name, one in headers.items()}}
        return self.rig.loop.run_until_complete(ask(self.front, method, path, named, raw))

    def call(self, host: str, token: str, method: str, path: str, body: object = None) -> Answer:
        """Ask the API at a host with a token."""
        sent = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return self.ask(host, method, f"/api/v1/{path}", sent, **headers)

    def manage(self, method: str, path: str = "", body: object = None) -> Answer:
        """Ask about tenants, as the owner of the server."""
        return self.call(OWN, self.token, method, f"tenants{path and '/' + path}", body)

    def add(self, name: str, host: str = "", **quotas: int) -> Tenant:
        """Make a tenant, at NAME.example.com where no other host is given."""
        told = {"name": name, "host": host or f"{name}.example.com", **quotas}
        answer = self.manage("POST", "", told)
        assert answer.status == 201, answer.body
        self._seed += 1
        return Tenant(self, name, json.loads(answer.body), self._seed)

    def restart(self) -> None:
        self.cells.close()
        self.rig.restart()
        self.open()

    def close(self) -> None:
        self.cells.close()
        self.rig.close()
