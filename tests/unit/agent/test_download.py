"""Bytes over real HTTP from a server that truncates, lies, stalls and trickles."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.crash.releases import BLOCK, Release, make_release

from tidegate.agent.board import SystemClock
from tidegate.agent.events import (
    Download,
    Downloaded,
    Progressed,
)
from tidegate.agent.files import StateDirectory
from tidegate.agent.install.slot_file import SlotFile
from tidegate.agent.installers import raw_image
from tidegate.agent.jobs import Reply
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.ports import SlotDevice
from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Progress,
    Update,
)
from tidegate.agent.worker import Worker
from tidegate.core.errors import PublisherError, TidegateError, TransferError
from tidegate.core.hardware import Hardware
from tidegate.core.payload import Index

RELEASE: Release = make_release(2)
BODY = RELEASE.container
#: Writes an answer for the request's headers (names in lower case).
Script = Callable[[dict[str, str], Callable[[bytes], None]], None]


def head(status: str, length: int, **more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {length}", 'etag: "one"']
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    """Answer as an honest server does."""
    wanted = headers.get("range")
    if wanted is None:
        write(head("200 OK", len(BODY)) + BODY)
        return
    first = int(wanted.removeprefix("bytes=").split("-")[0])
    ranged = f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"
    write(head("206 Partial Content", len(BODY) - first, content_range=ranged) + BODY[first:])


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """Serve one scripted answer a connection on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()

    def answer(client: socket.socket) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = client.recv(4096)
                if not piece:
                    return
                request += piece
                if request[:1] == b"\x16":  # somebody speaks TLS
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
            lines = request.decode().split("\r\n")[1:]
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines) if k}
            try:
                script(headers, client.sendall)
            except OSError:
                return

    def loop() -> None:
        while not stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


class Bench:
    """One slot file, one state directory, one link."""

    def __init__(self, url: str, folder: str, timeout_s: float = 2.0) -> None:
        self.clock = SystemClock()
        self.storage = StateDirectory(f"{folder}/state")
        self.transport = HttpTransport(url, timeout_s=timeout_s)
        self.board = self
        self.path = f"{folder}/B"

    def open_slot(self, slot: str) -> SlotDevice:
        return SlotFile(self.path, 64 * BLOCK)

    def installed(self) -> bytes:
        return Path(self.path).read_bytes()[: len(RELEASE.image)]


def settings(**changes: Any) -> Settings:
    given = {
        "device_id": "dev-1",
        "product": "gw1",
        "hardware": Hardware("gw1", 3),
        "sync_bytes": 2 * BLOCK,
        "timeout_s": 1.0,
        "rate_min": 0,
        **changes,
    }
    return Settings(**given)


def job(progress: Progress | None = None) -> Download:
    update = Update(update="u-1", release=RELEASE.target.release, slot="B")
    return Download(update=update, progress=progress)


def fetch(
    bench: Bench, progress: Progress | None = None, **changes: Any
) -> tuple[list[Reply], TidegateError | None]:
    """Run one attempt; return what became durable, and how it failed."""
    replies: list[Reply] = []
    try:
        world: Any = bench  # a download needs no more of a device than this
        for reply in Worker(world, settings(**changes))._download(job(progress), "token"):
            replies.append(reply)  # noqa: PERF402 - what came before an error counts, too
    except TidegateError as error:
        return replies, error
    return replies, None


def attempt(script: Script, folder: object, **changes: Any) -> str:
    with serving(script) as url:
        _, error = fetch(Bench(url, str(folder)), **changes)
    assert error is not None
    assert isinstance(error, TransferError)
    return error.code


def last_progress(replies: list[Reply]) -> Progress:
    return next(one.progress for one in reversed(replies) if isinstance(one, Progressed))


def test_an_honest_server_fills_the_slot(tmp_path: object) -> None:
    with serving(whole) as url:
        bench = Bench(url, str(tmp_path))
        # What stood there before must not shine through.
        Path(bench.path).write_bytes(b"\xff" * 64 * BLOCK)
        replies, error = fetch(bench)
    assert error is None
    assert isinstance(replies[-1], Downloaded)
    assert bench.installed() == RELEASE.image


@pytest.mark.parametrize("keep", [0, 10, 200, len(BODY) // 2, len(BODY) - 1])
def test_a_body_that_ends_early_is_resumed_by_range(tmp_path: object, keep: int) -> None:
    asked: list[str | None] = []

    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        asked.append(headers.get("range"))
        if len(asked) == 1:
            write(head("200 OK", len(BODY)) + BODY[:keep])
        else:
            whole(headers, write)

    with serving(script) as url:
        bench = Bench(url, str(tmp_path))
        replies, error = fetch(bench)
        assert error is not None
        assert error.code == "download.truncated"
        progress = last_progress(replies) if any(replies) else None
        replies, error = fetch(bench, progress)
    assert error is None
    assert bench.installed() == RELEASE.image
    assert (asked[1] is not None) == (keep >= Index.parse(BODY).head_size)
    if progress is not None:
        done = replies[-1]
        assert isinstance(done, Downloaded)
        assert done.progress.resumes == 1


def _resume(script: Script, folder: object) -> tuple[list[Reply], TidegateError | None]:
    """Get half of it from an honest server, then the rest from `script`."""

    def half(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head("200 OK", len(BODY)) + BODY[: len(BODY) * 2 // 3])

    with serving(half) as url:
        bench = Bench(url, str(folder))
        replies, _ = fetch(bench)
    with serving(script) as url:
        bench.transport = HttpTransport(url, timeout_s=2.0)
        return fetch(bench, last_progress(replies))


def test_the_whole_in_answer_to_a_range_is_refused_and_the_etag_forgotten(
    tmp_path: object,
) -> None:
    seen: list[str | None] = []

    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        seen.append(headers.get("if-range"))
        write(head("200 OK", len(BODY)) + BODY)

    replies, error = _resume(script, tmp_path)
    assert error is not None
    assert error.code == "download.range"
    assert seen == ['"one"']
    assert last_progress(replies).etag == ""


@pytest.mark.parametrize(
    "ranged",
    [
        f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes 1-2/{len(BODY)}",
        "bytes 5-4/9",
        "nonsense",
        "",
    ],
)
def test_another_range_than_asked_for_is_refused(tmp_path: object, ranged: str) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        first = int(headers["range"].removeprefix("bytes=").split("-")[0])
        length = len(BODY) - first
        write(head("206 Partial Content", length, content_range=ranged) + BODY[first:])

    _, error = _resume(script, tmp_path)
    assert error is not None
    assert error.code == "download.range"


def test_other_bytes_from_there_on_are_found_by_their_digest(tmp_path: object) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        first = int(headers["range"].removeprefix("bytes=").split("-")[0])
        ranged = f"bytes {first}-{len(BODY) - 1}/{len(BODY)}"
        body = bytes(len(BODY) - first)
        write(head("206 Partial Content", len(body), content_range=ranged, etag='"two"') + body)

    _, error = _resume(script, tmp_path)
    assert error is not None
    assert error.code == "download.hash"


def test_a_slot_that_lost_its_last_interval_is_filled_again(tmp_path: object) -> None:
    segments = Index.parse(BODY).segments
    until = segments[3].offset

    def most(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head("200 OK", len(BODY)) + BODY[:until])

    with serving(most) as url:
        bench = Bench(url, str(tmp_path))
        replies, _ = fetch(bench)
    progress = last_progress(replies)
    assert (progress.since, progress.segments) == (2, 3)
    lost = next(iter(Index.parse(BODY).writes(2)))
    device = SlotFile(bench.path, None)
    device.write_at(lost.target_offset, bytes(lost.length))
    device.close()
    with serving(whole) as url:
        bench.transport = HttpTransport(url, timeout_s=2.0)
        _, error = fetch(bench, progress)
    assert error is None
    assert bench.installed() == RELEASE.image


@pytest.mark.parametrize(
    ("status", "more", "code"),
    [
        ("302 Found", {"location": "http://127.0.0.1:1/"}, "download.refused"),
        ("200 OK", {"content_encoding": "gzip"}, "download.refused"),
        ("206 Partial Content", {"content_range": "bytes 0-1/2"}, "download.refused"),
        ("404 Not Found", {}, "download.refused"),
        ("503 Service Unavailable", {}, "download.refused"),
        ("416 Range Not Satisfiable", {}, "download.range"),
    ],
)
def test_what_is_no_plain_answer_is_refused(
    tmp_path: object, status: str, more: dict[str, str], code: str
) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head(status, len(BODY), **more) + BODY)

    assert attempt(script, tmp_path) == code


def test_a_wrong_length_is_refused_before_anything_is_read(tmp_path: object) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head("200 OK", len(BODY) + 1) + BODY + b"x")

    assert attempt(script, tmp_path) == "download.range"


@pytest.mark.parametrize("at", [0, 5, 9, 40, len(BODY) - 3])
def test_a_flipped_byte_is_found_before_it_is_decoded(tmp_path: object, at: int) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head("200 OK", len(BODY)) + BODY[:at] + bytes([BODY[at] ^ 4]) + BODY[at + 1 :])

    code = attempt(script, tmp_path)
    # A longer index than the body holds ends early instead.
    assert code in ({"download.hash", "download.truncated"} if at == 9 else {"download.hash"})


def test_a_server_that_says_nothing_times_out(tmp_path: object) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        time.sleep(1.0)

    assert attempt(script, tmp_path, timeout_s=0.2) == "download.timeout"


def test_a_trickle_is_too_slow_though_it_never_pauses_for_long(tmp_path: object) -> None:
    def script(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        write(head("200 OK", len(BODY)))
        for at in range(len(BODY)):
            write(BODY[at : at + 1])
            time.sleep(0.02)

    began = time.monotonic()
    assert attempt(script, tmp_path, rate_min=1000, rate_grace_s=1) == "download.slow"
    assert time.monotonic() - began < 3


def test_nobody_listening_is_refused_and_an_unknown_name_is_dns(tmp_path: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    _, error = fetch(Bench(f"http://127.0.0.1:{port}", str(tmp_path)))
    assert error is not None
    assert error.code == "download.refused"
    _, error = fetch(Bench("http://no-such-name.invalid:80", str(tmp_path)))
    assert error is not None
    assert error.code == "download.dns"


def test_plain_http_where_tls_is_wanted_is_a_tls_failure(tmp_path: object) -> None:
    with serving(whole) as url:
        _, error = fetch(Bench(url.replace("http://", "https://"), str(tmp_path)))
    assert error is not None
    assert error.code == "download.tls"


def test_a_signed_index_that_describes_another_image_is_the_publishers_fault(
    tmp_path: object,
) -> None:
    import msgspec

    release = msgspec.structs.replace(
        RELEASE.target.release,
        install=msgspec.structs.replace(RELEASE.target.release.install, sha256="0" * 64),
    )
    wrong = Download(update=Update(update="u", release=release, slot="B"), progress=None)
    with serving(whole) as url:
        world = Bench(url, str(tmp_path))
        with pytest.raises(PublisherError) as caught:
            list(raw_image.download(world, settings(), wrong, None))  # type: ignore[arg-type]
    assert caught.value.code == "sig.malformed"
