"""Widen or end the mandate of a release that is published already: a next version of the product role, with nothing else changed."""

from pathlib import Path

import msgspec

from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.errors import PublisherError
from tidegate.core.mandate import check_mandates, open_step, with_mandates
from tidegate.core.metadata import (
    make_product,
    parse_targets,
    product_extra,
    product_of,
    product_role,
    signed_targets,
)
from tidegate.publisher.bundle import write
from tidegate.publisher.staging import StagingSpec


def restage(
    previous: bytes,
    release: str,
    staging: StagingSpec | None,
    out: Path,
    *,
    now: int,
    expires_s: int,
) -> Path:
    """Write an unsigned bundle whose product role gives a published release a wider mandate, or none.

    Args:
        previous: the product role that is published now.
        release: the release's name, `gw1-2.4.1`.
        staging: the schedule that is added to the one that is there; None ends the mandate.
        out: folder for the bundle.
        now: unix seconds.
        expires_s: how long the role is good for, in seconds.

    Raises:
        PublisherError: `release.malformed`: no such release, it has no mandate, or nothing would change.
        ConfigError: `config.invalid`.
    """
    role = _role_of(previous)
    before = parse_targets(previous, role)
    published = signed_targets(before)
    found = next((one.release for one in published.values() if one.release.name == release), None)
    extra = product_extra(before)
    old = extra.mandate(found.release_counter) if found is not None else None
    if found is None or old is None:
        raise PublisherError(
            "release.malformed", f"{release} is not published with a mandate that could change"
        )
    mandates = [one for one in extra.mandates if one.counter != old.counter]
    if staging is not None:
        mandates.append(_wider(old, staging.mandate(old.counter, now)))
    after = with_mandates(extra, mandates)
    counters = {one.release.release_counter for one in published.values()}
    check_mandates(after, counters, extra, counters)
    version = before.version + 1
    body = make_product(
        version=version, expires_at=now + expires_s, targets=published.values(), extra=after
    )
    out.mkdir(parents=True, exist_ok=True)
    bundle = out / f"{release}-mandate-{version}.bundle"
    write(bundle, {role: body}, {}, product=found.product, version=found.version)
    return bundle


def _wider(old: Mandate, new: Mandate) -> Mandate:
    """Return the schedule that allows what either of them does, in the old one's order of devices."""
    steps: list[MandateStep] = []
    for at in sorted({one.not_before for one in (*old.steps, *new.steps)}):
        now = (open_step(old, at), open_step(new, at))
        most = max(one.bucket_max for one in now if one is not None)
        if not steps or most > steps[-1].bucket_max:
            steps.append(MandateStep(not_before=at, bucket_max=most))
    if tuple(steps) == old.steps:
        raise PublisherError("release.malformed", "that schedule allows nothing more")
    return msgspec.structs.replace(old, steps=tuple(steps))


def _role_of(body: bytes) -> str:
    """Return the product role that a published document is of, by its targets' paths."""
    products = {product_of(path) for path in parse_targets(body, "product").signed.targets}
    if len(products) != 1:
        raise PublisherError("release.malformed", "not the role of one product")
    return product_role(products.pop())
