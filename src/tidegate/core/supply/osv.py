"""Advisories in the OSV format. Source: OSV schema 1.6 and 1.7."""

from typing import Any, Final

from tidegate.core.supply import purl as purls
from tidegate.core.supply.advisory import (
    Advisory,
    Affected,
    EventKind,
    Imported,
    Range,
    RangeEvent,
    severity_word,
)
from tidegate.core.supply.purl import package_key
from tidegate.core.supply.reading import (
    malformed,
    object_of,
    objects_of,
    text_of,
    texts_of,
    time_of,
)
from tidegate.core.supply.versions import Order, order_of

#: Ecosystem → type and namespace of its package URLs. An ecosystem may carry a release behind a colon (`Debian:12`).
ECOSYSTEMS: Final[dict[str, tuple[str, str]]] = {
    "AlmaLinux": ("rpm", "almalinux"),
    "Alpaquita": ("apk", "alpaquita"),
    "Alpine": ("apk", "alpine"),
    "Bitnami": ("bitnami", ""),
    "Chainguard": ("apk", "chainguard"),
    "ConanCenter": ("conan", ""),
    "CRAN": ("cran", ""),
    "crates.io": ("cargo", ""),
    "Debian": ("deb", "debian"),
    "GitHub Actions": ("githubactions", ""),
    "Go": ("golang", ""),
    "Hackage": ("hackage", ""),
    "Hex": ("hex", ""),
    "Mageia": ("rpm", "mageia"),
    "Maven": ("maven", ""),
    "npm": ("npm", ""),
    "NuGet": ("nuget", ""),
    "openEuler": ("rpm", "openeuler"),
    "openSUSE": ("rpm", "opensuse"),
    "Packagist": ("composer", ""),
    "Photon OS": ("rpm", "photon"),
    "Pub": ("pub", ""),
    "PyPI": ("pypi", ""),
    "Red Hat": ("rpm", "redhat"),
    "Rocky Linux": ("rpm", "rocky-linux"),
    "RubyGems": ("gem", ""),
    "SUSE": ("rpm", "suse"),
    "SwiftURL": ("swift", ""),
    "Ubuntu": ("deb", "ubuntu"),
    "Wolfi": ("apk", "wolfi"),
}
_EVENTS: Final[tuple[EventKind, ...]] = ("introduced", "fixed", "last_affected", "limit")


def is_osv(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be an OSV advisory."""
    return "id" in plain and ("affected" in plain or "schema_version" in plain)


def read(plain: dict[str, Any]) -> Imported:
    """Read an advisory (untrusted).

    Raises:
        PublisherError: `supply.malformed`.
    """
    name = text_of(plain, "id", "OSV")
    if not name:
        raise malformed("OSV: an empty id")
    time_of(plain, "modified", "OSV")
    references = [
        text_of(one, "url", "reference", default="")
        for one in objects_of(plain, "references", "OSV")
    ]
    own = object_of(plain, "database_specific", "OSV")
    advisory = Advisory(
        id=name,
        aliases=(*texts_of(plain, "aliases", "OSV"), *texts_of(plain, "upstream", "OSV")),
        title=_title(plain),
        severity=severity_word(own.get("severity")),
        url=next((one for one in references if one.startswith("https://")), ""),
        published_at=time_of(plain, "published", "OSV"),
        modified_at=time_of(plain, "modified", "OSV"),
        withdrawn=bool(plain.get("withdrawn")),
        affected=tuple(
            _affected(one, f"affected {number + 1}")
            for number, one in enumerate(objects_of(plain, "affected", "OSV"))
        ),
    )
    return Imported(format="osv", name=name, advisories=(advisory,))


def _title(plain: dict[str, Any]) -> str:
    summary = text_of(plain, "summary", "OSV", default="")
    details = plain.get("details")
    if summary or not isinstance(details, str):
        return summary
    first = details.strip().partition("\n")[0][:200]
    return text_of({"details": first}, "details", "OSV")


def _affected(plain: dict[str, Any], where: str) -> Affected:
    package = object_of(plain, "package", where)
    ecosystem, _, release = text_of(package, "ecosystem", where, default="").partition(":")
    name = text_of(package, "name", where, default="")
    kind, namespace = ECOSYSTEMS.get(ecosystem, ("", ""))
    key = ""
    if written := text_of(package, "purl", where, default=""):
        found = purls.parse(written)
        kind, key = found.type, found.key
    elif kind:
        key = _key(kind, namespace, name)
    if not name and not key:
        raise malformed(f"{where}: a package without name")
    order = order_of(kind)
    ranges = tuple(
        _range(one, "semver" if one.get("type") == "SEMVER" else order, where)
        for one in objects_of(plain, "ranges", where)
        if one.get("type") != "GIT"
    )
    listed = texts_of(plain, "versions", where)
    return Affected(
        key=key,
        name=name,
        order=order,
        distro=f"{ecosystem.lower()}-{release}" if release else "",
        versions=listed,
        ranges=ranges,
    )


def _key(kind: str, namespace: str, name: str) -> str:
    if kind == "maven":
        group, _, artifact = name.partition(":")
        return package_key(kind, group, artifact or group)
    if kind in {"npm", "golang", "composer"} and "/" in name:
        head, _, last = name.rpartition("/")
        return package_key(kind, head, last)
    return package_key(kind, namespace, name)


def _range(plain: dict[str, Any], order: Order, where: str) -> Range:
    events = [
        RangeEvent(kind=kind, version=text_of(one, kind, where))
        for one in objects_of(plain, "events", where)
        for kind in _EVENTS
        if kind in one
    ]
    if not any(one.kind == "introduced" for one in events):
        raise malformed(f"{where}: a range that begins nowhere")
    return Range(order=order, events=tuple(events))
