"""How often may be tried what can be guessed, or costs: counted in the database, so that three processes give no more guesses than one.

A try is counted before it is looked at, and given back when it fits: a hundred guesses at once count as a hundred in turn, whichever processes they reach.
What is kept of a source is one moment, at which it will have been quiet for long enough (a leaky bucket, in the form of the generic cell rate algorithm);
its name is kept as a digest. Where the clock was set back, nobody waits longer than two windows.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server.limits import prefix
from tidegate.server.store import Connection, Store, try_rows


class Bound(msgspec.Struct, frozen=True):
    """So many tries at once, and as many again in a window of so many milliseconds."""

    most: int
    window_ms: int

    @property
    def step_ms(self) -> int:
        """How long one try counts."""
        return max(1, self.window_ms // self.most)


Sources = Mapping[str, Bound]
_MS: Final = 1000
_MOST_NAMES: Final = 20_000


class Tries:
    """Tries by source, for as many processes as use the database. Safe to call from any thread."""

    def __init__(self, store: Store) -> None:
        """Count in this store."""
        self._store = store

    def begin(self, sources: Sources, now: float) -> None:
        """Count one try of every source, or refuse it: then none is counted.

        Raises:
            RequestError: `request.rate_limited`.
        """

        def work(conn: Connection) -> bool:
            if any(is_full(conn, source, bound, now) for source, bound in sources.items()):
                return False
            try_rows.drop_over(conn, int(now * _MS))
            for source, bound in sources.items():
                count(conn, source, bound, now)
            return True

        self.require(sources, now)  # who is refused costs a look and writes nothing
        if not self._store.write(work).result():
            raise _refused()

    def require(self, sources: Sources, now: float) -> None:
        """Insist that none of the sources has to wait.

        Raises:
            RequestError: `request.rate_limited`.
        """

        def look(conn: Connection) -> bool:
            return any(is_full(conn, source, bound, now) for source, bound in sources.items())

        if self._store.read(look):
            raise _refused()


def is_full(conn: Connection, source: str, bound: Bound, now: float) -> bool:
    """Say whether a source has to wait."""
    return _quiet_ms(conn, source, bound, now) + bound.step_ms > int(now * _MS) + bound.window_ms


def count(conn: Connection, source: str, bound: Bound, now: float, times: int = 1) -> None:
    """Count tries of a source, in the writer's transaction."""
    most = int(now * _MS) + bound.window_ms
    quiet = _quiet_ms(conn, source, bound, now) + times * bound.step_ms
    try_rows.put(conn, _name(source), min(quiet, most))


def give_back(conn: Connection, sources: Sources, now: float) -> None:
    """Take back one try of every source, since it was none, in the writer's transaction."""
    for source, bound in sources.items():
        count(conn, source, bound, now, -1)


def forget(conn: Connection, source: str) -> None:
    """Forget what a source tried, in the writer's transaction."""
    try_rows.drop(conn, _name(source))


def _quiet_ms(conn: Connection, source: str, bound: Bound, now: float) -> int:
    at, kept = int(now * _MS), try_rows.quiet_at(conn, _name(source))
    if kept > at + 2 * bound.window_ms:
        return at  # put down by a clock that was set back since; one that runs a little ahead of ours counts
    return min(max(kept, at), at + bound.window_ms)


class Failures:
    """What goes wrong by address, for all processes together: each adds what it saw in portions, so that who fails once costs no write. For one thread."""

    def __init__(self, *, per_s: int, burst: int) -> None:
        """Let `burst` go wrong at once, and `per_s` a second after that."""
        self._bound = Bound(burst, burst * _MS // max(1, per_s))
        self._portion = max(1, burst // 20)
        self._own: OrderedDict[str, int] = OrderedDict()

    def are_many(self, conn: Connection, address: str, now: float) -> bool:
        """Say whether an address has to wait for what went wrong, wherever that was."""
        return is_full(conn, f"failed {prefix(address)}", self._bound, now)

    def note(self, address: str) -> int:
        """Note one; return how many are to be put down by now."""
        place = prefix(address)
        own = self._own.pop(place, 0) + 1
        if own >= self._portion:
            return own
        self._own[place] = own
        if len(self._own) > _MOST_NAMES:
            self._own.popitem(last=False)
        return 0

    def put(self, conn: Connection, address: str, times: int, now: float) -> None:
        """Put down so many, in the writer's transaction."""
        try_rows.drop_over(conn, int(now * _MS))
        count(conn, f"failed {prefix(address)}", self._bound, now, times)


def _name(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


def _refused() -> RequestError:
    return RequestError("request.rate_limited", "too many failed sign-ins; wait five minutes")
