"""Prometheus metrics: what the database knows, read when asked, and what this process counted. Families and labels: `metric_families`.

What has to look at every device or update (`_scanned`) is asked for so seldom that it takes a twentieth of the time at most, however large the fleet is.
"""

import copy
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from tidegate import __version__
from tidegate.core.reasons import REASONS
from tidegate.rollout.evidence.decide import odds
from tidegate.rollout.model import Policy, RingProgress
from tidegate.server import advisories, approvals, load, outbox
from tidegate.server.calendar import calendar
from tidegate.server.live import Live
from tidegate.server.metric_families import RELEASES_MAX, ROLLOUTS_MAX, family, table, value
from tidegate.server.readiness import Readiness
from tidegate.server.restarts import CAUSES
from tidegate.server.services import Services
from tidegate.server.store import Connection, admin_log, gate_rows, metric_rows
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_incidents as incident_rows
from tidegate.server.store import admin_rollouts as rollout_rows
from tidegate.server.store.scope import DEFAULT

#: The character set is added where it is sent, as to every text.
CONTENT_TYPE: Final = "text/plain; version=0.0.4"
#: A reading that took so long is used this many times as long.
_REST: Final = 20
#: Counters of this process: field of `services.Counters` → family.
_PROCESS: Final = {
    "polls": "tidegate_polls",
    "polls_unchanged": "tidegate_polls_unchanged",
    "events": "tidegate_events",
    "events_refused": "tidegate_events_refused",
    "assignments": "tidegate_assignments",
    "permits": "tidegate_permits",
    "permits_refused": "tidegate_permits_refused",
    "blob_requests": "tidegate_downloads",
    "blob_bytes": "tidegate_download_bytes",
    "ticks": "tidegate_ticks",
    "ticks_failed": "tidegate_ticks_failed",
}
Table = dict[tuple[str, ...], float]


class _Odds(msgspec.Struct):
    """What of a decision is shown (`rollout.evidence.decide.Decision`)."""

    log_odds: float = 0.0


class Metrics:
    """Renders all metrics of one process. Safe to call from any thread."""

    def __init__(self, services: Services, live: Live, readiness: Readiness) -> None:
        """Read from these parts."""
        self._services = services
        self._live = live
        self._readiness = readiness
        self._guard = threading.Lock()
        self._scanned: list[Metric] = []
        self._scan_at = 0.0

    def render(self, now: int) -> bytes:
        """Return all metrics in Prometheus' text format; with a label that names the tenant where the server has more than one. `now` in unix seconds."""
        registry = CollectorRegistry(auto_describe=False)
        collector: Any = _Reading([*self._stored(now), *self._process(now)], self._tenant)
        registry.register(collector)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        return generate_latest(registry)

    @property
    def _tenant(self) -> str:
        """Return whose metrics these are; empty where there is nobody to tell them from."""
        tenant = self._services.settings.tenant
        others = bool(getattr(self._services.cells, "all", None))
        return tenant if tenant != DEFAULT or others else ""

    def _stored(self, now: int) -> Iterable[Metric]:
        store = self._services.store
        with self._guard:
            began = time.monotonic()
            if began >= self._scan_at:
                self._scanned = store.read(lambda conn: _scan(conn, now))
                ended = time.monotonic()
                self._scan_at = ended + _REST * (ended - began)
            scanned = list(self._scanned)
        return [*scanned, *store.read(lambda conn: _kept(conn, now))]

    def _process(self, now: int) -> Iterator[Metric]:
        services = self._services
        counters, store = services.counters, services.store
        for field, name in _PROCESS.items():
            yield value(name, getattr(counters, field))
        yield table("tidegate_info", {(__version__,): 1})
        yield value("tidegate_ready", self._readiness.look(now).ready)
        yield table("tidegate_shed", _labelled({one: counters.shed[one] for one in load.ORDER}))
        yield table("tidegate_device_problems", _labelled(counters.problems.copy()))
        yield table("tidegate_requests", _labelled(counters.requests.copy()))
        yield value("tidegate_polls_held", counters.polls_held)
        yield value("tidegate_live_watchers", self._live.watchers)
        if counters.ticked_at:
            yield value("tidegate_ticked_seconds", now - counters.ticked_at)
        yield value("tidegate_store_waiting", store.waiting)
        yield value("tidegate_store_fresh", store.fresh)
        seen = store.seen
        if seen is not None:
            yield value("tidegate_changes_behind", max(0, store.read(admin_log.position) - seen))
        commits: Any = family("tidegate_commit_seconds")
        commits.add_metric([], store.commits.buckets(), store.commits.sum_s)
        yield commits
        yield value("tidegate_commit_work", store.commits.work)


class _Reading:
    """Families that were read, as the library wants them."""

    def __init__(self, found: list[Metric], tenant: str = "") -> None:
        self._found = found
        self._tenant = tenant

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        for one in self._found:
            if self._tenant:
                named = copy.copy(one)  # what was scanned is kept, and shown again
                named.samples = [
                    sample._replace(labels={**sample.labels, "tenant": self._tenant})
                    for sample in one.samples
                ]
                yield named
            else:
                yield one


def _labelled(counted: dict[str, int]) -> Table:
    return {(name,): count for name, count in counted.items()}


# --- from the database -------------------------------------------------------------------------------------------------


def _scan(conn: Connection, now: int) -> list[Metric]:
    """Read what takes longer the larger the fleet is."""
    updates: Table = {}
    for state, reason, count in device_rows.update_counts(conn):
        key = (state, _known(reason) if reason else "")
        updates[key] = updates.get(key, 0) + count
    exposed, loud = advisories.exposed(conn)
    shown = {int(row["id"]): str(row["name"]) for row in _shown(conn)}
    fetched = metric_rows.bytes_of(conn, shown)
    return [
        table("tidegate_devices", _labelled(device_rows.device_counts(conn))),
        value("tidegate_devices_seen_24h", device_rows.seen_since(conn, now - 86_400)),
        table("tidegate_updates", updates),
        table("tidegate_rollout_bytes", _labelled({shown[one]: n for one, n in fetched.items()})),
        value("tidegate_devices_exposed", exposed),
        value("tidegate_advisories_open", loud),
    ]


def _kept(conn: Connection, now: int) -> list[Metric]:
    """Read what is kept as counters, or is short."""
    expiry = _labelled({one.role: one.expires_in_s for one in calendar(conn, now)})
    owed, oldest = metric_rows.owed(conn, outbox.KINDS)
    leases = _labelled({name: at - now for name, at in metric_rows.leases(conn).items()})
    incidents = metric_rows.incidents_by_kind(conn)
    return [
        table("tidegate_rollouts", _labelled(rollout_rows.rollouts_by_state(conn))),
        table("tidegate_metadata_expires_seconds", expiry),
        table("tidegate_firmware_devices", _firmware(conn)),
        *_counted(conn),
        *_rollouts(conn, now),
        value(
            "tidegate_incidents_open",
            len(incident_rows.listed(conn, unclosed=True, limit=1000)),
        ),
        table("tidegate_incidents", _labelled({"halt": 0, **incidents})),
        value("tidegate_approvals_open", len(approvals.listed(conn, state="open"))),
        value("tidegate_gate_epoch", admin_log.gate_epoch(conn)),
        table("tidegate_outbox", {key: float(count) for key, count in owed.items()}),
        value("tidegate_outbox_oldest_seconds", max(0, now - oldest) if oldest else 0),
        table("tidegate_lease_seconds", leases),
    ]


def _counted(conn: Connection) -> list[Metric]:
    """Read the fleet-wide counters, which the transaction of each event keeps (`outcomes`, `telemetry`)."""
    counted = device_rows.counted_by_name(conn, "")
    by: dict[str, dict[str, int]] = {}
    for name, count in counted.items():
        head, _, rest = name.partition(":")
        if rest:
            by.setdefault(head, {})[rest] = count
    reasons: Table = {}
    for reason, count in by.get("reason", {}).items():
        reasons[_known(reason),] = reasons.get((_known(reason),), 0) + count
    restarts = by.get("restart", {})
    results = {one: counted.get(f"download.{one}", 0) for one in ("ok", "failed")}
    return [
        table("tidegate_device_downloads", _labelled(results)),
        value("tidegate_device_download_bytes", counted.get("download.bytes", 0)),
        table("tidegate_update_ends", _labelled(by.get("end", {}))),
        table("tidegate_update_reasons", reasons),
        value("tidegate_permits_given", counted.get("permit", 0)),
        table("tidegate_device_restarts", _labelled({one: restarts.get(one, 0) for one in CAUSES})),
    ]


def _known(reason: str) -> str:
    return reason if reason in REASONS else "other"


def _shown(conn: Connection) -> list[dict[str, Any]]:
    return metric_rows.shown_rollouts(conn, ROLLOUTS_MAX)


def _rollouts(conn: Connection, now: int) -> list[Metric]:
    rows = _shown(conn)
    names = {int(row["id"]): str(row["name"]) for row in rows}
    states: Table = {}
    rings: Table = {}
    room: Table = {}
    for row in rows:
        name = str(row["name"])
        states[name, str(row["state"])] = 1
        specs = msgspec.convert(row["policy"], Policy).rings
        progress = msgspec.convert(row["rings"], tuple[RingProgress, ...])
        for spec, one in zip(specs, progress, strict=False):
            rings[name, spec.name, one.state] = 1
        if row["room"] is not None:
            room[name,] = int(row["room"])
    outcomes: Table = {}
    reasons: Table = {}
    for rollout_id, ring, counter, count in metric_rows.tally_sums(conn, names):
        name, (head, _, reason) = names[rollout_id], counter.partition(":")
        if head == "reason":
            reasons[name, _known(reason)] = reasons.get((name, _known(reason)), 0) + count
        elif not reason:
            outcomes[name, ring, counter] = count
    return [
        table("tidegate_rollout_state", states),
        table("tidegate_ring_state", rings),
        table("tidegate_rollout_room", room),
        table("tidegate_rollout_updates", outcomes),
        table("tidegate_rollout_reasons", reasons),
        *_evidence(conn, names, now),
    ]


def _evidence(conn: Connection, names: dict[int, str], now: int) -> list[Metric]:
    against: Table = {}
    age: Table = {}
    for rollout_id, at in metric_rows.decided_at(conn, names).items():
        text = gate_rows.decision(conn, rollout_id)
        if not text:
            continue
        decision = msgspec.json.decode(text, type=_Odds)
        against[names[rollout_id],] = odds(decision.log_odds)
        age[names[rollout_id],] = now - at
    return [
        table("tidegate_rollout_odds", against),
        table("tidegate_rollout_decided_seconds", age),
    ]


def _firmware(conn: Connection) -> Table:
    sums: dict[tuple[str, int], int] = {}
    for row in device_rows.firmware(conn):
        key = (str(row["product"]), int(row["counter"]))
        sums[key] = sums.get(key, 0) + int(row["devices"])
    ordered = sorted(sums.items(), key=lambda one: (-one[1], one[0]))
    shown: Table = {
        (product, str(counter)): count for (product, counter), count in ordered[:RELEASES_MAX]
    }
    if len(ordered) > RELEASES_MAX:
        shown["other", "other"] = sum(count for _, count in ordered[RELEASES_MAX:])
    return shown
