"""The device routes that want no token: enrol, nonce, session, re-key. Each proves a key.

All are limited by address: what is asked by each process for itself (`server.limits`), what goes wrong over all processes (`server.tries`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from tidegate.core.errors import BusyError, PublisherError, RequestError
from tidegate.core.protocol import (
    EnrolRequest,
    NonceAnswer,
    RekeyRequest,
    SessionAnswer,
    SessionRequest,
)
from tidegate.server import devices, identity
from tidegate.server.identity import SessionTerms
from tidegate.server.limits import Door
from tidegate.server.load import Load
from tidegate.server.services import Services
from tidegate.server.store import device_queries
from tidegate.server.tokens import NONCE_S
from tidegate.server.tries import Failures

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Read = Callable[[type[T]], Awaitable[T]]
#: What an honest device may be told any number of times: nothing is wrong with who it is.
_HONEST: Final = frozenset(
    {"device.pending", "device.revoked", "session.expired", "request.rate_limited"}
)


#: How many look into the database at one time. Not those of the pages, which a fleet that comes back would keep busy.
_THREADS: Final = 2


class Joining:
    """Answers those who have no token yet."""

    def __init__(self, services: Services, load: Load) -> None:
        """Answer from these parts, as long as `load` has room."""
        self._load = load
        self._services = services
        self._tokens = services.tokens
        self._clock = services.clock
        found = services.settings
        self._door = Door(
            per_s=found.joining_rate,
            burst=found.joining_burst,
            bad_per_s=found.joining_failed_rate,
            bad=found.joining_failed_burst,
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="joining")
        self._failures = Failures(per_s=found.joining_failed_rate, burst=found.joining_failed_burst)

    async def answer(self, path: str, scope: Scope, read: Any) -> object:
        """Answer one request.

        Args:
            path: `enrol`, `nonce`, `session` or `rekey`.
            scope: of the request; the client's address counts.
            read: reads and decodes the body as a type, within limits.

        Raises:
            TidegateError: `request.rate_limited`, `server.busy`, and what the routes raise.
        """
        client = scope.get("client")
        address = client[0] if client is not None else ""
        at = self._clock()
        if address and not await self._admits(path, address, at):
            raise RequestError("request.rate_limited", "too many requests from this address")
        if path != "nonce":  # which waits for nothing
            self._load.require_room("joining")
        try:
            return await _ROUTES[path](self, read, int(at))
        except (RequestError, PublisherError) as error:
            if address and error.code not in _HONEST:
                await self._failed(address, at)
            raise

    async def _admits(self, path: str, address: str, at: float) -> bool:
        """Say whether a request is looked at: a number for once cannot be wrong, and is given without a look into the database."""
        if not self._door.admits(address, at):
            return False
        if path == "nonce":
            return True
        store = self._services.store
        return not await self._beside(
            lambda: store.read(lambda conn: self._failures.are_many(conn, address, at))
        )

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do what looks into the database in a thread of its own: a database that says nothing must not keep those waiting who only poll."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _failed(self, address: str, at: float) -> None:
        self._door.failed(address, at)
        times = self._failures.note(address)
        if times:
            with contextlib.suppress(
                BusyError
            ):  # then this process has noted it, and others have not
                await self._services.write(
                    lambda conn: self._failures.put(conn, address, times, at)
                )

    async def _enrol(self, read: Any, now: int) -> object:
        request: EnrolRequest = await read(EnrolRequest)
        body = devices.open_enrolment(request)
        approval = "approval" in self._services.settings.enrol
        return _or_raise(
            await self._services.write(
                lambda conn: identity.enrol(conn, body, request.claim, now, approval=approval)
            )
        )

    async def _nonce(self, read: Any, now: int) -> object:
        await read(None)
        return NonceAnswer(nonce=self._tokens.nonce(now), valid_s=NONCE_S)

    async def _session(self, read: Any, now: int) -> object:
        request: SessionRequest = await read(SessionRequest)
        body, device = await self._beside(lambda: devices.open_session(request, self._find))
        self._take(body.nonce, now)
        settings = self._services.settings
        terms = SessionTerms(
            tokens=self._tokens,
            randomness=self._services.randomness,
            lifetime_s=settings.session_s,
            quarantine=settings.clones == "quarantine",
        )
        opened = await self._services.write(
            lambda conn: identity.begin_session(
                conn, device.row, device.key_sha256, body, terms, now
            )
        )
        return SessionAnswer(
            token=opened.token,
            expires_in_s=opened.expires_in_s,
            acked_seq=opened.acked_seq,
            rekey=opened.rekey,
        )

    async def _rekey(self, read: Any, now: int) -> object:
        request: RekeyRequest = await read(RekeyRequest)
        body, device = await self._beside(lambda: devices.open_rekey(request, self._find))
        self._take(body.nonce, now)
        return _or_raise(
            await self._services.write(lambda conn: identity.rekey(conn, device.row, body, now))
        )

    def _find(self, device_id: str) -> Any:
        return self._services.store.read(lambda conn: device_queries.by_id(conn, device_id))

    def _take(self, nonce: str, now: int) -> None:
        if not self._tokens.take_nonce(nonce, now):
            raise RequestError("session.expired", "the nonce is not fresh; ask for another")


def _or_raise(found: T | RequestError) -> T:
    if isinstance(found, RequestError):
        raise found
    return found


_ROUTES: Final[dict[str, Callable[[Joining, Any, int], Awaitable[object]]]] = {
    "enrol": Joining._enrol,  # noqa: SLF001 - its own
    "nonce": Joining._nonce,  # noqa: SLF001 - its own
    "session": Joining._session,  # noqa: SLF001 - its own
    "rekey": Joining._rekey,  # noqa: SLF001 - its own
}
ROUTES: Final = frozenset(_ROUTES)
