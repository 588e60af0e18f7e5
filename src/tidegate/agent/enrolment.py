"""Names of the files that loop and worker share about enrolment. Light: the loop imports it."""

from typing import Final

#: The private key in the state directory: 32 raw bytes, mode 0600.
KEY_NAME: Final = "device.key"
#: What became of the enrolment: accepted, pending, rejected or revoked.
ENROLLED_NAME: Final = "enrolled"
