"""Session tokens and nonces of devices: authenticated by the server's secret, so that neither needs a table.

A token is `v1.` and base64url of: device row u64, tenant u32, key generation u16, issued u32, expires u32, key number u8, HMAC-SHA256 cut to 128 bits. The key
changes daily and is derived from the secret, so that any replica that holds the secret can check. Revocation is the key generation, kept by the fleet snapshot.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

_FIELDS: Final = struct.Struct(">QIHIIB")
_MAC: Final = 16
_LENGTH: Final = _FIELDS.size + _MAC
_PREFIX: Final = b"v1."
_DAY_S: Final = 86_400
#: A nonce is good for this long.
NONCE_S: Final = 120


class Session(NamedTuple):
    """What a good token says."""

    row: int
    key_gen: int
    expires: int


class Tokens:
    """Issues and checks tokens and nonces."""

    def __init__(self, secret: bytes, randomness: Callable[[int], bytes]) -> None:
        """Take the server's secret (32 bytes or more) and a source of unpredictable bytes."""
        self._secret = secret
        self._randomness = randomness
        self._keys: dict[int, bytes] = {}
        self._used: dict[str, int] = {}

    def issue(self, row: int, key_gen: int, now: int, lifetime_s: int) -> str:
        """Make a token for a device."""
        day = now // _DAY_S
        head = _FIELDS.pack(row, 0, key_gen & 0xFFFF, now, now + lifetime_s, day & 0xFF)
        mac = hmac.digest(self._key(day), head, "sha256")[:_MAC]
        return (_PREFIX + base64.urlsafe_b64encode(head + mac)).decode()

    def check(self, token: bytes, now: int) -> Session | None:
        """Return what a token (untrusted) says, or None: not ours, or expired."""
        if token[:3] != _PREFIX:
            return None
        try:
            raw = base64.urlsafe_b64decode(token[3:])
        except (binascii.Error, ValueError):
            return None
        if len(raw) != _LENGTH:
            return None
        head = raw[:-_MAC]
        row, _, key_gen, issued, expires, _ = _FIELDS.unpack(head)
        mac = hmac.digest(self._key(issued // _DAY_S), head, "sha256")[:_MAC]
        if not hmac.compare_digest(mac, raw[-_MAC:]) or now >= expires:
            return None
        return Session(row, key_gen, expires)

    def nonce(self, now: int) -> str:
        """Make a nonce that only this server can have made."""
        head = struct.pack(">I", now & 0xFFFFFFFF) + self._randomness(4)
        return (head + self._stamp(head)).hex()

    def take_nonce(self, nonce: str, now: int) -> bool:
        """Say whether a nonce (untrusted) is ours, fresh, and not used here before; it is used from now on."""
        try:
            raw = bytes.fromhex(nonce)
        except ValueError:
            return False
        if len(raw) != 16 or not hmac.compare_digest(self._stamp(raw[:8]), raw[8:]):
            return False
        made = int.from_bytes(raw[:4], "big")
        if not made <= now <= made + NONCE_S or nonce in self._used:
            return False
        self._forget_old(now)
        self._used[nonce] = made
        return True

    def _stamp(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, b"nonce" + head, "sha256")[:8]

    def _key(self, day: int) -> bytes:
        key = self._keys.get(day)
        if key is None:
            if len(self._keys) > 64:
                self._keys.clear()
            key = self._keys[day] = hmac.digest(self._secret, b"day%d" % day, "sha256")
        return key

    def _forget_old(self, now: int) -> None:
        if len(self._used) > 10_000:
            self._used = {one: made for one, made in self._used.items() if made + NONCE_S >= now}
