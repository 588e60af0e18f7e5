"""Tables of the supply chain: attachments, parts of releases, advisories, statements, findings. One metadata with the others."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tidegate.server.store.table_parts import Id as _Id
from tidegate.server.store.table_parts import metadata
from tidegate.server.store.table_parts import tenant as _tenant

# Documents of an artifact, as its signed target names them; the bytes are a blob.
attachment = Table(
    "attachment",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("artifact_id", _Id, ForeignKey("artifact.id"), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("format", String(64), nullable=False),
    Column("name", String(100), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("length", BigInteger, nullable=False),
    # what was read from it: server.supply.AttachmentNotes
    Column("notes", JSON, nullable=False),
    UniqueConstraint("artifact_id", "kind", "sha256"),
    Index(None, "sha256"),
)

# What releases are made of: the parts of each bill of materials once, however many artifacts it belongs to.
sbom_part = Table(
    "sbom_part",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("sbom_sha256", String(64), nullable=False),
    # core.supply.sbom.Part; the keys are what is looked for, in small letters
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("purl", Text, nullable=False),
    Column("type", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("source_key", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("distro", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    Column("alias_key", Text, nullable=False),
    Index(None, "sbom_sha256"),
    Index(None, "tenant", "name_key"),
    Index(None, "tenant", "alias_key"),
    Index(None, "tenant", "key"),
    Index(None, "tenant", "source_key"),
)

advisory = Table(
    "advisory",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("format", String(16), nullable=False),
    # 0 critical ... 4 none, 5 unrated: what sorts them
    Column("rank", Integer, nullable=False),
    # core.supply.advisory.Advisory
    Column("body", JSON, nullable=False),
    Column("imported_at", BigInteger, nullable=False),
    Column("imported_by", String(128), nullable=False),
    UniqueConstraint("tenant", "name"),
)

# Packages that an advisory is about: a package's key, or `name:` and a name in small letters.
advisory_package = Table(
    "advisory_package",
    metadata,
    _tenant(),
    Column("advisory_id", _Id, ForeignKey("advisory.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Index(None, "key"),
)

# What an advisory is called, in capitals: its id and its aliases.
advisory_name = Table(
    "advisory_name",
    metadata,
    _tenant(),
    Column("advisory_id", _Id, ForeignKey("advisory.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Index(None, "name"),
)

vex_statement = Table(
    "vex_statement",
    metadata,
    Column("id", _Id, primary_key=True),
    _tenant(),
    # attached to this artifact, or imported: NULL
    Column("artifact_id", _Id, ForeignKey("artifact.id")),
    # name of the document that it stands in: importing it again replaces its statements
    Column("document", Text, nullable=False),
    # core.supply.advisory.Statement
    Column("body", JSON, nullable=False),
    Column("imported_at", BigInteger, nullable=False),
    Column("imported_by", String(128), nullable=False),
    Index(None, "tenant", "document"),
)

vex_name = Table(
    "vex_name",
    metadata,
    _tenant(),
    Column("statement_id", _Id, ForeignKey("vex_statement.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Index(None, "name"),
)

# An advisory that concerns a part of an artifact, and what the statements make of it. Made anew whenever one of the three changes.
finding = Table(
    "finding",
    metadata,
    _tenant(),
    Column("advisory_id", _Id, ForeignKey("advisory.id"), primary_key=True),
    Column("artifact_id", _Id, ForeignKey("artifact.id"), primary_key=True),
    Column("part_id", _Id, ForeignKey("sbom_part.id"), primary_key=True),
    # affected, under_investigation, not_affected, fixed
    Column("status", String(24), nullable=False),
    Column("justification", Text, nullable=False),
    Column("note", Text, nullable=False),
    Index(None, "artifact_id"),
)
