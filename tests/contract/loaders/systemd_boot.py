"""`systemd_boot`: the choice of systemd-boot 252 (`config_entry_compare`, `config_entry_bump_counters`), written down a second time over a folder."""

import re
from pathlib import Path

from tests.contract.rig import SLOTS, Rig

NAME = re.compile(r"(?P<id>.+?)(?P<count>\+(?P<left>\d+)(-(?P<done>\d+))?)?\.conf")


def entry(slot: str) -> str:
    """Return an entry's text."""
    low = slot.lower()
    return (
        f"title {slot}\nlinux /{low}/vmlinuz\ninitrd /{low}/initrd\n"
        f"options root=PARTLABEL=slot-{low} tidegate.slot={slot} quiet panic=-1\n"
    )


def _weight(path: Path) -> tuple[bool, list[tuple[bool, int, str]]]:
    found = NAME.fullmatch(path.name)
    assert found is not None
    parts = re.findall(r"\d+|\D+", path.name.lower())
    segments = [(one.isdigit(), int(one) if one.isdigit() else 0, one) for one in parts]
    return found["left"] is None or int(found["left"]) > 0, segments


def power_on(folder: Path) -> str:
    """Sort as the loader does, count the first down, and return the slot that its options name."""
    usable = [one for one in folder.glob("*.conf") if "linux" in one.read_text()]
    first = max(usable, key=_weight)
    found = NAME.fullmatch(first.name)
    assert found is not None
    if found["count"] is not None:
        left, done = int(found["left"]), int(found["done"] or 0)
        first = first.rename(folder / f"{found['id']}+{max(0, left - 1)}-{done + 1}.conf")
    return re.findall(r"tidegate\.slot=(\w)", first.read_text())[0]  # type: ignore[no-any-return]


def rig(folder: Path) -> Rig:
    """Make an EFI system partition with two committed slots."""
    entries = folder / "loader" / "entries"
    entries.mkdir(parents=True)
    (folder / "loader" / "loader.conf").write_text("timeout 0\n")
    for number, slot in ((2, "A"), (1, "B")):
        (entries / f"tidegate-{number}-{slot.lower()}.conf").write_text(entry(slot))

    def damage() -> None:
        for one in entries.glob("*-b*.conf"):
            one.write_bytes(b"")

    settings = {"esp": str(folder), "efivars": str(folder / "efivars"), "slots": SLOTS}
    return Rig("systemd_boot", settings, lambda: power_on(entries), damage)
