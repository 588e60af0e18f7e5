"""Whether one device is behind a key, or two: what its sessions say, and what one device cannot do.

A device tells, signed with its key, which session token it received last (`previous`, a digest; nobody else can know it). A device that was set back, restored
from an image of its disk or of its whole memory, says something old once and then goes on from there: its trail is rewound, never forked. Two devices with
one key cannot help forking it: what one of them received in the meantime, the other one did not. Three hints:

* `fork`: the device names a session that it had left, by its own signed word: when it opened a later one it did not know it;
* `boot`: a boot id comes back that had been left for another;
* `events`: two signed reports with one number and different contents (`server.telemetry`).

A session gives one hint at most, and one hint may be a machine whose memory was restored. Two within a week are two devices. Nothing here counts what a
bearer token alone could bring about, or a replayed request: sessions are bound to a nonce, in the order of their nonces, and events are compared when the
device signed both.
"""

from typing import Final, Literal

import msgspec

#: Sessions and boots that are remembered.
VISITS_MAX: Final = 16
BOOTS_MAX: Final = 32
#: Hints that make a clone, and for how long one counts, in seconds.
HINTS: Final = 2
HINT_S: Final = 7 * 86_400

Hint = Literal["fork", "boot", "events"]


class Visit(msgspec.Struct, frozen=True, array_like=True):
    """One session: digest of its token, and of the one that the device had before (None: it does not say, "": it has none)."""

    ref: str
    previous: str | None


class Trail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a device, oldest first. `hints` are (time, hint); `told`: its events gave one since the newest session."""

    visits: tuple[Visit, ...] = ()
    boots: tuple[str, ...] = ()
    hints: tuple[tuple[int, Hint], ...] = ()
    told: bool = False

    def is_clone(self, now: int) -> bool:
        """Say whether there are enough hints."""
        return sum(now - at < HINT_S for at, _ in self.hints) >= HINTS


def follow(trail: Trail, visit: Visit, boot_id: str, now: int) -> Trail:
    """Add a session to a trail, with what it says against there being one device.

    Args:
        trail: so far.
        visit: the new session.
        boot_id: of the device, "" where it has none.
        now: unix seconds.
    """
    hints = list(trail.hints)
    if visit.previous is None and any(one.previous is not None for one in trail.visits):
        # silence is not a way out: who used to say what it had last, and does not now, has lost it
        visit = Visit(visit.ref, "")
    hint: Hint | None = "fork" if _forks(trail.visits, visit.previous) else None
    boots = trail.boots
    if boot_id and (not boots or boots[-1] != boot_id):
        if boot_id in boots:
            hint = hint or "boot"
        boots = (*(one for one in boots if one != boot_id), boot_id)[-BOOTS_MAX:]
    if hint is not None:
        hints.append((now, hint))
    visits = (*trail.visits, visit)[-VISITS_MAX:]
    return Trail(visits=visits, boots=boots, hints=_recent(hints, now))


def hinted_by_events(trail: Trail, now: int) -> Trail:
    """Add the hint of two different reports under one number; however many there are, they count once between two sessions."""
    if trail.told:
        return trail
    hints = _recent([*trail.hints, (now, "events")], now)
    return msgspec.structs.replace(trail, hints=hints, told=True)


def _forks(visits: tuple[Visit, ...], previous: str | None) -> bool:
    """Say whether a device names a session that its own later word has left: not on the way that leads to the newest one."""
    if not visits or not previous:
        return False
    before = {one.ref: one.previous for one in visits}
    if previous not in before:
        return False  # too long ago to tell
    at: str | None = visits[-1].ref
    while at is not None and at in before:
        if at == previous:
            return False  # it went on; or the answer was lost; or it was set back to that point
        at = before[at]
    return True


def _recent(hints: list[tuple[int, Hint]], now: int) -> tuple[tuple[int, Hint], ...]:
    return tuple(one for one in hints if now - one[0] < HINT_S)[-8:]
