"""What is recorded: one disk a rig, the shipped code that writes on it, and the calls that are made, in order.

Data only, of the standard library: the guest reads it as the host does.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Medium = Literal["vfat", "ext4", "raw"]
SLOTS: Final = ("A", "B")
#: Where the guest mounts the rig's volume.
MOUNT: Final = "/mnt"
ENV_BYTES: Final = 0x4000
ENV_AT: Final = (0x80000, 0x90000)


@dataclass(frozen=True)
class Call:
    """One call of the code under test. `first`: the slot that is booted next once it has returned; "" where that is not the question."""

    name: str
    verb: str
    arguments: tuple[Any, ...] = ()
    first: str = ""


@dataclass(frozen=True)
class Rig:
    """One disk and one writer.

    Attributes:
        name: of the log.
        medium: file system; `raw`: none.
        writer: `bootloader:NAME`, `journal`, `storage`, `slot`: the shipped code; `control:NAME`: one that is wrong on purpose.
        reader: how a state is read (`readers.READERS`).
        calls: made one after the other.
        sources: files of `src/tidegate` that make the writes: when one changes, the log is too old.
        settings: of the boot loader back end.
        files: on the volume to begin with.
        raw: bytes on the disk to begin with, by offset.
        lost: states of this rig are known to be lost: the control group.
        inert: nobody reads it before the call has returned.
        features: of the ext4 volume, beside the usual ones.
        block_bytes: of the ext4 volume.
        size: bytes of the volume.
    """

    name: str
    medium: Medium
    writer: str
    reader: str
    calls: tuple[Call, ...]
    sources: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    raw: dict[int, bytes] = field(default_factory=dict)
    lost: bool = False
    inert: bool = False
    features: str = "^metadata_csum"
    block_bytes: int = 4096
    size: int = 16 << 20


#: There and back: an update that is confirmed, one that reverts, and the refill after a healthy boot.
THERE_AND_BACK: Final = (
    Call("arm B", "arm_trial", ("B", 3), "B"),
    Call("commit B", "commit", ("B",), "B"),
    Call("mark A bad", "mark_bad", ("A",), "B"),
    Call("arm A", "arm_trial", ("A", 2), "A"),
    Call("revert A", "mark_bad", ("A",), "B"),
    Call("commit B again", "commit", ("B",), "B"),
)


def u_boot_environment(variables: dict[str, str], flag: int | None = None) -> bytes:
    """Return a whole environment; with a flag, one of a redundant pair."""
    head = 4 if flag is None else 5
    text = b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
    data = (text + b"\0").ljust(ENV_BYTES - head, b"\0")
    crc = struct.pack("<I", zlib.crc32(data))
    return crc + (b"" if flag is None else bytes([flag])) + data


def grub_environment(variables: dict[str, str]) -> bytes:
    """Return GRUB's block of 1,024 bytes."""
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    return f"# GRUB Environment Block\n{lines}".encode().ljust(1024, b"#")


FILE: Final = Rig(
    name="file",
    medium="ext4",
    writer="bootloader:file",
    reader="boot_record",
    calls=THERE_AND_BACK,
    sources=("agent/bootloaders/file.py", "agent/boot_file.py", "agent/files.py"),
    settings={"path": f"{MOUNT}/state/boot.json"},
    files={"state/": b""},
    size=16 << 20,
)
JOURNAL: Final = Rig(
    name="journal",
    medium="ext4",
    writer="journal",
    reader="journal",
    # One call a durable state of an update; how many there are, the recorder says.
    calls=(),
    sources=("agent/journal.py", "agent/files.py"),
    files={"state/": b""},
    block_bytes=1024,
    size=4 << 20,
)
STORAGE: Final = Rig(
    name="storage",
    medium="ext4",
    writer="storage",
    reader="folder",
    calls=(
        Call("new", "write", ("tuf.root.0", "one " * 40)),
        Call("longer", "write", ("tuf.root.0", "two " * 3000)),
        Call("shorter", "write", ("tuf.root.0", "3")),
        Call("empty", "write", ("tuf.root.0", "")),
        Call("another", "write", ("spool", "four " * 200)),
        Call("deleted", "delete", ("tuf.root.0",)),
        Call("deleted again", "delete", ("tuf.root.0",)),
    ),
    sources=("agent/files.py",),
    files={"state/": b""},
    size=16 << 20,
)
SLOT: Final = Rig(
    name="slot",
    medium="raw",
    writer="slot",
    reader="bytes",
    calls=(
        Call("first segments", "put", (0, 24 << 10, 1)),
        Call("over old ones", "put", (8 << 10, 24 << 10, 2)),
        Call("an odd end", "put", (32 << 10, 5000, 3)),
    ),
    sources=("agent/board.py",),
    raw={0: b"\xee" * (64 << 10)},
    inert=True,
    size=1 << 20,
)
_GRUB: Final = {"ORDER": "A B", "A_OK": "1", "B_OK": "1", "A_TRY": "3", "B_TRY": "0"}
_U_BOOT: Final = {"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "0", "ethaddr": "0"}
_ARM: Final = (Call("arm B", "arm", (), "B"), Call("back to A", "back", (), "A"))
#: Writers that are wrong. Each is known to lose states: that the enumeration finds them shows that it can find any.
CONTROL: Final = (
    Rig(
        name="control-rename-over-on-fat",
        medium="vfat",
        writer="control:rename_over",
        reader="grub",
        calls=_ARM,
        files={"grubenv": grub_environment(_GRUB)},
        lost=True,
    ),
    Rig(
        name="control-rename-to-free-name-on-fat",
        medium="vfat",
        writer="control:rename_free",
        reader="entries",
        calls=_ARM,
        files={"loader/": b"", "loader/entries/": b"", "loader/entries/b.conf": b"title b\n" * 9},
        lost=True,
    ),
    Rig(
        name="control-one-raw-copy",
        medium="raw",
        writer="control:one_copy",
        reader="u_boot_single",
        calls=_ARM,
        raw={ENV_AT[0]: u_boot_environment(_U_BOOT)},
        lost=True,
        size=1 << 20,
    ),
    Rig(
        name="control-no-fsync-on-ext4",
        block_bytes=1024,
        medium="ext4",
        writer="control:no_fsync",
        reader="folder",
        calls=_ARM,
        files={"state/": b"", "state/env": b"order A B"},
        lost=True,
        size=4 << 20,
    ),
)
RIGS: Final = (FILE, JOURNAL, STORAGE, SLOT, *CONTROL)
