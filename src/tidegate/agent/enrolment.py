"""Names of the files that loop and worker share about enrolment. Light: the loop imports it."""

from typing import Final

#: The private key in the state directory: 32 raw bytes, or the name of a key in a token; mode 0600.
KEY_NAME: Final = "device.key"
#: The key that is to follow, until the server has taken it.
NEXT_KEY_NAME: Final = "device.key.next"
#: Digests of the public keys, 64 hex digits: for people.
FINGERPRINT_NAME: Final = "fingerprint"
NEXT_FINGERPRINT_NAME: Final = "fingerprint.next"
#: What became of the enrolment: accepted, pending, rejected or revoked.
ENROLLED_NAME: Final = "enrolled"
#: `core.protocol.session_ref` of the last session that was received.
SESSION_NAME: Final = "session"
#: Files that nobody but their owner may read.
SECRET_NAMES: Final = frozenset({KEY_NAME, NEXT_KEY_NAME})
