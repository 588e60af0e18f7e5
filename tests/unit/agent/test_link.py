"""The line itself: kept connections, TLS with an own authority, answers that are not whole, URLs that are no server."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.crash.lab import make_device

from tidegate.agent.board import SystemClock
from tidegate.agent.net import api
from tidegate.agent.net.link import NARROW_BYTES, HttpTransport
from tidegate.agent.net.retry_after import WISH_MAX_S, wish_s
from tidegate.agent.net.uplink import RETRY_MAX_S, Uplink
from tidegate.core.errors import ConfigError, RequestError, TransferError
from tidegate.server.tls import own_certificate

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[socket.socket], None]


@contextmanager
def listening(serve: Serve, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Hand each connection to `serve`; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()

    def one(client: socket.socket) -> None:
        try:
            with client:
                client.settimeout(2.0)
                if context is not None:
                    client = context.wrap_socket(client, server_side=True)
                serve(client)
        except OSError:
            return

    def loop() -> None:
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=one, args=(client,), daemon=True).start()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        listener.close()


def request_of(client: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        piece = client.recv(4096)
        if not piece:
            break
        got += piece
    return got


def body(transport: HttpTransport, path: str = "/x") -> bytes:
    return api.call(transport, "GET", path, clock=SystemClock()).body


def test_one_connection_is_kept_for_many_requests() -> None:
    connections = []

    def serve(client: socket.socket) -> None:
        connections.append(client)
        while request_of(client):
            client.sendall(OK)

    with listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert [body(transport) for _ in range(5)] == [b"ok"] * 5
        transport.close()
    assert len(connections) == 1


def test_a_kept_connection_that_the_server_closed_is_opened_again() -> None:
    connections = []

    def serve(client: socket.socket) -> None:
        connections.append(client)
        request_of(client)
        client.sendall(OK)

    with listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert [body(transport) for _ in range(3)] == [b"ok"] * 3
    assert len(connections) == 3


def test_an_answer_that_was_not_read_does_not_spoil_the_next(tmp_path: Path) -> None:
    def serve(client: socket.socket) -> None:
        while got := request_of(client):
            big = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"z" * 1_000_000
            client.sendall(big if b"/big" in got else OK)

    with listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        response = transport.request("GET", "/big")
        assert response.read(10) == b"z" * 10
        assert body(transport) == b"ok"
        with pytest.raises(TransferError) as caught:
            api.call(transport, "GET", "/big", clock=SystemClock(), limit=1000)
        assert "over 1000 bytes" in caught.value.detail
        assert body(transport) == b"ok"


def test_a_server_with_its_own_authority_is_believed_and_a_strangers_is_not(
    tmp_path: Path,
) -> None:
    now = datetime.now(UTC)
    files = own_certificate(tmp_path / "ours", ("127.0.0.1",), now)
    own_certificate(tmp_path / "theirs", ("127.0.0.1",), now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def serve(client: socket.socket) -> None:
        while request_of(client):
            client.sendall(OK)

    with listening(serve, context) as port:
        url = f"https://127.0.0.1:{port}"
        assert body(HttpTransport(url, ca=str(tmp_path / "ours" / "ca.pem"))) == b"ok"
        for ca in (str(tmp_path / "theirs" / "ca.pem"), None):
            with pytest.raises(TransferError) as caught:
                body(HttpTransport(url, ca=ca))
            assert caught.value.code == "download.tls"
        named = HttpTransport(f"https://localhost:{port}", ca=str(tmp_path / "ours" / "ca.pem"))
        with pytest.raises(TransferError):
            body(named, "/" + "x")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_a_failure_of_the_link(answer: bytes) -> None:
    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(answer)

    with listening(serve) as port, pytest.raises(TransferError) as caught:
        body(HttpTransport(f"http://127.0.0.1:{port}"))
    assert caught.value.code in ("download.refused", "download.truncated")


def test_a_problem_keeps_its_code_and_an_unknown_one_becomes_a_refusal() -> None:
    def answering(text: bytes) -> Serve:
        def serve(client: socket.socket) -> None:
            request_of(client)
            client.sendall(b"HTTP/1.1 403 No\r\ncontent-length: %d\r\n\r\n" % len(text) + text)

        return serve

    known = b'{"type":"urn:x","title":"t","status":403,"code":"device.revoked"}'
    for text, code in ((known, "device.revoked"), (b"<html>", "request.invalid")):
        with listening(answering(text)) as port, pytest.raises(RequestError) as caught:
            body(HttpTransport(f"http://127.0.0.1:{port}"))
        assert caught.value.code == code


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://h/path", "h:80"])
def test_a_url_that_is_no_server_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError):
        HttpTransport(url)


def test_failures_are_spaced_ever_wider_and_one_answer_ends_that() -> None:
    device = make_device(1)
    device.start()
    uplink = Uplink(device.plane, device.clock, device.settings)
    pauses = []
    for _ in range(12):
        uplink.trouble("nobody there")
        pauses.append(uplink.line.retry_at - device.clock.monotonic())
    assert 3 < pauses[0] < 7
    assert max(pauses) <= RETRY_MAX_S * 1.25
    assert min(pauses[8:]) >= RETRY_MAX_S * 0.75
    uplink.contact()
    assert (uplink.line.retry_at, uplink.line.problem) == (0.0, "")


def test_an_offer_is_never_hidden_behind_not_modified() -> None:
    from tests.crash.lab import Order

    device = make_device(1)
    device.start()
    uplink = Uplink(device.plane, device.clock, device.settings)
    uplink.line.token = "token"
    device.plane.order = Order("none")
    assert uplink.poll() is True
    assert uplink.line.etag is None
    device.plane.order = None
    assert uplink.poll() is False


# --- a certificate that is out of its time, by this clock ---------------------------------------------------------------

TIMELESS = (
    "/d/v1/time",
    "/d/v1/nonce",
    "/d/v1/session",
    "/d/v1/repo/timestamp.json",
    "/d/v1/assignment",
    "/d/v1/permit",
    "/d/v1/poll",
    "/d/v1/events",
)


@contextmanager
def out_of_time(folder: Path, days: int) -> Iterator[tuple[str, str]]:
    """Serve with a certificate that was made so many days from now: what a wrong clock makes of a good one. Yields URL and authority."""
    files = own_certificate(folder, ("127.0.0.1",), datetime.now(UTC) + timedelta(days=days))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def serve(client: socket.socket) -> None:
        while request_of(client):
            client.sendall(OK)

    with listening(serve, context) as port:
        yield f"https://127.0.0.1:{port}", str(folder / "ca.pem")


@pytest.mark.parametrize("days", [-20_000, 4000], ids=["expired", "not valid yet"])
def test_a_certificate_out_of_its_time_serves_the_time_and_metadata_and_never_payload(
    tmp_path: Path, days: int
) -> None:
    with out_of_time(tmp_path, days) as (url, ca):
        transport = HttpTransport(url, ca=ca)
        for path in TIMELESS:
            assert body(transport, path) == b"ok"
        # The connection that is open is no way round it.
        for path in ("/d/v1/blobs/" + "0" * 64, "/d/v1/enrol", "/d/v1/timeless"):
            assert body(transport, TIMELESS[0]) == b"ok"
            for _ in range(2):
                with pytest.raises(TransferError) as caught:
                    body(transport, path)
                assert caught.value.code == "download.tls"
                assert transport._connection is None


@pytest.mark.parametrize("days", [-20_000, 0, 4000], ids=["expired", "now", "not valid yet"])
def test_a_strangers_certificate_is_refused_whatever_the_clock_says(
    tmp_path: Path, days: int
) -> None:
    own_certificate(tmp_path / "ours", ("127.0.0.1",), datetime.now(UTC))
    own_certificate(tmp_path / "old", ("127.0.0.1",), datetime.now(UTC) + timedelta(days=days))
    with out_of_time(tmp_path / "theirs", days) as (url, _):
        for ca in (str(tmp_path / "ours" / "ca.pem"), str(tmp_path / "old" / "ca.pem"), None):
            for path in ("/d/v1/time", "/d/v1/repo/2.root.json", "/d/v1/blobs/" + "0" * 64):
                with pytest.raises(TransferError) as caught:
                    body(HttpTransport(url, ca=ca), path)
                assert caught.value.code == "download.tls"


def test_another_host_is_refused_even_for_the_time(tmp_path: Path) -> None:
    with out_of_time(tmp_path, -20_000) as (url, ca):
        elsewhere = url.replace("127.0.0.1", "localhost")
        with pytest.raises(TransferError) as caught:
            body(HttpTransport(elsewhere, ca=ca), "/d/v1/time")
        assert caught.value.code == "download.tls"


# --- what is asked again ----------------------------------------------------------------------------------------------


def _asked_after_a_break(method: str, path: str, *, first: bytes = b"") -> tuple[list[bytes], str]:
    """Ask over a kept connection that ends in the middle of the second request; return what the server heard from then on, and how it ended."""
    heard: list[bytes] = []

    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(OK)
        got = request_of(client)
        heard.append(got.split(b" HTTP/")[0])
        if len(heard) > 1:
            client.sendall(OK)
        else:
            client.sendall(first)

    def served_again(client: socket.socket) -> None:
        if heard:
            heard.append(request_of(client).split(b" HTTP/")[0])
            client.sendall(OK)
        else:
            serve(client)

    with listening(served_again) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert body(transport) == b"ok"
        try:
            api.call(transport, method, path, clock=SystemClock(), body=b"{}")
        except TransferError as error:
            return heard, error.code
    return heard, "answered"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/d/v1/poll"),
        ("GET", "/d/v1/repo/timestamp.json"),
        ("POST", "/d/v1/events"),
        ("POST", "/d/v1/permit"),
        ("POST", "/d/v1/assignment"),
    ],
)
def test_what_may_be_repeated_is_asked_once_more(method: str, path: str) -> None:
    asked = f"{method} {path}".encode()
    assert _asked_after_a_break(method, path) == ([asked, asked], "answered")


@pytest.mark.parametrize("path", ["/d/v1/session", "/d/v1/enrol", "/d/v1/rekey", "/other"])
def test_what_must_not_be_repeated_is_asked_once(path: str) -> None:
    assert _asked_after_a_break("POST", path) == ([f"POST {path}".encode()], "download.truncated")


def test_nonsense_is_no_reason_to_ask_again() -> None:
    heard, ended = _asked_after_a_break("GET", "/d/v1/poll", first=b"SSH-2.0-x\r\n\r\n")
    assert (heard, ended) == ([b"GET /d/v1/poll"], "download.refused")


def test_a_connection_that_was_closed_meanwhile_is_not_even_tried() -> None:
    heard: list[bytes] = []
    closed = threading.Event()

    def serve(client: socket.socket) -> None:
        heard.append(request_of(client).split(b" HTTP/")[0])
        client.sendall(OK)
        client.shutdown(socket.SHUT_RDWR)
        closed.set()

    with listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        assert body(transport) == b"ok"
        assert closed.wait(5)
        # Not to be repeated, and all the same it is answered.
        reply = api.call(transport, "POST", "/d/v1/session", clock=SystemClock(), body=b"{}")
    assert (reply.body, heard) == (b"ok", [b"GET /x", b"POST /d/v1/session"])


def test_after_a_silence_the_next_connection_asks_for_small_segments_and_then_for_usual_ones() -> (
    None
):
    sizes: list[int] = []

    def serve(client: socket.socket) -> None:
        # What this end was told that it may send at once.
        sizes.append(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        while b"/hang" not in request_of(client):
            client.sendall(OK)
        client.recv(1)

    with listening(serve) as port:
        transport = HttpTransport(f"http://127.0.0.1:{port}")
        for _ in range(3):
            with pytest.raises(TransferError) as caught:
                transport.request("GET", "/hang", timeout_s=0.1)
            assert caught.value.code == "download.timeout"
        assert body(transport) == b"ok"
        transport.close()
        # A server that is away is no such thing.
        with pytest.raises(TransferError):
            HttpTransport("http://127.0.0.1:1").request("GET", "/x")
    assert sizes[0] == sizes[2] > NARROW_BYTES >= sizes[1] == sizes[3]


# --- Retry-After --------------------------------------------------------------------------------------------------------

_NOW = "Sat, 28 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "date", "least", "most"),
    [
        ("120", "", 120, 132),
        ("1", "", 1, 1),
        ("0", "", 0, 0),
        ("999999999999999999999999", "", WISH_MAX_S, WISH_MAX_S),
        ("Sat, 28 Nov 2026 12:02:00 GMT", _NOW, 120, 132),
        ("Sat, 28 Nov 2026 11:00:00 GMT", _NOW, 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", _NOW, WISH_MAX_S, WISH_MAX_S),
        # Without the server's own time nobody knows how long it is until then.
        ("Sat, 28 Nov 2026 12:02:00 GMT", "", 0, 0),
        ("Sat, 28 Nov 2026 12:02:00 GMT", "yesterday", 0, 0),
        ("-5", "", 0, 0),
        ("1.5", "", 0, 0),
        ("²", "", 0, 0),
        ("soon", _NOW, 0, 0),
        ("9" * 5000, "", 0, 0),
        ("", _NOW, 0, 0),
    ],
)
def test_how_long_a_server_asks_to_be_left_alone(
    text: str, date: str, least: int, most: int
) -> None:
    found = wish_s({"retry-after": text, "date": date}, SystemClock())
    assert least <= found <= most


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_poll_is_not_sent_before_the_server_wants_it(status: str) -> None:
    device = make_device(1)
    device.start()

    def serve(client: socket.socket) -> None:
        request_of(client)
        client.sendall(
            f"HTTP/1.1 {status}\r\nretry-after: 600\r\ncontent-length: 0\r\n\r\n".encode()
        )

    with listening(serve) as port:
        line = Uplink(HttpTransport(f"http://127.0.0.1:{port}"), device.clock, device.settings)
        before = device.clock.monotonic()
        assert line.poll() is None
        assert 600 <= line.poll_due_at() - before <= 660
        # That other answers come on the way, of a download say, takes nothing back.
        line.contact()
        assert 600 <= line.poll_due_at() - before <= 660
        # Shorter than this device's own pause: that one holds.
        for _ in range(9):
            line.trouble("x", 1)
    assert line.line.retry_at - device.clock.monotonic() > RETRY_MAX_S / 2
