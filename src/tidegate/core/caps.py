"""How large metadata may be. What a device refuses unread is larger than what may be published, so that no rule of publishing ever strands a device."""

from typing import Final

#: Largest documents, in bytes; checked before parsing. A document of these sizes costs a parser up to 60 times as much memory.
ROOT_MAX: Final = 64 << 10
ROLE_MAX: Final = 256 << 10
SNAPSHOT_MAX: Final = 256 << 10
TIMESTAMP_MAX: Final = 16 << 10

#: Most roles that a snapshot may name.
ROLES_MAX: Final = 4096
#: Most keys that a role may name, and the highest threshold.
KEYS_MAX: Final = 64
THRESHOLD_MAX: Final = 32

#: What may be published is less: a fat role costs every device at every refresh, also where nothing is new.
#: Most releases (artifacts) that a product may have live at once.
LIVE_TARGETS_MAX: Final = 200
#: Most products that the targets role may delegate.
DELEGATIONS_MAX: Final = 300
