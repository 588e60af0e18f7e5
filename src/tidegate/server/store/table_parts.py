"""What all tables are made of."""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String

from tidegate.server.store.scope import tenant_of_row

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


def tenant(*, primary_key: bool = False) -> Column[str]:
    """Return the column that every table has. A row that is added gets the name of its connection's tenant (`scope`)."""
    return Column(
        "tenant",
        String(64),
        primary_key=primary_key,
        nullable=False,
        default=tenant_of_row,
        server_default="default",
    )
