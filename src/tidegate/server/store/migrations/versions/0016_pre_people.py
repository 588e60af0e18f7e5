"""Give accounts and tokens grants in scopes, second factors and sign-in by a provider, and sessions a face."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default="", nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def upgrade() -> None:
    """Add columns to `account`, `login` and `api_token`, and the table `sign_in_flow`."""
    added = {
        "account": (
            sa.Column("grants", sa.JSON(), nullable=True),
            _text("person", 64),
            _text("issuer", 255),
            _text("subject", 255),
            sa.Column("addresses", sa.JSON(), nullable=True),
            _text("totp_salt", 64),
            sa.Column("totp_confirmed_at", sa.BigInteger(), nullable=True),
            _number("totp_step"),
            sa.Column("recovery", sa.JSON(), nullable=True),
        ),
        "login": (
            sa.Column("kind", sa.String(length=16), server_default="session", nullable=False),
            _text("method", 16),
            _text("address", 64),
            _text("agent", 200),
            _number("seen_at"),
            _number("proved_at"),
        ),
        "api_token": (
            sa.Column("grants", sa.JSON(), nullable=True),
            sa.Column("addresses", sa.JSON(), nullable=True),
            _text("last_address", 64),
        ),
    }
    for table, columns in added.items():
        for column in columns:
            op.add_column(table, column)
    op.create_table(
        "sign_in_flow",
        sa.Column("state_sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("verifier", sa.String(length=128), nullable=False),
        sa.Column("browser_sha256", sa.String(length=64), nullable=False),
        sa.Column("next", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("state_sha256", name=op.f("pk_sign_in_flow")),
    )
