"""`uboot`, style `bootcount`, two copies. The loader's side is U-Boot's own counter and what `boot/uboot/tidegate-bootcount.env` promises."""

from pathlib import Path

from tests.contract.rig import SLOTS, Rig
from tests.contract.uboot_board import UbootBoard


def rig(folder: Path) -> Rig:
    """Make a board as it leaves the factory."""
    board = UbootBoard(folder, copies=2)
    board.save({"tidegate_slot": "A", "upgrade_available": "0", "bootcount": "0", "bootlimit": "3"})
    settings = board.settings() | {"style": "bootcount", "slots": SLOTS}
    return Rig("uboot", settings, lambda: boot(board), board.damage)


def boot(board: UbootBoard) -> str:
    """Power on: U-Boot counts and saves while an upgrade is available; past the limit, altbootcmd goes to the other slot and says so."""
    env = board.load()
    if int(env.get("upgrade_available", "0")):
        count = int(env.get("bootcount", "0")) + 1
        env |= {"bootcount": str(count)}
        board.save(env)
        if count > int(env["bootlimit"]) > 0:
            back = "A" if env["tidegate_slot"] == "B" else "B"
            if back == env.get("tidegate_bad"):
                back = env["tidegate_slot"]
            env |= {"tidegate_slot": back, "upgrade_available": "0", "bootcount": "0"}
            board.save(env)
    return env["tidegate_slot"]
