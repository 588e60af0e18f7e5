"""The rollout mandate: an offline-signed staging schedule that a device holds its own director to.

Rings are the server's word, and a server can be stolen. A mandate is the word of those who sign releases: from this time on, this share of the fleet and no
more. Both ends ask the functions here: the device has the final say, the server offers nothing that would be refused, the publisher shows what is about to be
signed. What may be published after what is decided here as well, since a device that missed a version must not be worse off than one that saw it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from tidegate.core.authority import MANDATES, Mandate, MandateStep, ProductExtra
from tidegate.core.bucket import bucket
from tidegate.core.errors import PublisherError

#: Why a device does not take a release yet. It says nothing against the release, and nothing is remembered.
REASON: Final = "compat.mandate"


@dataclass(frozen=True)
class Bar:
    """A mandate keeps a device out for now.

    Attributes:
        place: the device's bucket in the mandate's own order, 0..9999.
        share: how many buckets are open now.
        opens_at: when its turn comes, unix seconds; None = in no step.
    """

    place: int
    share: int
    opens_at: int | None
    reason: str = REASON


def place(mandate: Mandate, device_id: str) -> int:
    """Return a device's bucket in the order of a mandate, 0..9999."""
    return bucket(mandate.salt, device_id)


def open_step(mandate: Mandate, now: int) -> MandateStep | None:
    """Return the step that is open at `now` (unix seconds); None before the first."""
    return next((one for one in reversed(mandate.steps) if one.not_before <= now), None)


def allowed(mandate: Mandate | None, device_id: str, offline_now: int) -> Bar | None:
    """Return None when a device may have the release now, else why not.

    Args:
        mandate: the release's; None allows everybody.
        device_id: the device's own id, from its own configuration.
        offline_now: unix seconds that no online key can push forward: a thief of the server must not be able to open a step by lying about the time.
    """
    if mandate is None:
        return None
    mine = place(mandate, device_id)
    step = open_step(mandate, offline_now)
    share = step.bucket_max if step is not None else 0
    if mine < share:
        return None
    opens = (one.not_before for one in mandate.steps if mine < one.bucket_max)
    return Bar(place=mine, share=share, opens_at=next(opens, None))


def next_step_at(mandate: Mandate | None, now: int) -> int | None:
    """Return when the next step opens after `now`; None when none does."""
    steps = mandate.steps if mandate is not None else ()
    return next((one.not_before for one in steps if one.not_before > now), None)


def with_mandates(extra: ProductExtra, mandates: Iterable[Mandate]) -> ProductExtra:
    """Return a product's extra with these mandates and no others, and with the `crit` that goes with them."""
    found = tuple(sorted(mandates, key=lambda one: one.counter))
    crit = tuple(one for one in extra.crit if one != MANDATES) + ((MANDATES,) if found else ())
    return msgspec.structs.replace(extra, mandates=found, crit=crit)


# --- publishing -----------------------------------------------------------------------------------------------------------


def check_mandates(
    extra: ProductExtra, counters: Iterable[int], previous: ProductExtra, published: Iterable[int]
) -> None:
    """Refuse mandates that would not bind.

    Args:
        extra: of the product role that is to be published.
        counters: of the releases that it names.
        previous: of the role that is published now.
        published: counters of the releases that that one names.

    Raises:
        PublisherError: `release.malformed`.
    """
    known, before = frozenset(counters), frozenset(published)
    if extra.mandates and MANDATES not in extra.crit:
        raise _wrong(
            'a role with a mandate names "mandates" in crit, or old agents would ignore it'
        )
    seen: dict[str, int] = {}
    for one in extra.mandates:
        if one.counter not in known:
            raise _wrong(f"a mandate for counter {one.counter}, and no release has it")
        if extra.mandate(one.counter) is not one:
            raise _wrong(f"two mandates for counter {one.counter}")
        if seen.setdefault(one.salt, one.counter) != one.counter:
            raise _wrong(
                f"the mandates for {seen[one.salt]} and {one.counter} share a salt: the same devices would always come first"
            )
        if one.counter in before and not _as_wide(one, previous.mandate(one.counter)):
            raise _wrong(
                f"the mandate for counter {one.counter} is narrower than what was published: "
                "whoever replays the older role is not bound by it; recall the release instead"
            )


def _as_wide(new: Mandate, old: Mandate | None) -> bool:
    """Say whether `new` allows every device at any time all that `old` did."""
    if old is None or new.salt != old.salt:
        return False
    steps = ((one, open_step(new, one.not_before)) for one in old.steps)
    return all(now is not None and now.bucket_max >= one.bucket_max for one, now in steps)


def _wrong(detail: str) -> PublisherError:
    return PublisherError("release.malformed", detail)
