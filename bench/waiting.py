"""Ten thousand devices that stay connected and wait for news: what one of them costs, and when a halt has reached the last."""

import http.client
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import rollout as fleets
from bench.figure import Figure
from bench.poll import request
from bench.reference import WAITING_PATH, WAKE_PATH
from bench.servers import control_plane, reference

from tidegate.server.auth import Auth
from tidegate.server.operations import Operations
from tidegate.sim.load.process import private_mib, settle
from tidegate.sim.load.stock import fill
from tidegate.sim.load.wires import Wires

CONNECTIONS = 10_000
#: Answers differ by the device's row; this many of them.
TAGS = 8
#: Longer than it takes until all of them wait.
HOLD_S = 55
SPARE_FILES = 200


class Held(NamedTuple):
    """What was seen: bytes of the server's own memory for each, and seconds from when the act was asked for until the last answer."""

    bytes_each: float
    last_s: float


def _hold(pid: int, port: int, asks: list[bytes], waiting: Callable[[], int], act: Callable[[], object]) -> Held:  # fmt: skip
    """Have one connection wait for each of `asks`, then have all of them woken by `act`."""
    settle(pid)
    before = private_mib(pid)
    wires = Wires(port, len(asks))
    try:
        wires.hold(asks)
        end = time.monotonic() + HOLD_S
        while waiting() < len(asks):
            if time.monotonic() > end:
                raise RuntimeError(f"{waiting()} of {len(asks)} wait")
            time.sleep(0.2)
        settle(pid)
        after = private_mib(pid)
        began = time.monotonic()
        act()
        told = wires.gather(len(asks), began, 60)
        if len(told) < len(asks):
            raise RuntimeError(f"{len(told)} of {len(asks)} were told")
        return Held((after - before) * (1 << 20) / len(asks), max(told))
    finally:
        wires.close()


def _asked(port: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
        return answer.headers, text
    finally:
        connection.close()


def _tag(port: int, token: str) -> str:
    headers, _ = _asked(port, "GET", "/d/v1/poll", Authorization=f"Bearer {token}")
    return str(headers["etag"])


def _polls_held(port: int) -> int:
    _, page = _asked(port, "GET", "/metrics")
    lines = page.decode().splitlines()
    line = next(one for one in lines if one.startswith("tidegate_polls_held "))
    return int(float(line.rpartition(" ")[2]))


def _rollout(data: Path) -> str:
    """Make a rollout that means nobody, in a data directory that no server has open; return a token that may halt it."""
    services = fleets.opened(data, clock=time.time)
    try:
        services.store.write(fleets.publish).result()
        ring = {"name": "nobody", "audience": "id=nobody", "soak": "1s"}
        policy = {"name": "bench", "release": "gw1-1.1.0", "preset": "lab", "ring": [ring]}
        Operations(services).create(policy, fleets.OPERATOR, "bench", services.now)
        return Auth(services.store).local_token(services.now)
    finally:
        services.close()


def _control_plane(data: Path, count: int) -> Held:
    fleet = fill(data, count, int(time.time()), 3600)
    token = _rollout(data)
    bearer = f"Bearer {token}"
    with control_plane(data) as (pid, port):
        # the part for people is loaded with their first request, and is not what waiting costs
        _asked(port, "GET", "/api/v1/rollouts", Authorization=bearer)
        tags = {
            fleet.rows[one] % TAGS: _tag(port, fleet.token(one)) for one in range(min(TAGS, count))
        }
        asks = [
            request(
                fleet.token(one),
                f"If-None-Match: {tags[fleet.rows[one] % TAGS]}", f"Prefer: wait={HOLD_S}",
            )
            for one in range(count)
        ]  # fmt: skip
        path = "/api/v1/rollouts/bench/halt"
        return _hold(
            pid, port, asks, lambda: _polls_held(port),
            lambda: _asked(port, "POST", path, {"reason": "a bench"}, Authorization=bearer),
        )  # fmt: skip


def measure(count: int = CONNECTIONS) -> list[Figure]:
    """Measure it and the bare application, which keeps nothing but a future for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + SPARE_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + SPARE_FILES, hard))
    with tempfile.TemporaryDirectory() as scratch:
        ours = _control_plane(Path(scratch), count)
    ask = request("nobody", f"Prefer: wait={HOLD_S}")
    with reference() as (pid, port):
        bare = _hold(
            pid, port, [ask] * count,
            lambda: int(_asked(port, "GET", WAITING_PATH)[1]),
            lambda: _asked(port, "GET", WAKE_PATH),
        )  # fmt: skip
    against = "a bare ASGI application"
    return [
        Figure(
            name=f"a waiting connection, of {count:,}",
            value=ours.bytes_each / 1_000, unit="KB", reference=bare.bytes_each / 1_000,
            against=against, bar=20, at_most=True,
        ),
        Figure(
            name="until a halt has reached the last of them",
            value=ours.last_s, unit="s", reference=bare.last_s, against=against, bar=1,
            at_most=True,
        ),
    ]  # fmt: skip
