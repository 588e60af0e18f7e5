"""`uboot` over one copy, which somebody accepted: the same contract, but for the power going away while it is rewritten (`tests/crash/test_uboot_env.py`)."""

import importlib
from pathlib import Path

from tests.contract.rig import SLOTS, Rig
from tests.contract.uboot_board import UbootBoard

_order = importlib.import_module("tests.contract.loaders.uboot-order")


def rig(folder: Path) -> Rig:
    """Make a board whose script has run once."""
    board = UbootBoard(folder, copies=1)
    board.save({"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3"})
    settings = board.settings() | {"accept_single_copy": True, "slots": SLOTS}
    return Rig("uboot", settings, lambda: str(_order.boot(board)), board.damage)
