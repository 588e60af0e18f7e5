"""Where a device stands in the order of a rollout: one function for rings, percentages and the mandate, on both ends."""

import hashlib
from typing import Final

#: A bucket is a ten-thousandth: share 1 % = buckets 0..99.
BUCKETS: Final = 10_000


def bucket(release_sha256: str, device_id: str) -> int:
    """Return the device's place, 0..9999, in the order of this release.

    The release is the salt, so that it is not the same devices that go first every time. Raising a share only ever adds devices.

    Args:
        release_sha256: digest of the release, lower-case hex.
        device_id: the device's id, any text.
    """
    digest = hashlib.sha256(f"{release_sha256}\0{device_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS
