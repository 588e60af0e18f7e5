"""Session tokens and nonces of devices: authenticated, so that neither needs a table.

A token is `v1.` and base64url of: device row u64, tenant u32, key generation u16, issued u32, expires u32, key number u8, HMAC-SHA256 cut to 128 bits. The MAC
key changes daily: it is made of the server's secret and of that day's salt, which stands in the database and is deleted when no token of that day can be alive
(`server.keyring`). Whoever once read either of the two, or both on one day, cannot make tokens for another day. Revocation is the key generation and the time
of the newest session, both kept by the fleet in memory.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

_FIELDS: Final = struct.Struct(">QIHIIB")
_MAC: Final = 16
_LENGTH: Final = _FIELDS.size + _MAC
_PREFIX: Final = b"v1."
DAY_S: Final = 86_400
#: A nonce is good for this long.
NONCE_S: Final = 120
#: So many used nonces are kept without a look at their age.
_USED_FEW: Final = 10_000
#: A token may have been issued so many seconds ahead of this server's clock, by another replica. A clock that is farther off is not gone by.
SKEW_S: Final = 300


class Session(NamedTuple):
    """What a good token says."""

    row: int
    key_gen: int
    expires: int
    issued: int = 0


class Tokens:
    """Issues and checks tokens and nonces."""

    def __init__(
        self,
        secret: bytes,
        randomness: Callable[[int], bytes],
        tenant_number: int = 0,
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take what tokens are made with.

        Args:
            secret: of the server, 32 bytes or more.
            randomness: a source of unpredictable bytes.
            tenant_number: of the devices' tenant; 0 = the default one.
            ahead: how far this machine's clock is ahead of the one that all replicas can see, in seconds.
        """
        self.ahead = ahead
        self._secret = secret
        self._tenant_number = tenant_number
        self._randomness = randomness
        self._ring: dict[int, bytes] = {}
        self._used: dict[str, int] = {}
        self._look_at = _USED_FEW

    def agreed(self, now: int) -> int:
        """Return the time that goes into tokens, and that they are held against: this machine's, unless that is far from what the other replicas go by.

        A session from a clock an hour ahead would be refused by everybody else, and no other could follow it, until they are there too.
        """
        off = self.ahead()
        return now - off if abs(off) > SKEW_S else now

    # --- the ring -----------------------------------------------------------------------------------------------------

    def take_salts(self, salts: Iterable[tuple[int, bytes]]) -> None:
        """Replace the ring: (unix day, salt). Tokens of other days are not taken any more."""
        self._ring = {
            day: hmac.digest(self._secret, b"mac" + salt, "sha256") for day, salt in salts
        }

    def has_key(self, now: int) -> bool:
        """Say whether there is a key of today's."""
        return self.agreed(now) // DAY_S in self._ring

    # --- tokens -------------------------------------------------------------------------------------------------------

    def issue(self, row: int, key_gen: int, now: int, lifetime_s: int) -> str:
        """Make a token for a device.

        Raises:
            KeyError: the ring has no key of today's (`keyring.turn` makes it).
        """
        now = self.agreed(now)
        day = now // DAY_S
        head = _FIELDS.pack(
            row, self._tenant_number, key_gen & 0xFFFF, now, now + lifetime_s, day & 0xFF
        )
        mac = hmac.digest(self._ring[day], head, "sha256")[:_MAC]
        return (_PREFIX + base64.urlsafe_b64encode(head + mac)).decode()

    def check(self, token: bytes, now: int) -> Session | None:
        """Return what a token (untrusted) says, or None: not ours, of another tenant or time, or of a key that is gone."""
        if token[:3] != _PREFIX:
            return None
        now = self.agreed(now)
        try:
            raw = base64.b64decode(token[3:], b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != _LENGTH:
            return None
        head = raw[:-_MAC]
        row, tenant, key_gen, issued, expires, kid = _FIELDS.unpack(head)
        day = issued // DAY_S
        key = self._ring.get(day)
        if key is None or kid != day & 0xFF:
            return None
        mac = hmac.digest(key, head, "sha256")[:_MAC]
        if not hmac.compare_digest(mac, raw[-_MAC:]):
            return None
        if tenant != self._tenant_number or not issued - SKEW_S <= now < expires:
            return None
        return Session(row, key_gen, expires, issued)

    # --- nonces -------------------------------------------------------------------------------------------------------

    def nonce(self, now: int) -> str:
        """Make a nonce that only this server can have made."""
        head = struct.pack(">I", self.agreed(now) & 0xFFFFFFFF) + self._randomness(4)
        return (head + self._stamp(head)).hex()

    def take_nonce(self, nonce: str, now: int) -> bool:
        """Say whether a nonce (untrusted) is ours, fresh, and not used here before; it is used from now on."""
        try:
            raw = bytes.fromhex(nonce)
        except ValueError:
            return False
        if len(raw) != 16 or not hmac.compare_digest(self._stamp(raw[:8]), raw[8:]):
            return False
        now, made = self.agreed(now), nonce_made(nonce)
        if not made <= now <= made + NONCE_S or nonce in self._used:
            return False
        self._forget_old(now)
        self._used[nonce] = made
        return True

    def _stamp(self, head: bytes) -> bytes:
        return hmac.digest(self._secret, b"nonce" + head, "sha256")[:8]

    def _forget_old(self, now: int) -> None:
        """Look at those that are kept once they have doubled since: a fleet that comes back at once uses up a hundred thousand in two minutes."""
        if len(self._used) >= self._look_at:
            self._used = {one: made for one, made in self._used.items() if made + NONCE_S >= now}
            self._look_at = max(_USED_FEW, 2 * len(self._used))


def nonce_made(nonce: str) -> int:
    """Return when a nonce of ours was made, unix seconds; 0 for an empty text."""
    return int(nonce[:8], 16) if nonce else 0
