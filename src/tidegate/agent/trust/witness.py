"""What a device makes of the heads of the operators' log that it is shown: it remembers one, and demands a proof that each later one goes on from it.

It decides nothing about updates: a server whose log was rolled back may still be the one that brings the repair (ADR 0031). A head that the audit key of the
device's own root did not sign says nothing, and changes nothing; so does silence, since nobody can be made to speak.
"""

from typing import Final

import msgspec

from tidegate.agent.events import Noticed, Witnessed
from tidegate.agent.state import Witness
from tidegate.core.audit.checkpoint import (
    Checkpoint,
    open_note,
    origin_of,
    peek,
    verifier_of,
)
from tidegate.core.audit.tree import proves_consistency
from tidegate.core.errors import PublisherError
from tidegate.core.metadata import RootDocument, root_extra
from tidegate.core.protocol import AuditNews

FORK: Final = "security.audit_fork"
_ORIGIN: Final = origin_of("default")


def look(
    kept: Witness | None, news: AuditNews | msgspec.UnsetType, root: RootDocument, now: int
) -> tuple[Witnessed | Noticed, ...]:
    """Return what is remembered from now on, where that changes, and what is wrong.

    Args:
        kept: what is remembered; None on a device that saw none yet.
        news: from the server, untrusted; an older server sends none.
        root: the device's own, which names the audit keys.
        now: unix seconds.
    """
    if news is msgspec.UNSET:
        return ()
    try:
        extra = root_extra(root)
        verifiers = [verifier_of(_ORIGIN, one) for one in extra.keys("audit").values()]
        new = open_note(news.checkpoint, verifiers, _ORIGIN)
    except PublisherError:
        return ()
    epoch = extra.authorities.epoch
    if kept is None or kept.epoch < epoch:
        # a raised epoch is the offline word that the log begins anew, after a theft or a restore
        return (Witnessed(witness=Witness(note=news.checkpoint, epoch=epoch)),)
    old = peek(kept.note)
    if _goes_on(old, new, news):
        if news.checkpoint == kept.note and not kept.fork:
            return ()
        return (Witnessed(witness=Witness(note=news.checkpoint, epoch=kept.epoch)),)
    return _forked(kept, old, new, news, now)


def _goes_on(old: Checkpoint, new: Checkpoint, news: AuditNews) -> bool:
    if (old.size, old.root) == (new.size, new.root):
        return True
    proof = [bytes.fromhex(one) for one in news.proof]
    return proves_consistency(
        proof, old=old.size, old_head=old.root, new=new.size, new_head=new.root
    )


def _forked(
    kept: Witness, old: Checkpoint, new: Checkpoint, news: AuditNews, now: int
) -> tuple[Witnessed | Noticed, ...]:
    """Keep what was believed, and both heads: two signatures that contradict each other are proof, whoever brings them."""
    how = "was rolled back" if new.size < old.size else "does not go on"
    said = f"the log {how}: {new.size} rows are shown, {old.size} were seen"
    notice = Noticed(now=now, reason=FORK, detail=said, log=f"{kept.note}\n{news.checkpoint}")
    at = kept.fork_at or now
    changed = msgspec.structs.replace(kept, fork=news.checkpoint, fork_at=at)
    return (notice,) if changed == kept else (Witnessed(witness=changed), notice)
