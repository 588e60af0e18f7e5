"""An event counts once, whatever is sent again: in one request, in the next one, and where the log has begun another piece meanwhile."""

import msgspec
from sqlalchemy import Connection, func, select
from tests.unit.server.rig import Device, Rig

from tidegate.core.protocol import EventItem, Metrics
from tidegate.server.retention import Retention
from tidegate.server.store import hot, partitions, tables
from tidegate.server.store.raw import is_postgres

DAY = 86_400


def another_piece(rig: Rig) -> None:
    """Have the log go on in its next piece; on SQLite there is no other."""

    def work(conn: Connection) -> None:
        if is_postgres(conn):
            newest = hot.newest_position(conn)
            high = next(one.high for one in partitions.pieces(conn) if one.high > newest)
            conn.exec_driver_sql(f"SELECT setval('event_position_seq', {high - 1})")

    rig.write(work)


def seqs(rig: Rig) -> list[int]:
    asked = select(tables.event.c.seq).order_by(tables.event.c.position)
    return rig.read(lambda conn: list(conn.execute(asked).scalars()))  # type: ignore[no-any-return]


def heartbeat(device: Device) -> EventItem:
    return device.event("heartbeat", metrics=Metrics(errors=3, device_s=600))


def errors(rig: Rig, rollout: int) -> int:
    found = rig.read(lambda conn: hot.exposures(conn, rollout))
    return sum(errors for _, _, errors, _ in found)


def daily(rig: Rig, name: str) -> int:
    d = tables.daily.c
    asked = select(func.sum(d.value)).where(d.name == name)
    return int(rig.read(lambda conn: conn.execute(asked).scalar()) or 0)


def test_a_number_that_comes_twice_in_one_request_counts_once(rig: Rig) -> None:
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    device = rig.device()
    body = device.assignment()
    rig.now += 3_600
    told = heartbeat(device)
    staged = device.event("staged", body, bytes=4096)
    device.report(told, told, staged, staged)
    assert seqs(rig) == [1, 2]
    assert errors(rig, rollout) == 3
    assert daily(rig, "download.ok") == 1
    assert daily(rig, "download.bytes") == 4096


def test_what_is_sent_again_counts_once_also_in_another_piece_of_the_log(rig: Rig) -> None:
    """Each piece has its own index of numbers; which of them were taken is in the device's row, and that alone counts."""
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    device = rig.device()
    body = device.assignment()
    rig.now += 3_600
    sent = [heartbeat(device), device.event("staged", body, bytes=4096)]
    assert device.report(*sent).acked_seq == 2
    another_piece(rig)
    assert device.report(*sent, heartbeat(device)).acked_seq == 3
    assert device.report(*sent[::-1]).acked_seq == 3
    assert seqs(rig) == [1, 2, 3]
    assert errors(rig, rollout) == 6
    assert daily(rig, "download.bytes") == 4096


def test_old_pieces_go_as_a_whole_but_for_what_a_running_rollout_rests_on(rig: Rig) -> None:
    rig.publish_trust()
    rollout = rig.rollout(rig.release(1))
    device = rig.device()
    device.run(device.assignment())
    for _ in range(20):
        device.tell("heartbeat")
    another_piece(rig)
    rig.now += 100 * DAY
    device.log_in()
    device.tell("heartbeat")
    told = seqs(rig)
    # of events alone: the sums by the hour are made coarser by the same step
    settings = msgspec.structs.replace(
        rig.app.services.settings, keep_events_s=50 * DAY, keep_samples_s=0
    )
    done = Retention(settings).step(rig.app.store, [rollout], int(rig.now))
    on_postgres = rig.read(is_postgres)
    if on_postgres:
        assert done == 1
        assert rig.read(partitions.pieces)[0].low > 0
    assert seqs(rig) == [*told[:5], told[-1]]
    device.tell("heartbeat")
    assert len(seqs(rig)) == 7
    # and once nobody needs them they go, wherever they were moved to
    rig.set_rollout(rollout, state="completed", ended_at=int(rig.now) - 99 * DAY)
    Retention(settings).step(rig.app.store, [], int(rig.now))
    assert seqs(rig) == [told[-1], told[-1] + 1]


def test_pieces_are_made_ahead_by_whoever_plans(rig: Rig) -> None:
    def width(conn: Connection) -> int:
        return (partitions.pieces(conn) or [partitions.Piece("", 0, 0)])[-1].high

    before = rig.read(width)
    another_piece(rig)
    rig.publish_trust()
    rig.device().tell("heartbeat")
    rig.app.tick()
    after = rig.read(width)
    assert after - before == (partitions.WIDTH_MIN if rig.read(is_postgres) else 0)
