"""The reader of the web pages over the store: one snapshot a page."""

from collections.abc import Callable
from typing import Final, TypeVar

from tidegate.rollout.incident import Rhythm
from tidegate.rollout.model import Rollout
from tidegate.server import approvals
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.store import Change, Connection, Store
from tidegate.server.store import web_queries as rows
from tidegate.server.web.queries import (
    audit,
    device,
    devices,
    fleet,
    history,
    incidents,
    notices,
    participants,
    releases,
    rollout,
    rollouts,
    supply,
)
from tidegate.server.web.queries.notices import Channels
from tidegate.server.web.queries.rollouts import AudienceOf
from tidegate.server.web.queries.sums import Audience
from tidegate.server.web.reader import Account
from tidegate.server.web.views import (
    AdvisoriesPage,
    AdvisoryPage,
    AuditPage,
    ComponentsPage,
    Counts,
    DevicePage,
    DevicesPage,
    FleetPage,
    HistoryPage,
    IncidentPage,
    IncidentsPage,
    NoticesPage,
    ParticipantsPage,
    ReleasePage,
    ReleasesPage,
    RolloutPage,
    RolloutsPage,
)
from tidegate.server.why import NO_BOUNDS, Bounds

T = TypeVar("T")
DAY_S: Final = 86_400
#: How old the count of devices heard of may be.
SEEN_AGE_S: Final = 15
#: Sets of products whose count is remembered.
_HEARD_MAX: Final = 64
#: Counts the devices of a rollout's rings by (ring, variant), at a time.
Count = Callable[[Connection, Rollout, str, int], Audience]


class StoreReader:
    """Implements `Reader`. Safe to call from any thread."""

    def __init__(
        self,
        store: Store,
        count: Count,
        *,
        channels: Channels = tuple,
        public: bool = False,
        bounds: Bounds = NO_BOUNDS,
        rhythm: Rhythm | None = None,
    ) -> None:
        """Read from `store`.

        Args:
            store: of the server.
            count: counts audiences.
            channels: returns the channels of the settings.
            public: whether this server has a status page.
            bounds: what it bounds for all rollouts.
            rhythm: when its gate looks; None = not said.
        """
        self._channels = channels
        self._rhythm = rhythm
        self._bounds = bounds
        self._store = store
        self._public = public
        self._count = count
        self._news = store.read(rows.position)
        self._heard: dict[frozenset[str] | None, tuple[int, int]] = {}
        store.subscribe(self._hear)

    def _hear(self, changed: tuple[Change, ...]) -> None:
        """Note that something is new; on the writer's thread, after the commit."""
        if changed:
            self._news += 1

    def _audience(self, now: int) -> AudienceOf:
        return lambda conn, model, product: self._count(conn, model, product, now)

    def _seen(self, conn: Connection, now: int, products: frozenset[str] | None) -> int:
        """Return how many devices of these products (None: of all) were heard of within a day: a count over the fleet, so it may be a little old."""
        at, count = self._heard.get(products, (-SEEN_AGE_S, 0))
        if not 0 <= now - at < SEEN_AGE_S:
            count = rows.seen_since(conn, now - DAY_S, products)
            if len(self._heard) >= _HEARD_MAX:
                self._heard.clear()
            self._heard[products] = (now, count)
        return count

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._store.read(work)

    def position(self) -> int:
        """Return a number that another one follows whenever something was committed. Touches no database."""
        return self._news

    def counts(self, now: int, sight: Sight = SEES_ALL) -> Counts:
        """Return the top bar."""
        return self._read(lambda conn: fleet.counts(conn, approvals.is_single(conn), now, sight))

    def fleet(self, now: int, sight: Sight = SEES_ALL) -> FleetPage:
        """Return the fleet overview."""
        return self._read(
            lambda conn: fleet.fleet(conn, self._audience(now), self._seen, now, sight)
        )

    def rollouts(self, now: int, cursor: str, sight: Sight = SEES_ALL) -> RolloutsPage:
        """Return one page of the list of rollouts."""
        return self._read(lambda conn: rollouts.page(conn, self._audience(now), cursor, now, sight))

    def rollout(self, name: str, account: Account, now: int) -> RolloutPage | None:
        """Return one rollout."""
        return self._read(
            lambda conn: rollout.page(conn, name, account, self._audience(now), now, self._bounds)
        )

    def devices(self, query: str, cursor: str, now: int, sight: Sight = SEES_ALL) -> DevicesPage:
        """Return one page of devices."""
        if sight.whole:
            return self._read(lambda conn: devices.page(conn, query, cursor, self._seen, now))
        return self._read(lambda conn: devices.narrowed(conn, query, cursor, now, sight))

    def device(self, device_id: str, now: int) -> DevicePage | None:
        """Return one device."""
        return self._read(lambda conn: device.page(conn, device_id, now, self._bounds))

    def participants(self, name: str, state: str, cursor: str, now: int) -> ParticipantsPage | None:
        """Return one page of a rollout's devices by where they stand."""
        return self._read(
            lambda conn: participants.page(conn, name, state, cursor, now, self._bounds)
        )

    def releases(self, now: int, sight: Sight = SEES_ALL) -> ReleasesPage:
        """Return the list of releases."""
        return self._read(lambda conn: releases.listing(conn, now, sight))

    def release(self, name: str, now: int) -> ReleasePage | None:
        """Return one release."""
        return self._read(lambda conn: releases.page(conn, name, self._audience(now), now))

    def incidents(self, now: int, sight: Sight = SEES_ALL) -> IncidentsPage:
        """Return the list of incidents."""
        return self._read(lambda conn: incidents.listing(conn, now, sight))

    def incident(self, name: str, now: int) -> IncidentPage | None:
        """Return one incident report."""
        return self._read(
            lambda conn: incidents.page(
                conn, name, now, public=self._public, rhythm=self._rhythm, audience=self._count
            )
        )

    def audit(
        self,
        actor: str,
        action: str,
        thing: str,
        cursor: str,
        account: Account,
        now: int,
        *,
        check: bool,
    ) -> AuditPage:
        """Return one page of the operators' log."""
        return self._read(
            lambda conn: audit.page(
                conn, actor, action, thing, cursor, now, account.actor, check=check
            )
        )

    def history(self, days: int, now: int, sight: Sight = SEES_ALL) -> HistoryPage:
        """Return what the fleet did over time."""
        return self._read(lambda conn: history.of_fleet(conn, days, now, sight))

    def rollout_history(self, name: str, now: int) -> HistoryPage | None:
        """Return what a rollout did over time."""
        return self._read(lambda conn: history.of_rollout(conn, name, now))

    def notices(self, in_state: str, cursor: str, now: int) -> NoticesPage:
        """Return the channels and one page of messages to them."""
        return self._read(lambda conn: notices.page(conn, self._channels, in_state, cursor, now))

    def components(
        self, name: str, below: str, cursor: str, now: int, sight: Sight = SEES_ALL
    ) -> ComponentsPage:
        """Return the releases and devices that have a part."""
        return self._read(
            lambda conn: supply.components_page(conn, name, below, cursor, now, sight)
        )

    def advisories(self, cursor: str, now: int, sight: Sight = SEES_ALL) -> AdvisoriesPage:
        """Return one page of advisories."""
        return self._read(lambda conn: supply.advisories_page(conn, cursor, now, sight))

    def advisory(self, number: int, now: int, sight: Sight = SEES_ALL) -> AdvisoryPage | None:
        """Return one advisory."""
        return self._read(lambda conn: supply.advisory_page(conn, number, now, sight))
