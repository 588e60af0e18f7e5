"""`barebox`: the bootchooser's choice, over a state in two copies that a program with the options of `barebox-state` keeps."""

import json
import sys
import zlib
from pathlib import Path

from tests.contract.rig import SLOTS, Rig

TOOL = f"""#!{sys.executable} -SE
import json, os, sys, zlib
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
def load():
    for copy in (0, 1):
        crc, _, body = open(f"{{folder}}/state.{{copy}}", "rb").read().partition(b" ")
        if crc.isdigit() and int(crc) == zlib.crc32(body):
            return json.loads(body)
    sys.exit("Failed to find any valid state copy in any bucket")
words, got, wanted = iter(sys.argv[1:]), [], []
for word in words:
    value = next(words)
    if word == "-g":
        got.append(value)
    elif word == "-s":
        wanted.append(value.split("=", 1))
    elif word != "-n" or value != "state":
        sys.exit(f"unknown: {{word}} {{value}}")
held = load()
for name in got + [one for one, _ in wanted]:
    if name not in held:
        sys.exit(f"no such variable: {{name}}")
for name in got:
    print(held[name])
if wanted:
    held.update((name, int(value) % 2**32) for name, value in wanted)
    body = json.dumps(held).encode()
    for copy in (0, 1):
        with open(f"{{folder}}/state.{{copy}}", "wb") as file:
            file.write(b"%d " % zlib.crc32(body) + body)
"""
TARGETS = {"system0": "A", "system1": "B"}


class Board:
    """A state with its two copies."""

    def __init__(self, folder: Path) -> None:
        self.copies = [folder / "state.0", folder / "state.1"]
        self.tool = folder / "barebox-state"
        self.tool.write_text(TOOL)
        self.tool.chmod(0o755)
        held = {"bootstate.last_chosen": 0}
        for name, priority in (("system0", 20), ("system1", 10)):
            held[f"bootstate.{name}.priority"] = priority
            held[f"bootstate.{name}.remaining_attempts"] = 15
        self.save(held)

    def load(self) -> dict[str, int]:
        """Read the first copy that is whole."""
        for copy in self.copies:
            crc, _, body = copy.read_bytes().partition(b" ")
            if int(crc) == zlib.crc32(body):
                return dict(json.loads(body))
        raise AssertionError("both copies are damaged")

    def save(self, held: dict[str, int]) -> None:
        """Write both copies, one after the other."""
        body = json.dumps(held).encode()
        for copy in self.copies:
            copy.write_bytes(b"%d " % zlib.crc32(body) + body)

    def power_on(self) -> str:
        """Take the enabled target of the highest priority with attempts left, spend one, save; when all are spent, refill (`all-zero`)."""
        held = self.load()
        for _ in range(2):
            ready = [
                name
                for name in TARGETS
                if held[f"bootstate.{name}.priority"]
                and held[f"bootstate.{name}.remaining_attempts"]
            ]
            if ready:
                chosen = max(ready, key=lambda name: held[f"bootstate.{name}.priority"])
                held[f"bootstate.{chosen}.remaining_attempts"] -= 1
                self.save(held)
                return TARGETS[chosen]
            for name in TARGETS:
                if held[f"bootstate.{name}.priority"]:
                    held[f"bootstate.{name}.remaining_attempts"] = 3
        raise AssertionError("nothing can be booted: this board is a brick")


def rig(folder: Path) -> Rig:
    """Make a board with two good slots."""
    board = Board(folder)

    def damage() -> None:
        for copy in board.copies:
            copy.write_bytes(copy.read_bytes()[:-9])

    return Rig("barebox", {"tool": str(board.tool), "slots": SLOTS}, board.power_on, damage)
