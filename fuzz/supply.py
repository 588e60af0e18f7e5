"""Version texts and package URLs: what comes from build systems and other people's lists."""

from typing import Final

from tests.unit.core.supply import paper

from fuzz.kind import Target, refusing
from tidegate.core.supply import purl, versions

_ORDERS: Final[tuple[versions.Order, ...]] = ("deb", "rpm", "semver", "pep440", "generic")


def _versions(body: bytes) -> None:
    """Three texts, a line each: whatever they are, every order of versions must be one."""
    one, _, rest = body.decode("utf-8", "replace").partition("\n")
    other, _, third = rest.partition("\n")
    for order in _ORDERS:
        said = versions.compare(order, one, other)
        assert (said > 0) == (versions.compare(order, other, one) < 0), (order, one, other)
        assert versions.compare(order, one, one) == 0, (order, one)
        if said < 0 and versions.compare(order, other, third) < 0:
            assert versions.compare(order, one, third) < 0, (order, one, other, third)
        versions.below(order, one, other)


def _purl(body: bytes) -> None:
    purl.parse(body.decode("utf-8", "replace"))


def targets() -> tuple[Target, ...]:
    """Return the targets of this file."""
    texts = (
        b"1:3.0.16-1~deb12u1\n3.0.17\n3.1",
        b"1.2.3-rc.1+b\n1.2.3\n1.3.0",
        b"2!1.0.post1.dev2\n1.0a1\n1",
        b"1.0-1.el9\n1.0^git1\n~",
    )
    return (
        Target("versions", refusing(_versions), texts),
        Target("purl", refusing(_purl), (paper.OPENSSL.encode(), paper.LIBSSL.encode())),
    )
