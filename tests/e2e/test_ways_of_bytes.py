"""Payload bytes by each way, with the real download code: whole, cut in the middle and resumed; nginx is Debian's, the store is moto."""

import contextlib
import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from tests.e2e.served import free_port
from tests.objectstore import Exchange, Faulty, bucket, moto, settings_for
from tests.unit.agent.test_delivery import BODY, RELEASE, SEGMENT, Slot
from tests.unit.agent.test_download import settings
from tests.unit.server.rig import Rig

from tidegate.agent.events import Download, Downloaded, Progressed
from tidegate.agent.jobs import Reply
from tidegate.agent.state import Progress, Update
from tidegate.agent.worker import Worker
from tidegate.core.errors import ConfigError, TidegateError
from tidegate.server.hot import HotApp

__all__ = ["bucket", "moto"]
pytestmark = [pytest.mark.e2e]
PAYLOAD = RELEASE.target.release.pieces[0].full
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "object-storage.md"


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an ASGI application from a thread, on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def nginx(folder: Path, server: str, blobs: Path) -> Iterator[str]:
    """Run Debian's nginx with the guide's own locations in front of a server."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("tier: proxy: install the Debian package nginx-light")
    found = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    locations = found[1].replace("/var/lib/tidegate/blobs/", f"{blobs}/")
    locations = locations.replace("/var/lib/tidegate/tenants/", f"{blobs.parent}/tenants/")
    port = free_port()
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; pid {folder}/pid; error_log {folder}/error.log info;
        {"user root;" if Path("/proc/self").stat().st_uid == 0 else ""}
        events {{}}
        http {{
            access_log {folder}/access.log;
            client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
            fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
            upstream tidegate {{ server {urlsplit(server).netloc}; }}
            server {{ listen 127.0.0.1:{port}; {locations} }}
        }}"""
    )
    process = subprocess.Popen([program, "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < until, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Way:
    """A server, and the double that every byte of a payload goes through."""

    rig: Rig
    url: str
    carrier: Faulty
    token: str

    def get(self, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask at the front door, with the device's token."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.netloc, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["authorization"] = f"Bearer {self.token}"
        connection.request(method, f"/d/v1/blobs/{PAYLOAD.sha256}", headers=named)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body

    def attempt(
        self, bench: Slot, progress: Progress | None
    ) -> tuple[list[Reply], Progress | None, TidegateError | None]:
        """Download with the agent's own code."""
        update = Update(update="u-1", release=RELEASE.target.release, slot="B")
        worker = Worker(bench, settings(sync_bytes=SEGMENT, timeout_s=20.0))  # type: ignore[arg-type]
        said: list[Reply] = []
        try:
            for reply in worker._download(Download(update=update, progress=progress), self.token):
                said.append(reply)
                if isinstance(reply, Progressed | Downloaded):
                    progress = reply.progress
        except TidegateError as error:
            return said, progress, error
        return said, progress, None


WAYS = ["folder-stream", "store-stream", "store-redirect", "folder-accel"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    place, artifacts = str(request.param).split("-")
    more: dict[str, Any] = {"artifacts": artifacts}
    with contextlib.ExitStack() as stack:
        carrier: Faulty | None = None
        if place == "store":
            address, name = request.getfixturevalue("moto"), request.getfixturevalue("bucket")
            found = settings_for(address, name)
            more |= {"blobs_url": found.blobs_url, "blobs_endpoint": address}
            more |= {"blobs_addressing": "path"}
            if artifacts == "redirect":
                carrier = Faulty(address)
                more["blobs_public_endpoint"] = carrier.address
        rig = Rig(tmp_path / "data", more=more)
        stack.callback(rig.close)
        rig.app.services.blobs.put(PAYLOAD.sha256, [BODY])
        url = stack.enter_context(listening(HotApp(rig.app.services)))
        if artifacts == "accel":
            url = stack.enter_context(nginx(tmp_path / "nginx", url, tmp_path / "data" / "blobs"))
        if carrier is None:
            carrier = Faulty(url)
            url = carrier.address
        stack.callback(carrier.close)
        device = rig.device()
        yield Way(rig, url, carrier, device.token)


def _payload_requests(way: Way) -> list[Exchange]:
    return [one for one in way.carrier.seen if PAYLOAD.sha256 in one.path]


def test_a_payload_arrives_whole(way: Way, tmp_path: Path) -> None:
    bench = Slot(way.url, str(tmp_path))
    said, _, error = way.attempt(bench, None)
    assert error is None
    assert isinstance(said[-1], Downloaded)
    assert bench.installed() == RELEASE.image


def test_a_cut_is_resumed_where_it_was(way: Way, tmp_path: Path) -> None:
    cuts = iter((len(BODY) // 3, len(BODY) // 4))

    def cut(one: Exchange) -> None:
        if PAYLOAD.sha256 in one.path and one.status in (200, 206):
            one.cut = next(cuts, None)

    way.carrier.after = cut
    bench, progress = Slot(way.url, str(tmp_path)), None
    for _ in range(2):
        _, progress, error = way.attempt(bench, progress)
        assert error is not None
        assert error.code == "download.truncated"
    said, progress, error = way.attempt(bench, progress)
    assert error is None
    assert isinstance(said[-1], Downloaded)
    assert bench.installed() == RELEASE.image
    asked = [one for one in _payload_requests(way) if one.status in (200, 206)]
    assert [one.status for one in asked] == [200, 206, 206]
    starts = [_start_of(one) for one in asked]
    assert starts[0] == 0
    assert starts[1] >= len(BODY) // 3 - SEGMENT
    assert starts[2] > starts[1]


def test_whoever_carries_the_bytes_for_the_server_is_told_no_more_than_the_range(
    way: Way, tmp_path: Path
) -> None:
    if way.rig.app.services.settings.artifacts != "redirect":
        pytest.skip("the server, or what stands in front of it, is who is told the token")
    way.attempt(Slot(way.url, str(tmp_path)), None)
    assert _payload_requests(way)
    for one in _payload_requests(way):
        names = {name.lower() for name in one.headers}
        assert names <= {"host", "accept-encoding", "range"}
        assert way.token not in str(one.headers) + one.path


def test_ranges_at_the_front_door(way: Way) -> None:
    if way.rig.app.services.settings.artifacts == "redirect":
        status, headers, body = way.get(tidegate_follows="307")
        assert (status, body) == (307, b"")
        assert headers["cache-control"] == "no-store"
        assert "X-Amz-Signature=" in headers["location"]
        # an agent that knows no links gets its bytes, too: the same answers as by any other way
    status, headers, body = way.get()
    assert (status, body) == (200, BODY)
    tag = headers["etag"]
    assert tag == f'"{PAYLOAD.sha256}"'
    status, headers, body = way.get(range="bytes=1000-", if_range=tag)
    assert (status, body) == (206, BODY[1000:])
    assert headers["content-range"] == f"bytes 1000-{len(BODY) - 1}/{len(BODY)}"
    assert headers["etag"] == tag
    assert way.get(range="bytes=1000-", if_range='"other"')[0] == 200
    assert way.get(range="bytes=5-9")[2] == BODY[5:10]
    status, headers, _ = way.get(range=f"bytes={len(BODY)}-")
    assert status == 416
    assert headers["content-range"] == f"bytes */{len(BODY)}"
    assert way.get("HEAD")[:1] == (200,)
    assert way.get(if_none_match=tag)[0] == 304


def test_nobody_gets_bytes_without_a_token(way: Way) -> None:
    way.token = "none"
    status, headers, body = way.get()
    assert status == 401
    assert BODY[:100] not in body
    assert "location" not in headers
    if way.rig.app.services.settings.artifacts == "accel":
        where = urlsplit(way.url)
        connection = http.client.HTTPConnection(where.netloc, timeout=20)
        connection.request("GET", f"/_tidegate_blobs/{PAYLOAD.sha256[:2]}/{PAYLOAD.sha256}")
        assert connection.getresponse().status == 404
        connection.close()


def test_what_is_not_there_is_404(way: Way) -> None:
    way.rig.app.services.blobs.delete(PAYLOAD.sha256)
    assert way.get()[0] == 404


@pytest.mark.parametrize(("artifacts", "url"), [("redirect", ""), ("accel", "s3://bucket")])
def test_a_way_that_the_place_does_not_have_is_refused_at_the_start(
    artifacts: str, url: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        Rig(tmp_path / "data", more={"artifacts": artifacts, "blobs_url": url})
    assert caught.value.code == "config.invalid"


def test_a_store_that_fails_is_an_answer_and_a_cut_in_the_middle_a_cut(
    moto: str, bucket: str, tmp_path: Path
) -> None:
    store = Faulty(moto)
    found = settings_for(store.address, bucket)
    more = {"blobs_url": found.blobs_url, "blobs_endpoint": store.address}
    rig = Rig(tmp_path / "data", more={**more, "blobs_addressing": "path"})
    try:
        rig.app.services.blobs.put(PAYLOAD.sha256, [BODY])
        token = rig.device().token
        with listening(HotApp(rig.app.services)) as url:
            way = Way(rig, url, store, token)
            store.after = _on_reads(_untrue)
            assert way.get()[0] == 502
            store.after = None
            store.refuse = (503, 100)
            status, headers, _ = way.get()
            assert (status, headers["retry-after"]) == (503, "5")
            store.refuse = (0, 0)
            assert way.get()[2] == BODY
    finally:
        rig.close()
        store.close()


def _on_reads(change: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    def fault(one: Exchange) -> None:
        if one.method == "GET":
            change(one)

    return fault


def _untrue(one: Exchange) -> None:
    one.answer["etag"] = '"other"'


def _start_of(one: Exchange) -> int:
    wanted = {name.lower(): value for name, value in one.headers.items()}.get("range", "bytes=0-")
    return int(wanted.removeprefix("bytes=").partition("-")[0])
