"""The way back that the incident ring granted: the grant in an assignment, held against this device. Imported by the worker only."""

from tidegate.agent.rules import running_of
from tidegate.agent.settings import Settings
from tidegate.agent.state import SlotRecord, State
from tidegate.agent.timekeeping import Reading
from tidegate.core.errors import PublisherError
from tidegate.core.grant import GrantBody, Holder, check_grant, highest_counter, open_grant
from tidegate.core.metadata import SignedTarget, product_role
from tidegate.core.protocol import AssignmentBody, GrantUse
from tidegate.core.verify import TrustedSet, have


def moment(reading: Reading, trusted: TrustedSet) -> int:
    """Return the time by which a way back is judged: a director that turns the clock back must not reopen one that has closed.

    So a clock that stands counts beside the signed time, where it is later; unless it lies beyond the end of everything that offline keys signed. That is no
    clock to go by (a spoofed one, ten years ahead), and it must not close every way back either.
    """
    ends = [trusted.root.expires_at, *(one.expires_at for one in trusted.roles.values())]
    plausible = reading.offline_now < max(ends)
    return max(reading.now, reading.offline_now) if plausible else reading.now


def granted(
    state: State,
    settings: Settings,
    found: SignedTarget,
    body: AssignmentBody,
    trusted: TrustedSet,
    now: int,
) -> GrantBody:
    """Return the grant of a `fallback`, if it allows this device to go back to that image.

    Args:
        state: what the device knows of itself.
        settings: what it was told.
        found: the image, in the product role's words.
        body: the assignment (checked) that carries the grant (untrusted).
        trusted: the believed repository.
        now: unix seconds, as the assignment was judged by.

    Raises:
        PublisherError: as `core.grant.open_grant` and `core.grant.check_grant`.
    """
    if body.grant is None or body.update is None:
        raise PublisherError("sig.malformed", "a fallback without a grant")
    grant = open_grant(body.grant, trusted.root)
    role = product_role(settings.product)
    record = state.slots.get(state.current, SlotRecord())
    holder = Holder(
        device_id=settings.device_id,
        product=settings.product,
        hardware=settings.hardware,
        running=running_of(state),
        release=record.release,
        floor=state.floor,
        last=state.fallback_last.get(settings.product, GrantUse()),
    )
    check_grant(
        grant,
        found,
        root=trusted.root,
        holder=holder,
        update=body.update,
        proof=body.cohort_proof,
        published=highest_counter(have(trusted.roles.get(role), role)),
        now=now,
    )
    return grant


def use_of(grant: GrantBody, body: AssignmentBody) -> GrantUse:
    """Return what the device writes down when it takes a grant."""
    return GrantUse(epoch=grant.epoch, serial=grant.serial, update=body.update or "")
