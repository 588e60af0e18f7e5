"""A large fleet at its usual pace against one real server process on this machine: what it costs, and what one core would carry.

Each device's turn is a poll (answered 304) and the heartbeat that an agent sends after it, over a kept connection. Turns begin evenly. The server's own
processor time is what is counted, all its threads and its planner included, so that this client beside it does not count.
"""

import contextlib
import http.client
import os
import resource
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core import codec
from tidegate.core.errors import ConfigError, TransferError
from tidegate.core.protocol import EventBody, EventItem, EventsRequest, Metrics
from tidegate.server.store.sqlite import DATABASE_NAME
from tidegate.sim.api import Api
from tidegate.sim.cast import ReleasePlan
from tidegate.sim.control import Control
from tidegate.sim.link import HttpWire
from tidegate.sim.load import stock
from tidegate.sim.load.process import cpu_s, private_mib, settle
from tidegate.sim.load.wires import Answer, Turn, Wires
from tidegate.sim.processes import Server, free_port
from tidegate.sim.workshop import Recipe, Workshop, contract

#: Files that a process needs beside its connections.
_SPARE_FILES: Final = 200
_IMAGE_BYTES: Final = 1 << 20
#: A connection is held so long that nobody leaves before the halt, in seconds.
_HOLD_S: Final = 50
_TURNS: Final = 8
#: Events that each device sent before.
_REPORTED: Final = 1_000
#: A million devices are read before the server answers; on a busy machine that takes long, in seconds.
_START_S: Final = 600.0
#: How long the server is watched while nobody asks, at most, in seconds.
_IDLE_S: Final = 10.0
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked.

    Attributes:
        devices: enrolled.
        interval_s: between two polls of a device.
        seconds: how long the steady load lasts.
        sockets: connections held at a time.
        tls_s: how long polls over fresh TLS connections are measured; 0 = not.
        data: a folder that is kept; None = a temporary one.
    """

    devices: int
    interval_s: int = 300
    seconds: float = 60.0
    sockets: int = 10_000
    tls_s: float = 5.0
    data: Path | None = None


class Percentiles(msgspec.Struct, frozen=True):
    """Of answers, in milliseconds, counted from when they were due."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class Held(msgspec.Struct, frozen=True):
    """Polls that wait at the server: how many, bytes of the server's memory for each, and when a halt had reached half of them, and all (seconds)."""

    connections: int
    bytes_each: int
    half_s: float
    all_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        stocked_s: how long it took to write the fleet.
        sockets: open at a time, at most, under the steady load.
        database_bytes: of it.
        start_s: until the server answered.
        memory_bytes: private to the server, with the fleet in it and no load.
        turns: begun, and answered as they should be.
        refused: requests that were answered "busy"; a device comes again later.
        spread: polls whose devices were told to come less often from then on, since the server was busy.
        pace: turns a second, wanted and reached.
        idle_cores: of the server's processor with the fleet in it and nobody asking.
        turn_us: the server's processor time for one beyond that, in microseconds.
        cores: of the server's processor under this load, all in all.
        devices_a_core: that one core would carry at this interval, saturated.
        tls_poll_us: the server's processor time for a poll over a fresh TLS connection; 0 = not measured.
        devices_a_core_tls: that one core would carry if each poll were one.
    """

    devices: int
    interval_s: int
    sockets: int
    stocked_s: float
    database_bytes: int
    start_s: float
    memory_bytes: int
    turns: int
    refused: int
    spread: int
    pace_wanted: float
    pace: float
    poll: Percentiles
    heartbeat: Percentiles
    idle_cores: float
    turn_us: float
    cores: float
    devices_a_core: int
    held: Held | None
    tls_poll_us: float = 0
    devices_a_core_tls: int = 0


def measure(load: Load, say: Say) -> Report:
    """Make a fleet, serve it, and measure.

    Args:
        load: what is asked.
        say: told what goes on.

    Raises:
        ConfigError: `config.invalid`: the limit of open files is too low, or the folder is not empty.
        TransferError: the server did not answer as it should.
    """
    _raise_limit(load.sockets + _SPARE_FILES)
    if load.data is not None and load.data.exists() and any(load.data.iterdir()):
        raise ConfigError(
            "config.invalid", f"{load.data} is not empty; a bench begins from nothing"
        )
    folder = load.data or Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        return _measure(load, folder, say)
    finally:
        if load.data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _measure(load: Load, folder: Path, say: Say) -> Report:
    data = folder / "data"
    say(f"writing {load.devices:,} devices")
    began = time.monotonic()
    life_s = int(load.seconds + load.tls_s) + 86_400
    fleet = stock.fill(data, load.devices, int(time.time()), life_s, reported=_REPORTED)
    stocked_s = time.monotonic() - began
    database = sum(one.stat().st_size for one in data.glob(f"{DATABASE_NAME}*"))
    say("starting the server")
    began = time.monotonic()
    with _serving(data, folder / "server.log") as server:
        start_s = time.monotonic() - began
        settle(server.pid)  # what is made beside the first requests is no part of them
        memory = int(private_mib(server.pid) * (1 << 20))
        idle_cores = _idle(server, min(_IDLE_S, load.seconds), say)
        tags = _tags(server.port, fleet)
        pace = load.devices / load.interval_s
        sockets = min(load.sockets, load.devices)
        say(f"{pace:,.0f} turns a second over {sockets:,} connections, for {load.seconds:.0f} s")
        with contextlib.closing(Wires(server.port, sockets)) as wires:
            steady = _steady(server, fleet, tags, wires, pace=pace, seconds=load.seconds)
            most_open = wires.most_open
            say("a halt while all of them wait")
            held = _halt(server, folder, fleet, tags, wires)
    tls_us = 0.0
    if load.tls_s:
        say(f"polls over fresh TLS connections, for {load.tls_s:.0f} s")
        with _serving(data, folder / "server.log", "--tls") as server:
            settle(server.pid)
            tls_us = _tls(server, data, fleet, load.tls_s)
    busy_s = max(1e-9, steady.cpu_s - idle_cores * steady.took_s)
    return Report(
        devices=load.devices,
        interval_s=load.interval_s,
        sockets=most_open,
        stocked_s=stocked_s,
        database_bytes=database,
        start_s=start_s,
        memory_bytes=memory,
        turns=steady.turns,
        refused=steady.refused,
        spread=steady.spread,
        pace_wanted=pace,
        pace=steady.turns / steady.took_s,
        poll=_percentiles(steady.answers_s[0]),
        heartbeat=_percentiles(steady.answers_s[1]),
        idle_cores=idle_cores,
        turn_us=1e6 * busy_s / max(1, steady.turns),
        cores=steady.cpu_s / steady.took_s,
        devices_a_core=int(load.interval_s * steady.turns / busy_s * max(0.0, 1 - idle_cores)),
        held=held,
        tls_poll_us=tls_us,
        devices_a_core_tls=int(load.interval_s * 1e6 / tls_us) if tls_us else 0,
    )


@contextlib.contextmanager
def _serving(data: Path, log: Path, *extra: str) -> Iterator[Server]:
    # The whole fleet comes from one address here, which a server would hold to what one site may keep open.
    settings = log.with_name("tidegate.toml")
    settings.write_text("[http]\nconnections_per_address = 0\n")
    arguments = ("--config", str(settings), *extra)
    server = Server(data, free_port(), log, arguments, start_s=_START_S)
    try:
        yield server
    finally:
        server.stop()


# --- the steady load ---------------------------------------------------------------------------------------------------


@dataclass
class _Steady:
    """What was counted, and how long answers took, by step of a turn: poll, heartbeat."""

    turns: int = 0
    refused: int = 0
    spread: int = 0
    took_s: float = 0.0
    cpu_s: float = 0.0
    answers_s: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def note(self, answer: Answer) -> None:
        if answer.status == 503:  # it has more to do than it can: a device comes again later
            self.refused += 1
            return
        # a poll that a busy server answers anew tells the device to come less often (server.load)
        self.spread += answer.step == 0 and answer.status == 200
        if answer.status not in ((304, 200), (200,))[answer.step]:
            raise TransferError("download.refused", f"{answer.status}: {answer.body[:200]!r}")
        self.answers_s[answer.step].append(answer.took_s)
        self.turns += answer.step


def _idle(server: Server, seconds: float, say: Say) -> float:
    say(f"nobody asks, for {seconds:.0f} s")
    before, began = cpu_s(server.pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(server.pid) - before) / (time.monotonic() - began)


def _steady(
    server: Server,
    fleet: stock.Stock,
    tags: list[str],
    wires: Wires,
    *,
    pace: float,
    seconds: float,
) -> _Steady:
    found = _Steady()
    now, count = int(time.time()), len(fleet.rows)

    def turn(number: int) -> Turn:
        device, lap = number % count, number // count
        token = fleet.token(device)
        return _poll(token, tags[fleet.rows[device] % _TURNS]), _beat(
            token, device, _REPORTED + lap + 1, now
        )

    before = cpu_s(server.pid)
    found.took_s = wires.play(turn, per_s=pace, seconds=seconds, note=found.note)
    found.cpu_s = cpu_s(server.pid) - before
    return found


def _tags(port: int, fleet: stock.Stock) -> list[str]:
    """Return the tags of answers that hold nothing new: devices get one of several, by their row."""
    tags = [""] * _TURNS
    for number in range(min(_TURNS, len(fleet.rows))):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"authorization": f"Bearer {fleet.token(number)}"}
        connection.request("GET", "/d/v1/poll", headers=headers)
        answer = connection.getresponse()
        answer.read()
        tags[fleet.rows[number] % _TURNS] = answer.headers.get("etag", "")
        connection.close()
    return tags


def _poll(token: str, tag: str, *more: str) -> bytes:
    lines = [
        "GET /d/v1/poll HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {token}",
        f"If-None-Match: {tag}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _beat(token: str, device: int, seq: int, now: int) -> bytes:
    body = EventBody(
        device_id=f"dev-{device:07}",
        seq=seq,
        at=now,
        kind="heartbeat",
        boot_id="boot-1",
        metrics=Metrics(errors=0, device_s=300),
    )
    content = codec.encode(EventsRequest(events=(EventItem(body=body),)))
    lines = [
        "POST /d/v1/events HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


# --- a halt while they wait --------------------------------------------------------------------------------------------


def _halt(
    server: Server, folder: Path, fleet: stock.Stock, tags: list[str], wires: Wires
) -> Held | None:
    """Have every connection wait, then halt a rollout that concerns none of them."""
    token = (folder / "data" / "bootstrap.token").read_text().strip()
    control = Control(Api(HttpWire("127.0.0.1", server.port), token))
    name = _rollout(control, folder)
    tags = _tags(server.port, fleet)  # the plan is another one
    before = private_mib(server.pid)
    asks = [
        _poll(fleet.token(number), tags[fleet.rows[number] % _TURNS], f"Prefer: wait={_HOLD_S}")
        for number in range(len(wires))
    ]
    wires.hold(asks)
    count = _wait_until_held(server.port, len(asks))
    after = private_mib(server.pid)
    began = time.monotonic()
    control.api.post(f"/rollouts/{name}/halt", {"reason": "a bench"}, key="bench-halt")
    reached = sorted(wires.gather(count, began, 60.0))
    if len(reached) < count or not count:
        return None
    each = int((after - before) * (1 << 20) / count)
    return Held(count, max(0, each), reached[len(reached) // 2], reached[-1])


def _rollout(control: Control, folder: Path) -> str:
    image = folder / "image"
    image.write_bytes(os.urandom(_IMAGE_BYTES))
    shop = Workshop(folder / "shop", stock.PRODUCT, control)
    health = contract([{"type": "boot"}], warmup_s=60, timeout_s=600, interval_s=10)
    revisions = (min(stock.REVISIONS), max(stock.REVISIONS))
    recipe = Recipe("rootfs", image, stock.PRODUCT, revisions, health)
    shop.publish(ReleasePlan(2, "2.0.0", "", back_to=()), [recipe])
    return control.roll_out(
        {
            "name": "bench",
            "release": f"{stock.PRODUCT}-2.0.0",
            "preset": "lab",
            "ring": [{"name": "nobody", "audience": "id=nobody", "soak": "1s"}],
        }
    )


def _wait_until_held(port: int, count: int) -> int:
    """Return how many connections the server holds, once that does not grow any more."""
    held, same = -1, 0
    while same < 5 and held < count:
        time.sleep(0.2)
        found = _metric(port, "tidegate_polls_held")
        same = same + 1 if found == held else 0
        held = found
    return held


def _metric(port: int, name: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    line = next(one for one in page.splitlines() if one.startswith(f"{name} "))
    return int(float(line.rpartition(" ")[2]))


# --- fresh TLS ---------------------------------------------------------------------------------------------------------


def _tls(server: Server, data: Path, fleet: stock.Stock, seconds: float) -> float:
    """Return the server's processor time for a poll over a TLS connection of its own, in microseconds."""
    context = ssl.create_default_context(cafile=str(data / "tls" / "ca.pem"))
    before, end, count = cpu_s(server.pid), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        headers = {"authorization": f"Bearer {fleet.token(count % len(fleet.rows))}"}
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=30, context=context
        )
        connection.request("GET", "/d/v1/poll", headers=headers)
        status = connection.getresponse().status
        connection.close()
        if status != 200:
            raise TransferError("download.refused", f"{status} over TLS")
        count += 1
    return 1e6 * (cpu_s(server.pid) - before) / count


# --- small parts -------------------------------------------------------------------------------------------------------


def _percentiles(seconds: list[float]) -> Percentiles:
    found = sorted(seconds) or [0.0]

    def at(share: float) -> float:
        return round(1e3 * found[min(len(found) - 1, int(share * len(found)))], 3)

    return Percentiles(at(0.5), at(0.99), round(1e3 * found[-1], 3))


def _raise_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise ConfigError(
            "config.invalid",
            f"--sockets wants {files} open files and this machine allows {hard}: ask for fewer, or raise `ulimit -Hn`",
        )
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def lines(report: Report) -> list[str]:
    """Return a report as lines for people."""
    one = report
    each = one.memory_bytes / one.devices
    found = [
        f"{one.devices:,} devices, {one.pace_wanted:,.0f} turns a second (a poll every {one.interval_s} s, then a heartbeat), {one.sockets:,} connections",
        f"  fleet written      {one.stocked_s:8.1f} s    database {one.database_bytes / 1e6:,.0f} MB, {one.database_bytes / one.devices / 1e3:.2f} KB a device",
        f"  server started     {one.start_s:8.1f} s    memory {one.memory_bytes / 2**20:,.0f} MiB, {each / 1e3:.2f} KB a device",
        f"  turns done         {one.turns:8,}      {one.pace:,.0f} a second, {100 * one.pace / one.pace_wanted:.0f} % of what was wanted",
        f"  refused as busy    {one.refused:8,}      these devices come again; polls told to come less often: {one.spread:,}",
        f"  poll answered      {one.poll.p50_ms:8.1f} ms   p99 {one.poll.p99_ms:.1f} ms, most {one.poll.max_ms:.0f} ms",
        f"  heartbeat durable  {one.heartbeat.p50_ms:8.1f} ms   p99 {one.heartbeat.p99_ms:.1f} ms, most {one.heartbeat.max_ms:.0f} ms",
        f"  server's processor {one.cores:8.2f} cores   {one.idle_cores:.3f} of them when nobody asks, and {one.turn_us:.0f} µs a turn",
        f"  one core, full     {one.devices_a_core:8,} devices at this interval; plan with half",
    ]
    if one.held is not None:
        found.append(
            f"  waiting            {one.held.connections:8,} connections of {one.held.bytes_each / 1e3:.1f} KB; "
            f"a halt reached half of them in {one.held.half_s:.2f} s, all in {one.held.all_s:.2f} s"
        )
    if one.tls_poll_us:
        found.append(
            f"  fresh TLS a poll   {one.tls_poll_us:8.0f} µs   one core, full: {one.devices_a_core_tls:,} devices, heartbeats not counted"
        )
    return found


def table(reports: list[Report]) -> list[str]:
    """Return what a device costs as the fleet grows."""
    head = f"{'devices':>10}  {'start s':>8}  {'MiB':>7}  {'KB/device':>9}  {'idle':>6}  {'µs/turn':>8}  {'p99 ms':>7}  {'cores':>6}"
    rows = [
        f"{one.devices:>10,}  {one.start_s:>8.1f}  {one.memory_bytes / 2**20:>7.0f}  "
        f"{one.memory_bytes / one.devices / 1e3:>9.2f}  {one.idle_cores:>6.3f}  {one.turn_us:>8.0f}  {one.poll.p99_ms:>7.1f}  {one.cores:>6.2f}"
        for one in reports
    ]
    return [head, *rows]


def plain(reports: list[Report]) -> Any:
    """Return reports as JSON-like data."""
    return [msgspec.to_builtins(one) for one in reports]
