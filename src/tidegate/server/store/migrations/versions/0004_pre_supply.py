"""The supply chain: attachments, parts of releases, advisories, statements, findings."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "attachment",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("format", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifact.id"], name=op.f("fk_attachment_artifact_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
        sa.UniqueConstraint(
            "artifact_id", "kind", "sha256", name=op.f("uq_attachment_artifact_id_kind_sha256")
        ),
    )
    op.create_index(op.f("ix_attachment_sha256"), "attachment", ["sha256"], unique=False)
    op.create_table(
        "sbom_part",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("sbom_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("purl", sa.Text(), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source_key", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("distro", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("alias_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sbom_part")),
    )
    op.create_index(op.f("ix_sbom_part_sbom_sha256"), "sbom_part", ["sbom_sha256"], unique=False)
    op.create_index(
        op.f("ix_sbom_part_tenant_alias_key"), "sbom_part", ["tenant", "alias_key"], unique=False
    )
    op.create_index(op.f("ix_sbom_part_tenant_key"), "sbom_part", ["tenant", "key"], unique=False)
    op.create_index(
        op.f("ix_sbom_part_tenant_name_key"), "sbom_part", ["tenant", "name_key"], unique=False
    )
    op.create_index(
        op.f("ix_sbom_part_tenant_source_key"), "sbom_part", ["tenant", "source_key"], unique=False
    )
    op.create_table(
        "advisory",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=16), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.Column("imported_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_advisory")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_advisory_tenant_name")),
    )
    op.create_table(
        "advisory_package",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "advisory_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["advisory_id"], ["advisory.id"], name=op.f("fk_advisory_package_advisory_id")
        ),
        sa.PrimaryKeyConstraint("advisory_id", "key", name=op.f("pk_advisory_package")),
    )
    op.create_index(op.f("ix_advisory_package_key"), "advisory_package", ["key"], unique=False)
    op.create_table(
        "advisory_name",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "advisory_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["advisory_id"], ["advisory.id"], name=op.f("fk_advisory_name_advisory_id")
        ),
        sa.PrimaryKeyConstraint("advisory_id", "name", name=op.f("pk_advisory_name")),
    )
    op.create_index(op.f("ix_advisory_name_name"), "advisory_name", ["name"], unique=False)
    op.create_table(
        "vex_statement",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.Column("imported_by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifact.id"], name=op.f("fk_vex_statement_artifact_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vex_statement")),
    )
    op.create_index(
        op.f("ix_vex_statement_tenant_document"),
        "vex_statement",
        ["tenant", "document"],
        unique=False,
    )
    op.create_table(
        "vex_name",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "statement_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["statement_id"], ["vex_statement.id"], name=op.f("fk_vex_name_statement_id")
        ),
        sa.PrimaryKeyConstraint("statement_id", "name", name=op.f("pk_vex_name")),
    )
    op.create_index(op.f("ix_vex_name_name"), "vex_name", ["name"], unique=False)
    op.create_table(
        "finding",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column(
            "advisory_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "artifact_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("part_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("justification", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["advisory_id"], ["advisory.id"], name=op.f("fk_finding_advisory_id")
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifact.id"], name=op.f("fk_finding_artifact_id")
        ),
        sa.ForeignKeyConstraint(["part_id"], ["sbom_part.id"], name=op.f("fk_finding_part_id")),
        sa.PrimaryKeyConstraint("advisory_id", "artifact_id", "part_id", name=op.f("pk_finding")),
    )
    op.create_index(op.f("ix_finding_artifact_id"), "finding", ["artifact_id"], unique=False)
