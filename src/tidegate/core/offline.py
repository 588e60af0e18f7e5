"""What a device believes of a release that comes on a stick: offline keys alone, and no word about freshness.

There is no server to ask and perhaps no clock, so an online key's word could be of any age: it adds nothing. What counts is signed by root, targets and the
product's holders, is not older than what this device has seen, and has not expired at a time that no online key could push.
"""

from collections.abc import Mapping

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import Document, S, TargetsDocument, parse_targets, product_role
from tidegate.core.verify import TrustedSet, require_signed


def believe(
    trusted: TrustedSet, product: str, documents: Mapping[str, bytes], *, offline_now: int
) -> None:
    """Take targets and a product's role out of `documents` into `trusted`, by offline keys alone.

    Args:
        trusted: with the newest root of the chain, and what the device has seen.
        product: the device's own product.
        documents: bytes by role (untrusted), within their limits: `targets`, `product/NAME`; `timestamp` and `snapshot` where there are some: then all must
            belong together.
        offline_now: unix seconds; nothing that has expired by then is taken.

    Raises:
        PublisherError: `sig.*`; `compat.hardware`: it holds nothing of this product.
    """
    role = product_role(product)
    if role not in documents:
        held = sorted(one.partition("/")[2] for one in documents if one.startswith("product/"))
        named = ", ".join(held) or "no product"
        raise PublisherError("compat.hardware", f"made for {named}, and this is a {product}")
    if "targets" not in documents:
        raise PublisherError("sig.mix_and_match", "no targets role in it")
    _require_fresh(trusted.root, offline_now)
    if "timestamp" in documents and "snapshot" in documents:
        _require_one_set(trusted, product, documents)
    found: dict[str, TargetsDocument] = {}
    for name, parent in (("targets", None), (role, "targets")):
        new = parse_targets(documents[name], name)
        require_signed(trusted.root if parent is None else found[parent], name, new)
        seen = trusted.seen.roles.get(name, 0)
        if new.version < seen:
            raise PublisherError("sig.rollback", f"{name} {new.version}, after {seen} was seen")
        _require_fresh(new, offline_now)
        found[name] = new
    trusted.roles.update(found)


def _require_one_set(trusted: TrustedSet, product: str, documents: Mapping[str, bytes]) -> None:
    """Hold the documents against their snapshot. At time 0 nothing has expired: when the online roles ran out is no matter here."""
    side = TrustedSet(trusted.root.body, now=0)
    side.update_timestamp(documents["timestamp"])
    side.update_snapshot(documents["snapshot"])
    side.update_targets(documents["targets"])
    side.update_product(product, documents[product_role(product)])


def _require_fresh(document: Document[S], now: int) -> None:
    if now >= document.expires_at:
        raise PublisherError(
            "sig.expired", f"{document.role} {document.version} expired at {document.expires_at}"
        )
