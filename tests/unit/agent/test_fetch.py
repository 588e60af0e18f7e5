"""Documents from a server that drips, stalls, swells, lies or sends elsewhere: each ends within seconds, with a code of its own."""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.agent.test_link import listening, request_of
from tests.unit.core.repo import NOW, Repo

from tidegate.agent.files import StateDirectory
from tidegate.agent.net import api, fetch
from tidegate.agent.net.link import FRAMING_MAX, HttpTransport
from tidegate.agent.trust.store import TrustStore
from tidegate.core.errors import TidegateError

LIMIT = 64 << 10
HEAD = b"HTTP/1.1 200 OK\r\n"
Serve = Callable[[socket.socket], None]


class Hasty:
    """A clock on which a second of ours is twenty: grace periods pass while the test runs."""

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def random_bytes(self, count: int) -> bytes:
        return bytes(count)


CLOCK = Hasty()


def says(*pieces: bytes) -> Serve:
    """Answer with these bytes, and close."""

    def serve(client: socket.socket) -> None:
        request_of(client)
        for piece in pieces:
            client.sendall(piece)

    return serve


def floods(first: bytes, piece: bytes) -> Serve:
    """Answer without an end."""

    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(first)
        while True:
            client.sendall(piece)

    return serve


def drips(first: bytes, piece: bytes = b"x") -> Serve:
    """Answer with a byte every now and then."""

    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(first)
        while True:
            client.sendall(piece)
            time.sleep(0.02)

    return serve


def stalls(first: bytes) -> Serve:
    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(first)
        client.settimeout(5.0)
        client.recv(1)

    return serve


def resets(first: bytes) -> Serve:
    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(first)
        time.sleep(0.05)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return serve


LONG = HEAD + b"content-length: 5000\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: "

WAYS: dict[str, tuple[Serve, str]] = {
    "reset in the middle": (resets(LONG + b"x" * 100), "download.truncated"),
    "a short body": (says(LONG + b"x" * 100), "download.truncated"),
    "no answer at all": (says(), "download.truncated"),
    "a stall before the head": (stalls(b""), "download.timeout"),
    "a stall in the head": (stalls(HEAD), "download.timeout"),
    "a stall in the body": (stalls(LONG + b"x" * 100), "download.timeout"),
    "a body that drips": (drips(LONG), "download.slow"),
    "a chunked body that drips": (drips(CHUNKED, b"1\r\nx\r\n"), "download.slow"),
    "a head that drips": (drips(HEAD + b"x-a: "), "download.timeout"),
    "heads that drip": (drips(HEAD, b"a: b\r\n"), "download.timeout"),
    "a chunk's length that drips": (drips(CHUNKED, b"0"), "download.timeout"),
    "trailers that drip": (drips(CHUNKED + b"0\r\n", b"a: b\r\n"), "download.timeout"),
    "a header without an end": (floods(HEAD + b"x-a: ", b"y" * 65536), "download.refused"),
    "headers without an end": (floods(HEAD, b"x-a: y\r\n" * 64), "download.refused"),
    "headers of 60 kB each": (
        floods(HEAD, b"x-a: " + b"y" * 60_000 + b"\r\n"),
        "download.refused",
    ),
    "interim answers without an end": (
        floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 64),
        "download.refused",
    ),
    "trailers without an end": (floods(CHUNKED + b"0\r\n", b"a: b\r\n" * 64), "download.refused"),
    "a chunk's length without an end": (floods(CHUNKED, b"0" * 4096), "download.refused"),
    "chunks without an end": (floods(CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n"), "sig.oversized"),
    "a body without a length or an end": (
        floods(HEAD + b"\r\n", b"x" * 4096),
        "sig.oversized",
    ),
    "a chunk of negative length": (floods(CHUNKED + b"-5\r\n", b"x" * 4096), "sig.oversized"),
    "a promise of too much": (stalls(HEAD + b"content-length: 65537\r\n\r\n"), "sig.oversized"),
    "a promise of everything": (
        stalls(HEAD + b"content-length: " + b"9" * 30 + b"\r\n\r\n"),
        "sig.oversized",
    ),
    "gzip": (
        says(HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nab"),
        "download.refused",
    ),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "download.refused"),
    "to another host": (
        says(ELSEWHERE + b"http://127.0.0.1:1/x\r\n\r\n"),
        "download.refused",
    ),
    "to a file": (says(ELSEWHERE + b"file:///etc/passwd\r\n\r\n"), "download.refused"),
    "to itself": (says(ELSEWHERE + b"/x\r\n\r\n"), "download.refused"),
    "unauthorised": (says(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"), "download.refused"),
    "a fault": (says(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), "download.refused"),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.timeout(20)
def test_every_way_in_which_a_link_fails_has_its_code(name: str) -> None:
    serve, code = WAYS[name]
    began = time.monotonic()
    with listening(serve) as port:
        transport = HttpTransport(
            f"http://127.0.0.1:{port}", timeout_s=1.0, monotonic=CLOCK.monotonic
        )
        with pytest.raises(TidegateError) as caught:
            fetch.document(transport, "/x", limit=LIMIT, clock=CLOCK, timeout_s=1.0)
        transport.close()
    assert caught.value.code == code, caught.value
    assert time.monotonic() - began < 5


def test_a_document_of_exactly_the_limit_is_taken() -> None:
    body = b"x" * LIMIT
    with listening(says(HEAD + b"content-length: %d\r\n\r\n" % LIMIT, body)) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert fetch.document(transport, "/x", limit=LIMIT, clock=CLOCK) == body
    with listening(says(CHUNKED, b"10000\r\n" + body + b"\r\n0\r\na: b\r\n\r\n")) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert fetch.document(transport, "/x", limit=LIMIT, clock=CLOCK) == body


def test_many_small_chunks_are_no_attack() -> None:
    body = b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n"
    assert len(body) > 2 * FRAMING_MAX
    with listening(says(CHUNKED + body)) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert fetch.document(transport, "/x", limit=LIMIT, clock=CLOCK) == b"x" * 30_000


def test_a_redirect_is_asked_once_and_leads_nowhere() -> None:
    asked = []
    visitors = []

    def elsewhere(client: socket.socket) -> None:
        visitors.append(request_of(client))

    def serve(client: socket.socket) -> None:
        while got := request_of(client):
            asked.append(got)
            client.sendall(ELSEWHERE + b"http://127.0.0.1:%d/x\r\n\r\n" % other)

    with listening(elsewhere) as other, listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        with pytest.raises(TidegateError):
            fetch.document(transport, "/x", limit=LIMIT, clock=CLOCK)
        transport.close()
    assert (len(asked), visitors) == (1, [])


@pytest.mark.parametrize("path", ["/d/v1/assignment", "/d/v1/permit"])
def test_answers_to_messages_are_paced_too(path: str) -> None:
    with listening(drips(LONG)) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}", monotonic=CLOCK.monotonic)
        with pytest.raises(TidegateError) as caught:
            api.call(transport, "GET", path, clock=CLOCK)
        transport.close()
    assert caught.value.code == "download.slow"


def test_an_encoded_answer_to_a_message_is_refused() -> None:
    with listening(says(HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nab")) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        with pytest.raises(TidegateError) as caught:
            api.call(transport, "GET", "/d/v1/poll", clock=CLOCK)
    assert caught.value.code == "download.refused"


def answers(bodies: dict[str, bytes]) -> Serve:
    """Serve a repository, over one connection."""

    def serve(client: socket.socket) -> None:
        while got := request_of(client):
            name = got.split(b" ")[1].decode().rpartition("/")[2]
            body = bodies.get(name)
            status = b"404 Not Found" if body is None else b"200 OK"
            body = body or b""
            client.sendall(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (status, len(body)))
            client.sendall(body)

    return serve


def store_on(port: int, repo: Repo, folder: Path) -> TrustStore:
    return TrustStore(
        StateDirectory(str(folder)),
        HttpTransport(f"http://127.0.0.1:{port}"),
        repo.root_body(),
        NOW,
        clock=CLOCK,
    )


def test_a_captive_portals_page_is_no_timestamp(tmp_path: Path) -> None:
    repo = Repo()
    bodies = repo.files() | {"timestamp.json": b"<html><title>Sign in</title></html>"}
    with listening(answers(bodies)) as port:
        store = store_on(port, repo, tmp_path)
        store.refresh_root()
        with pytest.raises(TidegateError) as caught:
            store.refresh("gw1")
    assert caught.value.code == "sig.malformed"


def test_a_whole_repository_comes_over_one_real_connection(tmp_path: Path) -> None:
    repo = Repo()
    with listening(answers(repo.files())) as port:
        store = store_on(port, repo, tmp_path)
        store.refresh_root()
        assert "product/gw1" in store.refresh("gw1").roles
