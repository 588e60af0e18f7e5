"""A device that stays connected: its poll is held, what it has to do itself cuts that short, and a link that does not bear it is asked less of."""

import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.crash.lab import Device, make_device
from tests.unit.agent.test_link import listening, request_of

from tidegate.agent.board import SystemClock
from tidegate.agent.net.beside import Beside
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.net.uplink import HOLD_MAX_S, HOLD_MIN_S, Uplink

HEAD = b'HTTP/1.1 304 Not Modified\r\netag: "1-0-00"\r\n'
USUAL, HELD = HEAD + b"\r\n", HEAD + b"preference-applied: wait\r\n\r\n"


def uplink_to(
    port: int, *, ca: str | None = None, timeout_s: float = 5.0, stay: bool = True
) -> Uplink:
    device: Device = make_device(1, 2, stay_connected=stay, timeout_s=timeout_s)
    scheme = "http" if ca is None else "https"
    transport = HttpTransport(f"{scheme}://127.0.0.1:{port}", ca=ca)
    made = Uplink(transport, SystemClock(), device.settings)
    made.line.etag, made.line.token, made.line.poll_after_s = '"1-0-00"', "t", 300.0
    return made


def test_a_poll_asks_to_be_held_for_as_long_as_the_device_is_free() -> None:
    seen: list[bytes] = []

    def serve(client: object) -> None:
        while got := request_of(client):  # type: ignore[arg-type]
            seen.append(got.lower())
            client.sendall(HELD)  # type: ignore[attr-defined]

    with listening(serve) as port:
        uplink = uplink_to(port)
        for idle_s in (20.9, 3_600.0, HOLD_MIN_S - 0.1, 0.0):
            assert uplink.poll(idle_s) is False
        assert uplink.poll_due_at(50.0) - time.monotonic() < 2  # held, so it may ask again
        assert uplink.poll_due_at() - time.monotonic() > 290  # which it would not without waiting
        uplink_to(port, stay=False).poll(3_600.0)
        uplink.line.etag = (
            None  # it does not know how things stand: answered at once, whatever it says
        )
        uplink.poll(3_600.0)
    assert [b"prefer: wait=20\r" in one for one in seen] == [True, *[False] * 5]
    assert f"prefer: wait={HOLD_MAX_S}\r".encode() in seen[1]
    assert [b"prefer" in one for one in seen] == [True, True, *[False] * 4]


def test_a_server_that_does_not_hold_is_asked_as_often_as_it_says() -> None:
    def serve(client: object) -> None:
        while request_of(client):  # type: ignore[arg-type]
            client.sendall(USUAL)  # type: ignore[attr-defined]

    with listening(serve) as port:
        uplink = uplink_to(port)
        uplink.poll(3_600.0)
        assert uplink.poll_due_at(3_600.0) - time.monotonic() > 290


@pytest.mark.parametrize("tls", [False, True])
def test_what_is_to_be_done_cuts_a_held_poll_short_and_is_no_failure(
    tmp_path: Path, *, tls: bool
) -> None:
    context = ca = None
    if tls:
        files = own_files(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        ca = str(tmp_path / "ca.pem")
    asked: list[bytes] = []
    held = threading.Event()

    def serve(client: object) -> None:
        while got := request_of(client):  # type: ignore[arg-type]
            asked.append(got)
            if b"prefer" in got.lower():
                held.set()
                time.sleep(1.5)
            client.sendall(USUAL)  # type: ignore[attr-defined]

    with listening(serve, context) as port:
        uplink = uplink_to(port, ca=ca)
        uplink.way = Beside(lambda _: _cut_after(held, uplink))
        began = time.monotonic()
        uplink.line.again = False
        assert uplink.poll(50.0) is None
        assert time.monotonic() - began < 1.4
        assert (uplink.line.failures, uplink.line.problem) == (0, "")
        assert uplink.line.hold_s == HOLD_MAX_S
        assert uplink.poll_due_at(50.0) - time.monotonic() < 2
        uplink.way = Beside(_wait_for)
        assert uplink.poll() is False  # the line is as good as before
        assert len(asked) == 2  # and nothing was sent twice


def test_a_cut_that_comes_before_the_request_is_sent_is_not_lost() -> None:
    def serve(client: object) -> None:
        while request_of(client):  # type: ignore[arg-type]
            time.sleep(3)

    with listening(serve) as port:
        uplink = uplink_to(port)

        def way(work: Callable[[], object]) -> object:
            uplink.hurry()  # somebody asks before the thread has begun
            return work()

        uplink.way = way
        began = time.monotonic()
        assert uplink.poll(50.0) is None
        assert time.monotonic() - began < 2
        assert uplink.line.failures == 0


def test_a_link_that_loses_held_polls_is_held_half_as_long() -> None:
    def serve(client: object) -> None:
        request_of(client)  # type: ignore[arg-type]

    with listening(serve) as port:
        uplink = uplink_to(port)
        found = []
        for _ in range(5):
            uplink.poll(50.0)
            found.append(uplink.line.hold_s)
    assert found == [27, 13, 7, 7, 7]
    assert uplink.line.failures == 5


def test_heartbeats_come_no_more_often_because_polls_are_held() -> None:
    def serve(client: object) -> None:
        while request_of(client):  # type: ignore[arg-type]
            client.sendall(HELD)  # type: ignore[attr-defined]

    with listening(serve) as port:
        uplink = uplink_to(port)
        due = []
        for _ in range(3):
            uplink.poll(50.0)
            due.append(uplink.beat_due())
        assert due == [True, False, False]
        usual = uplink_to(port, stay=False)
        assert [usual.beat_due() for _ in range(3)] == [True, True, True]


def own_files(folder: Path) -> tuple[Path, Path]:
    from tidegate.server.tls import own_certificate

    return own_certificate(folder, ("127.0.0.1",), datetime.now(UTC))


def _cut_after(held: threading.Event, uplink: Uplink) -> bool:
    held.wait(5)
    time.sleep(0.05)
    uplink.hurry()
    return True


def _wait_for(answered: int) -> bool:
    import select

    select.select([answered], [], [], 5)
    return True


def test_news_that_comes_at_once_is_no_refusal_unless_it_never_ends() -> None:
    count = 0

    def serve(client: object) -> None:
        nonlocal count
        body = b'{"work":false,"poll_after_s":300,"gate_epoch":1}'
        while request_of(client):  # type: ignore[arg-type]
            count += 1
            head = b'HTTP/1.1 200 OK\r\netag: "1-%d-00"\r\ncontent-length: %d\r\n\r\n'
            client.sendall(head % (count, len(body)) + body)  # type: ignore[attr-defined]

    with listening(serve) as port:
        uplink = uplink_to(port)
        uplink.line.etag = None
        soon = []
        for _ in range(4):
            uplink.poll(50.0)
            soon.append(uplink.poll_due_at(50.0) - time.monotonic() < 2)
    # the first told how things stand, the second that they changed, and then it has been enough
    assert soon == [True, True, False, False]
