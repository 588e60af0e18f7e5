"""What the server is made of: settings, store, blobs, keys, the published repository and the fleet in memory. Everything reads the time from `now`."""

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tidegate.core import codec
from tidegate.core.errors import PublisherError
from tidegate.server import held, keyring, online
from tidegate.server.backup import require_held
from tidegate.server.blobs import Blobs, open_blobs
from tidegate.server.config import Settings
from tidegate.server.copies import Copier
from tidegate.server.egress import Budget
from tidegate.server.granted import Ways
from tidegate.server.metadata import Repository
from tidegate.server.nearby import Nearby
from tidegate.server.online import OnlineKeys
from tidegate.server.snapshot import Fleet
from tidegate.server.store import Change, Connection, Store, server_rows
from tidegate.server.store import hot as hot_queries
from tidegate.server.store.opening import open_store
from tidegate.server.store.shared import RESYNC
from tidegate.server.store.shared_files import starting
from tidegate.server.threads import Threads
from tidegate.server.tokens import Tokens
from tidegate.server.updates import Terms

T = TypeVar("T")
_log = logging.getLogger("tidegate.server")

#: Kinds of change after which the plan in memory is compiled anew.
_PLAN_KINDS = frozenset({"rollout", "release", "group", "gate"})
#: Kinds of change after which what devices fetch as metadata may be newer than what is shown.
_PUBLISHED_KINDS = frozenset({"release", "metadata"})


@dataclass(slots=True)
class Counters:
    """What happened in this process since it started, for metrics."""

    polls: int = 0
    polls_unchanged: int = 0
    #: Polls that are held now, until there is news.
    polls_held: int = 0
    events: int = 0
    events_refused: int = 0
    assignments: int = 0
    permits: int = 0
    permits_refused: int = 0
    blob_requests: int = 0
    blob_bytes: int = 0
    #: Requests that were turned away, by `load.ORDER`.
    shed: Counter[str] = field(default_factory=Counter)
    ticks: int = 0
    ticks_failed: int = 0
    #: When a tick last succeeded, unix seconds; 0 = none did.
    ticked_at: int = 0
    #: Problems that devices were answered, by code; requests of people, by class of status.
    problems: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Services:
    """Opened parts, handed to whoever needs them. Made by `open_services`."""

    settings: Settings
    store: Store
    blobs: Blobs
    keys: OnlineKeys
    repository: Repository
    fleet: Fleet
    tokens: Tokens
    clock: Callable[[], float]
    randomness: Callable[[int], bytes]
    ways: Ways
    counters: Counters = field(default_factory=Counters)
    #: The `cells.Cells` of the other tenants, where this is the default one in a process that serves them.
    cells: object = None
    threads: Threads = field(default_factory=Threads)
    #: Called (from any thread) when there is news that the planner should see at once.
    wake: Callable[[], None] = lambda: None
    #: How often the database went back in time beneath this process.
    setbacks: int = 0
    #: The name of this process among those on one database.
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    #: Sends signed heads of the log to where they are out of reach.
    copier: Copier = field(init=False)

    def __post_init__(self) -> None:
        """Prepare what goes by the settings."""
        self.copier = Copier(self.settings)

    @property
    def now(self) -> int:
        """Return the time, unix seconds."""
        return int(self.clock())

    @property
    def terms(self) -> Terms:
        """Return what of the server's state goes into assignments."""
        return Terms(
            repo=lambda: self.repository.binding,
            epoch=lambda: self.repository.epoch,
            poll_after_s=self.settings.poll_interval_s,
            ways=self.ways,
            budget=self.budget,
        )

    @property
    def budget(self) -> Budget:
        """Return the budget of bytes."""
        return Budget(self.settings.egress_rate, self.settings.egress_site_rate)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the writer; done when it is durable."""
        future: Future[T] = self.store.write(work)
        return await asyncio.wrap_future(future)

    def hold_everything(self, conn: Connection) -> None:
        """Hold everything in a database that went back in time, and have the planner forget what it has in memory."""
        self.setbacks += 1
        found = held.hold_after_setback(conn, self.now)
        _log.error(
            "held: %d rollouts are paused and %d are drafts again; people resume them",
            len(found.paused), len(found.drafts),
        )  # fmt: skip

    def flush_seen(self) -> None:
        """Write when devices were last heard. Soft state: what is lost in a crash is a matter of seconds."""
        fleet = self.fleet
        rows, fleet.dirty = fleet.dirty, set()
        if rows:
            seen = [(fleet.seen[row], row) for row in sorted(rows)]
            self.store.write(lambda conn: hot_queries.put_seen(conn, seen))

    def close(self) -> None:
        """Flush and close. Safe to repeat."""
        try:
            self.flush_seen()
        except Exception:  # noqa: BLE001 - the store may be closed already
            _log.debug("nothing more could be flushed", exc_info=True)
        self.store.close()
        self.threads.close()


def open_services(
    settings: Settings,
    *,
    clock: Callable[[], float],
    randomness: Callable[[int], bytes],
    store: Store | None = None,
) -> Services:
    """Open everything in the data directory, made as needed.

    Raises:
        ConfigError, BusyError: `data.*`, `key.*`, `backup.not_held`.
    """
    codec.prepare()
    folder = Path(settings.data_dir)
    require_held(folder)
    several = settings.shared or settings.database_url
    with starting(folder) if several else contextlib.nullcontext():
        return _open(settings, folder, clock, randomness, store)


def _open(
    settings: Settings,
    folder: Path,
    clock: Callable[[], float],
    randomness: Callable[[int], bytes],
    store: Store | None,
) -> Services:
    opened = store or open_store(
        folder,
        url=settings.database_address,
        durable=settings.durable,
        shared=settings.shared,
        tenant=settings.tenant,
    )
    try:
        keys = _keys(settings, opened, folder, clock, randomness)
        blobs = open_blobs(settings.blobs, folder)
        repository = Repository(
            keys, timestamp_s=settings.timestamp_s, snapshot_s=settings.snapshot_s
        )
        services = Services(
            settings=settings,
            store=opened,
            blobs=blobs,
            keys=keys,
            repository=repository,
            ways=Ways(repository, Nearby(blobs, folder / "near")),
            fleet=Fleet(),
            tokens=Tokens(keys.secret, randomness, settings.tenant_number, lambda: opened.ahead_s),
            clock=clock,
            randomness=randomness,
        )
        if not opened.shared:
            opened.write(hot_queries.forget_leases).result()
        opened.read(lambda conn: keyring.load(conn, services.tokens))
        opened.read(services.repository.load)
        _begin(services)
        opened.read(services.fleet.load)
        opened.subscribe(lambda changed: _follow(services, changed))
        opened.on_setback(services.hold_everything)
        opened.follow()
    except BaseException:
        opened.close()
        raise
    return services


def _keys(
    settings: Settings,
    opened: Store,
    folder: Path,
    clock: Callable[[], float],
    randomness: Callable[[int], bytes],
) -> OnlineKeys:
    """Open the online keys. Servers of one PostgreSQL database must have the same: a device that met two would believe one of them at most."""
    if not settings.database_url:
        return online.open_keys(folder, randomness)
    held = opened.read(server_rows.keys_held)
    keys = online.open_keys(folder, randomness, held=held)
    if held is None:
        first = opened.write(
            lambda conn: server_rows.first_keys(conn, keys.digest, int(clock()))
        ).result()
        online.require(keys, first, folder)
    return keys


def _begin(services: Services) -> None:
    """Have devices believe this server from its first answer on, also when it was restored from a backup."""
    now = services.now
    try:
        services.store.write(lambda conn: services.repository.begin(conn, now)).result()
    except PublisherError as error:
        # Its keys are not those that root names: people have to hold a ceremony, and need a server to publish to.
        _log.warning("metadata could not be signed at the start: %s", error)


def _follow(services: Services, changed: tuple[Change, ...]) -> None:
    """Keep what is in memory as the database is: before whoever made the change here hears that it is done, and soon after it was done elsewhere."""
    kinds = {one.kind for one in changed}
    anew = RESYNC.kind in kinds
    rows = {
        int(one.key) for one in changed if one.kind in {"device", "running"} and one.key.isdigit()
    }

    def read(conn: Connection) -> None:
        if anew:
            services.fleet.load(conn)
        else:
            for row in rows:
                services.fleet.refresh(conn, row)
            if kinds & _PLAN_KINDS:
                services.fleet.compile(conn)
        if anew or kinds & _PUBLISHED_KINDS:
            services.repository.refresh(conn)
        if anew or "salt" in kinds:
            keyring.load(conn, services.tokens)

    if anew or rows or kinds & (_PLAN_KINDS | _PUBLISHED_KINDS | {"salt"}):
        services.store.read(read)
    if anew or "outcome" in kinds:
        services.wake()
