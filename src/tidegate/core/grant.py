"""The incident ring's leave to go back: a signed, scoped, expiring grant, and the one function that says whether a device may use it.

Beside a release's own `fallback_to` nothing else allows a downgrade. A grant alone moves nothing: the director must order it as well, and the image that it
names must be live under the product role. Server and device ask the same `check_grant`. Schema and the table of refusals: `docs/reference/metadata.md`.

The order of the checks is the order in which `check_grant` is written: who signed, for whom, used before, when, what to, what from, and last the device's own
rules. The first that fails gives the code.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.authority import RootExtra
from tidegate.core.errors import PublisherError
from tidegate.core.hardware import Hardware, HardwareRange, Name, compatible
from tidegate.core.keys import open_document
from tidegate.core.merkle import LEAVES_MAX, CohortProof, proves
from tidegate.core.metadata import (
    RootDocument,
    SignedTarget,
    TargetsDocument,
    product_extra,
    root_extra,
    signed_targets,
)
from tidegate.core.protocol import Envelope, GrantUse, Ordinal, Short, Text
from tidegate.core.release import (
    Counter,
    ReleaseTarget,
    Running,
    Seconds,
    SecurityVersion,
    Sha256,
    Size,
)

#: The only DSSE payload type under which a grant counts.
GRANT_TYPE: Final = "application/vnd.tidegate.fallback.v1+json"
#: No ring may let a grant live longer than this, whatever root says, in seconds.
VALID_MAX_S: Final = 30 * 86_400
#: Largest grant, in bytes: it travels inside an assignment.
GRANT_MAX: Final = 32 << 10
#: A grant may lie this far in a slow clock's future, in seconds.
SKEW_S: Final = 300


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices: the root of a tree over `count` device ids (`core.merkle`), or all that the rest of the grant fits. Exactly one of the two."""

    merkle_root: Sha256 | None = None
    count: Annotated[int, Meta(ge=0, le=LEAVES_MAX)] = 0
    all: bool = False


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """An image that may be left. `sha256` is of its installed bytes, which the device knows of its own slot."""

    release_counter: Counter
    sha256: Sha256


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """An image that may be gone back to, in the product role's words: `length` and `sha256` are of the payload container."""

    path: Annotated[str, Meta(max_length=300)]
    length: Size
    sha256: Sha256
    release_counter: Counter
    security_version: SecurityVersion


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """What comes next: no install below `min_counter` any more."""

    min_counter: Counter


class GrantBody(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to go back, signed by the incident ring.

    `from` may name several images of bad builds and `to` one image for each hardware family, all of one release. A device uses a serial once; serials rise, and
    start again with the epoch of the authorities.
    """

    type: Literal["fallback-authorization"] = msgspec.field(
        default="fallback-authorization", name="_type"
    )
    spec: Literal[1] = 1
    tenant: Short = "default"
    product: Name
    epoch: Ordinal
    serial: Ordinal
    incident: Short
    reason: Text
    hardware: Annotated[tuple[HardwareRange, ...], Meta(min_length=1, max_length=64)]
    cohort: Cohort
    leaving: Annotated[tuple[Leaving, ...], Meta(min_length=1, max_length=64)] = msgspec.field(
        name="from"
    )
    to: Annotated[tuple[Return, ...], Meta(min_length=1, max_length=64)]
    resume: Resume
    issued: Seconds
    not_before: Seconds = 0
    expires: Seconds
    uses: Literal[1] = 1
    plan_sha256: Sha256 | None = None
    asked_by: Short = ""
    approved_by: Annotated[tuple[Short, ...], Meta(max_length=16)] = ()
    crit: Annotated[tuple[str, ...], Meta(max_length=32)] = ()


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The device that a grant is presented to, as it knows itself, or as the server knows it.

    Attributes:
        running: what the running slot holds, confirmed.
        release: the signed description of it, as it was when it was installed; None for a factory image.
        floor: the security floor.
        last: the last grant that was taken for this product.
    """

    device_id: str
    product: str
    hardware: Hardware
    running: Running
    release: ReleaseTarget | None
    floor: int
    last: GrantUse


def open_grant(envelope: Envelope, root: RootDocument) -> GrantBody:
    """Return the grant in an envelope that enough distinct keys of this root's incident ring signed. `check_grant` comes next.

    Raises:
        PublisherError: `sig.oversized`, `sig.malformed`, `sig.unknown_key`, `sig.threshold`.
    """
    if len(envelope.payload) > (GRANT_MAX + 2) // 3 * 4:
        raise PublisherError("sig.oversized", f"a grant of more than {GRANT_MAX} bytes")
    extra = root_extra(root)
    ring = extra.authorities.incident
    return open_document(envelope, GRANT_TYPE, GrantBody, extra.keys("incident"), ring.threshold)


def highest_counter(document: TargetsDocument) -> int:
    """Return the highest counter that a product role (believed) names: a grant's `resume` may not lie beyond the next one."""
    return max(
        (one.release.release_counter for one in signed_targets(document).values()), default=0
    )


def live_targets(document: TargetsDocument) -> dict[str, SignedTarget]:
    """Return what a product role (believed) stands by now, by path: what it names, less what it withdrew."""
    withdrawn = set(product_extra(document).withdrawn)
    found = signed_targets(document)
    return {
        path: one for path, one in found.items() if one.release.release_counter not in withdrawn
    }


def accept_grant(
    grant: GrantBody, *, root: RootDocument, document: TargetsDocument, now: int
) -> tuple[SignedTarget, ...]:
    """Return the images that a grant leads back to, if it would pass on the devices that it is made for: all that can be told without one of them.

    Args:
        grant: from `open_grant`.
        root: the present root.
        document: the product role (believed).
        now: unix seconds.

    Raises:
        PublisherError: as `check_grant`.
    """
    extra = root_extra(root)
    require_sense(grant)
    _require_place(grant, extra, grant.product)
    require_time(grant, extra, now)
    live = live_targets(document)
    found = []
    for one in grant.to:
        if one.path not in live:
            raise PublisherError("sig.director_mismatch", f"{one.path} is not live")
        _require_named(grant, live[one.path])
        found.append(live[one.path])
    lowest = min(one.release_counter for one in grant.leaving)
    _require_bounded_bar(grant, max(highest_counter(document), lowest))
    return tuple(found)


def check_grant(
    grant: GrantBody,
    found: SignedTarget,
    *,
    root: RootDocument,
    holder: Holder,
    update: str,
    proof: CohortProof | None,
    published: int,
    now: int,
) -> None:
    """Refuse a grant that does not allow this device to go back to this image now.

    Args:
        grant: from `open_grant`.
        found: the image to go back to, as the product role names it now (`core.director.resolve_target`).
        root: the root that the device believes.
        holder: the device.
        update: the update that the director ordered it under.
        proof: that the device is in the cohort; needed unless the grant is for all.
        published: the highest counter that the product role names.
        now: unix seconds: the device's proved time, or the director's nonce-bound word where it has none.

    Raises:
        PublisherError: `sig.replayed`: another tenant, product, epoch or cohort. `sig.mix_and_match`: root is too old for it.
            `security.fallback_replayed`: used before. `sig.expired`: too early, too late, too long. `compat.hardware`. `sig.director_mismatch`: another image
            than ordered. `compat.counter`: not from what runs, or (strict) not named by what runs. `compat.floor`. `compat.requires`: components that
            came with what runs would stay. `sig.malformed`: it contradicts itself.
    """
    extra = root_extra(root)
    require_sense(grant)
    _require_place(grant, extra, holder.product)
    _require_unused(grant, holder.last, update)
    require_time(grant, extra, now)
    _require_device(grant, holder, proof)
    _require_named(grant, found)
    if holder.release is not None and holder.release.component != found.release.component:
        raise PublisherError("sig.director_mismatch", f"{found.path}: another component")
    if holder.release is not None and not holder.release.components <= found.release.components:
        raise PublisherError(
            "compat.requires", f"{found.path} does not bring back every component that changed"
        )
    _require_leaving(grant, holder)
    if found.release.security_version < holder.floor:
        raise PublisherError(
            "compat.floor", f"{found.release.security_version} is below {holder.floor}"
        )
    _require_bounded_bar(grant, max(published, holder.running.release_counter))
    if extra.strict_fallback:
        if holder.release is None:
            raise PublisherError("compat.counter", "strict: what runs names no way back")
        require_listed(holder.release, found.release.release_counter, now)


def require_sense(grant: GrantBody) -> None:
    """Refuse a grant that contradicts itself, whoever holds it.

    Raises:
        PublisherError: `sig.malformed`.
    """
    cohort = grant.cohort
    named = cohort.merkle_root is not None and cohort.count > 0
    if cohort.all == named or (cohort.all and cohort.merkle_root is not None):
        raise PublisherError("sig.malformed", "a cohort is either a Merkle root or all")
    back = {one.release_counter for one in grant.to}
    left = {one.release_counter for one in grant.leaving}
    if len(back) != 1 or len({one.path for one in grant.to}) != len(grant.to):
        raise PublisherError("sig.malformed", "images of more than one release to go back to")
    if max(back) >= min(left):
        raise PublisherError("sig.malformed", "not a way back: it does not lead below what is left")
    if grant.resume.min_counter <= max(left):
        raise PublisherError("sig.malformed", "resume does not bar the builds that are left")


def require_time(grant: GrantBody, extra: RootExtra, now: int) -> None:
    """Refuse a grant that is not good now, or would be for longer than root lets the incident ring say.

    Raises:
        PublisherError: `sig.expired`.
    """
    longest = min(extra.authorities.incident.max_validity_s, VALID_MAX_S)
    if grant.expires - grant.issued > longest:
        raise PublisherError("sig.expired", f"a grant for longer than {longest} s")
    if now >= grant.expires:
        raise PublisherError("sig.expired", f"a grant that ended at {grant.expires}")
    begins = max(grant.issued, grant.not_before)
    if now < begins - SKEW_S:
        raise PublisherError("sig.expired", f"a grant that begins at {begins} only")


def require_listed(running: ReleaseTarget, counter: int, now: int) -> None:
    """Refuse a way back that the running release itself does not name (`fallback_to`).

    Args:
        running: the signed description of the release that runs.
        counter: of the release to go back to.
        now: unix seconds.

    Raises:
        PublisherError: `compat.counter`: not named; `sig.expired`: not any more.
    """
    named = [one for one in running.fallback_to if one.counter == counter]
    if not named:
        raise PublisherError("compat.counter", f"{running.name} allows no way back to {counter}")
    if all(now >= one.expires for one in named):
        raise PublisherError("sig.expired", f"the way back to {counter} has closed")


def _require_place(grant: GrantBody, extra: RootExtra, product: str) -> None:
    if grant.tenant != extra.tenant:
        raise PublisherError("sig.replayed", "a grant made for another tenant")
    epoch = extra.authorities.epoch
    if grant.epoch > epoch:
        raise PublisherError("sig.mix_and_match", f"epoch {grant.epoch} wants a newer root")
    if grant.epoch < epoch:
        raise PublisherError("sig.replayed", f"a grant of epoch {grant.epoch}, and it is {epoch}")
    if grant.product != product:
        raise PublisherError("sig.replayed", f"a grant made for {grant.product}")


def _require_unused(grant: GrantBody, last: GrantUse, update: str) -> None:
    """A serial is used once. Until that use has come to a trial, the same update may go on with it: after a power cut, or a failed download."""
    asked, taken = (grant.epoch, grant.serial), (last.epoch, last.serial)
    if asked > taken or (asked == taken and not last.done and update == last.update):
        return
    raise PublisherError(
        "security.fallback_replayed", f"grant {grant.serial}, and {last.serial} was used"
    )


def _require_device(grant: GrantBody, holder: Holder, proof: CohortProof | None) -> None:
    if not compatible(grant.hardware, holder.hardware):
        raise PublisherError("compat.hardware", f"a grant not made for {holder.hardware.variant}")
    cohort = grant.cohort
    if cohort.merkle_root is None:
        return
    if proof is None or not proves(
        proof, holder.device_id, root=cohort.merkle_root, count=cohort.count
    ):
        raise PublisherError("sig.replayed", "a grant made for other devices")


def _require_named(grant: GrantBody, found: SignedTarget) -> None:
    release = found.release
    meant = next((one for one in grant.to if one.path == found.path), None)
    signed = Return(
        path=found.path,
        length=found.length,
        sha256=found.sha256,
        release_counter=release.release_counter,
        security_version=release.security_version,
    )
    if meant != signed or release.product != grant.product:
        raise PublisherError("sig.director_mismatch", f"the grant does not name {found.path}")


def _require_leaving(grant: GrantBody, holder: Holder) -> None:
    running = holder.running
    if not any(
        (one.release_counter, one.sha256) == (running.release_counter, running.sha256)
        for one in grant.leaving
    ):
        raise PublisherError(
            "compat.counter", f"the grant does not lead away from {running.release_counter}"
        )


def _require_bounded_bar(grant: GrantBody, highest: int) -> None:
    """A bar far above everything published would shut a device out for good: not even the incident ring may do that."""
    if grant.resume.min_counter > highest + 1:
        raise PublisherError(
            "sig.malformed", f"resume at {grant.resume.min_counter}, and {highest} is the newest"
        )
