"""The trust path: what a refresh costs a device, beside python-tuf's own client in the same run, and what signing and verifying cost the server."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from bench.figure import Figure
from bench.repository import NOW, Made, digest, make, signer

from tidegate.core import codec, keys
from tidegate.core.hardware import HardwareRange
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    SESSION_TYPE,
    AssignedTarget,
    AssignmentBody,
    DeliveryPolicy,
    RepoBinding,
    SessionBody,
    SessionRequest,
)
from tidegate.server.devices import open_session

PRODUCTS, RELEASES = 100, 100
OURS, THEIRS = "ours", "theirs"
HERE = Path(__file__).resolve().parent


class Shop:
    """Serves a repository over HTTP, and counts what it is asked and what it sends (bodies)."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.trips = self.sent = 0
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = shop.made.files.get(self.path.rpartition("/")[2])
                status, body = (404, b"") if body is None else (200, body)
                shop.trips += 1
                shop.sent += len(body)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def counted(self) -> tuple[int, int]:
        """Return (trips, bytes) since the last time."""
        found, self.trips, self.sent = (self.trips, self.sent), 0, 0
        return found

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def shop() -> Iterator[Shop]:
    """Serve the large repository."""
    found = Shop(make(PRODUCTS, RELEASES))
    try:
        yield found
    finally:
        found.close()


def refresh(who: str, url: str, folder: Path, anchor: bytes) -> dict[str, float]:
    """Have a client of its own process look for a release of gw7; returns its time in seconds and its peak resident memory in MiB."""
    folder.mkdir(exist_ok=True)
    root = folder / "anchor.json"
    root.write_bytes(anchor)
    command = [sys.executable, "-m", "bench.trust_client", who, url, str(folder), str(root)]
    result = subprocess.run(
        command, cwd=HERE.parent, capture_output=True, text=True, check=True, timeout=300
    )
    found: dict[str, float] = json.loads(result.stdout)
    return found


def per_core_s(act: Callable[[], object], *, rounds: int = 5, count: int = 2000) -> float:
    """Return how often `act` is done in a second of processor time; the median of some rounds."""
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        for _ in range(count):
            act()
        found.append(count / (time.process_time() - begin))
    return median(found)


def assignment() -> AssignmentBody:
    """Return an order like those of a rollout."""
    return AssignmentBody(
        tenant="default",
        device_id="dev-000001",
        device_key=digest("device"),
        epoch=1,
        seq=NOW * 1000,
        issued=NOW,
        expires=NOW + 86_400,
        nonce="ab" * 16,
        action="install",
        update="0123456789abcdef",
        attempt=1,
        rollout="gw1-2.4.1",
        ring="pilot",
        reason="admitted",
        target=AssignedTarget(
            path="gw1/2.4.1/rootfs",
            product="gw1",
            length=80_000_000,
            sha256=digest("payload"),
            release_counter=118,
            security_version=6,
            hardware=(HardwareRange("gw1", 2, 7),),
            channels=("pilot", "stable"),
        ),
        repo=RepoBinding(root_min=1, timestamp_min=NOW // 60, snapshot_min=NOW // 60),
        policy=DeliveryPolicy(),
        poll_after_s=300,
    )


def _signing() -> list[Figure]:
    director, device = signer("director"), signer("device")
    body = assignment()
    signed = per_core_s(lambda: keys.sign_document(body, ASSIGNMENT_TYPE, director))
    raw = per_core_s(lambda: director.sign(b"x" * 600))
    asked = SessionBody(device_id="dev-000001", nonce="ab" * 16, boot_id="b" * 36, agent="1.0")
    request = codec.encode(SessionRequest(envelope=keys.sign_document(asked, SESSION_TYPE, device)))
    row = SimpleNamespace(
        keytype="ed25519", public_key=device.public.public, state="accepted", id="dev-000001"
    )
    opened = per_core_s(
        lambda: open_session(codec.decode(request, SessionRequest), lambda _id: row), count=1000
    )
    message, made = b"x" * 300, device.sign(b"x" * 300)
    verified = per_core_s(lambda: device.public.verifies(made, message), count=1000)
    return [
        Figure(
            name="assignments signed a second and core", value=signed, unit="/s",
            reference=raw, against="the bare signature", bar=10_000,
        ),
        Figure(
            name="sessions verified a second and core", value=opened, unit="/s",
            reference=verified, against="the bare verification", bar=3_000,
        ),
    ]  # fmt: skip


def measure() -> list[Figure]:
    """Measure both clients in turn on one repository, then signing and verifying."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    traffic: dict[tuple[str, str], tuple[int, int]] = {}
    with shop() as server, tempfile.TemporaryDirectory() as scratch:
        anchor = server.made.anchor
        bare = refresh("bare", server.url, Path(scratch) / "bare", anchor)["peak_mib"]
        for state in ("cold", "warm"):
            for who in (OURS, THEIRS):
                server.counted()
                found[who, state] = refresh(who, server.url, Path(scratch) / who, anchor)
                traffic[who, state] = server.counted()
    against = "tuf.ngclient"
    cold, warm = traffic[OURS, "cold"], traffic[OURS, "warm"]
    their_cold, their_warm = traffic[THEIRS, "cold"], traffic[THEIRS, "warm"]
    at = f"{PRODUCTS} products x {RELEASES} releases"
    return [
        Figure(
            name="warm refresh, nothing new: round trips", value=warm[0], unit="",
            reference=their_warm[0], against=against, bar=2, at_most=True,
        ),
        Figure(
            name="warm refresh, nothing new: body", value=warm[1], unit="bytes",
            reference=their_warm[1], against=against, bar=600, at_most=True,
        ),
        Figure(
            name=f"cold, {at}", value=cold[1] / 1000, unit="kB",
            reference=their_cold[1] / 1000, against=against, bar=250, at_most=True,
        ),
        Figure(
            name="cold: round trips", value=cold[0], unit="",
            reference=their_cold[0], against=against,
        ),
        Figure(
            name="worker's peak memory over a bare interpreter, cold",
            value=found[OURS, "cold"]["peak_mib"] - bare, unit="MiB",
            reference=found[THEIRS, "cold"]["peak_mib"] - bare, against=against,
            bar=48, at_most=True,
        ),
        Figure(
            name="cold refresh: processor time", value=1000 * found[OURS, "cold"]["cpu_s"], unit="ms",
            reference=1000 * found[THEIRS, "cold"]["cpu_s"], against=against,
        ),
        Figure(
            name="warm refresh: processor time", value=1000 * found[OURS, "warm"]["cpu_s"], unit="ms",
            reference=1000 * found[THEIRS, "warm"]["cpu_s"], against=against,
        ),
        *_signing(),
    ]  # fmt: skip
