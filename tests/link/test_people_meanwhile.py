"""A server that says nothing keeps its own line waiting, and nobody else: people, and whoever stops the agent, are answered meanwhile."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.link.proxy import Answer, Proxy, Wire
from tests.unit.agent.test_process import VirtualBoard, board, make_plane

from tidegate.agent.local import Request, ask
from tidegate.core.errors import TransferError
from tidegate.sim.virtual_board import wait_for

#: Far less than the five seconds for which the agent waits for its server here.
AT_ONCE_S = 1.0


class Silence:
    """A fault: no answer, and a word to the test that one is waited for."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.over = threading.Event()

    def __call__(self, wire: Wire, answer: Answer) -> bool:
        self.begun.set()
        try:
            wire.stay()
        finally:
            self.over.set()
        return False


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[VirtualBoard, Proxy]]:
    """Give an agent that has nothing to do, and the proxy before its server."""
    plane = make_plane()
    plane.order = None
    proxies: list[Proxy] = []

    @contextmanager
    def through(url: str) -> Iterator[str]:
        proxy = Proxy(urlsplit(url).port or 0)
        proxies.append(proxy)
        try:
            yield f"http://127.0.0.1:{proxy.port}"
        finally:
            proxy.close()

    with board(plane, tmp_path, through) as made:
        assert wait_for(lambda: _status(made).get("enrolled") == "accepted", 30)
        assert wait_for(lambda: _status(made).get("last_contact_at") is not None, 30)
        yield made, proxies[0]


def _status(made: VirtualBoard) -> dict[str, object]:
    try:
        found = ask(made.folder / "sock", Request(verb="status"))
    except TransferError:
        return {}
    return dict(found["status"])


def _said(made: VirtualBoard, verb: str, **more: object) -> float:
    """Ask; return how long the answer took, in seconds."""
    began = time.monotonic()
    answer = ask(made.folder / "sock", Request(verb=verb, **more))  # type: ignore[arg-type]
    assert answer["ok"], answer
    return time.monotonic() - began


def _silent(made: VirtualBoard, proxy: Proxy) -> Silence:
    silence = Silence()
    proxy.others.append(silence)
    # Where people wait with the loop, this would come when the poll is over, and what follows be answered at once.
    assert _said(made, "check") < AT_ONCE_S
    assert silence.begun.wait(20)
    return silence


@pytest.mark.e2e
def test_every_verb_is_answered_while_a_poll_hangs(line: tuple[VirtualBoard, Proxy]) -> None:
    made, proxy = line
    silence = _silent(made, proxy)
    took = [_said(made, "status") for _ in range(5)]
    took.append(_said(made, "hold", reason="not now"))
    journals = [(made.folder / "state" / f"journal.{n}").read_bytes() for n in (0, 1)]
    took += [_said(made, "metered", word="yes"), _said(made, "check")]
    assert not silence.over.is_set()
    assert max(took) < AT_ONCE_S, took
    # What was said meanwhile counted at once, and is durable.
    assert any(b'"not now"' in one for one in journals)
    # The poll that hung is given up, and the one asked for meanwhile is sent.
    assert silence.over.wait(20)
    assert wait_for(lambda: _status(made).get("problem") == "", 30), _status(made)


@pytest.mark.e2e
def test_an_order_to_stop_is_not_kept_waiting_by_a_poll_that_hangs(
    line: tuple[VirtualBoard, Proxy],
) -> None:
    made, proxy = line
    silence = _silent(made, proxy)
    process = made.process
    assert process is not None
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - began < 3.0
    assert silence.over.wait(5)
    made.start()
    assert wait_for(lambda: _status(made) != {}, 20)
    assert json.loads(made.agent("status", "--json").stdout)["update"] is None
