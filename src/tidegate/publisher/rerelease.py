"""A release published again under a higher counter: the same bytes, signed anew by the product role. The preferred way back, because it is no exception.

Nothing is packed and nothing uploaded: the payloads are those that are published already.
"""

from pathlib import Path

import msgspec

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import (
    SignedTarget,
    make_product,
    parse_targets,
    product_extra,
    product_role,
    signed_targets,
)
from tidegate.core.release import ReleaseTarget
from tidegate.publisher.bundle import write
from tidegate.publisher.ceremony import PRODUCT_S


def re_release(
    previous: bytes,
    name: str,
    folder: Path,
    *,
    now: int,
    version: str = "",
    counter: int = 0,
    expires_s: int = PRODUCT_S,
) -> tuple[Path, tuple[SignedTarget, ...]]:
    """Write an unsigned bundle that publishes a release's bytes once more, after everything that is published.

    Args:
        previous: the product role that is published now (believed).
        name: of the release, `gw1-2.4.1`.
        folder: where `PRODUCT-VERSION.bundle` is written.
        now: unix seconds.
        version: of the new release; empty = the old one with the new counter behind it, `2.4.1.r122`.
        counter: of the new release; 0 = the next one.
        expires_s: how long the product role is good for.

    Returns:
        The bundle, and the new targets in it.

    Raises:
        PublisherError: `release.malformed`: no such release is published; `compat.counter`, `release.exists`: it does not come after what is published.
    """
    document = parse_targets(previous, _role(previous, name))
    before = signed_targets(document)
    old = [one for one in before.values() if one.release.name == name]
    if not old:
        near = ", ".join(sorted({one.release.name for one in before.values()}))
        raise PublisherError("release.malformed", f"{name} is not published; there are {near}")
    highest = max(one.release.release_counter for one in before.values())
    counter = counter or highest + 1
    if counter <= highest:
        raise PublisherError("compat.counter", f"counter {counter}, and {highest} is published")
    first = old[0].release
    version = version or f"{first.version}.r{counter}"
    if any(one.release.version == version for one in before.values()):
        raise PublisherError("release.exists", f"{first.product}-{version} is published already")
    new = tuple(_again(one, version, counter) for one in old)
    extra = product_extra(document)
    body = make_product(
        version=document.version + 1,
        expires_at=now + expires_s,
        targets=[*before.values(), *new],
        extra=extra,
    )
    path = folder / f"{first.product}-{version}.bundle"
    role = product_role(first.product)
    write(path, {role: body}, {}, product=first.product, version=version)
    return path, new


def _role(previous: bytes, name: str) -> str:
    """Return the role that a document is of: its targets say which product they belong to."""
    found = parse_targets(previous)
    products = {path.split("/")[0] for path in found.signed.targets}
    mine = [one for one in products if name.startswith(f"{one}-")]
    if len(products) != 1 or not mine:
        raise PublisherError("release.malformed", f"{name} is not published")
    return product_role(mine[0])


def _again(one: SignedTarget, version: str, counter: int) -> SignedTarget:
    """Describe the same bytes as another release. It names no way back: what lies below it is what it was made to leave."""
    release = one.release
    ranges = release.from_counters
    if ranges:
        # Whoever went on from it has passed what it asks for.
        ranges = (*ranges, (release.release_counter, counter - 1))
    values = {
        **msgspec.to_builtins(release),
        "version": version,
        "release_counter": counter,
        "from_counters": ranges,
        "fallback_to": (),
        "notes": f"{release.name} again. {release.notes}"[:2000].rstrip(),
    }
    try:
        made = msgspec.convert(msgspec.to_builtins(values), type=ReleaseTarget)
    except msgspec.ValidationError as error:
        raise PublisherError("release.malformed", str(error)) from error
    return SignedTarget(
        f"{release.product}/{version}/{one.path.split('/')[2]}", one.length, one.sha256, made
    )
