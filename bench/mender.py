"""Debian's mender-client as a daemon with nothing to do, against a server of its own kind (device API of Mender 3, what a poll needs of it)."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.servers import stopping

from tidegate.sim.load.process import private_mib, settle

POLLS = 5
_POLL = "/api/devices/v2/deployments/device/deployments/next"
#: In a mount namespace of its own: what the package expects in /etc and /usr is the bench's.
_START = (
    "mount --bind {folder}/etc /etc/mender && mount --bind {folder}/identity /usr/share/mender/identity && "
    "exec mender --no-syslog --config {folder}/mender.conf --fallback-config {folder}/none --data {folder}/data daemon"
)


def require() -> None:
    """End loudly where it cannot be measured."""
    if shutil.which("mender") is None or shutil.which("unshare") is None or os.geteuid() != 0:
        raise SystemExit(
            "bench: idle memory is to be below that of Debian's mender-client in the same run, and there is none: "
            "install the Debian packages mender-client and util-linux, and run this as root"
        )


@contextmanager
def _serving() -> Iterator[tuple[str, list[str]]]:
    """Serve a device for which there is never anything; gives the address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            else:
                self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append(self.path)
            body = b"token" if self.path.endswith("auth_requests") else b""
            self.send_response(204 if self.path == _POLL else 200)
            if self.path != _POLL:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _lay_out(folder: Path, url: str) -> None:
    for one in ("etc", "identity", "data"):
        (folder / one).mkdir(parents=True)
    (folder / "etc" / "artifact_info").write_text("artifact_name=release-1\n")
    identity = folder / "identity" / "mender-device-identity"
    identity.write_text("#!/bin/sh\necho mac=02:00:00:00:00:01\n")
    identity.chmod(0o755)
    (folder / "data" / "device_type").write_text("device_type=gw1\n")
    config = {
        "ServerURL": url,
        "UpdatePollIntervalSeconds": 1,
        "InventoryPollIntervalSeconds": 3600,
        "RetryPollIntervalSeconds": 1,
        "DBus": {"Enabled": False},
        "DeviceTypeFile": str(folder / "data" / "device_type"),
    }
    (folder / "mender.conf").write_text(json.dumps(config))


def idle_mib(folder: Path, limit_s: float = 120.0) -> float:
    """Return its private memory, in MiB, after it has signed in and polled a few times.

    Args:
        folder: an empty one for all of its files.
        limit_s: for that.
    """
    with _serving() as (url, asked):
        _lay_out(folder, url)
        command = ["unshare", "--mount", "sh", "-c", _START.format(folder=folder)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        with stopping(process):
            end = time.monotonic() + limit_s
            while asked.count(_POLL) < POLLS:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(
                        f"mender-client does not poll:\n{(folder / 'log').read_text()}"
                    )
                time.sleep(0.1)
            settle(process.pid, 2.0)
            return private_mib(process.pid)
