"""Every table, one definition for SQLite and PostgreSQL.

Times are unix seconds (a `DateTime` comes back naive from SQLite). Every table has its tenant. JSON is read and written whole. No hot query joins devices.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tidegate.server.store import (
    audience_tables,
    flight_tables,
    gate_tables,
    job_tables,
    log_tables,
    server_tables,
    supply_tables,
    tenant_tables,
    upload_tables,
)
from tidegate.server.store.account_tables import (
    account,
    account_request,
    api_token,
    login,
    sign_in_flow,
)
from tidegate.server.store.audit_tables import audit
from tidegate.server.store.identity_tables import preauthorized, retired_key, session_salt
from tidegate.server.store.incident_tables import (
    incident_followup,
    publication,
    publication_update,
)
from tidegate.server.store.scope import tenant_of_row
from tidegate.server.store.series_tables import rollout_hour
from tidegate.server.store.table_parts import Id as _Id
from tidegate.server.store.table_parts import metadata
from tidegate.server.store.table_parts import tenant as _tenant

__all__ = [
    "account", "account_request", "api_token", "audience_tables", "audit", "flight_tables", "gate_tables", "incident_followup", "job_tables",
    "log_tables", "login", "metadata", "preauthorized", "publication", "publication_update", "retired_key", "rollout_hour", "server_tables", "session_salt",
    "sign_in_flow", "supply_tables", "tenant_tables", "upload_tables",
]  # fmt: skip

device = Table(
    "device",
    metadata,
    Column("row", _Id, primary_key=True),
    _tenant(),
    Column("id", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("keytype", String(16), nullable=False),
    Column("key_sha256", String(64), nullable=False),
    Column("key_gen", Integer, nullable=False, server_default="1"),
    # accepted, pending, rejected, revoked, quarantined, decommissioned
    Column("state", String(16), nullable=False),
    Column("product", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("rev", Integer, nullable=False),
    Column("variant", String(80), nullable=False),
    Column("serial", String(128), nullable=False, server_default=""),
    Column("channel", String(32), nullable=False),
    Column("region", String(64), nullable=False, server_default=""),
    Column("site", String(64), nullable=False, server_default=""),
    Column("connectivity", String(16), nullable=False, server_default="always"),
    Column("attributes", JSON, nullable=False),
    Column("agent", String(64), nullable=False, server_default=""),
    Column("boot_id", String(64), nullable=False, server_default=""),
    Column("running_counter", BigInteger, nullable=False, server_default="0"),
    Column("running_sha256", String(64)),
    Column("running_version", String(64), nullable=False, server_default=""),
    # when it confirmed the release it runs; 0 = factory image. Errors after this count for that release.
    Column("confirmed_at", BigInteger, nullable=False, server_default="0"),
    Column("security_floor", Integer, nullable=False, server_default="0"),
    Column("slots", JSON, nullable=False),
    Column("refuses", JSON, nullable=False),
    Column("held", Integer, nullable=False, server_default="0"),
    Column("held_by", String(128), nullable=False, server_default=""),
    Column("inhibitors", JSON, nullable=False),
    Column("waiting", String(64), nullable=False, server_default=""),
    # what it has beside the component that updates are of, as it says: {name: {counter, sha256}}
    Column("components", JSON, nullable=False, server_default="{}"),
    Column("acked_seq", BigInteger, nullable=False, server_default="0"),
    Column("assignment_seq", BigInteger, nullable=False, server_default="0"),
    Column("last_seen", BigInteger, nullable=False, server_default="0"),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("claim_id", _Id),
    # when its newest session was opened: tokens issued before are over
    Column("session_at", BigInteger, nullable=False, server_default="0"),
    Column("session_nonce", String(32), nullable=False, server_default=""),
    # server.trail.Trail: its last sessions, and what speaks for two devices behind one key
    Column("trail", JSON),
    # beginning of the digest of the one key that an operator approved to come next, and until when
    Column("key_promised", String(64), nullable=False, server_default=""),
    Column("key_promised_until", BigInteger, nullable=False, server_default="0"),
    # 1: an operator wants a new key; the device is told with its next session
    Column("rekey", Integer, nullable=False, server_default="0"),
    # up to when it has claimed device time: it cannot have lived longer than the clock says
    Column("measured_until", BigInteger, nullable=False, server_default="0"),
    # restarts that nobody asked for (server.restarts.Ends): since when it keeps a record of them, how many, the last one, the last without a known cause
    Column("restarts_from", BigInteger, nullable=False, server_default="0"),
    Column("restarts", BigInteger, nullable=False, server_default="0"),
    Column("restarted_at", BigInteger, nullable=False, server_default="0"),
    Column("cut_at", BigInteger, nullable=False, server_default="0"),
    Column("restarted_boot", String(64), nullable=False, server_default=""),
    Column("restart_cause", String(16), nullable=False, server_default=""),
    # attributes that the factory's list gave it: not the device's to change
    Column("given", JSON),
    UniqueConstraint("tenant", "id"),
    Index(None, "tenant", "product", "variant"),
    # who came after a rollout was made is counted from this alone, variant by variant: only those are looked at, and no row of them
    Index(None, "tenant", "product", "state", "variant", "enrolled_at"),
    Index(None, "tenant", "state"),
    Index(None, "key_sha256"),
)

claim = Table(
    "claim",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", String(64), nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("product", String(64), nullable=False),
    Column("group_name", String(64)),
    Column("max_count", Integer, nullable=False),
    Column("used", Integer, nullable=False, server_default="0"),
    Column("serials", JSON),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

device_group = Table(
    "device_group",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", String(64), nullable=False),
    # a query over attributes, or NULL: static members
    Column("query", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    UniqueConstraint("tenant", "name"),
)

group_member = Table(
    "group_member",
    metadata,
    _tenant(),
    Column("group_id", _Id, ForeignKey("device_group.id"), primary_key=True),
    Column("device_row", _Id, ForeignKey("device.row"), primary_key=True),
)

release = Table(
    "release",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", String(130), nullable=False),
    Column("product", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("security_version", Integer, nullable=False),
    Column("release_sha256", String(64), nullable=False),
    Column("channels", JSON, nullable=False),
    Column("kind", String(16), nullable=False),
    # live, recalled
    Column("state", String(16), nullable=False),
    Column("recalled_at", BigInteger),
    Column("recall_reason", Text),
    Column("published_at", BigInteger, nullable=False),
    Column("published_by", String(128), nullable=False),
    Column("signers", JSON, nullable=False),
    # the staging schedule that its signers set, as JSON text
    Column("mandate", Text),
    UniqueConstraint("tenant", "name"),
    UniqueConstraint("tenant", "product", "counter"),
)

artifact = Table(
    "artifact",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("release_id", _Id, ForeignKey("release.id"), nullable=False),
    Column("path", String(300), nullable=False),
    Column("component", String(64), nullable=False),
    Column("install_sha256", String(64), nullable=False),
    Column("install_size", BigInteger, nullable=False),
    # the TUF target: length and digest of the full payload container
    Column("length", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    # core.release.ReleaseTarget as JSON
    Column("target", JSON, nullable=False),
    UniqueConstraint("tenant", "path"),
    Index(None, "release_id"),
)

repository = Table(
    "repository",
    metadata,
    _tenant(),
    # root, targets, snapshot, timestamp, product/<name>
    Column("role", String(80), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

rollout = Table(
    "rollout",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", String(128), nullable=False),
    # install, or fallback (a child with its own updates)
    Column("kind", String(16), nullable=False, server_default="install"),
    Column("parent_id", _Id, ForeignKey("rollout.id")),
    Column("release_id", _Id, ForeignKey("release.id"), nullable=False),
    Column("product", String(64), nullable=False),
    Column("audience", Text, nullable=False, server_default=""),
    Column("state", String(20), nullable=False),
    Column("generation", Integer, nullable=False, server_default="1"),
    # rollout.model.Policy, RingProgress[], str[], Approval[]; protocol.DeliveryPolicy
    Column("policy", JSON, nullable=False),
    Column("rings", JSON, nullable=False),
    Column("isolated", JSON, nullable=False),
    Column("approvals", JSON, nullable=False),
    Column("delivery", JSON, nullable=False),
    # the last plan's findings
    Column("because", JSON, nullable=False),
    Column("room", Integer),
    Column("start_at", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("started_at", BigInteger),
    Column("halted_at", BigInteger),
    Column("halted_by", String(128)),
    Column("halt_reason", Text),
    Column("ended_at", BigInteger),
    # of a way back that the incident ring granted: fallback_grant.id
    Column("grant_id", BigInteger),
    # of a snapshot rollout: audience_tables.fixed_audience.sha256
    Column("fixed", String(64)),
    # of one that fetches ahead: when activation was let go
    Column("released_at", BigInteger),
    UniqueConstraint("tenant", "name"),
    Index(None, "tenant", "state"),
)

plan_log = Table(
    "plan_log",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    # planner, or an operator's name
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("text", Text, nullable=False),
    Column("because", JSON, nullable=False),
    Index(None, "rollout_id", "id"),
)

update = Table(
    "update",
    metadata,
    Column("id", String(64), primary_key=True),
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), nullable=False),
    Column("device_row", _Id, ForeignKey("device.row"), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    # DESIGN section 2: offered ... confirmed; declined failed reverted lost cancelled superseded
    Column("state", String(16), nullable=False),
    Column("reason", String(40)),
    Column("detail", Text, nullable=False, server_default=""),
    Column("ring", String(64), nullable=False),
    Column("variant", String(80), nullable=False),
    Column("from_counter", BigInteger, nullable=False),
    Column("from_sha256", String(64)),
    Column("release_counter", BigInteger, nullable=False),
    Column("offered_at", BigInteger, nullable=False),
    Column("state_at", BigInteger, nullable=False),
    Column("permitted_at", BigInteger),
    # when silence becomes `lost`; NULL = no deadline runs
    Column("deadline_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("resumes", Integer, nullable=False, server_default="0"),
    UniqueConstraint("rollout_id", "device_row"),
    Index(None, "device_row"),
    Index(None, "deadline_at"),
    Index(None, "rollout_id", "state", "state_at"),
)

permit = Table(
    "permit",
    metadata,
    Column("id", String(64), primary_key=True),
    _tenant(),
    Column("update_id", String(64), ForeignKey("update.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("nonce", String(32), nullable=False),
    Column("slot_sha256", String(64), nullable=False),
    Column("gate_epoch", BigInteger, nullable=False),
    Column("granted_at", BigInteger, nullable=False),
    Column("valid_s", Integer, nullable=False),
    # one of: granted, returned, ended
    Column("state", String(16), nullable=False),
    UniqueConstraint("update_id", "attempt", "nonce"),
    Index(None, "state"),
)

event = Table(
    "event",
    metadata,
    Column("position", _Id, primary_key=True),
    _tenant(),
    Column("device_row", _Id, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("update_id", String(64)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("reason", String(40)),
    # the whole body as JSON text, and the envelope where it was signed
    Column("body", Text, nullable=False),
    Column("envelope", Text),
    UniqueConstraint("device_row", "seq"),
    Index(None, "update_id"),
    Index(None, "kind", "received_at"),
)

# Counters of a rollout, kept in the transaction that books the event. `name` is a field of rollout.model.Tally, or `reason:<code>`.
tally = Table(
    "tally",
    metadata,
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), primary_key=True),
    Column("ring", String(64), primary_key=True),
    Column("variant", String(80), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Errors and device time of a rollout: arm `updated` (after confirmation) or `control`.
exposure = Table(
    "exposure",
    metadata,
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), primary_key=True),
    Column("variant", String(80), primary_key=True),
    Column("arm", String(8), primary_key=True),
    Column("errors", BigInteger, nullable=False),
    Column("device_s", BigInteger, nullable=False),
    Column("devices", BigInteger, nullable=False),
)

# Errors of single devices, where there were any: what the noisiest one had is set aside.
exposure_device = Table(
    "exposure_device",
    metadata,
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), primary_key=True),
    Column("arm", String(8), primary_key=True),
    Column("device_row", _Id, primary_key=True),
    Column("variant", String(80), nullable=False),
    Column("errors", BigInteger, nullable=False),
)

# Fleet-wide counters by day (unix day), for outcomes of 24 h and telemetry: name such as `download.ok`, `end:confirmed`, `reason:sig.threshold`.
daily = Table(
    "daily",
    metadata,
    _tenant(),
    Column("day", Integer, primary_key=True),
    Column("product", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# How many devices run which release, kept with the device row; sampled into `firmware_sample` for the chart.
firmware = Table(
    "firmware",
    metadata,
    _tenant(),
    Column("product", String(64), primary_key=True),
    Column("variant", String(80), primary_key=True),
    Column("counter", BigInteger, primary_key=True),
    Column("version", String(64), nullable=False),
    Column("devices", BigInteger, nullable=False),
)

firmware_sample = Table(
    "firmware_sample",
    metadata,
    _tenant(),
    Column("at", BigInteger, primary_key=True),
    Column("product", String(64), primary_key=True),
    Column("counter", BigInteger, primary_key=True),
    Column("version", String(64), nullable=False),
    Column("devices", BigInteger, nullable=False),
)

# One row: the gate epoch. A halt, isolation, pause or recall raises it; hints, holds and permits carry it.
gate = Table(
    "gate",
    metadata,
    Column("tenant", String(64), primary_key=True, default=tenant_of_row),
    Column("epoch", BigInteger, nullable=False),
)

# What changed, for replicas and live pages: written in the transaction of the change.
change = Table(
    "change",
    metadata,
    Column("seq", _Id, primary_key=True),
    _tenant(),
    Column("at", BigInteger, nullable=False),
    # rollout, release, device, group, incident, gate
    Column("kind", String(16), nullable=False),
    Column("key", String(130), nullable=False),
    sqlite_autoincrement=True,
)

# Server processes on one PostgreSQL database (`shared_rows`): how far each has followed `change`, and that it lives.
peer = Table(
    "peer",
    metadata,
    Column("name", String(64), primary_key=True),
    _tenant(),
    Column("seen", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

lease = Table(
    "lease",
    metadata,
    Column("name", String(64), primary_key=True),
    _tenant(),
    Column("holder", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

incident = Table(
    "incident",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", String(32), nullable=False),
    Column("rollout_id", _Id, ForeignKey("rollout.id")),
    # halt, isolation, held, fallback, manual
    Column("kind", String(16), nullable=False),
    # open, mitigated, closed
    Column("state", String(16), nullable=False),
    # critical, major, minor
    Column("severity", String(16), nullable=False, server_default="major"),
    Column("owner", String(128), nullable=False, server_default=""),
    Column("summary", Text, nullable=False),
    # variant of an isolation
    Column("subject", String(128), nullable=False, server_default=""),
    Column("because", JSON, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("opened_by", String(128), nullable=False),
    Column("mitigated_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("published_at", BigInteger),
    UniqueConstraint("tenant", "name"),
    Index(None, "rollout_id"),
)

incident_note = Table(
    "incident_note",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("incident_id", _Id, ForeignKey("incident.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    # one of: note, action (a corrective one), hypothesis, cause, evidence (of the cause), event
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    # of evidence: by what it was shown (rollout.incident.MEANS), and where that is kept
    Column("means", String(16), nullable=False, server_default=""),
    Column("kept", String(500), nullable=False, server_default=""),
    Index(None, "incident_id"),
)

fallback_grant = Table(
    "fallback_grant",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("product", String(64), nullable=False),
    Column("incident_id", _Id, ForeignKey("incident.id"), nullable=False),
    # the halted rollout, and the release to go back to
    Column("rollout_id", _Id, ForeignKey("rollout.id"), nullable=False),
    Column("release_id", _Id, ForeignKey("release.id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("serial", BigInteger, nullable=False),
    # draft, accepted
    Column("state", String(16), nullable=False),
    # SHA-256 of what is signed; a protocol.Envelope, without signatures as long as it is a draft
    Column("payload_sha256", String(64), nullable=False),
    Column("envelope", JSON, nullable=False),
    # the Merkle tree's levels (core.merkle) as a blob; NULL = the grant is for all
    Column("cohort_sha256", String(64)),
    Column("cohort_count", BigInteger, nullable=False, server_default="0"),
    # fallbacks.WayBack as it was when the grant was drafted
    Column("way", JSON, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("accepted_at", BigInteger),
    Column("accepted_by", String(128)),
    UniqueConstraint("tenant", "product", "epoch", "serial"),
    UniqueConstraint("payload_sha256"),
    Index(None, "incident_id"),
)

approval_request = Table(
    "approval_request",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("rollout_id", _Id, ForeignKey("rollout.id"), nullable=False),
    # start, resume, advance, readmit, fallback
    Column("action", String(16), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("plan_sha256", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("asked_by", String(128), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # open, approved, declined, lapsed
    Column("state", String(16), nullable=False),
    Column("decided_at", BigInteger),
    Column("decided_by", String(128)),
    Index(None, "tenant", "state"),
)

# Calls owed to the world (webhooks): written with the change that causes them, sent later, at least once.
outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("kind", String(32), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("done_at", BigInteger),
    Column("error", Text),
    Index(None, "done_at", "next_at"),
)

# Answers to calls with an idempotency key, for 24 h.
idempotency = Table(
    "idempotency",
    metadata,
    _tenant(),
    Column("key", String(130), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
)
