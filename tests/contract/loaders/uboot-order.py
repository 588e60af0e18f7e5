"""`uboot`, style `order`, two copies. The loader's side is what `boot/uboot/tidegate.cmd` promises, without the agent's code."""

from pathlib import Path

from tests.contract.rig import SLOTS, Rig
from tests.contract.uboot_board import UbootBoard


def rig(folder: Path) -> Rig:
    """Make a board whose script has run once."""
    board = UbootBoard(folder, copies=2)
    board.save(
        {
            "BOOT_ORDER": "A B",
            "BOOT_A_LEFT": "3",
            "BOOT_B_LEFT": "3",
            "ethaddr": "02:00:00:00:00:01",
        }
    )
    return Rig("uboot", board.settings() | {"slots": SLOTS}, lambda: boot(board), board.damage)


def boot(board: UbootBoard) -> str:
    """Power on: the script takes the first slot of the order with tries left, spends one and saves; when none is left it fills all up and starts anew."""
    while True:
        env = board.load()
        for slot in env["BOOT_ORDER"].split():
            left = int(env[f"BOOT_{slot}_LEFT"], 16)
            if left > 0:
                board.save(env | {f"BOOT_{slot}_LEFT": f"{left - 1:x}"})
                return slot
        board.save(env | {f"BOOT_{slot}_LEFT": "3" for slot in env["BOOT_ORDER"].split()})
