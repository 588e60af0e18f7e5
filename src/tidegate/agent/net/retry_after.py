"""How long a server asks to be left alone: `Retry-After` (RFC 9110, 10.2.3), untrusted. Light: what reads dates comes with http.client.

A date is read against the `Date` of the same answer: how long it is until then the server knows, and this device's clock may be wrong by decades.
"""

import email.utils
from collections.abc import Mapping
from typing import Final

from tidegate.agent.ports import Clock

#: Nobody is left alone for longer, in seconds: a slip of the pen, or a stranger on the way, must not silence a fleet.
WISH_MAX_S: Final = 3600
_TEXT_MAX: Final = 64


def wish_s(headers: Mapping[str, str], clock: Clock) -> int:
    """Return for how many seconds a refusal asks to be left alone, at most `WISH_MAX_S`; 0 = it does not say, or not in words that can be read.

    Up to a tenth is added: those who were sent away together need not come back together.

    Args:
        headers: of the answer; names in lower case.
        clock: for that tenth.
    """
    said_s = min(WISH_MAX_S, _said_s(headers.get("retry-after", ""), headers.get("date", "")))
    if said_s <= 0:
        return 0
    drawn = int.from_bytes(clock.random_bytes(2), "big")
    return min(WISH_MAX_S, said_s + said_s * drawn // (10 << 16))


def _said_s(text: str, date: str) -> int:
    text = text.strip()
    if len(text) > _TEXT_MAX:
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    then, now = _instant(text), _instant(date[:_TEXT_MAX])
    return 0 if then is None or now is None else then - now


def _instant(text: str) -> int | None:
    """Return a date of HTTP as unix seconds."""
    try:
        found = email.utils.parsedate_tz(text)
        return None if found is None else int(email.utils.mktime_tz(found))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
