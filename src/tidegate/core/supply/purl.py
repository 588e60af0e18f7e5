"""Package URLs: `pkg:deb/debian/openssl@3.0.16-1?distro=debian-12`. Source: the purl specification (ECMA-427), parsing rules and types."""

import re
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.supply.reading import malformed

_LENGTH_MAX: Final = 2_000
_TYPE: Final = re.compile(r"[a-z][a-z0-9.+-]{0,63}")
_QUALIFIER: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_BROKEN_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
#: Types whose names are told apart without regard to case.
_LOWER: Final = frozenset(
    {
        *("alpm", "apk", "bitbucket", "composer", "deb", "github", "gitlab", "golang", "hex"),
        *("pub", "pypi"),
    }
)
#: Namespaces that two worlds write differently: those who make bills of materials, and those who write advisories.
_SAME: Final = {("rpm", "rocky-linux"): "rocky"}


@dataclass(frozen=True)
class Purl:
    """A package, as far as a package URL says which. `version` is empty where it speaks of all of them."""

    type: str
    namespace: str
    name: str
    version: str = ""
    qualifiers: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Return what tells packages apart, whatever their version: `deb/debian/openssl`."""
        return package_key(self.type, self.namespace, self.name)


def package_key(kind: str, namespace: str, name: str) -> str:
    """Return the key of a package, normalised as its type demands."""
    if kind in _LOWER:
        namespace, name = namespace.lower(), name.lower()
    if kind == "pypi":
        name = re.sub(r"[-_.]+", "-", name)
    namespace = _SAME.get((kind, namespace), namespace)
    return f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}"


def parse(text: str) -> Purl:
    """Read a package URL (untrusted).

    Raises:
        PublisherError: `supply.malformed`.
    """
    if len(text) > _LENGTH_MAX or not text.isprintable():
        raise malformed("a purl that is too long, or not one line")
    rest, _, _subpath = text.partition("#")
    rest, _, query = rest.partition("?")
    scheme, colon, rest = rest.partition(":")
    if scheme.lower() != "pkg" or not colon:
        raise malformed(f"not a purl: {text[:80]}")
    kind, slash, rest = rest.strip("/").partition("/")
    kind = kind.lower()
    if not slash or not _TYPE.fullmatch(kind):
        raise malformed(f"a purl without type and name: {text[:80]}")
    # an npm scope may stand there unescaped: the version begins at the last @ of the last segment
    head, cut, last = rest.rpartition("/")
    name, at, version = last.rpartition("@") if "@" in last[1:] else (last, "", "")
    namespace = "/".join(_decoded(one) for one in head.split("/") if one) if cut else ""
    found = _decoded(name)
    if not found or found.strip() != found or "/" in found:
        raise malformed(f"a purl without a name: {text[:80]}")
    return Purl(kind, namespace, found, _decoded(version) if at else "", _qualifiers(query, text))


def _qualifiers(query: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in query.split("&") if query else []:
        key, _, value = one.partition("=")
        key = key.lower()
        if not _QUALIFIER.fullmatch(key) or key in found:
            raise malformed(f"a purl whose qualifiers cannot be read: {text[:80]}")
        if value:
            found[key] = _decoded(value)
    return found


def _decoded(text: str) -> str:
    if _BROKEN_PERCENT.search(text):
        raise malformed(f"a purl with a broken escape: {text[:80]}")
    try:
        plain = _PERCENT.sub(
            lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8"), text
        )
    except UnicodeDecodeError as error:
        raise malformed(f"a purl whose escapes are not UTF-8: {text[:80]}") from error
    if not plain.isprintable():
        raise malformed("a purl with control characters in it")
    return plain
