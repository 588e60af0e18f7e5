"""Examples of what the API takes, for its description; each is what its route reads, and a test reads it."""

from typing import Any, Final

from tidegate.server.api import incident_wire, jobs, notices, uploads, wire

#: What stands in paths, by the noun and the parameter's name.
PATHS: Final[dict[tuple[str, str], str]] = {
    ("rollouts", "name"): "gw1-1.1.0",
    ("releases", "name"): "gw1-1.1.0",
    ("releases", "digest"): "0" * 64,
    ("devices", "name"): "gw-0017",
    ("preauthorized", "key"): "0" * 64,
    ("groups", "name"): "pilot",
    ("claims", "name"): "line-4",
    ("incidents", "name"): "INC-2027-001",
    ("accounts", "name"): "olga",
    ("tokens", "name"): "ci",
    ("uploads", "name"): "0" * 32,
}
_POLICY: Final[dict[str, Any]] = {
    "release": "gw1-1.1.0",
    "preset": "normal",
    "audience": "model = gw1",
    "ring": [
        {"name": "pilot", "audience": "group:pilot", "soak": "24h"},
        {"name": "fleet", "steps": ["10%", "100%"], "soak": "24h"},
    ],
    "reason": "fixes the modem",
}
#: By the struct that is read; where a body is a plain object, or one struct has several meanings, by the operation's id.
BODIES: Final[dict[Any, Any]] = {
    "rollouts_create": _POLICY,
    "rollouts_replace": _POLICY,
    "rollouts_change": {
        "steps": {"fleet": ["1%", "5%", "20%", "100%"]},
        "flow": {"in_flight": 50},
        "reason": "slower, the lines are busy",
    },
    "rollouts_isolate": wire.Act(reason="screens stay black", variant="gw1-r3"),
    "rollouts_readmit": wire.Act(reason="fixed in 1.1.1", variant="gw1-r3"),
    wire.Act: wire.Act(reason="screens stay black"),
    wire.FallbackOrder: wire.FallbackOrder(reason="screens stay black"),
    wire.NewGrant: wire.NewGrant(reason="screens stay black"),
    wire.Decision: wire.Decision(reason="read the plan"),
    wire.Because: wire.Because(reason="stolen"),
    wire.LetIn: wire.LetIn(reason="line 4"),
    wire.Swap: wire.Swap(fingerprint="0123456789abcdef", reason="new board"),
    wire.FactoryList: wire.FactoryList(entries=[{"id": "gw-0017"}]),
    wire.Tags: wire.Tags(tags=["lab", "pilot"]),
    wire.NewClaim: wire.NewClaim(product="gw1", name="line-4", max_count=500),
    wire.NewGroup: wire.NewGroup(name="pilot", query="site = lab"),
    wire.GroupChange: wire.GroupChange(query="site = lab or tag = pilot"),
    wire.NewAccount: wire.NewAccount(name="olga", role="operator"),
    wire.AccountChange: wire.AccountChange(role="viewer"),
    wire.NewToken: wire.NewToken(name="ci", role="operator", expires_in_s=86_400),
    incident_wire.NewIncident: incident_wire.NewIncident(summary="modems do not register"),
    incident_wire.IncidentEdit: incident_wire.IncidentEdit(severity="major", owner="olga"),
    incident_wire.NewNote: incident_wire.NewNote(text="seen in region north only"),
    incident_wire.NewFollowUp: incident_wire.NewFollowUp(text="test with the old modem"),
    incident_wire.NewPublication: incident_wire.NewPublication(title="Modems of gw1"),
    incident_wire.NewUpdate: incident_wire.NewUpdate(text="The way back is ordered."),
    incident_wire.Withdrawal: incident_wire.Withdrawal(reason="published by mistake"),
    uploads.NewUpload: uploads.NewUpload(sha256="0" * 64, length=10_000_000_000),
    uploads.WantedLinks: uploads.WantedLinks(offset=0),
    jobs.NewJob: jobs.NewJob(act="tag", query="site = lab", tags=("lab",), confirm=12),
    notices.NewTest: notices.NewTest(channel="ops"),
}
