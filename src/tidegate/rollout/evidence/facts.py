"""What is booked: facts that carry everything their worth depends on.

A batch of like devices is one fact with a `count`. Facts are the log of the gate: the same facts in the same order give the same book, on every machine, and
the order of those that only count (permits, failures) does not matter. Facts are made by `desk`, when what they say is mature; written by hand they are
the JSON lines of `tidegate gate`.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta

from tidegate.rollout.evidence.strata import Profile

Count = Annotated[int, Meta(ge=0, le=10**9)]
At = Annotated[int, Meta(ge=0, le=2**53)]
Kind: TypeAlias = Literal["crash", "dark"]
#: A stratum, its updated and its not-updated devices at risk, both in the cell of the device that had the event.
Risk: TypeAlias = tuple[int, int, int]
#: A risk set, and the late events in it, of updated devices and of others: first with at most one of each site, then all of them.
Shaken: TypeAlias = tuple[int, int, int, int, int, int, int]


class _Fact(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="fact"):
    at: At


class _Profiled(_Fact, frozen=True, kw_only=True):
    profile: Profile
    count: Count = 1


class Permit(_Profiled, frozen=True, kw_only=True):
    """Permits were granted, before the answer left. `charged` of them are evidence (None = all)."""

    charged: Count | None = None


class Refund(_Profiled, frozen=True, kw_only=True):
    """Permits came back unused before activation began, and not because something failed."""

    granted_at: At
    charged: Count | None = None


class Fail(_Profiled, frozen=True, kw_only=True):
    """Install, boot or warm-up failed. `credited` of them are evidence (None = all); `again`: was booked as silent before, so only the evidence changes.

    What is no evidence slows the next permits all the same.
    """

    granted_at: At
    credited: Count | None = None
    again: bool = False


class Ok(_Profiled, frozen=True, kw_only=True):
    """Confirmed; booked at the deadline of the cohort. `charged` of them count against silence (None = all)."""

    granted_at: At
    silence_ppm: Count = 0
    charged: Count | None = None


class Silent(_Profiled, frozen=True, kw_only=True):
    """No word by the deadline. `silence_ppm`: the silence that was to be expected, vanished not-updated devices of the same hour included."""

    granted_at: At
    silence_ppm: Count = 0
    credited: Count | None = None
    charged: Count | None = None


class Alive(_Profiled, frozen=True, kw_only=True):
    """Heard at an age of at least the gate's, with nothing against it before. `gate` counts from 0 in `Harm.soaks`."""

    gate: Annotated[int, Meta(ge=0, le=2)]


class Dead(_Profiled, frozen=True, kw_only=True):
    """Its age reached the gate's, and it crashed, went back or went dark before."""

    gate: Annotated[int, Meta(ge=0, le=2)]


class Left(_Profiled, frozen=True, kw_only=True):
    """Left the fleet, or is to count no more: neither good nor bad from now on. `gates` that it had passed; `healthy`: it was booked as that (`Ok`)."""

    gates: Annotated[int, Meta(ge=0, le=3)] = 0
    healthy: bool = True


class Watch(_Profiled, frozen=True, kw_only=True):
    """Updated devices came under watch for late events (`leave`: left it)."""

    kind: Kind
    leave: bool = False


class Late(_Profiled, frozen=True, kw_only=True):
    """First crash, or going dark, after the warm-up: of an updated device, or of one not yet updated. `risks` by stratum; none = not weighed.

    `paid` of them count against the fleet's own hazard (`Rate`), as bursts are not independent.
    """

    kind: Kind
    updated: bool
    risks: tuple[Risk, ...] = ()
    paid: Count = 0


class Shock(_Fact, frozen=True, kw_only=True):
    """Late events of one tick that befell several sites of one cell together, by stratum: they are worth the less of both counts, for each alternative."""

    kind: Kind
    shaken: tuple[Shaken, ...]


class Rate(_Fact, frozen=True, kw_only=True):
    """Time went by: the bound of late events of this kind that each device under watch may have had since the last one, in 10⁻⁹."""

    kind: Kind
    expected_ppb: Count


class Score(_Profiled, frozen=True, kw_only=True):
    """A metric's window is complete: rank of updated devices among as many not-updated ones as `settings.CONTROLS`, in half steps."""

    metric: Annotated[int, Meta(ge=0, le=7)] = 0
    window: Annotated[int, Meta(ge=0, le=3)] = 0
    sixteenths: Annotated[int, Meta(ge=0, le=16)]


class Control(_Fact, frozen=True, kw_only=True):
    """Late events of any kind, and device-hours, of devices not updated."""

    events: Count = 0
    hours: Count = 0


class Isolated(_Fact, frozen=True, kw_only=True):
    """A stratum was taken out: what overlaps it starts at even odds again, without it."""

    stratum: Annotated[int, Meta(ge=1)]


class Credits(_Fact, frozen=True, kw_only=True):
    """Fractions of permits that a decision left over, by variant's stratum, in millionths."""

    parts_ppm: dict[int, int] = {}
    full: ClassVar[int] = 1_000_000


Fact: TypeAlias = (
    Permit
    | Refund
    | Fail
    | Ok
    | Silent
    | Alive
    | Dead
    | Left
    | Watch
    | Late
    | Shock
    | Rate
    | Score
    | Control
    | Isolated
    | Credits
)
