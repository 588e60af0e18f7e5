"""What is remembered of single devices: one column a property, one row a device.

So a million of them are some tens of megabytes, and go to a store and back in seconds.

A device has a number, its place in every column, for as long as its rollout is watched. Numbers are given in the order in which devices are met, so equal
stories give equal columns.
"""

import sys
from array import array
from typing import Final, Literal

import msgspec

from tidegate.rollout.evidence.strata import Profile, Scheme

#: Not updated · has its permit · confirmed in time · confirmed after its deadline · says no more · left the audience before it had a permit.
CONTROL: Final = 0
OUT: Final = 1
WELL: Final = 2
BACK: Final = 3
OVER: Final = 4
LEFT: Final = 5
#: Bits of `flags`: not heard within its deadline · crashed while it was not updated: it is compared with no more.
DARK: Final = 1
CRASHED: Final = 2


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """The columns as they are stored. `names` are joined by a character that no name may contain."""

    names: str
    profiles: list[Profile]
    sites: list[str]
    profile: list[int]
    site: list[int]
    heard_at: list[int]
    heard_up: list[int]
    granted_at: list[int]
    state: bytes
    gates: bytes
    flags: bytes


class Crowd:
    """The columns."""

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.profiles: list[Profile] = []
        #: Region and connectivity class, by number of the profile.
        self.cells: list[tuple[str, str]] = []
        self.sites: list[str] = []
        self._profile_numbers: dict[Profile, int] = {}
        self._site_numbers: dict[str, int] = {}
        self.profile = array("I")
        self.site = array("I")
        #: Last contact, unix seconds; and the same in time during which the server was up.
        self.heard_at = array("q")
        self.heard_up = array("q")
        self.granted_at = array("q")
        self.state = bytearray()
        #: Soak gates that it has passed.
        self.gates = bytearray()
        self.flags = bytearray()

    def add(self, name: str, profile: Profile, site: str, at: int) -> int:
        """Take in a device that is not updated; return its number.

        Raises:
            ValueError: a name with a line break in it.
        """
        if "\n" in name:
            raise ValueError(f"a device's name has a line break in it: {name!r}")
        number = self.numbers[name] = len(self.names)
        self.names.append(name)
        self.profile.append(self._profile_number(profile))
        self.site.append(self._site_number(site))
        for column in (self.heard_at, self.heard_up):
            column.append(at)
        self.granted_at.append(0)
        for flags in (self.state, self.gates, self.flags):
            flags.append(0)
        return number

    def compared(self, one: int) -> bool:
        """Say whether it is one of those that updated devices are compared with."""
        return self.state[one] == CONTROL and not self.flags[one]

    def profile_of(self, one: int) -> Profile:
        """Return a device's profile."""
        return self.profiles[self.profile[one]]

    def site_of(self, one: int) -> str:
        """Return where a device stands; empty = alone."""
        return self.sites[self.site[one]]

    def cell_of(self, one: int) -> tuple[str, str]:
        """Return a device's region and connectivity class."""
        return self.cells[self.profile[one]]

    def _profile_number(self, profile: Profile) -> int:
        found = self._profile_numbers.get(profile)
        if found is None:
            found = self._profile_numbers[profile] = len(self.profiles)
            self.profiles.append(profile)
            self.cells.append(self._scheme.cell_of(profile))
        return found

    def _site_number(self, site: str) -> int:
        found = self._site_numbers.get(site)
        if found is None:
            found = self._site_numbers[site] = len(self.sites)
            self.sites.append(site)
        return found

    # ------------------------------------------------------------------ storing

    def pack(self) -> Packed:
        """Return the columns for a store."""
        return Packed(
            names="\n".join(self.names),
            profiles=self.profiles,
            sites=self.sites,
            profile=self.profile.tolist(),
            site=self.site.tolist(),
            heard_at=self.heard_at.tolist(),
            heard_up=self.heard_up.tolist(),
            granted_at=self.granted_at.tolist(),
            state=bytes(self.state),
            gates=bytes(self.gates),
            flags=bytes(self.flags),
        )

    @classmethod
    def unpack(cls, packed: Packed, scheme: Scheme) -> "Crowd":
        """Return the columns that were stored.

        Raises:
            ValueError: columns of different lengths.
        """
        crowd = cls(scheme)
        crowd.names = packed.names.split("\n") if packed.state else []
        crowd.numbers = {name: number for number, name in enumerate(crowd.names)}
        for profile in packed.profiles:
            crowd._profile_number(profile)
        for site in packed.sites:
            crowd._site_number(site)
        crowd.profile, crowd.site = array("I", packed.profile), array("I", packed.site)
        crowd.heard_at = array("q", packed.heard_at)
        crowd.heard_up = array("q", packed.heard_up)
        crowd.granted_at = array("q", packed.granted_at)
        crowd.state, crowd.gates = bytearray(packed.state), bytearray(packed.gates)
        crowd.flags = bytearray(packed.flags)
        columns = (crowd.profile, crowd.site, crowd.heard_at, crowd.heard_up, crowd.granted_at,
                   crowd.state, crowd.gates, crowd.flags, crowd.numbers)  # fmt: skip
        if {len(column) for column in columns} != {len(crowd.names)}:
            raise ValueError("columns of different lengths")
        return crowd


def to_bytes(column: "array[int] | array[float]") -> bytes:
    """Return a column for a store: little-endian."""
    if sys.byteorder == "little":
        return column.tobytes()
    swapped = column[:]
    swapped.byteswap()
    return swapped.tobytes()


def from_bytes(typecode: Literal["H", "I", "q"], data: bytes) -> "array[int]":
    """Return a column of whole numbers that was stored.

    Raises:
        ValueError: not a whole number of them.
    """
    column = array(typecode, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def floats(data: bytes) -> "array[float]":
    """Return a column of single-precision numbers that was stored.

    Raises:
        ValueError: not a whole number of them.
    """
    column = array("f", data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
