"""`custom`: a board's program with RAUC's verbs and nothing else; its boot loader grants one try."""

from pathlib import Path

from tests.contract.rig import SLOTS, Rig

# order: the slots as they are tried; left-X: tries of a slot that was not yet said to be good; x: as many as it takes.
PROGRAM = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
first() {
    read -r order <order || exit 1
    for slot in $order; do
        case $slot in A|B) ;; *) echo "order: $order?" >&2; exit 1 ;; esac
        [ "$(cat "left-$slot")" = 0 ] || { echo "$slot"; return; }
    done
}
case "$1 $#" in
    "get-primary 1") first ;;
    "set-primary "[23]) case $2 in A) echo A B ;; B) echo B A ;; *) exit 2 ;; esac >order.new
        echo "${3:-1}" >"left-$2" && mv order.new order ;;
    "get-state 2") first >/dev/null; [ "$(cat "left-$2")" = 0 ] && echo bad || echo good ;;
    "get-tries 2") cat "left-$2" ;;
    "set-state 3") [ "$3" = good ] && echo x >"left-$2" || echo 0 >"left-$2" ;;
    "get-current 1") cat current ;;
    *) echo "unknown: $*" >&2; exit 2 ;;
esac
"""


class Board:
    """What the program keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "boot-slots"
        self.program.write_text(PROGRAM)
        self.program.chmod(0o755)
        (folder / "order").write_text("A B\n")
        (folder / "current").write_text("A\n")
        for slot in SLOTS:
            (folder / f"left-{slot}").write_text("x\n")

    def power_on(self) -> str:
        """Take the first slot with tries left; spend one of a slot that was not yet said to be good."""
        for slot in (self.folder / "order").read_text().split():
            path = self.folder / f"left-{slot}"
            left = path.read_text().strip()
            if left == "0":
                continue
            if left != "x":
                path.write_text(f"{int(left) - 1}\n")
            (self.folder / "current").write_text(f"{slot}\n")
            return slot
        raise AssertionError("nothing can be booted: this board is a brick")

    def damage(self) -> None:
        """Spoil what the program keeps."""
        (self.folder / "order").write_text("\0\0\n")


def rig(folder: Path, **more: object) -> Rig:
    """Make a board with two good slots."""
    board = Board(folder)
    settings = {
        "command": [str(board.program)],
        "record": str(folder / "committed"),
        "slots": SLOTS,
        **more,
    }
    return Rig("custom", settings, board.power_on, board.damage, tries_max=15 if more else 1)
