"""Which pieces of an update go where: into the candidate slot, beside the slots, or nowhere because they are there already. Pure.

A piece is named by its index in `release.pieces`; the artifact's own component is piece 0, and only that one may go into a slot.
"""

from tidegate.agent.state import Place, Update


def places(update: Update) -> tuple[Place, ...]:
    """Return where each piece goes. An update of an agent that knew no pieces is one image in a slot."""
    return update.places or (Place(component=update.release.component, kind="slot"),)


def wanted(update: Update, start: int = 0) -> int | None:
    """Return the first piece from `start` on that has to be fetched, or None."""
    found = places(update)
    return next((at for at in range(start, len(found)) if found[at].kind != "kept"), None)


def beside(update: Update, start: int = 0) -> int | None:
    """Return the first piece from `start` on that goes beside the slots, or None."""
    found = places(update)
    return next((at for at in range(start, len(found)) if found[at].kind == "component"), None)


def beside_before(update: Update, end: int) -> int | None:
    """Return the last piece before `end` that goes beside the slots, or None."""
    found = places(update)[:end]
    return next((at for at in reversed(range(len(found))) if found[at].kind == "component"), None)


def in_slot(update: Update, part: int) -> bool:
    """Say whether a piece goes into the candidate slot."""
    return places(update)[part].kind == "slot"


def names(update: Update, *kinds: str) -> tuple[str, ...]:
    """Return the components whose pieces are of these kinds, in order."""
    return tuple(one.component for one in places(update) if one.kind in kinds)
