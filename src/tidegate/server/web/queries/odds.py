"""The odds against a rollout, for lists and reports: as they stand, and as they stood when it was stopped."""

from collections.abc import Iterable
from typing import Final

import msgspec

from tidegate.rollout.evidence.settings import Harm
from tidegate.rollout.model import Finding
from tidegate.server.gatekeeper.kept import decision_of
from tidegate.server.store import Connection, gate_rows
from tidegate.server.web.queries import sums
from tidegate.server.web.views import NeedleRow, Odds

_HARM: Final = msgspec.json.Decoder(Harm)


def odds_of(conn: Connection, rollout_id: int) -> Odds | None:
    """Return the odds against a rollout for a list; None = none are known."""
    decided, harm = gate_rows.decision(conn, rollout_id), gate_rows.harm(conn, rollout_id)
    if not decided or not harm:
        return None
    tolerated = _HARM.decode(harm)
    odds = round(decision_of(decided).odds, 3)
    return Odds(odds, tolerated.odds, tolerated.amber_pct)


def at_the_stop(because: Iterable[Finding]) -> tuple[NeedleRow, ...]:
    """Return the needles as they stood when a gate stopped a rollout, from the findings that were stored then; what decided is the first."""
    told = ((one.text, sums.odds_in(one)) for one in because)
    return tuple(NeedleRow(name=text, odds=odds) for text, odds in told if odds is not None)
