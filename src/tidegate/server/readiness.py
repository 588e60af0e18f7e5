"""Is this process alive, and may requests be sent to it? `/healthz` and `/readyz`, for supervisors and load balancers.

Alive: the event loop answers, the writer and the planner's loop are there. A process that is not is worth a restart; nothing outside of it is asked.

Ready: this process can do its work: the database takes a write, blobs can be read, it sees what other processes do, its keys are those that root names.
What is amiss with the whole server (a document of the offline keys that lapses, a planner that is late) is a *warning* and does not make it unready: every
process says the same of it, and a load balancer that takes them all away keeps people from halting a rollout. `/readyz?strict` counts warnings, for monitors.

Strangers learn names and levels; what exactly is wrong is told to this machine and stands in the log.
"""

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal

import msgspec

from tidegate.core.calendar import Entry
from tidegate.core.errors import ConfigError, TidegateError
from tidegate.server.calendar import calendar
from tidegate.server.services import Services
from tidegate.server.store import Connection, admin_log, release_queries, rollout_rows
from tidegate.server.tokens import SKEW_S

#: An answer is good for so long, in seconds: whoever asks more often costs nothing.
KEPT_S: Final = 2.0
#: How long a write may take before the database is called slow, and a read before the place of the blobs is, in seconds.
WRITE_S: Final = 5.0
READ_S: Final = 5.0
#: What the server renews by itself is about to lapse when it has less than this left, in seconds.
SOON_S: Final = 3_600
#: The planner is late after so many of its intervals.
_TICKS_LATE: Final = 5
RETRY_AFTER_S: Final = 5
#: The digest of no blob.
NOBODYS: Final = "0" * 64
Level = Literal["ok", "warning", "failed"]
_log = logging.getLogger("tidegate.ready")


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at. `text` is for this machine alone."""

    name: str
    level: Level
    text: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What `/readyz` says."""

    ready: bool
    checks: tuple[Finding, ...]

    @property
    def warned(self) -> bool:
        """Say whether there is anything but `ok`."""
        return any(one.level != "ok" for one in self.checks)

    def told(self, *, here: bool) -> "Answer":
        """Return what may be told: everything to this machine, names and levels to others."""
        if here:
            return self
        kept = tuple(Finding(name=one.name, level=one.level) for one in self.checks)
        return Answer(ready=self.ready, checks=kept)


class Readiness:
    """Looks at a process. Safe to call from any thread; one looks at a time, and others take what it found."""

    def __init__(self, services: Services, *, ticking: bool) -> None:
        """Look at these parts. `ticking`: whether this process runs the planner by itself."""
        self._services = services
        self._ticking = ticking
        self._began = services.now
        self._guard = threading.Lock()
        self._last: Answer | None = None
        self._until = 0.0
        self._reading: concurrent.futures.Future[str] | None = None

    def look(self, now: int) -> Answer:
        """Say whether requests may be sent here; what was found a moment ago is good enough. `now` in unix seconds."""
        with self._guard:
            if self._last is not None and time.monotonic() < self._until:
                return self._last
            found = self._found(now)
            before = self._last
            self._last, self._until = found, time.monotonic() + KEPT_S
        if before is None or before.ready != found.ready:
            said = "; ".join(f"{one.name}: {one.text}" for one in found.checks if one.text)
            _log.log(
                logging.INFO if found.ready else logging.WARNING,
                "%s%s", "ready" if found.ready else "not ready", f": {said}" if said else "",
            )  # fmt: skip
        return found

    def _found(self, now: int) -> Answer:
        checks = [
            *_guarded("database", self._database),
            *_guarded("follows", self._follows),
            *_guarded("blobs", self._blobs),
            *_guarded("keys", self._keys),
            *_guarded("metadata", lambda: self._metadata(now)),
            *_guarded("planner", lambda: self._planner(now)),
            *_guarded("clock", self._clock),
        ]
        ready = all(one.level != "failed" for one in checks)
        return Answer(ready=ready, checks=tuple(checks))

    def _database(self) -> Iterator[Finding]:
        services = self._services
        wrote = services.store.write(
            lambda conn: admin_log.mark_written(conn, services.holder, services.now), urgent=True
        )
        try:
            wrote.result(WRITE_S)
        except concurrent.futures.TimeoutError:
            wrote.cancel()
            yield Finding(name="database", level="failed", text=f"no write within {WRITE_S:g} s")
            return
        yield Finding(name="database", level="ok")

    def _follows(self) -> Iterator[Finding]:
        if self._services.store.fresh:
            yield Finding(name="follows", level="ok")
            return
        text = "what other processes change is not seen here: nobody may begin"
        yield Finding(name="follows", level="failed", text=text)

    def _blobs(self) -> Iterator[Finding]:
        """Read a byte of the newest release; where there is none, ask for a blob that nobody has. A read that hangs is not asked again."""
        if self._reading is None:
            self._reading = self._services.threads.blobs.submit(self._read)
        try:
            missing = self._reading.result(READ_S)
        except concurrent.futures.TimeoutError:
            yield Finding(name="blobs", level="failed", text=f"no answer within {READ_S:g} s")
            return
        except BaseException:
            self._reading = None
            raise
        self._reading = None
        # one that is gone concerns its release; what cannot be read at all concerns this process
        yield Finding(name="blobs", level="warning" if missing else "ok", text=missing)

    def _read(self) -> str:
        """Read a byte; return what is missing."""
        services = self._services
        digest = services.store.read(_newest_blob)
        if digest is None:
            services.blobs.size(NOBODYS)
            return ""
        blob = services.blobs.open(digest)
        if blob is None:
            return f"the newest release's bytes ({digest[:12]}) are not there"
        try:
            blob.read_at(0, 1)
        finally:
            blob.close()
        return ""

    def _keys(self) -> Iterator[Finding]:
        services = self._services
        try:
            services.store.read(services.repository.require_own_keys)
        except ConfigError as error:
            yield Finding(name="keys", level="failed", text=error.detail)
            return
        yield Finding(name="keys", level="ok")

    def _metadata(self, now: int) -> Iterator[Finding]:
        wrong = [
            (one.level, f"{one.role} expires in {one.expires_in_s} s")
            for one in self._services.store.read(lambda conn: calendar(conn, now))
            if _worries(one)
        ]
        text = "; ".join(said for _, said in wrong)
        yield Finding(name="metadata", level="warning" if wrong else "ok", text=text)

    def _clock(self) -> Iterator[Finding]:
        """Warn of a clock that is far from the database's: whose of the two is right nobody here can tell. Nothing is said where they agree."""
        off = self._services.store.ahead_s
        if abs(off) > SKEW_S:
            way = "ahead of" if off > 0 else "behind"
            text = f"{abs(off)} s {way} the database's: devices' sessions go by that one"
            yield Finding(name="clock", level="warning", text=text)

    def _planner(self, now: int) -> Iterator[Finding]:
        """Say whether the planner looked lately: here, or in whichever process has its lease."""
        if not self._ticking:
            return
        counters, most = self._services.counters, _TICKS_LATE * self._services.settings.tick_s
        since = now - (counters.ticked_at or self._began)
        if since > most:
            text = f"no tick succeeded here for {since} s"
            yield Finding(name="planner", level="warning", text=text)
            return
        yield Finding(name="planner", level="ok")


def _worries(one: Entry) -> bool:
    if one.keeper == "server":
        return one.level in {"late", "expired"} or one.expires_in_s < SOON_S
    return one.level in {"urgent", "expired"}


def _newest_blob(conn: Connection) -> str | None:
    for release_id in sorted(release_queries.live_ids(conn), reverse=True)[:1]:
        for _, _, digest, _ in rollout_rows.artifacts(conn, release_id):
            return str(digest)
    return None


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Have whatever a look meets become a finding."""
    try:
        return list(look())
    except TidegateError as error:
        return [Finding(name=name, level="failed", text=str(error))]
    except Exception as error:  # noqa: BLE001 - whatever it is, this process is not ready
        with suppress(Exception):
            _log.warning("%s could not be looked at", name, exc_info=error)
        return [Finding(name=name, level="failed", text=type(error).__name__)]
