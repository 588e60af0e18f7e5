"""What the real U-Boot must do with an environment, without the code that is judged: a reader of the copies, and the two scripts in a few lines."""

import struct
import zlib
from pathlib import Path

from lab import images, uboot
from tests.crash.blocklog.fat import Fat

Variables = dict[str, str]
#: When the power goes.
AT_MARKER, AT_RANDOM, IN_ITS_WRITE = MOMENTS = ("at its marker", "at random", "in its own write")


def find_copies(disk: Path, layout: images.Layout) -> tuple[int, ...]:
    """Return where each copy begins; the loader may have moved them."""
    start, size = layout.start(1), layout.size(1)
    body = images.read(disk, start, size)
    fat = Fat(body)
    found = []
    for name in uboot.COPIES:
        node = fat._find("", name)
        at = fat._data + (node.cluster - 2) * fat._cluster
        assert body[at : at + uboot.ENV_BYTES] == fat.read(name), f"{name} lies in pieces"
        found.append(start + at)
    return tuple(found)


def counting(disk: Path, copies: tuple[int, ...]) -> Variables | None:
    """Return the variables of the copy that counts; None when none is whole: the environment is lost."""
    whole = []
    for at in copies:
        body = images.read(disk, at, uboot.ENV_BYTES)
        crc, flag = struct.unpack_from("<IB", body)
        if zlib.crc32(body[5:]) == crc:
            whole.append((flag, _variables(body[5:])))
    if not whole:
        return None
    if len(whole) == 1:
        return whole[0][1]
    (one, first), (two, second) = whole
    newer = two > one if {one, two} != {0, 255} else two == 0
    return second if newer else first


def _variables(body: bytes) -> Variables:
    text = body.partition(b"\0\0")[0].decode("utf-8", "replace")
    return dict(line.partition("=")[::2] for line in text.split("\0") if line)


def started(style: uboot.Style, before: Variables) -> tuple[str, Variables]:
    """Return which slot the loader starts, and what it has written down before; `none` when it fills up and resets."""
    return _order(before) if style == "order" else _bootcount(before)


def _order(before: Variables) -> tuple[str, Variables]:
    after = dict(before)
    slots = [one for one in before["BOOT_ORDER"].split() if one in ("A", "B")]
    for slot in slots:
        left = int(before[f"BOOT_{slot}_LEFT"], 16)
        if left:
            after[f"BOOT_{slot}_LEFT"] = f"{left - 1:x}"
            return slot, after
    after |= {f"BOOT_{slot}_LEFT": "3" for slot in slots}
    return "none", after


def _bootcount(before: Variables) -> tuple[str, Variables]:
    slot = before["tidegate_slot"]
    if before["upgrade_available"] != "1":
        return slot, dict(before)
    count = int(before["bootcount"]) + 1
    if count <= int(before["bootlimit"]):
        return slot, {**before, "bootcount": str(count)}
    other = "A" if slot == "B" else "B"
    return other, {**before, "tidegate_slot": other, "upgrade_available": "0", "bootcount": "0"}


def written(style: uboot.Style, before: Variables) -> list[Variables]:
    """Return what one start writes into the environment, in order: past its limit, U-Boot's count goes before `altbootcmd`'s change."""
    after = started(style, before)[1]
    if style == "order" or before["upgrade_available"] != "1":
        return [after]
    return [{**before, "bootcount": str(int(before["bootcount"]) + 1)}, after]


def same(one: Variables, other: Variables) -> bool:
    """Say whether two environments mean the same boots; the rest is the loader's own."""
    names = {"BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT", "tidegate_slot", "tidegate_trial", "tidegate_bad"}  # fmt: skip
    names |= {"upgrade_available", "bootlimit"}
    if one.get("upgrade_available") == "1":
        names.add("bootcount")
    return all(one.get(name) == other.get(name) for name in names)
