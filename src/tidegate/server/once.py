"""An act under an idempotency key: done once, with its answer kept in the transaction of the act; and an act that is only rehearsed.

Who calls sets `KEY` for as long as it answers; every act that runs through `once` then looks for the answer of an earlier call before anything else, and
keeps its own. So there is no moment at which a crash leaves one without the other, and two processes that get one call twice act once.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from tidegate.core import codec
from tidegate.core.errors import RequestError
from tidegate.server.store import Connection, Store, admin_log

T = TypeVar("T")


class Key:
    """One call under an idempotency key.

    Attributes:
        key: digest of who calls and the key that was sent.
        request_sha256: digest of what is asked.
        status: HTTP status of the answer when it is done.
        at: unix seconds.
        kept: whether this call has kept an answer.
    """

    def __init__(self, key: str, request_sha256: str, status: int, at: int) -> None:
        """Describe the call; nothing is kept yet."""
        self.key = key
        self.request_sha256 = request_sha256
        self.status = status
        self.at = at
        self.kept = False

    def row(self, body: bytes) -> dict[str, Any]:
        """Return the row that keeps an answer."""
        return {
            "key": self.key,
            "request_sha256": self.request_sha256,
            "status": self.status,
            "body": body,
            "at": self.at,
        }


#: The call that is being answered, if it has a key.
KEY: Final[ContextVar[Key | None]] = ContextVar("idempotency key", default=None)


class Answered(Exception):  # noqa: N818 - no error: an earlier call did it, and this is its answer
    """The act was done under this key before.

    Attributes:
        status: HTTP status of the answer.
        body: the answer.
    """

    def __init__(self, status: int, body: bytes) -> None:
        """Carry the answer."""
        super().__init__(status)
        self.status = status
        self.body = body


class _Rehearsed(Exception):  # noqa: N818 - no error: it takes the act back
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


def kept(conn: Connection, key: Key) -> None:
    """Look for the answer of an earlier call.

    Raises:
        Answered: there is one.
        RequestError: `request.conflict`: the key was used for something else.
    """
    row = admin_log.kept_answer(conn, key.key)
    if row is None:
        return
    if row["request_sha256"] != key.request_sha256:
        raise RequestError(
            "request.conflict",
            "this idempotency key was used for another call",
            hint="send a new key with a new call",
        )
    raise Answered(int(row["status"]), bytes(row["body"]))


def once(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """Have an act keep what it returns as the answer of the call that is being answered; without a key it is the act itself.

    Raises:
        Answered: when it runs, and was done before.
    """
    key = KEY.get()
    if key is None:
        return work

    def both(conn: Connection) -> T:
        if not key.kept:
            kept(conn, key)
        done = work(conn)
        admin_log.keep_answer(conn, key.row(codec.encode(done)))
        key.kept = True
        return done

    return both


def rehearse(store: Store, work: Callable[[Connection], T]) -> T:
    """Run an act with all its checks, take it back, and return what it would have answered. Nothing is written and nobody is told."""

    def act(conn: Connection) -> None:
        raise _Rehearsed(work(conn))

    try:
        store.write(act, urgent=True).result()
    except _Rehearsed as end:
        found: Any = end.result
        return found  # type: ignore[no-any-return]  # what `work` returned
    raise AssertionError("an act that is rehearsed ends by an exception")
