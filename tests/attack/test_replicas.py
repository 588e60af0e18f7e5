"""Online versions: a server restored from yesterday's backup is believed, and no version ever has two contents, however many replicas sign."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import stores
from tests.unit.server.rig import Rig

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import make_snapshot, make_timestamp, parse_timestamp, sign
from tidegate.core.verify import TrustedSet, walk_repository
from tidegate.server.config import Settings
from tidegate.server.services import Services, open_services
from tidegate.server.store import Connection, release_queries
from tidegate.server.store.release_queries import DocumentRow
from tidegate.server.store.sqlite import DATABASE_NAME, raw_connection

DAY = 86_400


def believed(services: Services, now: float, before: TrustedSet | None = None) -> TrustedSet:
    """Refresh as a device that has seen what `before` saw."""
    repository = services.repository
    files = {name.replace("/", "%2F"): body for name, body in repository._view.files.items()}
    anchor = repository.file("1.root.json")
    assert anchor is not None
    seen = before.seen if before is not None else None
    return walk_repository(files, anchor=anchor, now=int(now), seen=seen)


def test_a_server_restored_from_yesterdays_backup_is_believed(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    rig.publish_trust()
    rig.release(1)
    rig.close()
    shutil.copytree(tmp_path / "data", tmp_path / "yesterday")
    rig = Rig(tmp_path / "data", now=rig.now)
    for _ in range(24):  # a busy day: versions go on, and the device sees all of them
        rig.now += DAY // 24
        sign_anew(rig)
    device = believed(rig.app.services, rig.now)
    rig.close()
    rig.now += 60
    restored = Rig(tmp_path / "yesterday", now=rig.now)
    after = believed(restored.app.services, rig.now, device)
    assert after.seen.timestamp > device.seen.timestamp
    # Starting again and again does not make versions run ahead of the clock.
    for _ in range(5):
        restored.restart()
    assert believed(restored.app.services, rig.now, after).seen == after.seen
    restored.close()


def test_a_release_that_the_backup_does_not_hold_is_handed_in_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    rig.publish_trust()
    rig.release(1)
    rig.close()
    shutil.copytree(tmp_path / "data", tmp_path / "yesterday")
    later = Rig(tmp_path / "data", now=rig.now + DAY, offline=rig.offline)
    later.release(2)
    device = believed(later.app.services, later.now)
    later.close()
    restored = Rig(tmp_path / "yesterday", now=later.now + 60, offline=rig.offline)
    # What offline keys signed, no server makes again: the device knows that something is missing, and keeps what it has.
    with pytest.raises(PublisherError, match=r"sig\.rollback.*product/gw1"):
        believed(restored.app.services, restored.now, device)
    restored.release(2)
    assert believed(restored.app.services, restored.now, device).roles["product/gw1"].version == 2
    restored.close()


def test_a_server_whose_keys_root_does_not_name_starts_all_the_same(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    rig.publish_trust()
    rig.release(1)
    rig.close()
    shutil.rmtree(tmp_path / "data" / "online")
    rebuilt = Rig(tmp_path / "data", now=rig.now + DAY)
    assert rebuilt.app.services.keys.made
    rebuilt.close()


def sign_anew(rig: Rig) -> None:
    repository, now = rig.app.services.repository, int(rig.now)
    rig.write(lambda conn: repository.complete(conn, now))


@pytest.fixture(params=stores.BACK_ENDS)
def replicas(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Services, Services, Rig]]:
    """Two servers with the same keys on one database."""
    with stores.place(request.param, tmp_path / "data") as place:
        rig = Rig(tmp_path / "data", url=place.url)
        rig.publish_trust()
        rig.release(1)
        other = tmp_path / "other"
        other.mkdir()
        shutil.copytree(tmp_path / "data" / "online", other / "online")
        if not place.url:
            (other / DATABASE_NAME).symlink_to(tmp_path / "data" / DATABASE_NAME)
        services = open_services(
            Settings(data_dir=other, durable=False, database_url=place.url),
            clock=lambda: rig.now,
            randomness=rig.random.randbytes,
        )
        yield rig.app.services, services, rig
        services.close()
        rig.close()


def test_two_replicas_that_sign_at_once_never_give_one_version_two_contents(
    replicas: tuple[Services, Services, Rig],
) -> None:
    *both, rig = replicas
    shown: dict[int, set[bytes]] = {}
    order: list[list[int]] = [[], []]
    gate = threading.Barrier(2)
    guard = threading.Lock()

    def replica(number: int) -> None:
        services = both[number]
        for turn in range(25):
            gate.wait(30)
            # Their clocks differ a little, so that they would not sign the same bytes by chance.
            now = int(rig.now) + turn + number
            services.store.write(lambda conn, now=now: services.repository.complete(conn, now)).result(30)  # type: ignore[misc]  # fmt: skip
            body = services.repository.file("timestamp.json")
            assert body is not None
            version = parse_timestamp(body).version
            with guard:
                shown.setdefault(version, set()).add(body)
            order[number].append(version)

    threads = [threading.Thread(target=replica, args=(number,)) for number in (0, 1)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert [len(one) for one in order] == [25, 25]
    assert all(len(contents) == 1 for contents in shown.values())
    assert all(one == sorted(set(one)) for one in order)
    # A device that is sent to one and then to the other is never taken back.
    device = believed(both[0], rig.now)
    for services in both:
        services.store.write(
            lambda conn, services=services: services.repository.renew(conn, int(rig.now))  # type: ignore[misc]
        ).result(30)
        device = believed(services, rig.now, device)


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_a_replica_that_comes_second_takes_the_next_version(rig: Rig, role: str) -> None:
    rig.publish_trust()
    rig.release(1)
    services = rig.app.services
    keys, now = services.keys, int(rig.now)
    newest = {
        one: rig.read(lambda conn, one=one: release_queries.newest_document(conn, one))
        for one in ("snapshot", "timestamp")
    }
    version = newest[role].version + 1
    far = now + DAY
    # Another replica writes this between our reading and our writing, as PostgreSQL would let it.
    if role == "snapshot":
        made = make_snapshot(version=version, expires_at=far, issued_at=now, documents={})
        rival = sign(made, keys.snapshot)
    else:
        info = parse_timestamp(newest["timestamp"].body).signed.snapshot_meta
        from tidegate.core.metadata import MetaInfo

        held = newest["snapshot"]
        assert info.version == held.version
        made = make_timestamp(
            version=version,
            expires_at=far,
            issued_at=now,
            snapshot=MetaInfo(held.version, len(held.body), held.sha256),
        )
        rival = sign(made, keys.timestamp)
    row = DocumentRow(role, version, rival, far, now)

    def ambush(conn: Connection) -> None:
        raw = raw_connection(conn)
        raw.execute("CREATE TABLE rival AS SELECT * FROM repository WHERE 0")
        raw.execute(
            "INSERT INTO rival SELECT tenant, ?, ?, ?, ?, ?, ? FROM repository LIMIT 1",
            (row.role, row.version, row.body, row.sha256, row.expires_at, row.created_at),
        )
        raw.execute(
            "CREATE TRIGGER ambush BEFORE INSERT ON repository WHEN EXISTS"
            " (SELECT 1 FROM rival WHERE role = NEW.role AND version = NEW.version) BEGIN"
            " INSERT OR IGNORE INTO repository SELECT * FROM rival;"
            " DELETE FROM rival; END"
        )

    rig.write(ambush)
    rig.write(lambda conn: services.repository.complete(conn, now))
    assert rig.read(lambda conn: release_queries.newest_document(conn, role)).version == version + 1
    rows = rig.read(lambda conn: release_queries.documents(conn, 10))
    kept = next(one for one in rows if (one.role, one.version) == (role, version))
    assert kept.body == rival
    assert believed(services, rig.now).timestamp is not None
