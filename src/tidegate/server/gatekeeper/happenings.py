"""What a change of an update means to the evidence gate: a pure function of the row before and after.

Said by the one who books the change (`outcomes.book`), in its transaction, so that nothing is lost and nothing is told twice. Silence is not said here: the
gate's desk judges it by itself, at a deadline of its own. What went wrong on the way (download, network, storage) says nothing against a release.
"""

from typing import Final, Literal, TypeAlias

from tidegate.core.reasons import family
from tidegate.server.store.hot import UpdateRow

What: TypeAlias = Literal["permit", "refund", "failed", "confirmed", "crashed"]

#: Families of reasons that are the way's fault, or somebody's wish.
_NEUTRAL: Final = frozenset({"download", "user", "operator"})
_BAD: Final = frozenset({"failed", "reverted"})


def happened(old: UpdateRow | None, new: UpdateRow) -> tuple[What, ...]:
    """Return what happened to the device, in order.

    A failed install is a permit and its failure in one: the device acted on the release, and that is what is counted.

    Args:
        old: the update as it was; None when it is made.
        new: as it is now.
    """
    before = old is not None and old.permitted_at is not None
    after = new.permitted_at is not None
    if not before and after and new.state in _BAD | {"confirmed"}:
        return ("permit", *_outcome(None, new))
    if not before and after:
        return ("permit",)
    if before and not after:
        return ("refund",)
    if old is not None and old.state == new.state:
        return ()
    if not after:
        installed = new.state == "failed" and family(new.reason or "") == "install"
        return ("permit", "failed") if installed else ()
    return _outcome(old, new)


def _outcome(old: UpdateRow | None, new: UpdateRow) -> tuple[What, ...]:
    """Return what the end of an update with a permit says."""
    if new.state == "confirmed":
        return ("confirmed",)
    if new.state not in _BAD:
        return ()
    if old is not None and old.state == "confirmed":
        return ("crashed",)
    return ("refund",) if family(new.reason or "") in _NEUTRAL else ("failed",)


def standing(update: UpdateRow) -> tuple[What, ...]:
    """Return what has happened to the device of an update up to now: for a gate that opens when the rollout is under way."""
    return happened(None, update)
