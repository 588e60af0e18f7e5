"""Hardware: a model and a revision; what an artifact is made for; whether the two go together."""

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)")
]
Revision = Annotated[int, Meta(ge=0, le=65535)]


class Hardware(msgspec.Struct, frozen=True):
    """What a device is. `rev` counts board revisions of one model."""

    model: Name
    rev: Revision
    serial: Annotated[str, Meta(max_length=128)] = ""

    @property
    def variant(self) -> str:
        """Return the hardware variant: model and revision, `gw1-r3`."""
        return variant(self.model, self.rev)


class HardwareRange(msgspec.Struct, frozen=True):
    """Revisions of one model, both ends included, less those excluded."""

    model: Name
    rev_min: Revision = 0
    rev_max: Revision = 65535
    exclude_revs: Annotated[tuple[Revision, ...], Meta(max_length=64)] = ()

    def covers(self, hardware: Hardware) -> bool:
        """Say whether this range holds that hardware."""
        return (
            hardware.model == self.model
            and self.rev_min <= hardware.rev <= self.rev_max
            and hardware.rev not in self.exclude_revs
        )


def variant(model: str, rev: int) -> str:
    """Name the hardware variant of a model and revision."""
    return f"{model}-r{rev}"


def compatible(ranges: tuple[HardwareRange, ...], hardware: Hardware) -> bool:
    """Say whether an artifact made for `ranges` may run on `hardware`. No range means nothing is compatible."""
    return any(one.covers(hardware) for one in ranges)
