"""`custom` with `tries = true`: the board's program grants as many tries as it is asked for."""

from pathlib import Path

from tests.contract.loaders import custom
from tests.contract.rig import Rig


def rig(folder: Path) -> Rig:
    """Make a board with two good slots."""
    return custom.rig(folder, tries=True)
