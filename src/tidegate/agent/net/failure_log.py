"""The log of a failure, packed for the wire: the end of it, as much as fits. Light; loaded when a log is wanted."""

import zlib

from tidegate.core.protocol import LOG_BYTES_MAX
from tidegate.core.scrub import scrub


def packed(log: str, most: int = LOG_BYTES_MAX) -> bytes:
    """Return a log without what looks like a secret, in zlib's format; where it is too long, its beginning is left out.

    Args:
        log: whatever the system says.
        most: bytes.
    """
    text = scrub(log)
    while True:
        data = zlib.compress(text.encode("utf-8", "replace"), 6)
        if len(data) <= most or not text:
            return data
        text = text[len(text) // 4 + 1 :]
