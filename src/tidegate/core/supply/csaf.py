"""Advisories and VEX statements in the CSAF 2.0 format. Source: OASIS CSAF 2.0, sections 3.2.2 (product tree) and 3.2.3 (vulnerabilities)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.core.errors import PublisherError
from tidegate.core.supply import purl as purls
from tidegate.core.supply.advisory import (
    Advisory,
    Affected,
    EventKind,
    Imported,
    PartRef,
    ProductRef,
    Range,
    RangeEvent,
    Statement,
    Status,
    severity_word,
)
from tidegate.core.supply.purl import Purl, package_key
from tidegate.core.supply.reading import (
    malformed,
    object_of,
    objects_of,
    text_of,
    texts_of,
    time_of,
)
from tidegate.core.supply.versions import Order, order_of

PRODUCTS_MAX: Final = 50_000
_AFFECTED: Final = ("known_affected", "first_affected", "last_affected")
#: Groups of `product_status` → what they say.
_STATUSES: Final[dict[str, Status]] = {
    "known_affected": "affected",
    "first_affected": "affected",
    "last_affected": "affected",
    "known_not_affected": "not_affected",
    "fixed": "fixed",
    "first_fixed": "fixed",
    "under_investigation": "under_investigation",
}
_COMPARATOR: Final = re.compile(r"(>=|<=|>|<|!=|=)?\s*(\S+)")
_EVENT_OF: Final[dict[str, EventKind]] = {
    ">=": "introduced",
    ">": "introduced",  # one version too many rather than one too few
    "<": "fixed",
    "<=": "last_affected",
}


@dataclass
class _Product:
    """A product of the tree. `inside` names the product that it is a component of, where a relationship says so."""

    name: str
    package: Purl | None = None
    version: str = ""
    range: str = ""
    sha256: tuple[str, ...] = ()
    inside: "_Product | None" = None


@dataclass
class _Tree:
    products: dict[str, _Product] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, name: str, product: _Product) -> None:
        if len(self.products) >= PRODUCTS_MAX:
            raise PublisherError("supply.too_large", f"more than {PRODUCTS_MAX} products")
        if name in self.products:
            raise malformed(f"product_id {name[:80]} stands twice")
        self.products[name] = product

    def of(self, name: str) -> _Product:
        found = self.products.get(name)
        if found is None:
            raise malformed(f"product_id {name[:80]} is not in the product tree")
        return found


def is_csaf(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be CSAF."""
    document = plain.get("document")
    return isinstance(document, dict) and "csaf_version" in document


def read(plain: dict[str, Any]) -> Imported:
    """Read a document (untrusted).

    Raises:
        PublisherError: `supply.malformed`, `supply.unknown_format` (another version), `supply.too_large`.
    """
    document = object_of(plain, "document", "CSAF")
    version = text_of(document, "csaf_version", "document")
    if version != "2.0":
        raise PublisherError("supply.unknown_format", f"CSAF {version}; 2.0 is read")
    tracking = object_of(document, "tracking", "document")
    name = text_of(tracking, "id", "tracking")
    at = time_of(tracking, "current_release_date", "tracking")
    begun = time_of(tracking, "initial_release_date", "tracking")
    title = text_of(document, "title", "document")
    tree = _tree(object_of(plain, "product_tree", "CSAF"))
    found = list(objects_of(plain, "vulnerabilities", "CSAF"))
    advisories, statements = [], []
    for number, one in enumerate(found):
        where = f"vulnerability {number + 1}"
        names = _names(one, where) or (f"{name}#{number + 1}",)
        advisories.append(
            Advisory(
                id=name if len(found) == 1 else f"{name}/{names[0]}",
                aliases=names,
                title=text_of(one, "title", where, default="") or title,
                severity=_severity(one, document, where),
                url=_url(document),
                published_at=begun,
                modified_at=at,
                affected=tuple(_affected(one, tree, where)),
            )
        )
        statements += _statements(one, names, tree, at, where)
    return Imported(
        format="csaf", name=name, advisories=tuple(advisories), statements=tuple(statements)
    )


# --- the product tree --------------------------------------------------------------------------------------------------


def _tree(plain: dict[str, Any]) -> _Tree:
    tree = _Tree()
    for one in objects_of(plain, "full_product_names", "product_tree"):
        _add(tree, one, {})
    _branches(tree, plain, {})
    for one in objects_of(plain, "relationships", "product_tree"):
        part = tree.of(text_of(one, "product_reference", "relationship"))
        whole = tree.of(text_of(one, "relates_to_product_reference", "relationship"))
        named = object_of(one, "full_product_name", "relationship")
        tree.add(
            text_of(named, "product_id", "relationship"),
            _Product(part.name, part.package, part.version, part.range, part.sha256, whole),
        )
    for one in objects_of(plain, "product_groups", "product_tree"):
        ids = texts_of(one, "product_ids", "product_groups")
        tree.groups[text_of(one, "group_id", "product_groups")] = ids
    return tree


def _branches(tree: _Tree, plain: dict[str, Any], above: dict[str, str]) -> None:
    """Walk the branches; nesting is bounded by the reader."""
    for one in objects_of(plain, "branches", "branches"):
        here = {**above, text_of(one, "category", "branch"): text_of(one, "name", "branch")}
        if "product" in one:
            _add(tree, object_of(one, "product", "branch"), here)
        _branches(tree, one, here)


def _add(tree: _Tree, plain: dict[str, Any], above: dict[str, str]) -> None:
    name = text_of(plain, "product_id", "product")
    where = f"product {name[:80]}"
    helper = object_of(plain, "product_identification_helper", where)
    written = text_of(helper, "purl", where, default="")
    hashes = tuple(
        text_of(each, "value", where).lower()
        for one in objects_of(helper, "hashes", where)
        for each in objects_of(one, "file_hashes", where)
        if each.get("algorithm") == "sha256"
    )
    tree.add(
        name,
        _Product(
            name=above.get("product_name") or text_of(plain, "name", where),
            package=purls.parse(written) if written else None,
            version=above.get("product_version", ""),
            range=above.get("product_version_range", ""),
            sha256=hashes,
        ),
    )


# --- vulnerabilities ---------------------------------------------------------------------------------------------------


def _names(plain: dict[str, Any], where: str) -> tuple[str, ...]:
    cve = text_of(plain, "cve", where, default="")
    others = tuple(text_of(one, "text", where) for one in objects_of(plain, "ids", where))
    return tuple(one for one in (cve, *others) if one)


def _severity(plain: dict[str, Any], document: dict[str, Any], where: str) -> str:
    for one in objects_of(plain, "scores", where):
        for scale in ("cvss_v4", "cvss_v3"):
            word = severity_word(object_of(one, scale, where).get("baseSeverity"))
            if word:
                return word
    return severity_word(object_of(document, "aggregate_severity", "document").get("text"))


def _url(document: dict[str, Any]) -> str:
    for one in objects_of(document, "references", "document"):
        url = text_of(one, "url", "reference", default="")
        if url.startswith("https://"):
            return url
    return ""


def _listed(plain: dict[str, Any], group: str, where: str) -> tuple[str, ...]:
    return texts_of(object_of(plain, "product_status", where), group, where)


def _affected(plain: dict[str, Any], tree: _Tree, where: str) -> Iterator[Affected]:
    for group in _AFFECTED:
        for name in _listed(plain, group, where):
            yield _affected_of(tree.of(name))


def _affected_of(product: _Product) -> Affected:
    package = product.package
    order: Order = order_of(package.type) if package else "generic"
    version = package.version if package and package.version else product.version
    listed: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    if version:
        listed = (version,)
    elif product.range:
        listed, ranges = _parsed_range(product.range, order)
    return Affected(
        key=package.key if package else "",
        name=package.name if package else product.name,
        order=order,
        distro=package.qualifiers.get("distro", "") if package else "",
        versions=listed,
        ranges=ranges,
        every=not version and not product.range,
    )


def _parsed_range(text: str, order: Order) -> tuple[tuple[str, ...], tuple[Range, ...]]:
    """Read `vers:deb/>=1.0|<3.0.17`, `>=1.0|<3.0.17` or `<3.0.17`."""
    if text.startswith("vers:"):
        kind, _, text = text.removeprefix("vers:").partition("/")
        order = order_of(kind) if order == "generic" else order
    listed: list[str] = []
    events: list[RangeEvent] = []
    for piece in re.split(r"[|,]", text):
        found = _COMPARATOR.fullmatch(piece.strip())
        if found is None:
            raise malformed(f"a version range that cannot be read: {text[:80]}")
        sign, version = found[1] or "=", found[2]
        if version == "*":
            events.append(RangeEvent(kind="introduced", version="0"))
        elif sign == "=":
            listed.append(version)
        elif sign in _EVENT_OF:
            kind_of = _EVENT_OF[sign]
            if kind_of != "introduced" and not any(one.kind == "introduced" for one in events):
                events.append(RangeEvent(kind="introduced", version="0"))
            events.append(RangeEvent(kind=kind_of, version=version))
    return tuple(listed), (Range(order=order, events=tuple(events)),) if events else ()


# --- statements --------------------------------------------------------------------------------------------------------


def _statements(
    plain: dict[str, Any], names: tuple[str, ...], tree: _Tree, at: int, where: str
) -> list[Statement]:
    flags = _by_product(plain, "flags", "label", tree, where)
    impacts = _by_product(plain, "threats", "details", tree, where, category="impact")
    found: dict[tuple[Status, str, str], list[ProductRef]] = {}
    for group, status in _STATUSES.items():
        for name in _listed(plain, group, where):
            key = (status, flags.get(name, ""), impacts.get(name, ""))
            found.setdefault(key, []).append(_ref(name, tree.of(name)))
    return [
        Statement(
            vulnerabilities=names,
            products=tuple(products),
            status=status,
            justification=flag,
            note=impact,
            at=at,
        )
        for (status, flag, impact), products in found.items()
    ]


def _by_product(
    plain: dict[str, Any], key: str, member: str, tree: _Tree, where: str, category: str = ""
) -> dict[str, str]:
    """Return what flags or threats say, by product: those of a group count for each of its products."""
    found: dict[str, str] = {}
    for one in objects_of(plain, key, where):
        if category and one.get("category") != category:
            continue
        text = str(one.get(member, ""))[:1000]
        ids = list(texts_of(one, "product_ids", where))
        for group in texts_of(one, "group_ids", where):
            ids += tree.groups.get(group, ())
        for name in ids:
            found.setdefault(name, text_of({member: text}, member, where))
    return found


def _ref(name: str, product: _Product) -> ProductRef:
    if product.inside is not None:
        whole = _ref(name, product.inside)
        package = product.package
        version = (package.version if package else "") or product.version
        key = package.key if package else package_key("generic", "", product.name)
        part = PartRef(key=key, version=version)
        return ProductRef(
            id=whole.id, key=whole.key, version=whole.version, sha256=whole.sha256, parts=(part,)
        )
    package = product.package
    return ProductRef(
        id=product.name if not product.version else f"{product.name} {product.version}",
        key=package.key if package else "",
        version=(package.version if package else "") or product.version,
        sha256=product.sha256,
    )
