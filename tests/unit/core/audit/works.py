"""A log made by hand, and signed heads of it."""

import random
from collections.abc import Iterable

import msgspec

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.audit.entry import AuditRow, canon, leaf, seal
from tidegate.core.audit.examine import Examined, Heads, examine
from tidegate.core.audit.tree import Frontier
from tidegate.core.keys import Signer

ORIGIN = notes.origin_of("default")
KEY = Signer.from_seed(bytes(range(32)))
OTHER = Signer.from_seed(bytes(32))
VERIFIER = notes.verifier_of(ORIGIN, KEY.public)


def chained(rows: Iterable[AuditRow], before: str = "") -> list[AuditRow]:
    """Return rows with every hash made anew."""
    found: list[AuditRow] = []
    for one in rows:
        found.append(seal(one, found[-1].hash if found else before))
    return found


def log(count: int, seed: int = 1) -> list[AuditRow]:
    """Return a log of `count` rows."""
    chance = random.Random(seed)
    actions = ("rollout.halt", "rollout.resume", "account.edit")
    return chained(
        AuditRow(
            seq=number,
            at=1_700_000_000 + number,
            actor=f"actor{chance.randrange(5)}",
            action=chance.choice(actions),
            object=f"gw1-{chance.randrange(100)}",
            detail={"reason": "ünusual", "generation": number} if number % 2 else {},
            request=f"r{number}" if number % 3 else "",
            hash="",
        )
        for number in range(1, count + 1)
    )


def head_of(rows: Iterable[AuditRow]) -> Checkpoint:
    """Return the head of a log."""
    frontier = Frontier()
    for one in rows:
        frontier.add(leaf(canon(one)))
    return Checkpoint(origin=ORIGIN, size=frontier.size, root=frontier.head())


def signed(rows: Iterable[AuditRow], key: Signer = KEY) -> str:
    """Return the signed head of a log."""
    return notes.sign(head_of(rows), key)


def lines(rows: Iterable[AuditRow]) -> list[bytes]:
    """Return a log as it is exported."""
    return [msgspec.json.encode(one) + b"\n" for one in rows]


def held(rows: Iterable[AuditRow], *heads: str) -> Examined:
    """Hold a copy against checkpoints."""
    found = Heads([VERIFIER], ORIGIN)
    for number, one in enumerate(heads):
        found.add(one, f"note {number}")
    return examine(lines(rows), found)
