"""Time-based one-time codes (RFC 6238 over RFC 4226: HMAC-SHA-1, six digits, steps of thirty seconds), as every authenticator app makes them. Pure."""

import base64
import hashlib
import hmac
import struct
from typing import Final
from urllib.parse import quote, urlencode

DIGITS: Final = 6
STEP_S: Final = 30
SECRET_BYTES: Final = 20
#: Steps before and after the present one that are taken, since clocks of phones differ.
DRIFT: Final = 1


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a step (unix seconds // 30)."""
    digest = hmac.new(secret, struct.pack(">Q", step), hashlib.sha1).digest()
    at = digest[-1] & 0x0F
    number = struct.unpack(">I", digest[at : at + 4])[0] & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(secret: bytes, code: str, now: int, after: int) -> int | None:
    """Return the step whose code this is (untrusted), or None.

    Args:
        secret: of the account.
        code: digits, with or without blanks.
        now: unix seconds.
        after: the newest step that was used: a code is taken once, and none before it any more.
    """
    typed = "".join(code.split())
    found = None
    for step in range(now // STEP_S - DRIFT, now // STEP_S + DRIFT + 1):
        if (
            step >= 0
            and hmac.compare_digest(code_at(secret, step).encode(), typed.encode())
            and step > after
        ):
            found = step
    return found


def shown(secret: bytes) -> str:
    """Return a secret as it is typed into an app that reads no picture."""
    return base64.b32encode(secret).decode().rstrip("=")


def address(secret: bytes, account: str, issuer: str) -> str:
    """Return the `otpauth:` address that an authenticator app reads from a picture."""
    asked = {
        "secret": shown(secret),
        "issuer": issuer,
        "algorithm": "SHA1",
        "digits": str(DIGITS),
        "period": str(STEP_S),
    }
    return f"otpauth://totp/{quote(issuer)}:{quote(account)}?{urlencode(asked, quote_via=quote)}"
