"""Byte ranges of HTTP (RFC 9110, sections 13 and 14), as far as artifacts need them: one range, strong tags."""

import re
from typing import Final, NamedTuple

_RANGE: Final = re.compile(rb"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


class Window(NamedTuple):
    """What to send: `start` up to, not including, `stop`; `partial` says whether that is a 206."""

    start: int
    stop: int
    partial: bool


def window(size: int, header: bytes | None, if_range: bytes | None, etag: bytes) -> Window | None:
    """Return what to send of `size` bytes, or None: 416, the range lies outside.

    Args:
        size: of the whole.
        header: `Range` (untrusted) or None. What is not one range in bytes is ignored, as RFC 9110 allows.
        if_range: `If-Range` or None: another tag, or any date, sends the whole.
        etag: the whole's own tag.
    """
    whole = Window(0, size, partial=False)
    if header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    found = _RANGE.fullmatch(header.replace(b" ", b""))
    if found is None or not (found[1] or found[2]):
        return whole
    if not found[1]:
        count = int(found[2])
        return Window(max(0, size - count), size, partial=True) if count and size else None
    start = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if found[2] and last < start:
        return whole
    if start >= size:
        return None
    return Window(start, min(last, size - 1) + 1, partial=True)


def matches(header: bytes | None, etag: bytes) -> bool:
    """Say whether `If-None-Match` (untrusted) names this tag, weakly compared."""
    if header is None:
        return False
    if header == etag:
        return True
    tags = [one.strip().removeprefix(b"W/") for one in header.split(b",")]
    return etag in tags or b"*" in tags
