"""Prometheus metrics: what the database knows, read when asked, and what this process counted. Labels come from closed lists or are bounded in number."""

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tidegate.core.reasons import REASONS
from tidegate.server import advisories, approvals
from tidegate.server.calendar import calendar
from tidegate.server.live import Live
from tidegate.server.restarts import CAUSES
from tidegate.server.services import Services
from tidegate.server.store import Connection, admin_log
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_incidents as incident_rows
from tidegate.server.store import admin_rollouts as rollout_rows

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Most releases that get a series of their own; the rest is summed as `other`.
RELEASES_MAX: Final = 50
#: Counters of this process: field of `services.Counters` → (name, help).
_PROCESS: Final = {
    "polls": ("tidegate_polls", "Polls answered"),
    "polls_unchanged": ("tidegate_polls_unchanged", "Polls answered with 304"),
    "events": ("tidegate_events", "Events accepted from devices"),
    "events_refused": ("tidegate_events_refused", "Events that were not counted"),
    "assignments": ("tidegate_assignments", "Assignments signed"),
    "permits": ("tidegate_permits", "Permits granted"),
    "permits_refused": ("tidegate_permits_refused", "Permits refused"),
    "blob_requests": ("tidegate_downloads", "Requests for artifact bytes"),
    "blob_bytes": ("tidegate_download_bytes", "Artifact bytes sent"),
    "shed": ("tidegate_shed", "Requests turned away because the store was behind"),
}


class _Reading:
    """One reading of the database as metric families, for one scrape."""

    def __init__(self, services: Services, live: Live, now: int) -> None:
        self._services = services
        self._live = live
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from self._services.store.read(self._stored)
        counters = self._services.counters
        for field, (name, text) in _PROCESS.items():
            family = CounterMetricFamily(name, f"{text}, since this process started.")
            family.add_metric([], getattr(counters, field))
            yield family
        yield _gauge(
            "tidegate_store_waiting", "Work that waits for the writer", self._services.store.waiting
        )
        yield _gauge("tidegate_live_watchers", "Open event streams", self._live.watchers)

    def _stored(self, conn: Connection) -> list[Metric]:
        devices = GaugeMetricFamily(
            "tidegate_devices", "Devices by state of enrolment.", labels=["state"]
        )
        for state, count in sorted(device_rows.device_counts(conn).items()):
            devices.add_metric([state], count)
        rollouts = GaugeMetricFamily("tidegate_rollouts", "Rollouts by state.", labels=["state"])
        for state, count in sorted(rollout_rows.rollouts_by_state(conn).items()):
            rollouts.add_metric([state], count)
        open_incidents = len(incident_rows.listed(conn, unclosed=True, limit=1000))
        return [
            devices,
            _gauge(
                "tidegate_devices_seen_24h",
                "Devices heard within a day",
                device_rows.seen_since(conn, self._now - 86_400),
            ),
            rollouts,
            self._expiry(conn),
            self._updates(conn),
            self._firmware(conn),
            self._restarts(conn),
            *self._exposure(conn),
            _gauge("tidegate_incidents_open", "Open incidents", open_incidents),
            _gauge(
                "tidegate_approvals_open",
                "Requests that wait for approval",
                len(approvals.listed(conn, state="open")),
            ),
            _gauge(
                "tidegate_gate_epoch", "Gate epoch; a halt raises it", admin_log.gate_epoch(conn)
            ),
        ]

    def _expiry(self, conn: Connection) -> Metric:
        family = GaugeMetricFamily(
            "tidegate_metadata_expires_seconds",
            "Seconds until a role's metadata or a grant lapses; negative when it has.",
            labels=["role"],
        )
        for one in calendar(conn, self._now):
            family.add_metric([one.role], one.expires_in_s)
        return family

    def _exposure(self, conn: Connection) -> list[Metric]:
        devices, loud = advisories.exposed(conn)
        return [
            _gauge(
                "tidegate_devices_exposed",
                "Devices that run something which an advisory concerns and no statement silences",
                devices,
            ),
            _gauge("tidegate_advisories_open", "Advisories that no statement silences", loud),
        ]

    def _updates(self, conn: Connection) -> Metric:
        family = GaugeMetricFamily(
            "tidegate_updates", "Updates by state and reason.", labels=["state", "reason"]
        )
        sums: dict[tuple[str, str], int] = {}
        for state, reason, count in device_rows.update_counts(conn):
            label = reason if reason in REASONS or not reason else "other"
            sums[state, label] = sums.get((state, label), 0) + count
        for key, count in sorted(sums.items()):
            family.add_metric(list(key), count)
        return family

    def _restarts(self, conn: Connection) -> Metric:
        family = CounterMetricFamily(
            "tidegate_device_restarts",
            "Restarts that nobody had asked for, as devices tell of them, by cause.",
            labels=["cause"],
        )
        told = device_rows.counted_by_name(conn, "restart:")
        for cause in sorted(CAUSES):
            family.add_metric([cause], told.get(cause, 0))
        return family

    def _firmware(self, conn: Connection) -> Metric:
        family = GaugeMetricFamily(
            "tidegate_firmware_devices",
            "Devices by the release that they run.",
            labels=["product", "counter"],
        )
        sums: dict[tuple[str, int], int] = {}
        for row in device_rows.firmware(conn):
            key = (str(row["product"]), int(row["counter"]))
            sums[key] = sums.get(key, 0) + int(row["devices"])
        ordered = sorted(sums.items(), key=lambda one: (-one[1], one[0]))
        for (product, counter), count in ordered[:RELEASES_MAX]:
            family.add_metric([product, str(counter)], count)
        if len(ordered) > RELEASES_MAX:
            family.add_metric(["other", "other"], sum(count for _, count in ordered[RELEASES_MAX:]))
        return family


def render(services: Services, live: Live, now: int) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    collector: Any = _Reading(services, live, now)
    registry.register(collector)
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, f"{text}.")
    family.add_metric([], value)
    return family
