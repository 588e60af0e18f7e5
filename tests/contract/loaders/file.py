"""`file`: the board's start script is `boot_file.decide`."""

from pathlib import Path

from tests.contract.rig import SLOTS, Rig

from tidegate.agent.boot import file_record as boot_file


def rig(folder: Path) -> Rig:
    """Make a board with a boot record that is not there yet."""
    path = folder / "boot.json"

    def boot() -> str:
        record = boot_file.BootRecord(slots=SLOTS, primary="A")
        if path.exists():
            record = boot_file.decode(path.read_bytes())
        slot, after = boot_file.decide(record)
        path.write_bytes(boot_file.encode(after))
        return slot

    def damage() -> None:
        path.write_bytes(path.read_bytes()[:-9] if path.exists() else b"{")

    return Rig("file", {"path": str(path), "slots": SLOTS}, boot, damage)
