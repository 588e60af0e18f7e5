"""Advisories and statements about them, whichever format brought them, and whom they concern.

An advisory says which packages are vulnerable; a statement (VEX) says whether a product is affected by a vulnerability, and why not. Matching errs towards
telling: a part without a version, or with one that cannot be ordered, counts as affected.
"""

import re
from collections.abc import Iterable
from functools import cmp_to_key
from typing import Any, Final, Literal

import msgspec

from tidegate.core.supply import versions
from tidegate.core.supply.sbom import Part
from tidegate.core.supply.versions import Order

EventKind = Literal["introduced", "fixed", "last_affected", "limit"]
Status = Literal["affected", "not_affected", "fixed", "under_investigation"]
#: What a statement may say.
STATUSES: Final = frozenset({"affected", "not_affected", "fixed", "under_investigation"})
#: Statuses that silence a finding.
SILENT: Final = frozenset({"not_affected", "fixed"})
#: Words that sort severities, worst first; anything else is unrated.
SEVERITIES: Final = ("critical", "high", "medium", "low", "none")
#: Listed versions up to which other spellings of them count as well (`1.0` is `1.0.0`); longer lists come from machines, which spell alike.
_SPELT_MAX: Final = 2_000
_AT_ONE_PLACE: Final = {"fixed": 0, "limit": 0, "last_affected": 1, "introduced": 2}


class RangeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Where being vulnerable begins or ends. `0` as a beginning is before every version."""

    kind: EventKind
    version: str


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Events in one order of versions; in any sequence."""

    order: Order
    events: tuple[RangeEvent, ...]


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """A package of which some versions are vulnerable.

    Attributes:
        key: the package (`core.supply.purl.package_key`); empty where the advisory only gives a name.
        name: as the advisory calls it.
        order: order of its versions.
        distro: release of a distribution that this is about (`debian-12`); empty for any.
        versions: vulnerable versions one by one.
        ranges: and from where to where.
        every: all versions are.
    """

    key: str = ""
    name: str
    order: Order = "generic"
    distro: str = ""
    versions: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    every: bool = False


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """One vulnerability, as one publisher describes it. `published_at` and `modified_at` are unix seconds, 0 = unknown."""

    id: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    severity: str = ""
    url: str = ""
    published_at: int = 0
    modified_at: int = 0
    withdrawn: bool = False
    affected: tuple[Affected, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Return every name that a statement may call it by, in capitals."""
        return frozenset(one.upper() for one in (self.id, *self.aliases))


class PartRef(msgspec.Struct, frozen=True, kw_only=True):
    """A package that a statement names. An empty version means all of them."""

    key: str
    version: str = ""


class ProductRef(msgspec.Struct, frozen=True, kw_only=True):
    """A product that a statement names, by package URL, digest or some identifier of its own; `parts` narrow it to those inside."""

    id: str = ""
    key: str = ""
    version: str = ""
    sha256: tuple[str, ...] = ()
    parts: tuple[PartRef, ...] = ()


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What a VEX document says about one vulnerability in some products. `at` is in unix seconds; the latest statement wins."""

    vulnerabilities: tuple[str, ...]
    products: tuple[ProductRef, ...]
    status: Status
    justification: str = ""
    note: str = ""
    at: int = 0

    @property
    def names(self) -> frozenset[str]:
        """Return what it calls the vulnerability, in capitals."""
        return frozenset(one.upper() for one in self.vulnerabilities)


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What one file brought. `name` is the document's own name."""

    format: str
    name: str
    advisories: tuple[Advisory, ...] = ()
    statements: tuple[Statement, ...] = ()


def told(statement: Statement) -> Advisory | None:
    """Return the advisory that a statement amounts to, where nobody published one: it calls packages affected, or looks into it.

    None for any other statement, and for one that names no package.
    """
    if statement.status in SILENT:
        return None
    refs = [
        (one.key, one.version)
        for product in statement.products
        for one in (product.parts or ((product,) if product.key else ()))
    ]
    if not refs:
        return None
    return Advisory(
        id=statement.vulnerabilities[0],
        aliases=statement.vulnerabilities[1:],
        title=statement.note,
        published_at=statement.at,
        modified_at=statement.at,
        affected=tuple(
            Affected(
                key=key,
                name=key.rpartition("/")[2],
                order=versions.order_of(key.partition("/")[0]),
                versions=(version,) if version else (),
                every=not version,
            )
            for key, version in dict.fromkeys(refs)
        ),
    )


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact of a release, as statements may name it."""

    product: str
    version: str
    sha256: frozenset[str] = frozenset()


def concerns(advisory: Advisory, part: Part) -> bool:
    """Say whether a part is one of the versions that an advisory calls vulnerable."""
    return not advisory.withdrawn and any(_affects(one, part) for one in advisory.affected)


def _affects(one: Affected, part: Part) -> bool:
    if one.key:
        if one.key not in {part.key, part.source_key}:
            return False
    elif one.name.lower() not in {part.name.lower(), part.alias.lower()}:
        return False
    if not _same_distro(one.distro, part.distro):
        return False
    if one.every or not part.version or part.version in one.versions:
        return True
    spelt = one.versions if len(one.versions) <= _SPELT_MAX else ()
    if any(versions.compare(one.order, listed, part.version) == 0 for listed in spelt):
        return True
    return any(in_range(each, part.version) for each in one.ranges)


def _same_distro(one: str, other: str) -> bool:
    """Say whether two releases of a distribution may be the same: `alpine-3.18` holds `alpine-3.18.4`. Code names are not known here."""
    left, right = re.findall(r"[0-9]+", one), re.findall(r"[0-9]+", other)
    return all(mine == theirs for mine, theirs in zip(left, right, strict=False))


def in_range(one: Range, version: str) -> bool:
    """Evaluate a range as the OSV schema says (section `affected[].ranges[]`, Evaluation)."""

    def compare(left: RangeEvent, right: RangeEvent) -> int:
        found = _against(one.order, left, right.version)
        if left.kind == "introduced" and left.version == "0":
            found = 0 if right.kind == "introduced" and right.version == "0" else -1
        elif right.kind == "introduced" and right.version == "0":
            found = 1
        return found or _AT_ONE_PLACE[left.kind] - _AT_ONE_PLACE[right.kind]

    limits = [event for event in one.events if event.kind == "limit"]
    if limits and not any(
        event.version == "*" or versions.compare(one.order, version, event.version) < 0
        for event in limits
    ):
        return False
    vulnerable = False
    for event in sorted(one.events, key=cmp_to_key(compare)):
        against = -_against(one.order, event, version)
        if event.kind == "introduced":
            vulnerable = vulnerable or event.version == "0" or against >= 0
        elif (event.kind == "fixed" and against >= 0) or (
            event.kind == "last_affected" and against > 0
        ):
            vulnerable = False
    return vulnerable


def _against(order: Order, event: RangeEvent, version: str) -> int:
    return versions.compare(order, event.version, version)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the statements make of a finding."""

    status: Status = "affected"
    justification: str = ""
    note: str = ""

    @property
    def silent(self) -> bool:
        """Say whether nobody has to do anything about it."""
        return self.status in SILENT


def judge(
    advisory: Advisory,
    part: Part,
    subject: Subject,
    statements: Iterable[tuple[Statement, bool]],
) -> Verdict:
    """Return what the latest statement that applies says; affected, where none does.

    Args:
        advisory: which concerns the part.
        part: of a release.
        subject: the artifact that the part is in.
        statements: each with whether it is attached to this very release: then it speaks of it whatever it calls its product.
    """
    names = advisory.names
    latest: Statement | None = None
    for one, own in statements:
        if names & one.names and _speaks_of(one, part, subject, own=own):
            latest = one if latest is None or one.at >= latest.at else latest
    if latest is None:
        return Verdict()
    return Verdict(status=latest.status, justification=latest.justification, note=latest.note)


def _speaks_of(statement: Statement, part: Part, subject: Subject, *, own: bool) -> bool:
    for product in statement.products:
        if product.key and not product.parts and _is_part(product.key, product.version, part):
            return True
        if _is_subject(product, subject, own=own) and (
            not product.parts or any(_is_part(one.key, one.version, part) for one in product.parts)
        ):
            return True
    return False


def _is_part(key: str, version: str, part: Part) -> bool:
    return key in {part.key, part.source_key} and (not version or version == part.version)


def _is_subject(product: ProductRef, subject: Subject, *, own: bool) -> bool:
    if product.sha256:
        return bool(subject.sha256 & set(product.sha256))
    if product.key:
        same = product.key.rpartition("/")[2].lower() == subject.product.lower()
        return same and product.version in {"", subject.version}
    names = {subject.product, f"{subject.product}-{subject.version}", f"{subject.product} {subject.version}"}  # fmt: skip
    return own or product.id in names


def severity_word(text: Any) -> str:
    """Return a severity as one of `SEVERITIES`; empty for anything else."""
    word = str(text).lower() if isinstance(text, str) else ""
    word = {"moderate": "medium", "important": "high"}.get(word, word)
    return word if word in SEVERITIES else ""
