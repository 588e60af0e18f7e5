"""VEX statements in the OpenVEX format. Source: OpenVEX specification 0.2.0 (0.0.1's products as plain texts are read too)."""

import re
from typing import Any, Final, cast

from tidegate.core.errors import PublisherError
from tidegate.core.supply import purl as purls
from tidegate.core.supply.advisory import (
    STATUSES,
    Imported,
    PartRef,
    ProductRef,
    Statement,
    Status,
)
from tidegate.core.supply.reading import (
    malformed,
    object_of,
    objects_of,
    text_of,
    texts_of,
    time_of,
)

STATEMENTS_MAX: Final = 10_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_openvex(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be OpenVEX."""
    context = plain.get("@context")
    return isinstance(context, str) and "openvex" in context


def read(plain: dict[str, Any]) -> Imported:
    """Read a document (untrusted).

    Raises:
        PublisherError: `supply.malformed`, `supply.too_large`.
    """
    name = text_of(plain, "@id", "OpenVEX")
    text_of(plain, "author", "OpenVEX")
    at = time_of(plain, "last_updated", "OpenVEX") or time_of(plain, "timestamp", "OpenVEX")
    statements = []
    for number, one in enumerate(objects_of(plain, "statements", "OpenVEX")):
        if number >= STATEMENTS_MAX:
            raise PublisherError("supply.too_large", f"more than {STATEMENTS_MAX} statements")
        statements.append(_statement(one, f"statement {number + 1}", at))
    if not statements:
        raise malformed("OpenVEX: no statements")
    return Imported(format="openvex", name=name, statements=tuple(statements))


def _statement(plain: dict[str, Any], where: str, at: int) -> Statement:
    status = text_of(plain, "status", where)
    if status not in STATUSES:
        raise malformed(f"{where}: status {status[:40]} is not known")
    justification = text_of(plain, "justification", where, default="")
    impact = text_of(plain, "impact_statement", where, default="")
    if status == "not_affected" and not justification and not impact:
        raise malformed(f"{where}: not_affected needs a justification or an impact_statement")
    own = time_of(plain, "last_updated", where) or time_of(plain, "timestamp", where)
    return Statement(
        vulnerabilities=_vulnerabilities(plain, where),
        products=tuple(_products(plain, where)),
        status=cast("Status", status),
        justification=justification,
        note=impact
        or text_of(plain, "action_statement", where, default="")
        or text_of(plain, "status_notes", where, default=""),
        at=own or at,
    )


def _vulnerabilities(plain: dict[str, Any], where: str) -> tuple[str, ...]:
    value = plain.get("vulnerability")
    if isinstance(value, str):
        found: tuple[str, ...] = (text_of(plain, "vulnerability", where),)
    else:
        one = object_of(plain, "vulnerability", where)
        name = text_of(one, "name", where, default="") or text_of(one, "@id", where, default="")
        found = (name, *texts_of(one, "aliases", where)) if name else ()
    found = tuple(one for one in found if one)
    if not found:
        raise malformed(f"{where}: no vulnerability is named")
    return found


def _products(plain: dict[str, Any], where: str) -> list[ProductRef]:
    value = plain.get("products")
    if not isinstance(value, list) or not value:
        raise malformed(f"{where}: no products")
    return [_product({"@id": one} if isinstance(one, str) else one, where) for one in value]


def _product(plain: Any, where: str) -> ProductRef:
    if not isinstance(plain, dict):
        raise malformed(f"{where}: a product that is no object")
    name, package = _identified(plain, where)
    hashes = object_of(plain, "hashes", where)
    sha256 = hashes.get("sha-256", hashes.get("sha256"))
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256.lower())):
        raise malformed(f"{where}: a sha-256 that is none")
    parts = []
    for one in objects_of(plain, "subcomponents", where):
        inner, found = _identified(one, where)
        if found is None:
            raise malformed(f"{where}: subcomponent {inner[:80]} is not named by a package URL")
        parts.append(PartRef(key=found.key, version=found.version))
    return ProductRef(
        id=name,
        key=package.key if package else "",
        version=package.version if package else "",
        sha256=(sha256.lower(),) if sha256 else (),
        parts=tuple(parts),
    )


def _identified(plain: dict[str, Any], where: str) -> tuple[str, purls.Purl | None]:
    name = text_of(plain, "@id", where, default="")
    written = text_of(object_of(plain, "identifiers", where), "purl", where, default="")
    if not written and name.startswith("pkg:"):
        written = name
    if not name and not written:
        raise malformed(f"{where}: a product without @id")
    return name or written, purls.parse(written) if written else None
