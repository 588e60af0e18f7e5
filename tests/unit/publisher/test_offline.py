"""A bundle for devices without a server: what is taken from a server, what is left out, and that a device takes what was written."""

import hashlib
from pathlib import Path

import pytest
from tests.crash.lab import Device, Plane
from tests.crash.releases import DAY, make_release
from tests.unit.agent.test_offline import away, bring
from tests.unit.publisher.test_publish import _Files

from tidegate.core.bundle import parse_manifest, read_manifest
from tidegate.core.errors import PublisherError
from tidegate.core.ustar import Reader
from tidegate.publisher import bundle as bundles
from tidegate.publisher import offline


def _roles(path: Path) -> list[str | None]:
    with path.open("rb") as file:
        return [one.role for one in read_manifest(Reader(file.read)).members]


def _release(plane: Plane, folder: Path, *, index: int = 1) -> Path:
    """Write the signed bundle that the release's holders have."""
    one = plane.releases[index]
    container = folder / "container"
    container.write_bytes(one.container)
    role = next(body for name, body in plane.files.items() if "product%2F" in name)
    path = folder / "gw1.bundle"
    payloads = {hashlib.sha256(one.container).hexdigest(): container}
    bundles.write(path, {"product/gw1": role}, payloads, product="gw1", version="1.2")
    return path


def _now(device: Device) -> int:
    return int(device.plane.clock.wall())


@pytest.mark.parametrize("mirror", [False, True], ids=["bundle", "mirror"])
def test_a_device_takes_what_was_fetched_from_a_server(tmp_path: Path, mirror: bool) -> None:
    device = away()
    device.plane.rotate_root(2)
    made = _release(device.plane, tmp_path)
    chain = offline.fetched(_Files(device.plane.files), device.plane.root, "gw1", now=_now(device))
    assert len(chain.roots) == 3
    out = tmp_path / "out"
    found = offline.write(made, chain, out, now=_now(device), mirror=mirror)
    assert (found.version, found.roots) == ("1.2", "1 to 3")
    if not mirror:
        wanted = ["root"] * 3 + ["targets", "product/gw1", "snapshot", "timestamp", None]
        assert _roles(out) == wanted
    bring(device, out)
    assert device.runs == 2


def test_what_no_server_has_published_yet_comes_without_online_documents(tmp_path: Path) -> None:
    device = away()
    before = dict(device.plane.files)
    device.plane.releases = (*device.plane.releases, make_release(5))
    device.plane.version += 1
    device.plane.publish()
    made = _release(device.plane, tmp_path, index=2)
    chain = offline.fetched(_Files(before), device.plane.root, "gw1", now=_now(device))
    offline.write(made, chain, tmp_path / "out", now=_now(device))
    assert _roles(tmp_path / "out") == ["root", "targets", "product/gw1", None]


def test_what_a_device_would_refuse_is_not_written(tmp_path: Path) -> None:
    device = away()
    made = _release(device.plane, tmp_path)
    chain = offline.fetched(_Files(device.plane.files), device.plane.root, "gw1", now=_now(device))
    with pytest.raises(PublisherError) as caught:
        offline.write(made, chain, tmp_path / "out", now=_now(device) + 400 * DAY)
    assert caught.value.code == "sig.expired"
    assert not (tmp_path / "out").exists()


def test_a_server_takes_no_offline_bundle_parts_in_its_own_kind() -> None:
    member = b'{"name":"metadata/%s","length":1,"sha256":"' + b"0" * 64 + b'"}'
    for names in ([b"timestamp.json"], [b"3.snapshot.json"], [b"1.root.json", b"2.root.json"]):
        members = b",".join(member % name for name in names)
        for schema, good in ((b"tidegate.offline/1", True), (b"tidegate.bundle/1", False)):
            body = b'{"schema":"' + schema + b'","members":[' + members + b"]}"
            if good:
                assert parse_manifest(body).offline
                continue
            with pytest.raises(PublisherError) as caught:
                parse_manifest(body)
            assert caught.value.code == "release.malformed"
