"""Which threads wait for what, so that what waits for one thing holds up nothing else.

| threads | wait for |
|---|---|
| the loop's own, `PEOPLE_MAX` | the database: people, their programs |
| `blobs` | the place of the blobs, for those who publish: a store that does not answer holds each of them for more than a minute |
| `planner`, `teller`, `probes` | what is asked again and again, in one thread each: a look that hangs is one thread, and not one more every time |

Whoever halts needs a thread of the first kind, so nothing that waits for somebody else's service may stand there. Devices' bytes have others (`delivery`).
"""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
#: Threads of a loop; those of a store of blobs. Each is made when it is first needed.
PEOPLE_MAX: Final = 32
BLOBS_MAX: Final = 16


def _threads(most: int, name: str) -> Callable[[], ThreadPoolExecutor]:
    return lambda: ThreadPoolExecutor(most, thread_name_prefix=name)


@dataclass(frozen=True, slots=True)
class Threads:
    """The threads of one server beside its loop's own."""

    blobs: Executor = field(default_factory=_threads(BLOBS_MAX, "publish"))
    planner: Executor = field(default_factory=_threads(1, "planner"))
    teller: Executor = field(default_factory=_threads(1, "teller"))
    probes: Executor = field(default_factory=_threads(1, "probes"))

    def close(self) -> None:
        """Take no more work; what hangs is not waited for."""
        for one in (self.blobs, self.planner, self.teller, self.probes):
            one.shutdown(wait=False, cancel_futures=True)


def of_people() -> ThreadPoolExecutor:
    """Return threads for a loop of a server (`loop.set_default_executor`)."""
    return _threads(PEOPLE_MAX, "people")()


async def call(threads: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in one of these threads, as `asyncio.to_thread` does in the loop's: with the context of whoever calls."""
    context = contextvars.copy_context()
    work = functools.partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(threads, work)
