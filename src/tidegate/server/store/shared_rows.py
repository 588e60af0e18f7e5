"""How server processes on one PostgreSQL database find one another: by rows of the table `peer`, wherever they run.

Each process writes into its row, about once a second, how far it has followed and one more `beat`; that is its lease. Nobody compares clocks: a process
counts as gone for whoever has seen the same beat for longer than a lease lasts, by his own clock. The look that wrote that beat began before he saw it, so
the lease that it gave is over. The database's clock only says which rows are so old that they may be cleared away, and that takes nothing from anybody: a
process that finds its row gone writes it again.

The beats are also how a process notices, on a connection of which it knows nothing yet, that the database went back in time: its own newest beat is not there.

`NOTIFY` is a hint that makes others look at once. It comes with what people and the planner do, never with what devices send; whoever misses it looks a moment
later.
"""

import contextlib
import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from tidegate.server.store import Change, scope
from tidegate.server.store import shared as leases
from tidegate.server.store.raw import Raw

CHANNEL: Final = "tidegate_change"
#: How often a process looks, and how often it says that it lives at least, in seconds.
LOOK_S: Final = 0.25
BEAT_S: Final = 1.0
#: Rows of processes that were not heard of for so long go, in seconds.
GONE_S: Final = 3_600
#: What is worth a hint: what people and the planner do.
_HINTED: Final = frozenset({"rollout", "release", "gate", "group", "metadata", "salt", "tenant"})
_NEWEST: Final = "SELECT coalesce(max(seq), 0) FROM change"
_PUT: Final = (
    "INSERT INTO peer (tenant, name, seen, beat, at) VALUES (?, ?, ?, 1, extract(epoch FROM now())::bigint) "
    "ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, beat = peer.beat + 1, at = excluded.at "
    "RETURNING beat, extract(epoch FROM clock_timestamp())"
)
_BEAT: Final = "SELECT beat FROM peer WHERE name = ?"
_CLEAR: Final = "DELETE FROM peer WHERE at < extract(epoch FROM now())::bigint - ?"
_PEERS: Final = "SELECT name, seen, beat FROM peer WHERE name <> ?"


class RowGround:
    """A `shared.Ground` of rows."""

    def __init__(self, connect: Callable[[], Any], tenant: str = scope.DEFAULT) -> None:
        """Take part in a tenant's database whose schema is current; `connect` opens a connection (`postgres.Wire`) that commits each statement."""
        self._connect = connect
        self._tenant = tenant
        self._name = uuid.uuid4().hex
        self._beaten = (-1, 0.0)
        #: How far this machine's clock is ahead of the database's, in seconds.
        self.ahead_s = 0
        #: The newest of its own beats that is known to be committed.
        self._beat = 0
        #: The beat of each other process, and when it was first seen.
        self._beats: dict[str, tuple[int, float]] = {}
        self._guard = threading.Lock()
        self._asking: Any = None
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)

    @contextlib.contextmanager
    def look(self) -> Iterator[Raw]:
        """See `shared.Ground`."""
        wire = self._connect()
        try:
            wire.execute(f"LISTEN {channel_of(self._tenant)}")
            self._beaten = (-1, 0.0)
            yield wire.marked
        finally:
            wire.close()

    def newest(self, raw: Raw) -> int:
        """See `shared.Ground`. Rows are numbered without a gap, and the newest is never cleared away."""
        return int(raw.execute(_NEWEST).fetchone()[0])

    def forget(self) -> None:
        """See `shared.Ground`."""
        self._beat = 0

    def join(self) -> None:
        """See `shared.Ground`."""
        self._say(self._ask(), 0)

    def went_back(self, raw: Raw, mark: leases.ChangeRow | None) -> bool:
        """See `shared.Ground`. Rows may have been cleared away: a beat after an hour, a change when many came after it."""
        beat = raw.execute(_BEAT, (self._name,)).fetchone()
        if beat is not None and int(beat[0]) < self._beat:
            return True
        if mark is None:
            return False
        found = leases.row_of(raw, mark[0])
        if found is None:
            return self.newest(raw) < mark[0] + leases.KEPT // 2
        return found != mark

    def changed(self, _: Raw) -> bool:
        """See `shared.Ground`."""
        return True

    def confirm(self, raw: Raw, seq: int) -> bool:
        """See `shared.Ground`."""
        said, at = self._beaten
        if said == seq and leases.clock_s() < at + BEAT_S:
            return False
        self._beaten = (seq, leases.clock_s())
        self._say(raw, seq)
        self._observe(raw)
        return True

    def _say(self, raw: Raw, seq: int) -> None:
        said = raw.execute(_PUT, (self._tenant, self._name, seq)).fetchone()
        self._beat = int(said[0])
        self.ahead_s = round(time.time() - float(said[1]))
        raw.execute(_CLEAR, (GONE_S,))

    def _observe(self, raw: Raw) -> dict[str, int]:
        """Look at the others; return how far those have followed that may be alive."""
        found = raw.execute(_PEERS, (self._name,)).fetchall()
        now = leases.clock_s()
        alive: dict[str, int] = {}
        with self._guard:
            before, self._beats = self._beats, {}
            for name, seen, beat in found:
                known = before.get(name)
                since = known[1] if known is not None and known[0] == beat else now
                self._beats[name] = (beat, since)
                if now - since <= leases.LEASE_S:
                    alive[name] = seen
        return alive

    def behind(self, seq: int) -> int:
        """See `shared.Ground`. Where the database does not say, somebody may be."""
        try:
            return sum(seen < seq for seen in self._observe(self._ask()).values())
        except Exception:  # noqa: BLE001 - the lease of each of them runs out all the same
            self._asking = None
            time.sleep(LOOK_S)
            return 1

    def _ask(self) -> Raw:
        """Return a connection for questions of others than the thread that follows."""
        if self._asking is None or self._asking.closed:
            self._asking = self._connect()
        marked: Raw = self._asking.marked
        return marked

    def pause(self, raw: Any, stopping: threading.Event) -> None:
        """See `shared.Ground`. A hint ends it."""
        wire = raw.wire
        select.select([wire, self._woken], [], [], 0 if stopping.is_set() else LOOK_S)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 64)
        for _ in wire.notifies(timeout=0):
            pass

    def wake(self) -> None:
        """See `shared.Ground`."""
        os.write(self._waker, b"x")

    def leave(self) -> None:
        """See `shared.Ground`."""
        with contextlib.suppress(Exception):
            self._ask().execute("DELETE FROM peer WHERE name = ?", (self._name,))
        if self._asking is not None:
            self._asking.close()
        os.close(self._woken)
        os.close(self._waker)


def channel_of(tenant: str) -> str:
    """Return the channel of a tenant's hints: channels belong to a database, which several tenants may share."""
    return CHANNEL if tenant == scope.DEFAULT else f"{CHANNEL}_{tenant.replace('-', '_')}"


def hint(raw: Raw, changed: tuple[Change, ...], tenant: str = scope.DEFAULT) -> None:
    """Have the others look at once, when this is committed and is worth it."""
    if any(one.kind in _HINTED for one in changed):
        raw.execute("SELECT pg_notify(?, '')", (channel_of(tenant),))
