"""Connections that want to keep a server busy, over real sockets against the served process: each ends by itself, and others are served meanwhile."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.served import Served, serving
from tests.e2e.stranger import Stranger, give_claim

HELD_MAX = 60
HEAD_S = 15

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("connections")
    config = folder / "tidegate.toml"
    config.write_text(f"[http]\nconnections_per_address = {HELD_MAX}\n")
    with serving(folder / "data", "--config", str(config)) as one:
        yield one


@contextlib.contextmanager
def held(served: Served, count: int) -> Iterator[list[socket.socket]]:
    made = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(count)]
    try:
        yield made
    finally:
        for one in made:
            one.close()


def is_over(one: socket.socket, patience_s: float) -> bool:
    """Say whether the other side ends a connection within so many seconds."""
    one.settimeout(patience_s)
    try:
        while one.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def drip(ones: list[socket.socket], piece: bytes) -> None:
    for one in ones:
        with contextlib.suppress(OSError):
            one.sendall(piece)


def test_heads_that_only_drip_and_connections_that_say_nothing_end_and_others_are_served(
    served: Served,
) -> None:
    with held(served, 40) as slow:
        drip(slow[:20], b"GET /d/v1/poll HTTP/1.1\r\nx: ")
        began = time.monotonic()
        while time.monotonic() - began < HEAD_S + 3:
            drip(slow[:20], b"a")
            assert served.ask("GET", "/healthz")[0] == 200
            time.sleep(0.5)
        assert all(is_over(one, 0.5) for one in slow)


def test_one_address_holds_so_many_connections_and_not_more(served: Served) -> None:
    with held(served, HELD_MAX) as kept, held(served, 10) as more:
        assert all(is_over(one, 2) for one in more)
        assert not is_over(kept[0], 0.2)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if served.ask("GET", "/healthz")[0] == 200:
                return
    pytest.fail("what was let go is still counted")


@pytest.mark.parametrize(
    "piece", [b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["headers", "one header"]
)
def test_a_head_without_end_is_cut_off(served: Served, piece: bytes) -> None:
    with held(served, 1) as (one,):
        one.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-first: ")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 4 << 20:
                one.sendall(piece)
                sent += len(piece)
        assert sent < 4 << 20
        assert is_over(one, 2)


def test_too_many_headers_are_refused_in_words(served: Served) -> None:
    with held(served, 1) as (one,):
        one.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 150 + b"\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 431 ")
        assert is_over(one, 2)


@pytest.mark.parametrize("path", ["/api/v1/rollouts", "/sign-in", "/d/v1/enrol"])
def test_an_endless_chunked_body_is_not_read_for_ever(served: Served, path: str) -> None:
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with held(served, 1) as (one,):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        one.sendall(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            one.settimeout(5)
            while sent < 64 << 20:
                one.sendall(chunk)
                sent += len(chunk)
        assert sent < 64 << 20
    assert served.ask("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET  /healthz HTTP/1.1\r\n\r\n", b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
        b"\x00" * 500, b"GET /healthz HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"POST /d/v1/time HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /d/v1/time HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET http://[::bad/ HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /%zz%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_malformed_costs_its_sender_alone(served: Served, request_text: bytes) -> None:
    with held(served, 1) as (one,):
        one.sendall(request_text)
        one.settimeout(3)
        with contextlib.suppress(OSError):
            answer = one.recv(4096)
            assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert served.ask("GET", "/healthz")[0] == 200


def test_many_requests_in_one_piece_are_answered_in_order(served: Served) -> None:
    with held(served, 1) as (one,):
        one.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 200)
        one.settimeout(10)
        got = b""
        while got.count(b"ok\n") < 200:
            piece = one.recv(65_536)
            assert piece
            got += piece


def test_the_log_holds_no_fault_of_ours_after_all_that(served: Served) -> None:
    text = served.log.read_text()
    assert "Traceback" not in text, text[-3000:]


def test_a_proxy_that_is_trusted_is_not_counted(tmp_path: Path) -> None:
    config = tmp_path / "tidegate.toml"
    config.write_text('[http]\nconnections_per_address = 3\ntrusted_proxies = ["127.0.0.1"]\n')
    with serving(tmp_path / "data", "--config", str(config)) as one, held(one, 20) as kept:
        assert not any(is_over(each, 0.05) for each in kept)
        assert one.ask("GET", "/healthz")[0] == 200


def test_a_device_that_reads_nothing_holds_eight_downloads_and_not_more(served: Served) -> None:
    content, name = 32 << 20, "ab" * 32
    blob = served.data / "blobs" / name[:2] / name
    blob.parent.mkdir()
    with blob.open("wb") as file:
        file.truncate(content)
    give_claim(served.data, "claim-of-a-reader")
    device = Stranger(served, "reader", "claim-of-a-reader")
    device.join()
    asked = f"GET /d/v1/blobs/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {device.token}\r\n\r\n"
    with held(served, 9) as streams:
        for one in streams:
            one.sendall(asked.encode())
            assert one.recv(12) == b"HTTP/1.1 200"
        # what was sent before the end came is still read; all of it never is
        assert is_over(streams[0], 10)
        streams[-1].settimeout(10)
        left = content
        while left > 0 and (piece := streams[-1].recv(1 << 20)):
            left -= len(piece)
        assert left <= 0
