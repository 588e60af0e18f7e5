"""What one device's bytes may cost: a pace over all its connections, the newest eight of them, and nothing that stands still."""

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.rig import Rig

from tidegate.server import streams
from tidegate.server.streams import STREAMS_MAX, Streams

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()


async def taken(_: Any) -> None:
    """Take a piece at once."""


def test_all_connections_of_a_device_share_its_pace_and_others_have_their_own() -> None:
    found = Streams(1_000_000)
    piece = bytes(50_000)

    async def sent(row: int) -> None:
        await found.send(row, piece, taken, lambda: None)

    async def scene() -> tuple[float, float]:
        began = time.monotonic()
        await asyncio.gather(*(sent(1) for _ in range(9)))
        one = time.monotonic() - began
        await asyncio.gather(*(sent(row) for row in range(2, 500)))
        return one, time.monotonic() - began - one

    one, others = asyncio.run(scene())
    assert (
        one >= 0.39
    )  # the first goes at once, and each of the others has its twentieth of a second
    assert others < 20  # in turn they would have taken 25


def test_without_a_rate_nobody_waits_and_with_one_a_piece_is_a_second_at_most() -> None:
    assert Streams(0).piece(1 << 18) == 1 << 18
    assert Streams(10_000).piece(1 << 18) == 10_000
    assert Streams(10).piece(1 << 18) == 4_096
    assert Streams(1 << 30).piece(1 << 18) == 1 << 18


def test_of_too_many_connections_of_a_device_the_oldest_ends() -> None:
    found, ended = Streams(0), []
    entered = [
        found.opened(1, lambda number=number: ended.append(number))  # type: ignore[misc]
        for number in range(STREAMS_MAX + 2)
    ]
    for one in entered:
        one.__enter__()
    assert ended == [0, 1]
    with found.opened(2, lambda: ended.append(-1)):
        assert ended == [0, 1]
    for one in entered:
        one.__exit__(None, None, None)
    with found.opened(1, lambda: ended.append(-2)):
        assert ended == [0, 1]


def test_a_connection_that_takes_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_S", 0.01)

    async def scene() -> None:
        gone = asyncio.Event()

        async def stands(_: Any) -> None:
            await gone.wait()

        await asyncio.wait_for(Streams(0).send(1, b"x", stands, gone.set), 20)

    asyncio.run(scene())


def test_a_paced_payload_arrives_whole_and_takes_its_time(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data", more={"egress_device_rate": 200_000})
    try:
        rig.app.services.blobs.put(DIGEST, [CONTENT])
        device = rig.device()
        began = time.monotonic()
        for _ in range(2):
            assert device.ask("GET", f"/d/v1/blobs/{DIGEST}").body == CONTENT
        assert time.monotonic() - began >= 0.5
    finally:
        rig.close()


def test_nginx_is_told_the_pace(tmp_path: Path) -> None:
    more = {"egress_device_rate": 200_000, "artifacts": "accel"}
    rig = Rig(tmp_path / "data", more=more)
    try:
        rig.app.services.blobs.put(DIGEST, [CONTENT])
        answer = rig.device().ask("GET", f"/d/v1/blobs/{DIGEST}")
        assert answer.headers["x-accel-limit-rate"] == "200000"
    finally:
        rig.close()
