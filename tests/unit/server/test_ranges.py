"""Byte ranges, as RFC 9110 has them."""

import pytest

from tidegate.server.ranges import Window, matches, window

TAG = b'"abc"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Window(0, 100, partial=False)),
        (b"bytes=0-9", Window(0, 10, partial=True)),
        (b"bytes=90-", Window(90, 100, partial=True)),
        (b"bytes=90-1000", Window(90, 100, partial=True)),
        (b"bytes=-10", Window(90, 100, partial=True)),
        (b"bytes=-1000", Window(0, 100, partial=True)),
        (b"bytes=99-99", Window(99, 100, partial=True)),
        (b"bytes=100-", None),
        (b"bytes=100-200", None),
        (b"bytes=-0", None),
        (b"bytes=9-0", Window(0, 100, partial=False)),
        (b"bytes=0-1,5-6", Window(0, 100, partial=False)),
        (b"bytes=-", Window(0, 100, partial=False)),
        (b"items=0-9", Window(0, 100, partial=False)),
        (b"bytes=a-b", Window(0, 100, partial=False)),
        (b"bytes=99999999999999999999999-", Window(0, 100, partial=False)),
    ],
)
def test_a_range_is_read_as_the_standard_says(
    header: bytes | None, expected: Window | None
) -> None:
    assert window(100, header, None, TAG) == expected


def test_a_range_counts_only_when_the_tag_still_fits() -> None:
    assert window(100, b"bytes=5-", TAG, TAG) == Window(5, 100, partial=True)
    assert window(100, b"bytes=5-", b'"other"', TAG) == Window(0, 100, partial=False)
    assert window(100, b"bytes=5-", b'W/"abc"', TAG) == Window(0, 100, partial=False)


def test_an_empty_blob_has_no_range() -> None:
    assert window(0, b"bytes=0-", None, TAG) is None
    assert window(0, b"bytes=-5", None, TAG) is None
    assert window(0, None, None, TAG) == Window(0, 0, partial=False)


def test_tags_are_compared_weakly_and_in_lists() -> None:
    assert matches(TAG, TAG)
    assert matches(b'"x", W/"abc"', TAG)
    assert matches(b"*", TAG)
    assert not matches(b'"x"', TAG)
    assert not matches(None, TAG)
