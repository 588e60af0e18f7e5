"""What operators did, and what vouches for it."""

from dataclasses import dataclass

from tidegate.core.audit.entry import AuditRow
from tidegate.server.audit import Signed, Verdict


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page of the operators' log, newest first.

    Attributes:
        actor, action, thing: what was asked for, untrusted.
        size: rows in the log.
        signed: the newest checkpoint; None before the first.
        narrowed: only what was done in the reader's part of the fleet is shown; size, checkpoint and verdict are of the whole log, and left out.
        verdict: what came of holding every row against chain, tree and checkpoint; None: nobody asked.
    """

    now: int
    rows: tuple[AuditRow, ...] = ()
    actor: str = ""
    action: str = ""
    thing: str = ""
    size: int = 0
    signed: Signed | None = None
    verdict: Verdict | None = None
    next_cursor: str = ""
    narrowed: bool = False
