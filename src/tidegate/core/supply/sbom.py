"""Bills of materials: CycloneDX 1.4 to 1.6 and SPDX 2.2 and 2.3, both as JSON, read into one list of parts.

What is read is what the component table needs. A part whose package URL cannot be read is kept by its name: leaving it out would hide it.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from tidegate.core.errors import PublisherError
from tidegate.core.supply import purl as purls
from tidegate.core.supply.purl import Purl, package_key
from tidegate.core.supply.reading import malformed, object_of, objects_of, text_of

CYCLONEDX: Final = ("1.4", "1.5", "1.6")
SPDX: Final = ("SPDX-2.2", "SPDX-2.3")
PARTS_MAX: Final = 100_000
_Text = Annotated[str, Meta(max_length=1_000)]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a release is made of.

    Attributes:
        name: as the document calls it.
        version: empty where the document does not say.
        purl: its package URL as written; empty for none, or none that can be read.
        type: the package URL's type: which world's order its versions stand in.
        key: the package (`deb/debian/openssl`); empty without a package URL.
        source_key: the source package that it was built from, where that has another name (`upstream` of a Debian or RPM package URL).
        alias: another name that people look for: of the source package, or of the package URL.
        distro: `debian-12`, where the package URL says so.
    """

    name: _Text
    version: _Text = ""
    purl: str = ""
    type: str = ""
    key: str = ""
    source_key: str = ""
    alias: str = ""
    distro: str = ""


class Sbom(msgspec.Struct, frozen=True, kw_only=True):
    """A bill of materials. `unread` package URLs were no package URLs; their parts are there by name."""

    format: str
    parts: tuple[Part, ...]
    unread: int = 0


def is_cyclonedx(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be CycloneDX."""
    return "bomFormat" in plain


def is_spdx(plain: dict[str, Any]) -> bool:
    """Say whether a document claims to be SPDX 2."""
    return "spdxVersion" in plain


def read(plain: dict[str, Any]) -> Sbom:
    """Read a parsed document (untrusted).

    Raises:
        PublisherError: `supply.malformed`, `supply.unknown_format` (another version), `supply.too_large`.
    """
    if is_cyclonedx(plain):
        return _cyclonedx(plain)
    return _spdx(plain)


def _cyclonedx(plain: dict[str, Any]) -> Sbom:
    version = text_of(plain, "specVersion", "CycloneDX")
    if plain["bomFormat"] != "CycloneDX":
        raise malformed("bomFormat is not CycloneDX")
    if version not in CYCLONEDX:
        raise PublisherError(
            "supply.unknown_format", f"CycloneDX {version}; {', '.join(CYCLONEDX)} are read"
        )
    parts: list[Part] = []
    unread = 0
    for number, one in enumerate(_components(plain, "CycloneDX")):
        where = f"component {number + 1}"
        name = text_of(one, "name", where)
        kind = text_of(one, "type", where)
        group = text_of(one, "group", where, default="")
        if kind == "file" or one.get("scope") == "excluded":
            continue
        found = _purl(text_of(one, "purl", where, default=""))
        unread += found is None and bool(one.get("purl"))
        full = f"{group}/{name}" if group else name
        version_text = text_of(one, "version", where, default="")
        _add(parts, full, version_text, found, str(one.get("purl") or ""))
    return Sbom(format=f"cyclonedx-{version}", parts=tuple(parts), unread=unread)


def _components(plain: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    for one in objects_of(plain, "components", where):
        yield one
        yield from _components(one, "a nested component")


def _spdx(plain: dict[str, Any]) -> Sbom:
    version = text_of(plain, "spdxVersion", "SPDX")
    if version not in SPDX:
        raise PublisherError("supply.unknown_format", f"{version}; {', '.join(SPDX)} are read")
    if plain.get("SPDXID") != "SPDXRef-DOCUMENT":
        raise malformed("SPDXID of the document is not SPDXRef-DOCUMENT")
    text_of(plain, "documentNamespace", "SPDX")
    object_of(plain, "creationInfo", "SPDX")
    parts: list[Part] = []
    unread = 0
    for number, one in enumerate(objects_of(plain, "packages", "SPDX")):
        where = f"package {number + 1}"
        name = text_of(one, "name", where)
        text_of(one, "SPDXID", where)
        given = text_of(one, "versionInfo", where, default="")
        locator = _locator(one, where)
        found = _purl(locator)
        unread += found is None and bool(locator)
        _add(parts, name, "" if given in {"NOASSERTION", "NONE"} else given, found, locator)
    return Sbom(format=f"spdx-{version.removeprefix('SPDX-')}", parts=tuple(parts), unread=unread)


def _locator(package: dict[str, Any], where: str) -> str:
    """Return the package URL among a package's references; the first one counts."""
    for one in objects_of(package, "externalRefs", where):
        if str(one.get("referenceType")).rpartition("/")[2] == "purl":
            return text_of(one, "referenceLocator", where)
    return ""


def _purl(text: str) -> Purl | None:
    if not text:
        return None
    try:
        return purls.parse(text)
    except PublisherError:
        return None


def _add(parts: list[Part], name: str, version: str, found: Purl | None, written: str) -> None:
    name, version = name.strip(), version.strip()
    if not name:
        raise malformed("a part without a name")
    if len(parts) >= PARTS_MAX:
        raise PublisherError("supply.too_large", f"more than {PARTS_MAX} parts")
    if found is None:
        parts.append(Part(name=name, version=version))
        return
    source = found.qualifiers.get("upstream", "").partition("@")[0]
    own = f"{found.namespace}/{found.name}" if found.type in {"npm", "golang"} else found.name
    own = own.strip("/")
    version = version or found.version
    epoch = found.qualifiers.get("epoch", "")
    if found.type == "rpm" and epoch.isascii() and epoch.isdigit() and ":" not in version:
        version = f"{epoch}:{version}"
    parts.append(
        Part(
            name=name,
            version=version,
            purl=written,
            type=found.type,
            key=found.key,
            source_key=package_key(found.type, found.namespace, source) if source else "",
            alias=source or (own if own.lower() != name.lower() else ""),
            distro=found.qualifiers.get("distro", ""),
        )
    )
