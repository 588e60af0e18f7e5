"""What all tables are made of."""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite only numbers rows by itself for INTEGER, PostgreSQL wants BIGINT.
Id: Final = BigInteger().with_variant(Integer, "sqlite")


def tenant() -> Column[str]:
    """Return the column that every table has."""
    return Column("tenant", String(64), nullable=False, server_default="default")
