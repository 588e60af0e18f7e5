"""Never more than so many devices of a site, a cluster, a pair on their way at once: counted from permit to outcome, over all rollouts.

An attribute, or one group (`group:NAME`), is capped by a rollout's policy (`[flow.per]`), by the server (`[cap]`), or by both: the lower one holds. Whoever
grants a permit asks here in the transaction that grants it, so two devices of one group cannot both be the last. A device that was lost goes on counting
until it is heard again, or is taken out of the fleet: the other half of a pair must not follow it into the dark. It does not hold up a way back, which is
there to save what is left.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tidegate.rollout.presets import GROUP
from tidegate.server import snapshot
from tidegate.server.store import Connection, device_queries, flight_rows
from tidegate.server.store.hot import UpdateRow

#: Most devices that a sentence names.
_NAMED: Final = 3
_COLUMNS: Final = {
    "site": "site", "region": "region", "model": "model", "variant": "variant", "product": "product",
    "channel": "channel", "connectivity": "connectivity", "revision": "rev",
}  # fmt: skip


class Full(NamedTuple):
    """A cap that is reached. `devices` are those that stand in the way."""

    attribute: str
    value: str
    most: int
    devices: tuple[flight_rows.Flying, ...]

    def __str__(self) -> str:
        """Say so, with numbers and names."""
        flying = [one.device for one in self.devices if one.lost_at is None]
        lost = [one.device for one in self.devices if one.lost_at is not None]
        parts = [f"{len(flying)} on their way ({_some(flying)})"] if flying else []
        parts += [f"{len(lost)} that did not come back ({_some(lost)})"] if lost else []
        return (
            f"{_named(self.attribute, self.value)}: no more than {self.most:,} at once, "
            f"and there are {' and '.join(parts)}"
        )


def value_of(conn: Connection, device: Any, attribute: str) -> str | None:
    """Return a device's value of an attribute that may be capped; None = it has none, and no such cap holds it.

    Args:
        conn: any connection: who is in a group is looked up.
        device: its row.
        attribute: a built-in name, a device's own as `attr.NAME`, or a group as `group:NAME`, whose value is its name.
    """
    if attribute.startswith(GROUP):
        group = attribute.removeprefix(GROUP)
        # A device that asks was heard just now.
        member = group in snapshot.facts_of(conn, device, device.last_seen).attrs["group"]
        return group if member else None
    column = _COLUMNS.get(attribute)
    found = (
        getattr(device, column)
        if column is not None
        else (device.attributes or {}).get(attribute.removeprefix("attr."))
    )
    return str(found) if isinstance(found, str | int | float) and found != "" else None


def least(server: Mapping[str, int], policy: Mapping[str, int]) -> dict[str, int]:
    """Return every capped attribute with the lower of its caps."""
    found = dict(server)
    for name, most in policy.items():
        found[name] = min(most, found.get(name, most))
    return found


def full(
    conn: Connection, device: Any, caps: Mapping[str, int], *, way_back: bool = False
) -> Full | None:
    """Return the first cap that keeps a device from being let go now, or None.

    Args:
        conn: in the transaction that would grant; reads only, once the attributes are kept count of.
        device: its row.
        caps: from `least`.
        way_back: whether it is to be brought back: lost ones do not count then.
    """
    for attribute, most in sorted(caps.items()):
        value = value_of(conn, device, attribute)
        if value is None:
            continue
        found = flight_rows.others(conn, device.tenant, attribute, value, device.row, most)
        counted = tuple(one for one in found if one.lost_at is None or not way_back)
        if len(counted) >= most:
            return Full(attribute, value, most, counted)
    return None


def reached(conn: Connection, tenant: str, caps: Mapping[str, int]) -> list[str]:
    """Say which caps are reached now, a line a value, the fullest first; those with more values than are named say how many more. Reads only."""
    lines = []
    for attribute, most in sorted(caps.items()):
        values = flight_rows.fullest(conn, tenant, attribute, most)
        lines += [
            f"{_named(attribute, value)}: {count:,} of {most:,} at once are on their way, or did not come back"
            for value, count in values[:_NAMED]
        ]
        if len(values) > _NAMED:
            lines.append(f"{attribute}: {len(values) - _NAMED:,} more are as full")
    return lines


def keep_count(conn: Connection, tenant: str, caps: Mapping[str, int]) -> frozenset[str]:
    """Keep count of what is capped, those that are on their way already included; return all that is kept count of."""
    known = flight_rows.attributes(conn, tenant)
    new = caps.keys() - known
    for attribute in sorted(new):
        flight_rows.add_attribute(conn, tenant, attribute)
    if new:
        for update_id, row, lost_at in list(flight_rows.under_way(conn, tenant)):
            device = device_queries.by_row(conn, row)
            if device is not None:
                flight_rows.enter(conn, tenant, update_id, row, _values(conn, device, new), lost_at)
    return known | new


def enter(conn: Connection, device: Any, update: UpdateRow, kept: frozenset[str]) -> None:
    """Note in the transaction of its permit that a device is on its way; `outcomes.book` notes the end."""
    flight_rows.enter(conn, device.tenant, update.id, device.row, _values(conn, device, kept))


def _values(
    conn: Connection, device: Any, attributes: frozenset[str] | set[str]
) -> list[tuple[str, str]]:
    found = [(name, value_of(conn, device, name)) for name in sorted(attributes)]
    return [(name, value) for name, value in found if value is not None]


def _named(attribute: str, value: str) -> str:
    return f"group {value}" if attribute.startswith(GROUP) else f"{attribute} {value}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
