"""Large bundles in parts, over lines that break and servers that stop, into a folder and into a store; by the command line's own code over real HTTP."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import stores
from tests.e2e.served import serving
from tests.e2e.test_ways_of_bytes import listening
from tests.objectstore import Exchange, Faulty, bucket, moto, raw_client, settings_for
from tests.unit.server.rig import Rig
from tests.unit.server.test_releases import _bundle, _lab

from tidegate.cli import run
from tidegate.client import Client, structs
from tidegate.core.errors import PublisherError, RequestError, TidegateError
from tidegate.publisher import sending
from tidegate.publisher.ceremony import read_online
from tidegate.publisher.lab import make_lab
from tidegate.publisher.sending import send_bundle
from tidegate.server import uploads
from tidegate.server.auth import Actor
from tidegate.server.operations import auth_of
from tidegate.server.store import upload_rows

__all__ = ["bucket", "moto"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ROOT = Actor(name="root", role="admin")
#: Does not pack: what is sent is as long as this.
IMAGE = os.urandom(18 << 20)


@dataclass
class Shop:
    """A server in process, a line that breaks in front of it, and a bundle for it."""

    rig: Rig
    client: Client
    #: What the parts of a bundle go through.
    line: Faulty
    bundle: Path
    folder: Path | None
    store: tuple[str, str] | None

    def send(self, **more: Any) -> structs.Published:
        return send_bundle(self.client, self.bundle, sleep=lambda _: time.sleep(0.05), **more)

    def parts(self) -> list[Exchange]:
        return [one for one in self.line.seen if one.method in {"PATCH", "PUT"}]

    def leftovers(self) -> list[str]:
        """Return what is kept of uploads, looked at past the server."""
        if self.folder is not None:
            return [one.name for one in (self.folder / "partial").iterdir()]
        assert self.store is not None
        client, name = raw_client(self.store[0]), self.store[1]
        whole = client.list_objects_v2(Bucket=name, Prefix="fleet/uploads").get("Contents", ())
        begun = client.list_multipart_uploads(Bucket=name).get("Uploads", ())
        return [str(one["Key"]) for one in (*whole, *begun)]

    def begun(self, content: bytes) -> structs.Upload:
        return self.client.uploads_create(_new(hashlib.sha256(content).hexdigest(), len(content)))

    def over(self, name: str) -> structs.Upload:
        """Wait until a file is no longer looked at."""
        until = time.monotonic() + 60
        while (found := self.client.uploads_show(name)).state == "checking":
            assert time.monotonic() < until
            time.sleep(0.05)
        return found


@pytest.fixture(params=["folder", "postgres", "store", "direct"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    place, more, store = request.param, {}, None
    with contextlib.ExitStack() as stack:
        line: Faulty | None = None
        if place == "postgres":
            stack.enter_context(stores.present("postgres"))
        elif place != "folder":
            store = (request.getfixturevalue("moto"), request.getfixturevalue("bucket"))
            more = {
                "blobs_url": settings_for(*store).blobs_url,
                "blobs_endpoint": store[0],
                "blobs_addressing": "path",
            }
        if place == "direct":
            assert store is not None
            line = Faulty(store[0])
            more |= {"uploads_direct": True, "blobs_public_endpoint": line.address}
        rig = Rig(tmp_path / "data", more=more)
        stack.callback(rig.close)
        lab = _lab(rig, tmp_path / "lab")
        bundle = _bundle(rig, lab, 1, content=IMAGE)
        url = stack.enter_context(listening(rig.app))
        if line is None:
            line = Faulty(url)
            url = line.address
        stack.callback(line.close)
        client = Client(url, _token(rig, "admin"))
        folder = tmp_path / "data" / "blobs" if store is None else None
        yield Shop(rig, client, line, bundle, folder, store)


def _new(sha256: str, length: int) -> structs.NewUpload:
    return structs.NewUpload(sha256=sha256, length=length)


def _token(rig: Rig, role: str) -> str:
    return auth_of(rig.app.services).create_token(f"t-{role}", role, ROOT, int(rig.now))[1]


def _losing(count: int, times: int = 1, then: Callable[[], None] = lambda: None) -> Any:
    """Lose the line after `count` bytes of a part, so many times, not at the first."""
    left = [times]
    seen = [0]

    def fault(one: Exchange) -> None:
        if one.method in {"PATCH", "PUT"}:
            seen[0] += 1
            if left[0] and seen[0] > 1:
                left[0] -= 1
                one.lose, one.then = count, then

    return fault


def test_a_bundle_arrives_in_parts_and_is_published(shop: Shop) -> None:
    told: list[int] = []
    brought = shop.send(progress=lambda done, _: told.append(done))
    assert brought.releases == ("gw1-1.1.0",)
    assert told[-1] == shop.bundle.stat().st_size
    assert told == sorted(told)
    assert shop.leftovers() == []
    assert sum(len(one.body) for one in shop.parts()) == shop.bundle.stat().st_size
    assert shop.client.releases_show("gw1-1.1.0").version == "1.1.0"
    again = shop.send()
    assert again.releases == ()


def test_after_a_cut_only_what_was_lost_is_sent_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PARTS", 1)
    shop.line.before = _losing(3 << 20, times=2)
    assert shop.send().releases == ("gw1-1.1.0",)
    part = 4 << 20 if shop.folder is not None else 8 << 20
    sent = sum(len(one.body) for one in shop.parts())
    assert sent <= shop.bundle.stat().st_size + 2 * part


def test_who_stops_and_begins_again_goes_on_where_it_was(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PARTS", 1)

    def stop(done: int, total: int) -> None:
        if done > total * 2 // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.send(progress=stop)
    # the server may notice a moment later that nobody sends any more
    found = shop.begun(shop.bundle.read_bytes())
    assert 0 < found.offset < found.length
    begun: list[int] = []
    assert shop.send(progress=lambda done, _: begun.append(done)).releases == ("gw1-1.1.0",)
    assert begun[0] > found.offset
    assert len(shop.client.uploads_list().items) == 1


def test_other_bytes_than_promised_are_refused_and_nothing_stays(shop: Shop) -> None:
    def spoil(one: Exchange) -> None:
        if one.method in {"PATCH", "PUT"}:
            one.body = one.body[:-1] + bytes([one.body[-1] ^ 1])

    shop.line.before = spoil
    with pytest.raises(PublisherError) as caught:
        shop.send()
    assert caught.value.code == "download.hash"
    assert shop.leftovers() == []
    with pytest.raises(RequestError):
        shop.client.releases_show("gw1-1.1.0")


def test_what_a_device_would_refuse_is_refused_with_its_code(shop: Shop, tmp_path: Path) -> None:
    junk = tmp_path / "junk.bundle"
    junk.write_bytes(b"no bundle at all" * 100)
    with pytest.raises(PublisherError) as caught:
        send_bundle(shop.client, junk)
    assert caught.value.code == "release.malformed"
    assert shop.leftovers() == []
    lines = [one.action for one in shop.client.audit_list()]
    assert "release.refused" in lines


def test_a_file_is_named_measured_and_aborted(shop: Shop) -> None:
    content = IMAGE[: 9 << 20]
    found = shop.begun(content)
    assert shop.begun(content).id == found.id
    assert (found.state, found.offset) == ("open", 0)
    with pytest.raises(RequestError) as caught:
        shop.client.uploads_complete(found.id)
    assert caught.value.code == "request.conflict"
    part = content[: found.part_bytes]
    if not found.direct:
        _patch(shop, found.id, 0, part)
        for offset, code in ((0, "request.conflict"), (len(content), "request.too_large")):
            with pytest.raises(TidegateError) as refused:
                _patch(shop, found.id, offset, part)
            assert refused.value.code == code
        assert shop.client.uploads_show(found.id).offset == len(part)
        with pytest.raises(RequestError) as denied:
            shop.client.uploads_links(found.id, structs.WantedLinks(offset=7))
        assert denied.value.code == "request.invalid"
    shop.client.uploads_remove(found.id)
    assert shop.leftovers() == []
    with pytest.raises(RequestError) as gone:
        shop.client.uploads_show(found.id)
    assert gone.value.code == "request.not_found"


def _patch(shop: Shop, name: str, offset: int, part: bytes) -> structs.Upload:
    return shop.client.uploads_change(name, part, offset=offset)


def test_links_are_given_where_there_is_a_store_alone(shop: Shop) -> None:
    found = shop.begun(IMAGE)
    if shop.folder is not None:
        with pytest.raises(RequestError) as caught:
            shop.client.uploads_links(found.id, structs.WantedLinks(offset=0))
        assert caught.value.code == "request.conflict"
        return
    links = shop.client.uploads_links(found.id, structs.WantedLinks(offset=0, count=100)).items
    assert sum(one.length for one in links) == len(IMAGE)
    assert [one.offset for one in links] == [0, 8 << 20, 16 << 20]


def test_what_nobody_goes_on_with_is_forgotten(shop: Shop) -> None:
    found = shop.begun(IMAGE)
    services = shop.rig.app.services
    assert uploads.sweep(services, int(shop.rig.now) + 86_399) == 0
    assert uploads.sweep(services, int(shop.rig.now) + 86_401) == 1
    assert shop.leftovers() == []
    with pytest.raises(RequestError):
        shop.client.uploads_show(found.id)


def test_a_process_that_died_while_it_looked_holds_nothing_up(shop: Shop) -> None:
    content = shop.bundle.read_bytes()
    found = shop.begun(content)
    services, now = shop.rig.app.services, int(shop.rig.now)
    row = shop.rig.read(lambda conn: upload_rows.find(conn, found.id))
    gathering = uploads._gathering(row)
    for at in range(0, len(content), gathering.part_bytes):
        services.blobs.append_upload(gathering, at, content[at : at + gathering.part_bytes])
    take = upload_rows.take
    assert shop.rig.write(lambda conn: take(conn, found.id, "other", now, now + 60))
    # the other one is believed
    assert shop.client.uploads_complete(found.id).state == "checking"
    assert shop.rig.read(lambda conn: upload_rows.find(conn, found.id))["holder"] == "other"
    with pytest.raises(RequestError) as caught:
        shop.client.uploads_remove(found.id)
    assert caught.value.code == "request.conflict"
    # until its mark lapses
    shop.rig.now += 61
    assert shop.client.uploads_show(found.id).state == "open"
    assert shop.send().releases == ("gw1-1.1.0",)
    assert shop.leftovers() == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Rig, str]]:
    rig = Rig(tmp_path / "data", more={"uploads_quota": 1 << 20, "upload_max": 900_000})
    rig.publish_trust()
    with listening(rig.app) as url:
        yield rig, url
    rig.close()


def test_too_much_is_refused_before_any_of_it_is_sent(small: tuple[Rig, str]) -> None:
    rig, url = small
    client = Client(url, _token(rig, "admin"))
    first = client.uploads_create(_new("1" * 64, 800_000))
    for length, code in ((900_001, "request.too_large"), (300_000, "upload.quota")):
        with pytest.raises(TidegateError) as caught:
            client.uploads_create(_new("2" * 64, length))
        assert caught.value.code == code
    assert len(list((rig.folder / "blobs" / "partial").iterdir())) == 1
    client.uploads_remove(first.id)
    client.uploads_create(_new("2" * 64, 300_000))
    with pytest.raises(TidegateError) as caught:
        Client(url, _token(rig, "viewer")).uploads_list()
    assert caught.value.code == "request.forbidden"


def test_who_may_publish_one_product_touches_nothing_of_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    bundle = _bundle(rig, _lab(rig, tmp_path / "lab"), 1)
    accounts = auth_of(rig.app.services)
    made = {
        name: accounts.create_token(
            name, "", ROOT, int(rig.now), grants=[f"release-uploader@product:{name}"]
        )[1]
        for name in ("gw1", "other")
    }
    with listening(rig.app) as url:
        mine, other = Client(url, made["gw1"]), Client(url, made["other"])
        found = mine.uploads_create(_new("1" * 64, 100))
        assert other.uploads_list().items == ()
        for call in (other.uploads_show, other.uploads_remove):
            with pytest.raises(RequestError) as caught:
                call(found.id)
            assert caught.value.code == "request.not_found"
        with pytest.raises(RequestError) as caught:
            other.uploads_change(found.id, b"x" * 100, offset=0)
        assert caught.value.code == "request.not_found"
        assert Client(url, _token(rig, "admin")).uploads_show(found.id).created_by == "token:gw1"
        with pytest.raises(TidegateError) as refused:
            send_bundle(other, bundle)
        assert refused.value.code == "request.forbidden"
        assert send_bundle(mine, bundle).releases == ("gw1-1.1.0",)
    rig.close()


def test_head_says_how_far_it_is(small: tuple[Rig, str]) -> None:
    rig, url = small
    client = Client(url, _token(rig, "admin"))
    found = client.uploads_create(_new("1" * 64, 800_000))
    connection = client._connect()
    connection.request("HEAD", f"/api/v1/uploads/{found.id}", headers=client._headers())
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 200
    assert answer.getheader("Upload-Offset") == "0"
    assert answer.getheader("Upload-Length") == "800000"


def test_the_command_outlives_a_server_that_is_killed_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path / "data") as served:
        online = read_online(served.data / "online.pub.json")
        lab = make_lab(tmp_path / "lab", online, ["gw1"], now=int(time.time()))
        line = Faulty(f"http://127.0.0.1:{served.port}")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.setenv("TIDEGATE_SERVER", line.address)
        monkeypatch.setenv("TIDEGATE_DATA_DIR", str(served.data))
        monkeypatch.setattr(sending, "PARTS", 1)
        assert run(["release", "publish", str(lab.trust)]) == 0
        (tmp_path / "image").write_bytes(IMAGE)
        (tmp_path / "release.toml").write_text(
            'product = "gw1"\nversion = "1.0.0"\ncounter = 1\n[hardware]\nmodel = "gw1"\n'
            '[[component]]\nname = "rootfs"\nimage = "image"\n'
        )
        assert run(["release", "build", "release.toml"]) == 0
        bundle = next(tmp_path.glob("*.bundle"))
        from tidegate.publisher.sign import sign_bundle

        sign_bundle(bundle, lab.signer("product"))

        def restart() -> None:
            served.kill()
            served.start()

        line.before = _losing(2 << 20, then=restart)
        before = len(line.seen)
        capsys.readouterr()
        assert run(["release", "publish", str(bundle), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
        sent = sum(len(one.body) for one in line.seen[before:] if one.method == "PATCH")
        assert sent <= bundle.stat().st_size + (4 << 20)
        line.close()
