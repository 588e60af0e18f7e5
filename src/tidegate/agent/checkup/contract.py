"""The health contract in force: the one signed with the release, as the device's own policy narrows and extends it. Pure.

The rule: a device may ask for more than its release does, never for less. It adds checks, lengthens the warm-up and lowers the error rate. A signed check is
left out only where the release itself calls it optional; whoever may write the device's configuration could otherwise keep an image that its makers call
broken.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.core.hardware import Name
from tidegate.core.release import HealthCheck, HealthContract, Seconds

#: Checks that a device's own policy may add.
OWN_MAX = 64
#: What a check of the device is called where the release has one of that name.
OWN_PREFIX = "device."


class HealthPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device asks for beside a release's contract.

    Attributes:
        warmup_s: at least so long a warm-up; the time after which it gives up grows by as much.
        error_rate_per_hour: at most so many errors in an hour of warm-up; None = as the release says.
        drop: names of signed checks to leave out, where the release calls them optional.
        checks: to pass as well.
    """

    warmup_s: Seconds = 0
    error_rate_per_hour: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    drop: tuple[Name, ...] = ()
    checks: Annotated[tuple[HealthCheck, ...], Meta(max_length=OWN_MAX)] = ()


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """The contract that a trial is judged by.

    Attributes:
        contract: its numbers, with the checks that the release asks for.
        own: the checks that the device asks for.
        dropped: optional checks of the release that are left out.
        kept: checks that the device would leave out and the release does not allow it to.
    """

    contract: HealthContract
    own: tuple[HealthCheck, ...] = ()
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def in_force(signed: HealthContract, policy: HealthPolicy) -> InForce:
    """Return what must pass, by both sides' word."""
    unwanted = set(policy.drop)
    optional = {one.name for one in signed.checks if one.optional is True}
    dropped = unwanted & optional
    checks = tuple(one for one in signed.checks if one.name not in dropped)
    warmup_s = max(signed.warmup_s, policy.warmup_s)
    limits = [
        one for one in (signed.error_rate_per_hour, policy.error_rate_per_hour) if one is not None
    ]
    contract = msgspec.structs.replace(
        signed,
        warmup_s=warmup_s,
        timeout_s=signed.timeout_s + warmup_s - signed.warmup_s,
        error_rate_per_hour=min(limits) if limits else None,
        checks=checks,
    )
    taken = {one.name for one in signed.checks}
    return InForce(
        contract=contract,
        own=tuple(_apart(one, taken) for one in policy.checks),
        dropped=tuple(one for one in policy.drop if one in dropped),
        kept=tuple(one for one in policy.drop if one in taken and one not in optional),
    )


def _apart(check: HealthCheck, taken: set[str]) -> HealthCheck:
    if check.name not in taken:
        return check
    return msgspec.structs.replace(check, name=f"{OWN_PREFIX}{check.name}"[:64])
