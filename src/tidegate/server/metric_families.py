"""Every metric family by name: what it counts and which labels it has. Dashboard, alerts and the reference page are checked against this list.

Labels come from closed lists (states, reasons, codes) or are bounded in number (`ROLLOUTS_MAX`, `RELEASES_MAX`): no device, site or address is ever one.
"""

from typing import Final, Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

#: Most rollouts and releases that get series of their own.
ROLLOUTS_MAX: Final = 40
RELEASES_MAX: Final = 50


class Family(NamedTuple):
    """One family. A counter is scraped under its name with `_total`, a histogram with `_bucket`, `_count` and `_sum`.

    `of`: `server` = from the database, the same from every process; `process` = of the one that is asked, since it started.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    of: Literal["server", "process"]
    text: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """Return the names that its samples have."""
        if self.kind == "counter":
            return (f"{self.name}_total",)
        if self.kind == "histogram":
            return tuple(f"{self.name}_{one}" for one in ("bucket", "count", "sum"))
        return (self.name,)

    def empty(self) -> Metric:
        """Return the family without samples."""
        if self.kind == "counter":
            return CounterMetricFamily(self.name, self.text, labels=self.labels)
        if self.kind == "histogram":
            return HistogramMetricFamily(self.name, self.text)
        return GaugeMetricFamily(self.name, self.text, labels=self.labels)


_ALL: Final = (
    # --- the fleet
    Family("tidegate_devices", "gauge", "server", "Devices by state of enrolment.", ("state",)),
    Family("tidegate_devices_seen_24h", "gauge", "server", "Devices heard within a day."),
    Family(
        "tidegate_firmware_devices", "gauge", "server",
        f"Devices by the release that they run; beyond {RELEASES_MAX} releases, as `other`.",
        ("product", "counter"),
    ),
    Family(
        "tidegate_devices_exposed", "gauge", "server",
        "Devices that run something which an advisory concerns and no statement silences.",
    ),
    Family(
        "tidegate_advisories_open", "gauge", "server", "Advisories that no statement silences."
    ),
    Family(
        "tidegate_device_restarts", "counter", "server",
        "Restarts that nobody had asked for, as devices tell of them, by cause.", ("cause",),
    ),
    Family(
        "tidegate_device_downloads", "counter", "server",
        "Downloads that ended, as devices tell of them: `ok` or `failed`.", ("result",),
    ),
    Family(
        "tidegate_device_download_bytes", "counter", "server",
        "Bytes that devices received in downloads that succeeded, as they tell of them.",
    ),
    Family(
        "tidegate_update_ends", "counter", "server",
        "Updates that ended, by state. One that ends twice (lost, then confirmed) counts in both.",
        ("state",),
    ),
    Family(
        "tidegate_update_reasons", "counter", "server",
        "Updates that ended badly and what devices noticed, by reason.", ("reason",),
    ),
    Family("tidegate_permits_given", "counter", "server", "Leave to activate, once an update."),
    # --- updates and rollouts
    Family(
        "tidegate_updates", "gauge", "server",
        "Updates by the state that they are in, and its reason.", ("state", "reason"),
    ),
    Family("tidegate_rollouts", "gauge", "server", "Rollouts by state.", ("state",)),
    Family(
        "tidegate_rollout_state", "gauge", "server",
        f"1 for the state that a rollout is in; the {ROLLOUTS_MAX} that matter most.",
        ("rollout", "state"),
    ),
    Family(
        "tidegate_ring_state", "gauge", "server", "1 for the state that a ring is in.",
        ("rollout", "ring", "state"),
    ),
    Family(
        "tidegate_rollout_updates", "gauge", "server",
        "Updates of a rollout by what became of them: `offered` counts all of them, `exposed` the permits that count.",
        ("rollout", "ring", "outcome"),
    ),
    Family(
        "tidegate_rollout_reasons", "gauge", "server",
        "Updates of a rollout that ended badly, by reason.", ("rollout", "reason"),
    ),
    Family(
        "tidegate_rollout_bytes", "gauge", "server",
        "Bytes that devices of a rollout received, as they tell of them.", ("rollout",),
    ),
    Family(
        "tidegate_rollout_room", "gauge", "server",
        "Permits that the plan still leaves; none where it sets no bound.", ("rollout",),
    ),
    Family(
        "tidegate_rollout_odds", "gauge", "server",
        "Odds to 1 against a release, by its evidence gate, which halts at its limit (1000).",
        ("rollout",),
    ),
    Family(
        "tidegate_rollout_decided_seconds", "gauge", "server",
        "Seconds since the evidence of a rollout was last weighed.", ("rollout",),
    ),
    # --- what people look after
    Family("tidegate_incidents_open", "gauge", "server", "Incidents that are not closed."),
    Family(
        "tidegate_incidents", "counter", "server", "Incidents by kind; `halt` counts the halts.",
        ("kind",),
    ),
    Family("tidegate_approvals_open", "gauge", "server", "Requests that wait for approval."),
    Family("tidegate_gate_epoch", "gauge", "server", "Gate epoch; a halt raises it."),
    Family(
        "tidegate_metadata_expires_seconds", "gauge", "server",
        "Seconds until a role's metadata or a grant lapses; negative when it has.", ("role",),
    ),
    Family(
        "tidegate_outbox", "gauge", "server",
        "Messages to webhooks and mail: `waiting`, `retrying`, `dead` (given up).",
        ("channel", "state"),
    ),
    Family(
        "tidegate_outbox_oldest_seconds", "gauge", "server",
        "Age of the oldest message that is not delivered; 0 = none waits.",
    ),
    Family(
        "tidegate_lease_seconds", "gauge", "server",
        "Seconds that a lease (`reconciler`, `notifier`) has left; negative: nobody holds it.",
        ("name",),
    ),
    # --- the process
    Family("tidegate_info", "gauge", "process", "1; the version that runs.", ("version",)),
    Family("tidegate_ready", "gauge", "process", "1 as long as /readyz says so."),
    Family("tidegate_polls", "counter", "process", "Polls answered."),
    Family("tidegate_polls_unchanged", "counter", "process", "Polls answered with 304."),
    Family("tidegate_events", "counter", "process", "Events accepted from devices."),
    Family("tidegate_events_refused", "counter", "process", "Events that were not counted."),
    Family("tidegate_assignments", "counter", "process", "Assignments signed."),
    Family("tidegate_permits", "counter", "process", "Permits answered, repetitions included."),
    Family("tidegate_permits_refused", "counter", "process", "Permits refused."),
    Family("tidegate_downloads", "counter", "process", "Requests for artifact bytes."),
    Family("tidegate_download_bytes", "counter", "process", "Artifact bytes sent."),
    Family(
        "tidegate_shed", "counter", "process",
        "Requests of devices turned away because the store was behind, by what they wanted.", ("what",),
    ),
    Family(
        "tidegate_device_problems", "counter", "process",
        "Requests of devices that were answered with a problem, by code.", ("code",),
    ),
    Family(
        "tidegate_requests", "counter", "process",
        "Requests of people and their programs (API, pages, scrapes), by class of status.",
        ("status",),
    ),
    Family("tidegate_polls_held", "gauge", "process", "Polls held until there is news."),
    Family("tidegate_live_watchers", "gauge", "process", "Open event streams."),
    Family("tidegate_ticks", "counter", "process", "Times that the planner looked, or let another process."),
    Family("tidegate_ticks_failed", "counter", "process", "Ticks that ended in an error."),
    Family(
        "tidegate_ticked_seconds", "gauge", "process", "Seconds since a tick last succeeded here."
    ),
    Family("tidegate_store_waiting", "gauge", "process", "Work that waits for the writer."),
    Family(
        "tidegate_store_fresh", "gauge", "process",
        "1 as long as this process sees what the others change; at 0 it lets nobody begin.",
    ),
    Family(
        "tidegate_changes_behind", "gauge", "process",
        "Changes of other processes that this one has not seen yet.",
    ),
    Family(
        "tidegate_commit_seconds", "histogram", "process",
        "How long a transaction of the writer took, from its turn to durable.",
    ),
    Family("tidegate_commit_work", "counter", "process", "Pieces of work in those transactions."),
)  # fmt: skip
FAMILIES: Final[dict[str, Family]] = {one.name: one for one in _ALL}
assert len(FAMILIES) == len(_ALL)  # noqa: S101 - a name is there once


def family(name: str) -> Metric:
    """Return the family of that name, without samples."""
    return FAMILIES[name].empty()


def value(name: str, number: float) -> Metric:
    """Return a family without labels, with its one sample."""
    made = family(name)
    made.add_metric([], number)  # type: ignore[attr-defined]
    return made


def table(name: str, rows: "dict[tuple[str, ...], float]") -> Metric:
    """Return a family with a sample for each combination of labels, in a fixed order."""
    made = family(name)
    for labels, number in sorted(rows.items()):
        made.add_metric(list(labels), number)  # type: ignore[attr-defined]
    return made
