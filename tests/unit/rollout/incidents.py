"""One incident to tell reports about: 23 devices acted, six ended badly, five of them of one variant."""

import msgspec
from tests.unit.rollout.stage import begun, known

from tidegate.rollout import incident
from tidegate.rollout.incident import DeviceOutcome, Incident, IncidentReport
from tidegate.rollout.model import Finding

EVIDENCE = known(
    ("matched", "pilot", "r3", 40), ("matched", "pilot", "r7", 20),
    ("permitted", "pilot", "r3", 16), ("confirmed", "pilot", "r3", 15),
    ("permitted", "pilot", "r7", 6), ("reverted", "pilot", "r7", 4, "health.network"),
    ("lost", "pilot", "r7", 1, "lost.return"),
    ("failed_before", "pilot", "r3", 2, "download.slow"),
    ("failed_before", "pilot", "r3", 1, "install.write"),
)  # fmt: skip
BECAUSE = (Finding(gate="failure_rate", passed=False, text="6 of 23 attempts ended badly"),)
DEVICES = [
    *[
        DeviceOutcome(device=f"r3-{n:02}", variant="r3", ring="pilot", state="confirmed", at=50, attributes={"modem": "b"})
        for n in range(15)
    ],
    DeviceOutcome(device="r3-15", variant="r3", ring="pilot", state="rebooting", at=60, attributes={"modem": "a"}),
    *[
        DeviceOutcome(
            device=f"r7-{n}", variant="r7", ring="pilot", state="reverted", reason="health.network",
            at=100 + n, from_counter=118, attributes={"modem": "a"},
        )
        for n in range(4)
    ],
    DeviceOutcome(device="r7-4", variant="r7", ring="pilot", state="lost", reason="lost.return", at=200, attributes={"modem": "a"}),
    DeviceOutcome(device="r7-5", variant="r7", ring="pilot", state="verifying", at=210, attributes={"modem": "a"}),
]  # fmt: skip


INCIDENT = Incident(
    name="INC-2026-014", kind="halt", opened_at=1_764_821_551, opened_by="planner",
    rollout="gw1-2.5.1", release="gw1-2.5.1", summary="6 of 23 attempts ended badly",
)  # fmt: skip


def report(**other: object) -> IncidentReport:
    fields: dict[str, object] = {
        "now": 1_764_900_000,
        "rollout": begun(state="halted"),
        "version": "2.5.1",
        "because": BECAUSE,
        "evidence": EVIDENCE,
        "devices": DEVICES,
        "versions": {118: "2.4.1"},
    }
    which = other.pop("incident", INCIDENT)
    return incident.build(which, **{**fields, **other})  # type: ignore[arg-type]


def about(**changes: object) -> Incident:
    return msgspec.structs.replace(INCIDENT, **changes)


def read(told: IncidentReport) -> str:
    return incident.to_markdown(incident.lay_out(told))
