"""What a server forgets, and when: by age, in small steps, on whichever process plans.

| table | goes | stays |
|---|---|---|
| `event` | older than `keep_events_s`, by rows or whole pieces | of rollouts that are running, watched, or the subject of an incident that is not closed |
| `update.detail`, `permit` | of rollouts that closed `keep_details_s` ago | the update itself: state, reason, times, bytes |
| `device_log` | wanted `keep_details_s` ago | the newest of each device (`server.device_logs`) |
| `outbox` | settled `keep_messages_s` ago | whatever is owed |
| `change` | older than a day | the newest 100,000, for those who follow |
| `firmware_sample` | finer than six hours before `keep_samples_s` | the rest |
| `rollout_hour` | hours before `keep_samples_s` become days | the sums |

Where the log has pieces (`store.partitions`), they are made ahead here, and go as a whole when all of one is old: with the largest settings up to two weeks
later. The planner believes a clock by two days an hour at most (`Belief`): one that is years ahead for a while takes nothing that will be missed, and a server
that stood still for a month has caught up after a day. Counters (`tally`, `daily`, `firmware`, `exposure`) are kept with the event that moves them and never
reckoned from it again, so they stay true. The operators' log, plans and incidents are never touched. Each step is a transaction of its own that takes at most
`STEP` rows, or a piece, so that nobody waits for it.
"""

import logging
from collections.abc import Callable, Collection
from typing import Final

from tidegate.server.config import Settings
from tidegate.server.store import (
    Connection,
    Store,
    admin_log,
    hot,
    log_rows,
    partitions,
    retention_rows,
    tables,
)
from tidegate.server.store.partitions import Piece
from tidegate.server.store.shared import KEPT

#: Rows in one transaction, and transactions in one go.
STEP: Final = 500
STEPS_MAX: Final = 40
#: When nothing more was to be done, it is looked again after this, in seconds.
REST_S: Final = 3_600
#: By how much a clock may be ahead of what was believed before; what is more is believed by as much again after `REST_S`.
LEAP_S: Final = 2 * 86_400
#: A clock that says less was not set when it was believed: Tidegate is younger.
EVER_S: Final = 1_750_000_000
#: How often it is looked whether pieces of the log have to be made, in seconds.
AHEAD_S: Final = 60
#: Most events that are moved out of a piece that goes; where more have to stay, it loses the others row by row.
MOVED_MAX: Final = 20_000
_CHANGES_S: Final = 86_400
_SAMPLE_S: Final = 6 * 3_600
_border = retention_rows.border
_log = logging.getLogger("tidegate.retention")

#: A piece of the work: takes a connection, returns how many rows it dealt with.
Step = Callable[[Connection], int]


class Belief:
    """How far a clock is believed by whoever forgets. Used by one thread at a time."""

    def __init__(self) -> None:
        """It was not ahead yet."""
        self._leapt_at = 0

    def until(self, store: Store, now: int) -> int:
        """Return the time that is believed, `now` or before; where it moves by an hour, that is written down. Unix seconds."""
        known = store.read(admin_log.believed)
        until = min(now, known + LEAP_S) if known >= EVER_S else now
        if until < now:
            if self._leapt_at <= now < self._leapt_at + REST_S:
                return known
            self._leapt_at = now
            text = (
                "the clock is %d s ahead of what was seen before; what is old by it is kept for now"
            )
            _log.warning(text, now - until)
        # never back: a clock that was behind for a while must not cost years
        if until - known >= REST_S:
            store.write(lambda conn: admin_log.believe(conn, until)).result()
        return until


class Retention:
    """Forgets for one server. Used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        """Go by these settings."""
        self._settings = settings
        self._again_at = 0
        self._ahead_at = 0
        #: Rollouts whose details are gone: each is looked through once in a process's life.
        self._bare: set[int] = set()
        self._more = False

    def step(
        self, store: Store, watched: Collection[int], now: int, old_by: int | None = None
    ) -> int:
        """Forget what is due, as much as fits into one go; return how many rows that were.

        Args:
            store: of the server; its planner's lease is ours.
            watched: rollouts that the planner looks at.
            now: unix seconds.
            old_by: the time by which things are old, where that is not `now`.
        """
        if not self._ahead_at - AHEAD_S <= now < self._ahead_at:
            self._make_ahead(store, now)
            self._ahead_at = now + AHEAD_S
        if self._again_at - REST_S <= now < self._again_at:
            return 0
        done = steps = 0
        for due in self._due(store, watched, min(now, old_by or now)):
            count = STEP
            while count and steps < STEPS_MAX:
                count = store.write(due).result()
                done, steps = done + count, steps + bool(count)
        if steps < STEPS_MAX and not self._more:
            self._again_at = now + REST_S
        if done:
            _log.info("forgot %s rows that were older than the settings keep them", done)
        return done

    def _due(self, store: Store, watched: Collection[int], now: int) -> list[Step]:
        keep = self._settings
        found: list[Step] = []
        if keep.keep_events_s:
            found += self._events(store, watched, now - keep.keep_events_s)
        found += self._changes(store, now - _CHANGES_S)
        if keep.keep_messages_s:
            old = now - keep.keep_messages_s
            found.append(lambda conn: retention_rows.drop_messages(conn, old, STEP))
        if keep.keep_samples_s:
            fine = now - keep.keep_samples_s
            found.append(lambda conn: retention_rows.thin_samples(conn, fine, _SAMPLE_S, STEP))
            found.append(lambda conn: retention_rows.thin_hours(conn, fine // 3_600, STEP))
        if keep.keep_details_s:
            bare = now - keep.keep_details_s
            found += self._details(store, watched, bare)
            found.append(lambda conn: log_rows.drop(conn, bare, STEP))
        return found

    def _make_ahead(self, store: Store, now: int) -> None:
        """Have pieces of the log ready before events come that belong into them."""

        def wanted(conn: Connection) -> int:
            """Return the width of the pieces that are missing; 0 = none is."""
            if not partitions.pieces(conn):
                return 0
            newest = hot.newest_position(conn)
            since = _border(conn, tables.event, "position", "received_at", now - partitions.SPAN_S)
            width = min(max(newest - since, partitions.WIDTH_MIN), partitions.WIDTH_MAX)
            return width if partitions.missing(conn, newest, width) else 0

        width = store.read(wanted)
        if width:
            store.write(
                lambda conn: partitions.grow(conn, hot.newest_position(conn), width)
            ).result()

    def _events(self, store: Store, watched: Collection[int], before: int) -> list[Step]:
        below = store.read(
            lambda conn: _border(conn, tables.event, "position", "received_at", before)
        )
        if not below:
            return []
        closed = store.read(lambda conn: retention_rows.closed(conn, watched, before))
        pieces = store.read(partitions.pieces)
        young = store.read(lambda conn: hot.next_position(conn, below)) if pieces else 0
        due = [
            self._dropped(store, one, before, watched, closed)
            for one in pieces
            if one.high <= young
        ]
        begun = [one for one in pieces if one.low < below < one.high]
        if begun and begun[0].high - begun[0].low > partitions.WIDTH_MIN:
            below = begun[0].low  # it goes as a whole, soon
        return [*due, lambda conn: retention_rows.drop_events(conn, below, before, closed, STEP)]

    def _dropped(
        self, store: Store, piece: Piece, before: int, watched: Collection[int], closed: list[int]
    ) -> Step:
        """Return what takes a piece away, once it was read what has to stay of it; nobody writes to so old a piece any more."""

        def drop(conn: Connection) -> int:
            if set(closed) - set(retention_rows.closed(conn, watched, before)):
                return 0  # somebody came back to a rollout meanwhile
            if kept is None or not partitions.retire(conn, piece, kept):
                return 0
            _log.info("dropped %s: the events before position %s", piece.name, piece.high)
            return 1

        kept = store.read(
            lambda conn: retention_rows.lasting_events(conn, piece, before, closed, MOVED_MAX)
        )
        return drop

    def _changes(self, store: Store, before: int) -> list[Step]:
        below = store.read(lambda conn: _border(conn, tables.change, "seq", "at", before))
        return [lambda conn: retention_rows.drop_changes(conn, below, KEPT, STEP)] if below else []

    def _details(self, store: Store, watched: Collection[int], before: int) -> list[Step]:
        closed = store.read(lambda conn: retention_rows.closed(conn, watched, before))
        due = [one for one in closed if one not in self._bare]
        self._more = len(due) > STEPS_MAX
        return [self._bared(one) for one in due[:STEPS_MAX]]

    def _bared(self, rollout_id: int) -> Step:
        def bare(conn: Connection) -> int:
            count = retention_rows.drop_details(conn, rollout_id, STEP)
            if not count:
                self._bare.add(rollout_id)
            return count

        return bare
