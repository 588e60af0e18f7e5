"""Counters over time, kept in the transaction of what they count (`server.series`)."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Table

from tidegate.server.store.table_parts import Id, metadata, tenant

# What the counters of a rollout (`tally`, and `bytes`) changed by within an hour (unix hour), over its rings and variants. Their sum is the counter.
rollout_hour = Table(
    "rollout_hour",
    metadata,
    tenant(),
    Column("rollout_id", Id, ForeignKey("rollout.id"), primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
