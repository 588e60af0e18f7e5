"""What has to stay in one lane, and the scheduler that keeps it there.

Not by xdist's own `--dist loadgroup`: that writes the group into a test's id, which pytest 9.2 does not let anybody change any more, and without a word each
test then goes wherever there is room. A device with systemd would be made in every lane, and switched on to the end.
"""

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-not-found,import-untyped,unused-ignore]

#: The products of the guests with systemd: a device each.
SYSTEMD_PRODUCTS: Final = ("grub", "grub-too", "efi")


def lane_of(nodeid: str) -> str:
    """Return what a test must share a lane with, by its id: the other updates of its device, the other verdicts on its recording; else itself alone."""
    if "test_crash_logs.py::" in nodeid:
        return "logs"
    story = re.search(r"test_systemd\.py::.*\[(.+)\]$", nodeid)
    devices = [one for one in SYSTEMD_PRODUCTS if story and story[1].startswith(f"{one}-")]
    return max(devices, key=len, default=nodeid)


class Lanes(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
    """Gives a lane that has room the next of what has to stay together, in the order in which it was collected."""

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)
