"""The budget of bytes: downloads begin no faster than the server, and each site, can carry them.

A device that would begin to download takes its payload's bytes from the budget, in the transaction that offers it the update; when the budget is spent it is
told when to ask again. Nobody is refused for good: the budget is free again after as long as the bytes that were taken take at its rate, however large they
are. A payload counts whole, also where the device turns out to fetch only what changed. The rate of one connection is not bounded here (`delivery.rate`).
"""

from typing import Final, NamedTuple

from tidegate.core.amounts import format_duration, format_size
from tidegate.server.store import Connection, flight_rows

#: So much of the budget may be taken ahead: clocks of devices are whole seconds, and a rate is an average anyway.
_AHEAD_MS: Final = 10_000
#: The longest a device is sent away for; it may be told so again.
WAIT_MAX_S: Final = 6 * 3600
#: Most lines about budgets that are spent.
_NAMED: Final = 4


class Budget(NamedTuple):
    """Bytes a second, of all devices and of each site; 0 = no bound."""

    rate: int = 0
    site_rate: int = 0


#: No budget is set.
UNBOUNDED: Final = Budget()


class Wait(NamedTuple):
    """A budget that is spent: whose (empty = the server's), its rate in bytes a second, and in how many seconds to ask again."""

    site: str
    rate: int
    after_s: int

    def __str__(self) -> str:
        """Say so, with numbers."""
        whose = f"site {self.site}" if self.site else "the server"
        return (
            f"downloads of {whose} begin at {format_size(self.rate)}/s at most, "
            f"and the next may in {format_duration(self.after_s)}"
        )


def take(
    conn: Connection, budget: Budget, *, tenant: str, site: str, length: int, now: int
) -> Wait | None:
    """Take a payload's bytes from the budget, or say how long to wait.

    Args:
        conn: of the transaction that offers the download.
        budget: of the server.
        tenant: of the device.
        site: of the device; one without a site only counts for the whole.
        length: bytes of the payload.
        now: unix seconds.
    """
    must = wait(conn, budget, tenant=tenant, site=site, now=now)
    if must is not None:
        return must
    for name, rate in _budgets(budget, site):
        start_ms = now * 1000 + _ahead_ms(conn, tenant, name, rate, now)
        flight_rows.set_free_at_ms(conn, tenant, name, start_ms + length * 1000 // rate)
    return None


def wait(conn: Connection, budget: Budget, *, tenant: str, site: str, now: int) -> Wait | None:
    """Say how long a device of this site would have to wait for its download to begin; None = not at all. Reads only."""
    for name, rate in _budgets(budget, site):
        ahead_ms = _ahead_ms(conn, tenant, name, rate, now)
        if ahead_ms > _AHEAD_MS:
            after_s = -(-(ahead_ms - _AHEAD_MS) // 1000)
            return Wait(name, rate, min(after_s, WAIT_MAX_S))
    return None


def waits(conn: Connection, budget: Budget, *, tenant: str, now: int) -> list[str]:
    """Say whose budget is spent now, a line each: the server's, then sites'; those beyond a few are counted. Reads only."""
    if budget == UNBOUNDED:
        return []
    names = flight_rows.spent(conn, tenant, now * 1000 + _AHEAD_MS)
    found = [wait(conn, budget, tenant=tenant, site=name, now=now) for name in names]
    told = dict.fromkeys(str(one) for one in found if one is not None)
    more = [f"{len(told) - _NAMED:,} more sites wait so"] if len(told) > _NAMED else []
    return [*list(told)[:_NAMED], *more]


def _ahead_ms(conn: Connection, tenant: str, name: str, rate: int, now: int) -> int:
    """Return for how long a budget is spent, milliseconds; 0 = it is free.

    What would take longer than the largest payload was put down while the clock was ahead, or at a lower rate: it counts no more.
    """
    ahead_ms = flight_rows.free_at_ms(conn, tenant, name) - now * 1000
    if ahead_ms <= _AHEAD_MS:
        return max(0, ahead_ms)
    most_ms = _AHEAD_MS + flight_rows.largest(conn, tenant) * 1000 // rate
    return ahead_ms if ahead_ms <= most_ms else 0


def _budgets(budget: Budget, site: str) -> list[tuple[str, int]]:
    found = [("", budget.rate), (site, budget.site_rate if site else 0)]
    return [(name, rate) for name, rate in found if rate]
