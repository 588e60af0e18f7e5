"""Whether an update that ended before its permit is offered again, when, and how often: the server decides, reason by reason.

Only what says nothing against the release is tried again: faults of the way (`download.*`, `sig.*`, `clock.*`), "not now" (`activate.*` before a permit,
`user.declined`), and a device that never began or never finished (`lost.start`, `lost.finish`: it goes on with the same attempt, for nothing was tried). A
failed install, a failed boot and a failed health check are evidence; only a first attempt is, so they are not repeated within a rollout, and the device
remembers and refuses the image besides (`delivery.retry_refused` of another rollout).
"""

from typing import Final, NamedTuple

from tidegate.core.amounts import format_duration
from tidegate.core.reasons import family
from tidegate.rollout.model import Retry

#: Families of reasons, and single ones, that may be tried again.
MAY: Final = frozenset({"download", "sig", "clock", "activate", "user.declined"})
#: Those that are, where a policy does not say how often.
_USUAL: Final = frozenset({"download", "sig", "clock"})
#: The device is offered the same attempt once more.
RESUMED: Final = frozenset({"lost.start", "lost.finish"})
#: The budget never stops fewer than so many.
BUDGET_LEAST: Final = 10
_ALL_BP: Final = 10_000


class Ended(NamedTuple):
    """An update that ended without a permit. `place` spreads devices that failed together (any number that is the device's own)."""

    state: str
    reason: str
    attempt: int
    ended_at: int
    place: int


class Ruling(NamedTuple):
    """Whether it is offered again, in how many seconds (0 = now), as which attempt, and the sentence that says so."""

    again: bool
    wait_s: int
    attempt: int
    text: str


def tries_of(retry: Retry, reason: str) -> int:
    """Return how many attempts a reason gets in all, the first included."""
    for name in (reason, family(reason)):
        if name in retry.reasons:
            return retry.reasons[name]
    return retry.tries if family(reason) in _USUAL else 1


def rule(retry: Retry, ended: Ended, *, retried: int, offered: int, now: int) -> Ruling:
    """Decide about one update.

    Args:
        retry: of the rollout's policy.
        ended: the update; it never had a permit.
        retried: further attempts that this rollout has offered already.
        offered: devices that it was offered to.
        now: unix seconds.
    """
    if ended.state == "lost" and ended.reason in RESUMED:
        return Ruling(True, 0, ended.attempt, "it is offered again as soon as the device asks")
    if ended.state not in {"failed", "declined"} or not _may(ended.reason):
        return Ruling(False, 0, ended.attempt, f"{ended.reason} is not tried again")
    most = tries_of(retry, ended.reason)
    if ended.attempt >= most:
        text = f"no further attempt: {ended.attempt} of {most} made"
        return Ruling(False, 0, ended.attempt, text)
    bound = max(BUDGET_LEAST, offered * retry.budget_bp // _ALL_BP)
    if retried >= bound:
        text = f"no further attempt: this rollout has offered {retried:,} of {bound:,} allowed"
        return Ruling(False, 0, ended.attempt, text)
    wait_s = max(0, ended.ended_at + pause_s(retry, ended.attempt, ended.place) - now)
    when = f"in {format_duration(wait_s)}" if wait_s else "as soon as the device asks"
    return Ruling(True, wait_s, ended.attempt + 1, f"attempt {ended.attempt + 1} of {most} {when}")


def pause_s(retry: Retry, attempt: int, place: int) -> int:
    """Return how long after its end an attempt is followed by the next, in seconds: doubled each time, and spread by up to half of it."""
    pause = min(retry.most_s, retry.backoff_s << min(attempt - 1, 30))
    return pause + pause * (place % 16) // 32


def _may(reason: str) -> bool:
    return reason in MAY or family(reason) in MAY
