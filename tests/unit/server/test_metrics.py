"""Metrics say what the events say: every counter is reckoned again from rows, and no series grows with the fleet."""

from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, select, update
from tests.unit.server.light import BOSS, LightFleet
from tests.unit.server.rig import Rig

from tidegate.core.reasons import REASONS
from tidegate.server import outcomes
from tidegate.server.metric_families import FAMILIES, ROLLOUTS_MAX
from tidegate.server.store import Connection, hot, tables
from tidegate.server.store import admin_log as log

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
RINGS: dict[str, Any] = {
    "ring": [{"name": "fleet", "steps": ["100%"]}],
    "guards": [{"type": "failure_rate", "max": "100%", "sample": 1000, "odds": 0}],
}


def samples(text: str) -> Samples:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def by(found: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(dict(pairs)[label] for label in labels): value
        for (series, pairs), value in found.items()
        if series == name
    }


@pytest.fixture
def lived(rig: Rig) -> LightFleet:
    """Thirty devices, of which some confirmed, went back, failed, fell silent, and came back."""
    fleet = LightFleet(rig, 30, says=lambda number: {"rev": 1 + number % 2})
    fleet.start(RINGS)
    fleet.look()
    rig.set_rollout(fleet.id, room=None)
    out = fleet.ask()
    assert len(out) == 30
    fleet.end(out[:12])
    fleet.end(out[12:16], "reverted", "health.network")
    fleet.end(out[16:18], "failed", "download.tls")
    fleet.end(out[18:20], "failed", "install.space")
    fleet.end(out[20:25], "lost", "lost.return")
    fleet.end(out[20:22])
    fleet.end(out[:1], "reverted", "boot.watchdog")
    return fleet


def test_rollout_counters_are_those_of_the_rows(lived: LightFleet) -> None:
    found = samples(lived.rig.scrape())
    rollout_id, states_all = lived.id, tuple(outcomes.ENDED | outcomes.OPEN)
    rows = lived.rig.read(lambda conn: hot.updates_in(conn, rollout_id, states_all))
    assert len(rows) == 30
    wanted: Counter[tuple[str, ...]] = Counter()
    reasons: Counter[tuple[str, ...]] = Counter()
    states: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        states[row.state, row.reason or ""] += 1
        for name, count in outcomes.contributions(row).items():
            if name.startswith("reason:"):
                reasons[lived.name, name.removeprefix("reason:")] += count
            else:
                wanted[lived.name, row.ring, name] += count
    shown = by(found, "tidegate_rollout_updates", "rollout", "ring", "outcome")
    assert {key: value for key, value in shown.items() if value} == wanted
    shown = by(found, "tidegate_rollout_reasons", "rollout", "reason")
    assert {key: value for key, value in shown.items() if value} == reasons
    assert by(found, "tidegate_updates", "state", "reason") == states


def test_fleet_counters_count_each_end_once(lived: LightFleet) -> None:
    found = samples(lived.rig.scrape())
    ends = by(found, "tidegate_update_ends_total", "state")
    assert ends == {("confirmed",): 14, ("reverted",): 5, ("failed",): 4, ("lost",): 5}
    reasons = by(found, "tidegate_update_reasons_total", "reason")
    assert reasons == {
        ("health.network",): 4, ("boot.watchdog",): 1, ("download.tls",): 2,
        ("install.space",): 2, ("lost.return",): 5,
    }  # fmt: skip
    assert found["tidegate_permits_given_total", ()] == 30
    assert by(found, "tidegate_device_downloads_total", "result")[("failed",)] == 2


def test_downloads_and_bytes_follow_the_events_of_devices(rig: Rig) -> None:
    rig.publish_trust()
    target = rig.release(1)
    rollout_id = rig.rollout(target)
    told = 0
    for number in range(3):
        device = rig.device(f"d{number}")
        body = device.assignment()
        device.tell("downloading", body)
        device.tell("staged", body, bytes=4096 + number)
        told += 4096 + number
    found = samples(rig.scrape())
    assert found["tidegate_device_download_bytes_total", ()] == told
    assert by(found, "tidegate_device_downloads_total", "result") == {("ok",): 3, ("failed",): 0}
    assert by(found, "tidegate_rollout_bytes", "rollout") == {(f"r-{target.name}",): told}
    stored = rig.read(
        lambda conn: conn.execute(
            select(func.count()).where(tables.event.c.kind == "staged")
        ).scalar()
    )
    assert stored == 3
    assert found["tidegate_events_total", ()] == 6
    assert by(found, "tidegate_rollout_updates", "ring", "outcome")["fleet", "staged"] == 3
    assert rollout_id


def test_a_lie_about_bytes_does_not_spoil_the_sum(rig: Rig) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(1))
    device = rig.device()
    device.tell("staged", device.assignment(), bytes=2**53 - 1)
    assert samples(rig.scrape())["tidegate_device_download_bytes_total", ()] <= 2**40


def test_a_halt_is_seen_in_every_number_that_tells_of_it(lived: LightFleet) -> None:
    before = samples(lived.rig.scrape())
    assert by(before, "tidegate_rollout_state", "rollout", "state") == {(lived.name, "active"): 1}
    lived.operations.act(lived.name, "halt", BOSS, "because", lived.now)
    after = samples(lived.rig.scrape())
    assert by(after, "tidegate_rollout_state", "rollout", "state") == {(lived.name, "halted"): 1}
    assert by(after, "tidegate_incidents_total", "kind") == {("halt",): 1}
    assert after["tidegate_incidents_open", ()] == 1
    assert after["tidegate_gate_epoch", ()] == before["tidegate_gate_epoch", ()] + 1


def test_the_evidence_gate_shows_its_odds(rig: Rig) -> None:
    fleet = LightFleet(rig, 60)
    fleet.start({"ring": [{"name": "fleet", "steps": ["100%"]}]})
    fleet.look()
    fleet.live(24, lambda _: "reverted")
    found = samples(rig.scrape())
    assert fleet.row["state"] == "halted"
    assert by(found, "tidegate_rollout_odds", "rollout")[fleet.name,] >= 1000
    assert by(found, "tidegate_rollout_decided_seconds", "rollout")[fleet.name,] >= 0


def test_messages_that_are_owed_are_counted_by_what_became_of_them(rig: Rig) -> None:
    def work(conn: Connection) -> None:
        for _ in range(4):
            log.add_outbox(conn, "webhook", {}, int(rig.now))
        outbox = tables.outbox
        ends: list[dict[str, Any]] = [
            {"tries": 2},
            {"tries": 1, "done_at": int(rig.now)},
            {"tries": 20, "done_at": int(rig.now), "error": "no"},
        ]
        for number, values in enumerate(ends):
            conn.execute(update(outbox).where(outbox.c.id == number + 1).values(**values))

    rig.write(work)
    rig.now += 50
    found = samples(rig.scrape())
    assert by(found, "tidegate_outbox", "channel", "state") == {
        ("webhook", "waiting"): 1, ("webhook", "retrying"): 1, ("webhook", "dead"): 1,
    }  # fmt: skip
    assert found["tidegate_outbox_oldest_seconds", ()] == 50


def test_every_family_that_is_shown_is_declared_and_the_other_way_round(
    lived: LightFleet,
) -> None:
    text = lived.rig.scrape()
    shown = {one.name for one in text_string_to_metric_families(text)}
    ours = {one for one in shown if one.startswith("tidegate_")}
    # what only several processes, or an evidence gate, or a running loop has
    elsewhere = {"tidegate_ticked_seconds"}
    if not lived.rig.app.store.shared:
        elsewhere.add("tidegate_changes_behind")
    assert ours == set(FAMILIES) - elsewhere
    assert {"process_cpu_seconds", "process_open_fds", "process_resident_memory_bytes"} <= shown


def test_commits_are_timed(rig: Rig) -> None:
    before = samples(rig.scrape())
    rig.write(lambda _: None)
    after = samples(rig.scrape())
    whole = ("tidegate_commit_seconds_bucket", (("le", "+Inf"),))
    assert after[whole] > before[whole]
    assert after["tidegate_commit_seconds_count", ()] == after[whole]
    rising = by(after, "tidegate_commit_seconds_bucket", "le")
    ordered = [rising[key] for key in sorted(rising, key=lambda one: float(one[0]))]
    assert ordered == sorted(ordered)


def test_problems_are_counted_by_code(rig: Rig) -> None:
    assert rig.ask("GET", "/d/v1/poll").status == 401
    assert rig.ask("POST", "/d/v1/poll").status == 405
    found = by(samples(rig.scrape()), "tidegate_device_problems_total", "code")
    assert found == {("session.expired",): 1, ("request.method",): 1}


def test_series_do_not_grow_with_devices_rollouts_or_words_of_strangers(rig: Rig) -> None:
    rig.publish_trust()
    target = rig.release(1)
    for number in range(ROLLOUTS_MAX + 20):
        rig.rollout(target, name=f"r{number}", state="completed")
    rig.rollout(target, name="moving", state="halted")
    for number in range(ROLLOUTS_MAX):
        rig.rollout(target, name=f"later{number}", state="cancelled")
    rig.write(
        lambda conn: conn.execute(
            insert(tables.daily),
            [
                {"day": 1, "product": "gw1", "name": f"reason:foreign.{one}", "value": 1}
                for one in range(100)
            ],
        )
    )
    found = samples(rig.scrape())
    shown = by(found, "tidegate_rollout_state", "rollout")
    assert len(shown) == ROLLOUTS_MAX
    assert ("moving",) in shown
    reasons = by(found, "tidegate_update_reasons_total", "reason")
    assert reasons == {("other",): 100}
    assert "other" not in REASONS
