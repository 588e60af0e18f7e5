"""Tables of the evidence gate (`server.gatekeeper`): what happened to devices, what is known, the log it follows from, and how many permits are left to whom.

All of a rollout's rows are written by whoever holds the planner's lease, and `gate_happening` also by whoever moves an update, `gate_room` by whoever grants
a permit.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from tidegate.server.store.table_parts import Id, metadata, tenant

# What happened to a device of a rollout whose evidence is weighed, written in the transaction in which it happened; `seq` is the order of commits.
# What the stored state knows already is dropped.
gate_happening = Table(
    "gate_happening",
    metadata,
    Column("seq", Id, primary_key=True),
    tenant(),
    Column("rollout_id", Id, ForeignKey("rollout.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("device_row", Id, nullable=False),
    # gatekeeper.happenings.What, or one of those in gatekeeper.kept
    Column("what", String(12), nullable=False),
    # of `measured`: errors, and the seconds that they cover
    Column("value", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Integer, nullable=False, server_default="0"),
    # of a metric by name, and what it amounted to over those seconds
    Column("name", String(64), nullable=False, server_default=""),
    Column("amount", Float),
    Index(None, "rollout_id", "seq"),
    sqlite_autoincrement=True,
)

gate_state = Table(
    "gate_state",
    metadata,
    Column("rollout_id", Id, ForeignKey("rollout.id"), primary_key=True),
    tenant(),
    # 1: the planner looks at it, and what devices measure is noted
    Column("watched", Integer, nullable=False, server_default="1"),
    # rises with every writing: who finds another one than it wrote has been overtaken
    Column("generation", BigInteger, nullable=False),
    # the snapshot holds every happening up to this one, and every step up to this time
    Column("position", BigInteger, nullable=False),
    Column("stepped_at", BigInteger, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    # evidence.strata.Scheme; values that are told apart, by attribute; evidence.baseline.Baseline: fixed when the gate opens
    Column("scheme", JSON, nullable=False),
    Column("known", JSON, nullable=False),
    Column("baseline", JSON, nullable=False),
    # evidence.settings.Harm: follows the policy
    Column("harm", JSON, nullable=False),
    # evidence.roster.Roster, compressed
    Column("snapshot", LargeBinary, nullable=False),
    # of the book in the snapshot, and how many facts it has
    Column("digest", String(64), nullable=False),
    Column("facts", BigInteger, nullable=False),
    # evidence.decide.Decision: the last one
    Column("decision", JSON, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
)

# The book's log, one row a step: evidence.facts.Fact as JSON lines, compressed.
gate_fact = Table(
    "gate_fact",
    metadata,
    Column("rollout_id", Id, ForeignKey("rollout.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    tenant(),
    Column("at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # settings under which these and later facts are booked, where they changed
    Column("harm", JSON),
    # of the book after them
    Column("digest", String(64), nullable=False),
)

# How many more permits devices may get: of a variant or another stratum (`part`), at a site (`site`).
gate_room = Table(
    "gate_room",
    metadata,
    Column("rollout_id", Id, ForeignKey("rollout.id"), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("name", String(300), primary_key=True),
    tenant(),
    Column("room", Integer, nullable=False),
    # why there are no more, for the device that asks
    Column("because", Text, nullable=False, server_default=""),
)
