"""What a state of a disk means to whoever starts from it.

None of this shares code with the writers, but for the agent's own reading of its journal, which is held against a plain one.
A reading can be compared and printed; what cannot be read raises one of `LOST`. `first` says which slot a boot loader takes first from a reading.
"""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.crash.blocklog import ext4
from tests.crash.blocklog.fat import DamagedFatError, Fat
from tests.crash.blocklog.rigs import ENV_AT, ENV_BYTES

from tidegate.agent.files import StateDirectory
from tidegate.agent.journal import Journal
from tidegate.agent.state import State


class UnreadableError(Exception):
    """Somebody who starts from this finds nothing that he can use."""


#: What a reader raises when a state is lost.
LOST: Final = (UnreadableError, DamagedFatError, ext4.DamagedExt4Error)
Reading = Any


@dataclass(frozen=True)
class Reader:
    """One way to read a disk.

    Attributes:
        read: (image, scratch folder) → what it holds.
        first: the slot that is booted next by that.
        programs: needed for it: (program, Debian package).
    """

    read: Callable[[bytearray, Path], Reading]
    first: Callable[[Reading], str] = lambda _reading: ""
    programs: tuple[tuple[str, str], ...] = ()


# --- U-Boot's environment ---------------------------------------------------------------------------------------------


def _variables(area: bytes) -> dict[str, str]:
    found = {}
    for line in area.split(b"\0\0")[0].split(b"\0"):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.decode()] = value.decode()
    return found


def _whole(copy: bytes, head: int) -> bool:
    return bool(struct.unpack_from("<I", copy)[0] == zlib.crc32(copy[head:]))


def single(copy: bytes) -> dict[str, str]:
    """Read the only copy of an environment."""
    if not _whole(copy, 4):
        raise UnreadableError("bad CRC: the loader takes its built-in environment")
    return _variables(copy[4:])


def redundant(first: bytes, second: bytes) -> dict[str, str]:
    """Read a pair as U-Boot does: of two whole copies the one with the next flag, 255 being followed by 0."""
    whole = [one for one in (first, second) if _whole(one, 5)]
    if not whole:
        raise UnreadableError("bad CRC in both copies: the loader takes its built-in environment")
    if len(whole) == 2:
        flags = first[4], second[4]
        wrapped = set(flags) == {0, 255}
        whole = [whole[flags.index(0) if wrapped else int(flags[1] > flags[0])]]
    return _variables(whole[0][5:])


def _raw_single(image: bytearray, folder: Path) -> Reading:
    return single(bytes(image[ENV_AT[0] : ENV_AT[0] + ENV_BYTES]))


def _raw_pair(image: bytearray, folder: Path) -> Reading:
    return redundant(*(bytes(image[at : at + ENV_BYTES]) for at in ENV_AT))


def _fat_pair(image: bytearray, folder: Path) -> Reading:
    volume = Fat(image)
    copies = []
    for name in ("uboot.env", "uboot-redund.env"):
        try:
            copies.append(volume.read(name).ljust(ENV_BYTES, b"\xff"))
        except DamagedFatError:
            copies.append(b"\xff" * ENV_BYTES)
    return redundant(*copies)


def _by_order(variables: Mapping[str, str]) -> str:
    for slot in variables["BOOT_ORDER"].split():
        if int(variables.get(f"BOOT_{slot}_LEFT") or 0) > 0:
            return slot
    return "none"


def _by_count(variables: Mapping[str, str]) -> str:
    slot = variables["tidegate_slot"]
    counting = variables["upgrade_available"] == "1"
    if counting and int(variables["bootcount"]) >= int(variables["bootlimit"]):
        return "AB".replace(slot, "")
    return slot


# --- GRUB's block -----------------------------------------------------------------------------------------------------


def _grub(image: bytearray, folder: Path) -> Reading:
    block = Fat(image).read("grubenv")
    if len(block) != 1024 or not block.startswith(b"# GRUB Environment Block\n"):
        raise UnreadableError(f"grubenv is no environment block: {block[:32]!r}")
    lines = block.decode("ascii", "replace").splitlines()
    return dict(one.split("=", 1) for one in lines if "=" in one and not one.startswith("#"))


def _by_grub(variables: Mapping[str, str]) -> str:
    for slot in variables["ORDER"].split():
        if int(variables.get(f"{slot}_TRY") or 0):
            return slot
    return "none"


# --- the firmware's own file on a Raspberry Pi ------------------------------------------------------------------------


def _autoboot(image: bytearray, folder: Path) -> Reading:
    body = Fat(image).read("autoboot.txt")
    found = re.fullmatch(
        rb"\[all\]\ntryboot_a_b=1\nboot_partition=([23])\n\[tryboot\]\nboot_partition=([23])\n"
        rb"# tidegate trial=([-AB]) bad=([-AB]) boot=([-0-9a-f]{12})\n",
        body,
    )
    if found is None or found[1] == found[2]:
        raise UnreadableError(f"autoboot.txt: {body[:120]!r}")
    return tuple(one.decode() for one in found.groups())


def _by_tryboot(fields: tuple[str, ...]) -> str:
    """Return what the next restart tries, or what stands in `[all]`."""
    return fields[2] if fields[2] != "-" else {"2": "A", "3": "B"}[fields[0]]


# --- boot entries on an ESP -------------------------------------------------------------------------------------------


_NAME: Final = re.compile(r"tidegate-(\d+)-([ab])(?:\+(\d+)(?:-\d+)?)?\.conf")


def _entries(image: bytearray, folder: Path) -> Reading:
    """Return (slot, tries left) in the order in which systemd-boot would start them: spent ones last, then by number."""
    volume = Fat(image)
    found: list[tuple[bool, int, str, str]] = []
    for name in volume.names("loader/entries"):
        match = _NAME.fullmatch(name)
        body = volume.read(f"loader/entries/{name}").decode("utf-8", "replace")
        if match is None or not re.search("^linux ", body, re.MULTILINE):
            continue
        number, slot, left = match.groups()
        if f"tidegate.slot={slot.upper()}" not in body:
            raise UnreadableError(f"{name} starts the other slot")
        found.append((left != "0", int(number), slot.upper(), left or "kept"))
    ranked = [(slot, left) for _, _, slot, left in sorted(found, reverse=True)]
    # Of one slot's entries, the first is started; what else a cut left of it is nobody's.
    first = {slot: (slot, left) for slot, left in reversed(ranked)}
    if len(first) != 2:
        raise UnreadableError(f"a slot without an entry: {ranked}")
    return sorted(first.values(), key=ranked.index)


# --- the agent's files on ext4 ----------------------------------------------------------------------------------------


def _folder(image: bytearray, folder: Path) -> Reading:
    found = ext4.files(image, folder, "/state")
    # What was on its way to a name is nobody's: the next write of that name takes its place.
    return {name: body for name, body in found.items() if not name.endswith(".new")}


def _boot_record(image: bytearray, folder: Path) -> Reading:
    body = _folder(image, folder).get("boot.json")
    if body is None:
        return {"primary": "A", "trial": None, "tries": 0}
    try:
        head, _, rest = body.partition(b',"record":')
        record = rest[:-1]
        crc = json.loads(head + b"}")["crc32"]
    except (ValueError, KeyError) as error:
        raise UnreadableError(f"boot.json: {body[:64]!r}") from error
    if zlib.crc32(record) != crc:
        raise UnreadableError("boot.json: bad CRC")
    return json.loads(record)


def _by_record(record: Mapping[str, Any]) -> str:
    return str(record["trial"] if record["trial"] and record["tries"] else record["primary"])


def _copy_of(body: bytes) -> tuple[int, bytes] | None:
    """Check one copy of the journal by what its format says."""
    line, _, state = body.partition(b"\n")
    words = line.split(b" ")
    if len(words) != 4 or words[0] != b"tidegate-journal":
        return None
    whole = hashlib.sha256(words[2] + b"\n" + state).hexdigest() == words[3].decode()
    return (int(words[2]), state) if whole else None


def _journal(image: bytearray, folder: Path) -> Reading:
    files = _folder(image, folder)
    copies = [
        copy for name in ("journal.0", "journal.1") if (copy := _copy_of(files.get(name, b"")))
    ]
    agent, damaged = Journal(StateDirectory(str(folder / "out" / "state"))).read()
    if not copies:
        if agent is not None or any(name.startswith("journal.") for name in files):
            raise UnreadableError("no copy of the journal is whole")
        return None
    newest = max(copies)[1]
    if damaged or agent is None:
        raise UnreadableError("the agent finds its journal damaged")
    # By value: the log may be older than the last field that a journal got.
    if agent != msgspec.json.decode(newest, type=State):
        raise UnreadableError("the agent reads another state than the newest whole copy")
    return json.loads(newest)


def _bytes(image: bytearray, folder: Path) -> Reading:
    return hashlib.sha256(image[: 64 << 10]).hexdigest()


_E2FSPROGS: Final = tuple((one, "e2fsprogs") for one in ext4.PROGRAMS)
READERS: Final = {
    "bytes": Reader(_bytes),
    "u_boot_single": Reader(_raw_single, _by_order),
    "u_boot_raw_pair": Reader(_raw_pair, _by_order),
    "u_boot_fat_pair": Reader(_fat_pair, _by_order),
    "grub": Reader(_grub, _by_grub),
    "autoboot": Reader(_autoboot, _by_tryboot),
    "entries": Reader(_entries, lambda ranked: str(ranked[0][0])),
    "u_boot_bootcount": Reader(_raw_pair, _by_count),
    "folder": Reader(_folder, programs=_E2FSPROGS),
    "boot_record": Reader(_boot_record, _by_record, programs=_E2FSPROGS),
    "journal": Reader(_journal, programs=_E2FSPROGS),
}
