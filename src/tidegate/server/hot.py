"""The device side as raw ASGI: poll, enrol, session, assignment, permit, events, time, metadata and bytes (docs/reference/protocol.md).

A poll touches no database and builds nothing (`polls`). Everything else is a short function around a unit of work. Bodies are bounded while they are read.
Nothing here decides; it asks `updates`, `permits`, `telemetry` and `devices`.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec import UNSET

from tidegate.core import codec, keys
from tidegate.core.errors import BusyError, RequestError, TidegateError
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    PERMIT_TYPE,
    TIME_TYPE,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    AuditNews,
    EventsAnswer,
    EventsRequest,
    LogAnswer,
    LogRequest,
    PermitAnswer,
    PermitBody,
    PermitRequest,
    TimeAnswer,
    TimeBody,
    TimeRequest,
)
from tidegate.server import (
    device_logs,
    devices,
    permits,
    quotas,
    telemetry,
    updates,
    witnesses,
)
from tidegate.server.asgi import (
    Receive,
    Scope,
    Send,
    header_of,
    read_body,
    require_method,
    send_all,
    send_problem,
)
from tidegate.server.delivery import Delivery
from tidegate.server.joining import ROUTES, Joining
from tidegate.server.limits import RateLimit
from tidegate.server.load import Load
from tidegate.server.polls import Polls
from tidegate.server.services import Services
from tidegate.server.snapshot import ACCEPTED, QUARANTINED, STATES
from tidegate.server.store import Connection, changes, device_queries
from tidegate.server.tokens import SKEW_S, Session

T = TypeVar("T")

PREFIX: Final = "/d/v1/"
POLL: Final = f"{PREFIX}poll"
_JSON: Final = (b"content-type", b"application/json")
#: Tokens that are remembered; about 300 bytes each.
_SESSIONS_MAX: Final = 50_000
#: So long after it opened a session a device counts as one that showed its key just now, in seconds.
_PROVED_S: Final = 120
_log = logging.getLogger("tidegate.hot")


class HotApp:
    """One ASGI application for everything under `/d/v1/`."""

    def __init__(self, services: Services) -> None:
        """Serve from these parts."""
        self._services = services
        self._tokens = services.tokens
        self._store = services.store
        self._fleet = services.fleet
        self._clock = services.clock
        self._counters = services.counters
        self.load = Load(services)
        self.polls = Polls(services, self._row, self.load)
        self._joining = Joining(services, self.load)
        self._delivery = Delivery(services)
        settings = services.settings
        self._reports = RateLimit(per_s=settings.events_rate, burst=settings.events_burst)
        self._sessions: dict[bytes | None, Session] = {}
        self._keys: dict[int, tuple[int, keys.PublicKey]] = {}
        self._posts: dict[str, Callable[[Scope, Receive], Awaitable[object]]] = {
            **{one: functools.partial(self._join, one) for one in ROUTES},
            "assignment": self._assignment,
            "permit": self._permit,
            "events": self._events,
            "log": self._log,
            "time": self._time,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        try:
            if path == POLL:
                require_method(scope["method"], "GET")
                await self.polls(scope, send)
                return
            await self._route(path.removeprefix(PREFIX), scope, receive, send)
        except TidegateError as error:
            self._counters.problems[error.code] += 1
            await send_problem(send, error)
        except OSError as error:
            _log.warning("a request ended early: %s", error)

    async def _route(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        head, _, rest = path.partition("/")
        post = self._posts.get(path)
        if post is not None:
            require_method(method, "POST")
            try:
                answer = await post(scope, receive)
            except TidegateError:
                raise
            except Exception as error:
                _log.exception("a device request failed")
                raise TidegateError("server.internal") from error
            await send_all(send, 200, codec.encode(answer), [_JSON])
        elif head == "repo" and rest:
            require_method(method, "GET", "HEAD")
            await self._repo(rest, scope, send)
        elif head == "blobs" and rest:
            require_method(method, "GET", "HEAD")
            row, _ = self._device(scope)
            await self._delivery.answer(rest, row, scope, receive, send)
        else:
            raise RequestError("request.not_found", "no such device route")

    # --- who is it ---

    def _row(self, authorization: bytes | None, now: int, *, quarantined: bool = False) -> int:
        """Return the row of the device whose token this is; `quarantined`: of one in quarantine, too.

        Raises:
            RequestError: `session.expired`, `device.*`.
        """
        session = self._sessions.get(authorization)
        if session is None or now >= session[2]:
            session = self._check(authorization, now)
        if not self._is_good(session, quarantined=quarantined) or self._is_past(session, now):
            self._refuse(session)
        return session[0]

    def _is_good(self, session: Session, *, quarantined: bool) -> bool:
        """Say whether a token is of the device's present key and newest session, and the device one that may ask."""
        fleet, row = self._fleet, session[0]
        if not 0 < row < len(fleet.ids):
            return False
        state = fleet.state[row]
        return (
            (state == ACCEPTED or (quarantined and state == QUARANTINED))
            and fleet.key_gen[row] == session[1]
            and session[3] >= fleet.session_at[row]
        )

    def _is_past(self, session: Session, now: int) -> bool:
        """Say whether a token of a clock that was ahead was followed by a newer session since that clock is right."""
        issued = session[3]
        newer = self._fleet.session_at[session[0]]
        return newer < issued and issued > self._tokens.agreed(now) + SKEW_S

    def _check(self, authorization: bytes | None, now: int) -> Session:
        """Check a token that was not seen before, and remember it: its MAC need not be computed at every poll."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            raise RequestError("session.expired", "a session token is needed")
        session = self._tokens.check(authorization[7:], now)
        if session is None:
            raise RequestError("session.expired", "the session token is not valid any more")
        if len(self._sessions) >= _SESSIONS_MAX:
            self._sessions.clear()
        self._sessions[authorization] = session
        return session

    def _refuse(self, session: Session) -> None:
        fleet = self._fleet
        if 0 < session.row < len(fleet.ids):
            devices.require_accepted(STATES[fleet.state[session.row]])
        raise RequestError("session.expired", "the session was ended")

    def _device(self, scope: Scope, *, quarantined: bool = False) -> tuple[int, int]:
        """Return (row, now) of the device that calls, and note that it was heard.

        Raises:
            RequestError: as `_row`. BusyError: `server.busy`: what other processes did cannot be seen here, so it may have been revoked.
        """
        if not self._store.fresh:
            raise BusyError("server.busy", "this process does not see what the others do")
        now = int(self._clock())
        row = self._row(header_of(scope, b"authorization"), now, quarantined=quarantined)
        self._fleet.seen[row] = now
        self._fleet.dirty.add(row)
        return row, now

    async def _key(self, row: int) -> keys.PublicKey:
        """Return a device's key; looked for beside everything else that goes on, since a database that is away keeps one waiting.

        Raises:
            TidegateError: the database failed: nothing is known of what it signed.
        """
        generation = self._fleet.key_gen[row]
        known = self._keys.get(row)
        if known is not None and known[0] == generation:
            return known[1]
        store = self._services.store
        device = await asyncio.to_thread(store.read, lambda conn: device_queries.by_row(conn, row))
        key = devices.key_of(device)
        if len(self._keys) > 4_096:
            self._keys.clear()
        self._keys[row] = (generation, key)
        return key

    # --- joining ---

    async def _join(self, path: str, scope: Scope, receive: Receive) -> object:
        async def read(kind: type[T] | None) -> T | None:
            limit = self._services.settings.body_max
            body = await read_body(scope, receive, limit)
            return None if kind is None else codec.decode(body, kind, limit)

        return await self._joining.answer(path, scope, read)

    # --- updates ---

    async def _assignment(self, scope: Scope, receive: Receive) -> object:
        row, now = self._device(scope)
        self.load.require_room("assignment")
        request = await self._body(scope, receive, AssignmentRequest)
        fleet, version = self._fleet, self._fleet.plan.version
        terms = self._services.terms

        key = self._services.keys.audit.public
        seen = None if request.audit_seen is UNSET else request.audit_seen

        def work(conn: Connection) -> tuple[AssignmentBody, AuditNews | None]:
            body, settled = updates.assign(conn, row, request, terms, now)
            if settled:
                changes.after_commit(conn, functools.partial(fleet.silence, row, version))
            return body, witnesses.hear(conn, row, seen, key, now)

        body, news = await self._services.write(work)
        self._counters.assignments += 1
        envelope = keys.sign_document(body, ASSIGNMENT_TYPE, self._services.keys.director)
        return AssignmentAnswer(envelope=envelope, audit=UNSET if news is None else news)

    async def _permit(self, scope: Scope, receive: Receive) -> object:
        row, now = self._device(scope)
        self.load.require_room("permit")
        request = await self._body(scope, receive, PermitRequest)
        settings = self._services.settings
        # As often as it polls: a fleet that is staged and waits for days must not ask every minute.
        retry_s = max(1, settings.poll_interval_s)
        answer = await self._services.write(
            lambda conn: permits.permit(conn, row, request, now, retry_s, settings.caps)
        )
        if not isinstance(answer, PermitBody):
            self._counters.permits_refused += 1
            return PermitAnswer(because=answer.because, retry_after_s=answer.retry_after_s)
        self._counters.permits += 1
        envelope = keys.sign_document(answer, PERMIT_TYPE, self._services.keys.director)
        return PermitAnswer(envelope=envelope, retry_after_s=0)

    async def _events(self, scope: Scope, receive: Receive) -> object:
        row, now = self._device(scope, quarantined=True)
        services = self._services
        self.load.require_room("events")
        request = await self._body(scope, receive, EventsRequest)
        if not self._reports.take(row, self._clock(), len(request.events)):
            raise RequestError(
                "request.rate_limited", "this device sends more events than a device has to tell"
            )
        signed = any(one.envelope is not None for one in request.events)
        key = await self._key(row) if signed else None
        opened, refused = telemetry.open_items(request.events, self._fleet.ids[row], key)

        proved = self._tokens.agreed(now) - self._fleet.session_at[row] <= _PROVED_S

        def work(conn: Connection) -> telemetry.Accepted:
            quotas.count_events(conn, [one.body.kind for one in opened], now)
            settings = services.settings
            return telemetry.accept(
                conn,
                row,
                opened,
                refused,
                now,
                quarantine=settings.clones == "quarantine",
                logs=settings.logs_per_reason,
                proved=proved,
            )

        accepted = await services.write(work)
        self._counters.events += len(opened)
        self._counters.events_refused += len(refused)
        return EventsAnswer(
            acked_seq=accepted.acked_seq, refused=tuple(refused), want_log=accepted.want_log
        )

    async def _log(self, scope: Scope, receive: Receive) -> object:
        row, now = self._device(scope)
        self.load.require_room("log")
        request = await self._body(scope, receive, LogRequest)
        store = self._services.store

        def look() -> str | None:
            """Read a log that is wanted, beside everything else that goes on: it may be long. None = it is here already."""
            wanted = store.read(lambda conn: device_logs.require_wanted(conn, row, request, now))
            return None if wanted is None else device_logs.read(request.data)

        text = await asyncio.to_thread(look)
        if text is not None:
            await self._services.write(lambda conn: device_logs.keep(conn, row, request, text, now))
        return LogAnswer()

    async def _time(self, scope: Scope, receive: Receive) -> object:
        row, now = self._device(scope, quarantined=True)
        request = await self._body(scope, receive, TimeRequest)
        body = TimeBody(device_id=self._fleet.ids[row], nonce=request.nonce, time=now)
        envelope = keys.sign_document(body, TIME_TYPE, self._services.keys.director)
        return TimeAnswer(envelope=envelope)

    async def _body(self, scope: Scope, receive: Receive, kind: type[T]) -> T:
        limit = self._services.settings.body_max
        return codec.decode(await read_body(scope, receive, limit), kind, limit)

    # --- bytes ---

    async def _repo(self, name: str, scope: Scope, send: Send) -> None:
        body = self._services.repository.file(name)
        if body is None:
            # Every refresh of every device ends its walk over the roots with this: no body, since nobody reads one.
            await send_all(
                send, 404, b"", [(b"cache-control", b"no-cache"), (b"content-length", b"0")]
            )
            return
        shown = b"" if scope["method"] == "HEAD" else body
        length = (b"content-length", str(len(body)).encode())
        await send_all(send, 200, shown, [_JSON, (b"cache-control", b"no-cache"), length])
