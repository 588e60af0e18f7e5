"""The device's side of the rollout mandate: no install before its turn, whoever orders it.

The director chooses among what offline keys signed; a mandate is such a key's word on when. So the product role that was just verified is asked, about this
device's own id, at a time that no online key can push.
"""

from tidegate.agent.events import Deferred
from tidegate.agent.state import Order
from tidegate.core import mandate
from tidegate.core.amounts import format_share
from tidegate.core.mandate import Bar
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import AssignmentBody
from tidegate.core.verify import TrustedSet, mandate_of


def bar(trusted: TrustedSet, found: SignedTarget, device_id: str, offline_now: int) -> Bar | None:
    """Return why a release may not be installed here yet; None = it may.

    Args:
        trusted: the repository that was verified for this order.
        found: the release in it that was ordered.
        device_id: this device.
        offline_now: unix seconds that no online key can push forward.

    Raises:
        PublisherError: `sig.malformed`.
    """
    release = found.release
    signed = mandate_of(trusted, release.product, release.release_counter)
    return mandate.allowed(signed, device_id, offline_now)


def deferred(
    body: AssignmentBody,
    found: SignedTarget,
    barred: Bar,
    *,
    now: int,
    mono: float,
    offline_now: int,
) -> Deferred:
    """Return the word for the machine: obey the order's number, install nothing, look again when the turn comes."""
    opens = barred.opens_at
    left = None if opens is None else max(1, opens - offline_now)
    return Deferred(
        now=now,
        mono=mono,
        order=Order(epoch=body.epoch, seq=body.seq),
        reason=barred.reason,
        sha256=found.release.install.sha256,
        left_s=left,
        detail=(
            f"{found.release.name}: the signed schedule lets {format_share(barred.share)} of the devices have it now, "
            f"and this one stands at {format_share(barred.place)}"
        ),
    )
