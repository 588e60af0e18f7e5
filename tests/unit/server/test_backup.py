"""A backup is whole or is none; what is brought back holds everything until somebody says otherwise, and the fleet goes on."""

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select
from tests.unit.server.light import BOSS
from tests.unit.server.rig import Device, Rig

from tidegate.cli import run
from tidegate.core.errors import TidegateError
from tidegate.core.protocol import PermitAnswer
from tidegate.server import backup, held
from tidegate.server.blobs.local import LocalBlobs
from tidegate.server.operations import Operations
from tidegate.server.store import Connection, admin_log, hot, tables
from tidegate.server.store.sqlite import open_store
from tidegate.server.store.sqlite_copy import looking_at_copy

DAY = 86_400
pytestmark = pytest.mark.sqlite("copies the file; PostgreSQL has backups of its own (test_held)")


@pytest.fixture
def lived(rig: Rig) -> Rig:
    """A server with a release whose bytes are there, a rollout, and three devices of which one has confirmed."""
    rig.publish_trust()
    target = rig.release(1, payload=b"payload" * 600)
    rig.rollout(target, name="r1", room=100)
    for number in range(3):
        rig.device(f"d{number}")
    return rig


def refuse(code: str, work: Callable[[], object]) -> None:
    with pytest.raises(TidegateError) as caught:
        work()
    assert caught.value.code == code


@pytest.fixture(params=["folder", "file.tar"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "backups" / str(request.param)


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Callable[[Rig, Path, float], Rig]]:
    """Bring a backup back, hold it, and serve from it at a later time."""
    made: list[Rig] = []

    def bring(old: Rig, source: Path, later_s: float) -> Rig:
        folder = tmp_path / f"restored{len(made)}"
        manifest = backup.bring_back(source, folder)
        store = open_store(folder)
        now = int(old.now + later_s)
        store.write(lambda conn: held.hold(conn, now, manifest.made_at)).result()
        store.close()
        backup.mark_held(folder)
        rig = Rig(folder, now=now, offline=old.offline)
        made.append(rig)
        return rig

    yield bring
    for rig in made:
        rig.close()


def moved(device: Device, rig: Rig) -> Device:
    """Return a device that talks to another server from now on."""
    found = dataclasses.replace(device, rig=rig)
    found.log_in()
    return found


def test_a_backup_is_what_its_manifest_says_in_both_forms(lived: Rig, place: Path) -> None:
    made = backup.back_up(lived.folder, place, int(lived.now), with_keys=True)
    assert backup.verify(place) == made
    names = {one.path.partition("/")[0] for one in made.files}
    assert names == {"tidegate.db", "blobs", "online", "online.pub.json", "not-held"}
    assert place.stat().st_mode & 0o077 == 0
    assert backup.last_of(lived.folder) == backup.Last(at=int(lived.now), to=str(place))


def test_keys_are_left_out_unless_they_are_asked_for(lived: Rig, place: Path) -> None:
    made = backup.back_up(lived.folder, place, int(lived.now))
    names = {one.path for one in made.files}
    assert not any(one.startswith(("online/", "tls/")) for one in names)
    whole = (
        place.read_bytes()
        if place.is_file()
        else b"".join(one.read_bytes() for one in sorted(place.rglob("*")) if one.is_file())
    )
    for secret in (lived.folder / "online").iterdir():
        assert secret.read_bytes() not in whole


def test_nothing_is_written_over(lived: Rig, place: Path) -> None:
    backup.back_up(lived.folder, place, int(lived.now))
    refuse("backup.exists", lambda: backup.back_up(lived.folder, place, int(lived.now)))
    refuse("backup.exists", lambda: backup.bring_back(place, lived.folder))
    backup.verify(place)


def test_a_blob_that_is_named_and_gone_makes_no_backup(lived: Rig, place: Path) -> None:
    shutil.rmtree(next((lived.folder / "blobs").glob("[0-9a-f][0-9a-f]")))
    refuse("backup.incomplete", lambda: backup.back_up(lived.folder, place, int(lived.now)))
    assert not place.exists()
    assert list(place.parent.iterdir()) == []


def test_blobs_in_an_object_store_are_looked_for_and_stay_there(lived: Rig, tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path / "bucket")  # any place for blobs serves as one
    elsewhere = backup.Elsewhere("s3://bucket/prefix", store)
    place, now = tmp_path / "one", int(lived.now)
    refuse(
        "backup.incomplete", lambda: backup.back_up(lived.folder, place, now, elsewhere=elsewhere)
    )
    body = b"payload" * 600
    store.put(hashlib.sha256(body).hexdigest(), iter([body]))
    made = backup.back_up(lived.folder, place, now, elsewhere=elsewhere)
    assert not any(one.path.startswith("blobs/") for one in made.files)
    assert backup.verify(place).blobs == "s3://bucket/prefix"
    backup.bring_back(place, tmp_path / "again")


def test_every_byte_that_is_changed_lost_or_added_is_found(lived: Rig, tmp_path: Path) -> None:
    place = tmp_path / "one"
    made = backup.back_up(lived.folder, place, int(lived.now), with_keys=True)
    for number, one in enumerate(made.files):
        for kind in ("changed", "shorter", "gone"):
            spoiled = tmp_path / f"{kind}{number}"
            shutil.copytree(place, spoiled)
            path = spoiled / one.path
            body = bytearray(path.read_bytes())
            body[len(body) // 2] ^= 1
            if kind == "changed":
                path.write_bytes(body)
            elif kind == "shorter":
                path.write_bytes(body[:-1])
            else:
                path.unlink()
            _refused(spoiled, tmp_path / "target")
    (place / "more").write_text("x")
    refuse("backup.damaged", lambda: backup.verify(place))


def _refused(spoiled: Path, target: Path) -> None:
    refuse("backup.damaged", lambda: backup.verify(spoiled))
    refuse("backup.damaged", lambda: backup.bring_back(spoiled, target))
    assert not target.exists()


def test_a_database_that_names_more_than_the_backup_holds_is_damaged(
    lived: Rig, tmp_path: Path
) -> None:
    place = tmp_path / "one"
    made = backup.back_up(lived.folder, place, int(lived.now))
    fewer = tuple(one for one in made.files if not one.path.startswith("blobs/"))
    shutil.rmtree(place / "blobs")
    _say(place, msgspec.structs.replace(made, files=fewer))
    refuse("backup.damaged", lambda: backup.verify(place))
    refuse("backup.damaged", lambda: backup.bring_back(place, tmp_path / "target"))


def _say(place: Path, manifest: backup.Manifest) -> None:
    (place / backup.MANIFEST).write_bytes(msgspec.json.encode(manifest))


@pytest.mark.parametrize(
    "name", ["../escaped", "/etc/passwd", "blobs/../../x", "online/../x", "blobs/ab/" + "0" * 64]
)
def test_a_manifest_cannot_have_anything_written_elsewhere(
    lived: Rig, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "one"
    made = backup.back_up(lived.folder, place, int(lived.now))
    extra = backup.File(path=name, size=0, sha256=hashlib.sha256(b"").hexdigest())
    _say(place, msgspec.structs.replace(made, files=(*made.files, extra)))
    refuse("backup.unreadable", lambda: backup.bring_back(place, tmp_path / "target"))


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"{", b'{"format": 1}', b"\xff" * 50])
def test_what_is_no_backup_is_said_to_be_none(tmp_path: Path, body: bytes) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / backup.MANIFEST).write_bytes(body)
    refuse("backup.unreadable", lambda: backup.verify(folder))
    file = tmp_path / "x.tar"
    file.write_bytes(body)
    refuse("backup.unreadable", lambda: backup.verify(file))
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        info = tarfile.TarInfo(backup.MANIFEST)
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    refuse("backup.unreadable", lambda: backup.verify(tmp_path / "y.tar"))


def test_the_fleet_goes_on_with_what_was_brought_back(
    lived: Rig, place: Path, again: Callable[[Rig, Path, float], Rig]
) -> None:
    first, second, third = (Device(lived, f"d{n}") for n in range(3))
    for one in (first, second, third):
        one.log_in()
    first.run(first.assignment())
    body = second.assignment()
    second.tell("staged", body, bytes=4096)
    assert second.permit(body).envelope is not None
    backup.back_up(lived.folder, place, int(lived.now), with_keys=True)
    # after the backup: one confirms, and somebody halts
    for kind in ("rebooting", "verifying"):
        second.tell(kind, body)
    second.confirm(body)
    Operations(lived.app.services).act("r1", "halt", BOSS, "it burns", int(lived.now))
    epoch = lived.read(admin_log.gate_epoch)
    versions = dict(lived.app.services.repository.versions)

    rig = again(lived, place, DAY)
    assert rig.read(admin_log.gate_epoch) > epoch
    for role, (version, _) in rig.app.services.repository.versions.items():
        assert version >= versions[role][0]
    third = moved(third, rig)
    assigned = third.assignment()
    assert assigned.action in {"none", "hold"}
    # one that had asked before the backup asks again: it was let go by nobody who still knows
    second = moved(second, rig)
    answer: PermitAnswer = second.permit(body)
    assert answer.envelope is None
    assert "paused" in answer.because
    # what it tells next is taken, with the gap; nobody was called lost for the time that is missing
    told = second.tell("heartbeat", running_counter=1)
    assert told.acked_seq == second.seq
    rig.app.tick(int(rig.now))
    lost = rig.read(
        lambda conn: conn.execute(
            select(tables.update.c.id).where(tables.update.c.state == "lost")
        ).all()
    )
    assert lost == []
    # a person's word, and the rest goes on
    Operations(rig.app.services).act("r1", "resume", BOSS, "looked at", int(rig.now))
    third.run(third.assignment())
    assert rig.tallies(rig_id(rig))["confirmed"] >= 2


def rig_id(rig: Rig) -> int:
    found = rig.read(lambda conn: conn.execute(select(tables.rollout.c.id)).scalar())
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("active", "paused"), ("completed", "paused"), ("scheduled", "draft"), ("halted", "halted"),
        ("paused", "paused"), ("draft", "draft"), ("awaiting_approval", "awaiting_approval"),
        ("cancelled", "cancelled"), ("superseded", "superseded"), ("falling_back", "falling_back"),
    ],
)  # fmt: skip
def test_nothing_that_could_let_anybody_go_stays_as_it_was(
    lived: Rig, again: Callable[[Rig, Path, float], Rig], tmp_path: Path, before: str, after: str
) -> None:
    lived.set_rollout(rig_id(lived), state=before)
    backup.back_up(lived.folder, tmp_path / "b", int(lived.now), with_keys=True)
    rig = again(lived, tmp_path / "b", 60)
    rollout_id = rig_id(rig)
    state = rig.read(
        lambda conn: conn.execute(
            select(tables.rollout.c.state).where(tables.rollout.c.id == rollout_id)
        ).scalar()
    )
    assert state == after
    story = rig.read(lambda conn: admin_log.plan_log(conn, rollout_id))
    assert ("is not known" in (story[-1]["text"] if story else "")) == (before != after)
    body = moved(Device(lived, "d1"), rig).assignment()
    assert body.action in {"none", "hold"}


@pytest.mark.parametrize("by_hand", [True, False])
def test_no_server_starts_on_what_was_not_held(lived: Rig, tmp_path: Path, by_hand: bool) -> None:
    place, folder = tmp_path / "b", tmp_path / "again"
    backup.back_up(lived.folder, place, int(lived.now), with_keys=True)
    if by_hand:
        shutil.copytree(place, folder)
    else:
        backup.bring_back(place, folder)
    refuse("backup.not_held", lambda: Rig(folder))
    assert run(["restore", "--hold-only", "--data", str(folder)]) == 0
    Rig(folder, now=lived.now).close()


def test_the_commands_back_up_verify_and_bring_back(
    lived: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, folder = tmp_path / "b.tar", tmp_path / "again"
    lived.app.close()
    assert run(["backup", "--data", str(lived.folder), "--to", str(place), "--with-keys"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(place)
    assert "can speak as this server" in said.err
    assert run(["backup", "verify", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["with_keys"] is True
    assert run(["restore", "--from", str(place), "--to", str(folder), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["held"]["paused"] == ["r1"]
    assert done["keys"] is True
    body = bytearray(place.read_bytes())
    body[len(body) // 2] ^= 1
    place.write_bytes(body)
    assert run(["backup", "verify", str(place)]) == 1
    assert run(["backup", "--data", str(tmp_path / "none"), "--to", str(tmp_path / "x")]) == 1


def test_a_backup_under_load_shows_one_moment_and_loses_nothing_of_it(
    lived: Rig, tmp_path: Path
) -> None:
    """Writers go on; in the copy, what one transaction wrote is there whole, and everything acknowledged before it began is there."""
    store, stop = lived.app.store, threading.Event()
    done = 0

    def pair(conn: Connection) -> None:
        hot.add_daily(conn, "default", 1, "gw1", [("left", 1)])
        hot.add_daily(conn, "default", 1, "gw1", [("right", 1)])

    def load() -> None:
        nonlocal done
        while not stop.is_set():
            store.write(pair).result()
            done += 1

    store.write(pair).result()
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for number in range(8):
            before = done
            backup.back_up(lived.folder, tmp_path / f"b{number}", int(lived.now))
            with looking_at_copy(tmp_path / f"b{number}" / "tidegate.db") as conn:
                asked = conn.execute(select(tables.daily.c.name, tables.daily.c.value))
                found = {str(name): int(value) for name, value in asked}
            assert found["left"] == found["right"] >= before
    finally:
        stop.set()
        thread.join()
    assert done > 8
