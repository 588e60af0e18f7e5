"""What the director may say to a device: assignments, permits, the time, and the way back.

The director's key is online and therefore the first to be stolen. It can only choose among what offline keys signed, and only narrow it: every document here is
bound to one device and to one question (the nonce), and every image it names must be named by the product role in the same words.
"""

from tidegate.core.authority import Ring, RootExtra
from tidegate.core.errors import DeviceError, PublisherError
from tidegate.core.grant import require_listed
from tidegate.core.keys import open_document
from tidegate.core.metadata import RootDocument, SignedTarget, root_extra
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    PERMIT_TYPE,
    TIME_TYPE,
    AssignedTarget,
    AssignmentBody,
    Envelope,
    PermitBody,
    RepoBinding,
    SlotState,
    TimeBody,
)
from tidegate.core.release import ReleaseTarget
from tidegate.core.verify import TrustedSet, have, verify_release


def open_assignment(envelope: Envelope, root: RootDocument) -> AssignmentBody:
    """Return the assignment in an envelope that the director of this root signed. `check_assignment` comes next.

    Raises:
        PublisherError: `sig.*`.
    """
    extra, ring = _director(root)
    return open_document(
        envelope, ASSIGNMENT_TYPE, AssignmentBody, extra.keys("director"), ring.threshold
    )


def open_permit(envelope: Envelope, root: RootDocument) -> PermitBody:
    """Return the permit in an envelope that the director of this root signed. `check_permit` comes next.

    Raises:
        PublisherError: `sig.*`.
    """
    extra, ring = _director(root)
    return open_document(envelope, PERMIT_TYPE, PermitBody, extra.keys("director"), ring.threshold)


def open_time(envelope: Envelope, root: RootDocument, *, device_id: str, nonce: str) -> int:
    """Return the director's word on the time (unix seconds), made after this device made `nonce`.

    Raises:
        PublisherError: `sig.*`.
    """
    extra, ring = _director(root)
    body = open_document(envelope, TIME_TYPE, TimeBody, extra.keys("director"), ring.threshold)
    if (body.device_id, body.nonce) != (device_id, nonce):
        raise PublisherError("sig.replayed", "a time made for another question")
    return body.time


def check_assignment(
    body: AssignmentBody,
    root: RootDocument,
    *,
    device_id: str,
    device_key_sha256: str,
    nonce: str,
    last: tuple[int, int],
    now: int,
) -> None:
    """Refuse an assignment that is not for this device, this question and this moment.

    Args:
        body: from `open_assignment`.
        root: the root that the device believes.
        device_id: this device.
        device_key_sha256: digest of this device's public key (`core.keys.device_key_sha256`).
        nonce: what this device made for this question.
        last: (epoch, seq) of the last assignment that was accepted; (0, 0) for none.
        now: unix seconds. A device whose clock is not proved passes `body.issued`: the nonce proves that it was made just now.

    Raises:
        PublisherError: `sig.replayed`, `sig.expired`, `sig.mix_and_match` (root is too old for it) or `sig.malformed`.
    """
    if body.device_id != device_id or body.device_key != device_key_sha256:
        raise PublisherError("sig.replayed", "an assignment made for another device")
    if body.nonce != nonce:
        raise PublisherError("sig.replayed", "an assignment made for another question")
    authorities = root_extra(root).authorities
    if body.epoch > authorities.epoch:
        raise PublisherError("sig.mix_and_match", f"epoch {body.epoch} wants a newer root")
    if body.epoch < authorities.epoch or (body.epoch, body.seq) <= last:
        raise PublisherError("sig.replayed", f"{(body.epoch, body.seq)} after {last}")
    if now >= body.expires:
        raise PublisherError("sig.expired", f"an assignment that ended at {body.expires}")
    if body.expires - body.issued > authorities.director.max_validity_s:
        raise PublisherError("sig.expired", "valid for longer than root allows")
    if body.action in ("install", "fallback") and None in (body.target, body.update, body.repo):
        raise PublisherError("sig.malformed", f"{body.action} without target, update or repo")


def resolve_target(body: AssignmentBody, trusted: TrustedSet) -> SignedTarget:
    """Return the signed release that an `install` or `fallback` names, if both sides say the same.

    Raises:
        PublisherError: `sig.mix_and_match`: the believed repository is older than the assignment demands; `sig.director_mismatch`; `sig.malformed`.
    """
    if body.target is None or body.repo is None:
        raise PublisherError("sig.malformed", "an assignment without a target")
    check_repo(body.repo, trusted)
    found = verify_release(trusted, body.target.path)
    differing = sorted(_differing(body.target, found))
    if differing:
        raise PublisherError("sig.director_mismatch", f"not the same: {', '.join(differing)}")
    return found


def check_repo(repo: RepoBinding, trusted: TrustedSet) -> None:
    """Refuse when the believed metadata are older than an assignment demands: somebody holds them back.

    Raises:
        PublisherError: `sig.mix_and_match`.
    """
    versions = {
        "root": (trusted.root.version, repo.root_min),
        "timestamp": (have(trusted.timestamp, "timestamp").version, repo.timestamp_min),
        "snapshot": (have(trusted.snapshot, "snapshot").version, repo.snapshot_min),
    }
    for role, (version, least) in versions.items():
        if version < least:
            raise PublisherError("sig.mix_and_match", f"{role} {version}, and {least} is demanded")


def check_permit(
    body: PermitBody,
    *,
    device_id: str,
    update: str,
    attempt: int,
    slot_sha256: str,
    nonce: str,
    elapsed_s: float,
) -> None:
    """Refuse a permit that is not for this device, update, attempt, slot content and question, or came too late.

    Args:
        body: from `open_permit`.
        device_id: this device.
        update: the update it carries out.
        attempt: which attempt of it.
        slot_sha256: digest that was read back from the slot.
        nonce: what this device made for this question.
        elapsed_s: seconds on the device's monotonic clock since it made the nonce (ADR 0011).

    Raises:
        PublisherError: `sig.replayed` or `sig.expired`.
    """
    named = (body.device_id, body.update, body.attempt, body.slot_sha256, body.nonce)
    if named != (device_id, update, attempt, slot_sha256, nonce):
        raise PublisherError("sig.replayed", "a permit made for something else")
    if elapsed_s < 0 or elapsed_s >= body.valid_s:
        raise PublisherError("sig.expired", f"a permit of {body.valid_s} s after {elapsed_s:.0f} s")


def check_fallback(
    found: SignedTarget, *, running: ReleaseTarget, other: SlotState, floor: int, now: int
) -> None:
    """Refuse an order back that the running release's own signed `fallback_to` does not allow.

    Args:
        found: the release to go back to, from `resolve_target`.
        running: the signed description of the release that runs.
        other: what the other slot holds: only that very image, confirmed before, may be gone back to.
        floor: the device's security floor.
        now: unix seconds.

    Raises:
        PublisherError: `compat.counter`: not allowed; `sig.expired`: no longer allowed; `compat.floor`; `sig.director_mismatch`: another product;
            `compat.requires`: it does not say what becomes of components that came with what runs.
        DeviceError: `install.slot`: the other slot does not hold it.
    """
    target = found.release
    if (target.product, target.component) != (running.product, running.component):
        raise PublisherError("sig.director_mismatch", "another product or component")
    require_listed(running, target.release_counter, now)
    if target.security_version < floor:
        raise PublisherError("compat.floor", f"{target.security_version} is below {floor}")
    if not running.components <= target.components:
        raise PublisherError(
            "compat.requires", "it does not bring back every component that changed"
        )
    if other.state != "confirmed" or other.sha256 != target.install.sha256:
        raise DeviceError("install.slot", "the other slot does not hold that image, confirmed")


def _differing(assigned: AssignedTarget, found: SignedTarget) -> set[str]:
    """Name the facts in which director and product role differ."""
    signed = {
        "path": found.path,
        "length": found.length,
        "sha256": found.sha256,
        **{
            name: getattr(found.release, name)
            for name in ("product", "release_counter", "security_version", "hardware", "channels")
        },
    }
    return {name for name, value in signed.items() if getattr(assigned, name) != value}


def _director(root: RootDocument) -> tuple[RootExtra, Ring]:
    extra = root_extra(root)
    return extra, extra.authorities.director
