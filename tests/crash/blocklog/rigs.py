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
        fat_bits: of the FAT volume.
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
    fat_bits: int = 16
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
    sources=("agent/bootloaders/file.py", "agent/boot/file_record.py", "agent/files.py"),
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
        # Long enough to go past the cache.
        Call("a long run", "put", (128 << 10, (64 << 10) + 512, 4)),
    ),
    sources=("agent/install/slot_file.py",),
    raw={0: b"\xee" * (64 << 10)},
    inert=True,
    size=1 << 20,
)
_U_BOOT_SOURCES: Final = (
    "agent/bootloaders/uboot.py",
    "agent/boot/uboot_env.py",
    "agent/boot/uboot_store.py",
    "agent/boot/uboot_styles.py",
)
_ORDER: Final = {
    "bootcmd": "run tidegate_boot",
    "BOOT_ORDER": "A B",
    "BOOT_A_LEFT": "3",
    "BOOT_B_LEFT": "0",
    # Longer than a sector, as environments of real boards are.
    **{f"unused{number}": "x" * 40 for number in range(40)},
}
_COUNT: Final = {"upgrade_available": "0", "bootcount": "0", "bootlimit": "3", "tidegate_slot": "A"}
_ON_DISK: Final = [f"DEVICE {at:#x} {ENV_BYTES:#x}" for at in ENV_AT]
_ON_FAT: Final = [
    f"{MOUNT}/{name} 0x0 {ENV_BYTES:#x}" for name in ("uboot.env", "uboot-redund.env")
]
U_BOOT: Final = Rig(
    name="uboot-order-raw",
    medium="raw",
    writer="bootloader:uboot",
    reader="u_boot_raw_pair",
    calls=THERE_AND_BACK,
    sources=_U_BOOT_SOURCES,
    settings={"env": _ON_DISK, "lock": "/tmp/lock"},
    raw={
        ENV_AT[0]: u_boot_environment(_ORDER, 254),
        ENV_AT[1]: u_boot_environment(_ORDER, 253),
    },
    size=1 << 20,
)
U_BOOT_FAT: Final = Rig(
    name="uboot-order-fat",
    medium="vfat",
    writer="bootloader:uboot",
    reader="u_boot_fat_pair",
    calls=THERE_AND_BACK,
    sources=_U_BOOT_SOURCES,
    settings={"env": _ON_FAT, "lock": "/tmp/lock"},
    files={
        "uboot.env": u_boot_environment(_ORDER, 1),
        "uboot-redund.env": u_boot_environment(_ORDER, 2),
    },
)
U_BOOT_COUNT: Final = Rig(
    name="uboot-bootcount-raw",
    medium="raw",
    writer="bootloader:uboot",
    reader="u_boot_bootcount",
    calls=THERE_AND_BACK,
    sources=_U_BOOT_SOURCES,
    settings={"env": _ON_DISK, "lock": "/tmp/lock", "style": "bootcount"},
    raw={
        ENV_AT[0]: u_boot_environment(_COUNT, 1),
        ENV_AT[1]: b"\xff" * ENV_BYTES,
    },
    size=1 << 20,
)
_GRUB_FULL: Final = {"ORDER": "A B", "A_OK": "1", "B_OK": "1", "A_TRY": "15", "B_TRY": "00"}
GRUB: Final = Rig(
    name="grub",
    medium="vfat",
    writer="bootloader:grub",
    reader="grub",
    calls=THERE_AND_BACK,
    sources=("agent/bootloaders/grub.py", "agent/boot/inplace.py"),
    settings={"env": f"{MOUNT}/grubenv"},
    files={"grubenv": grub_environment({**_GRUB_FULL, "other": "kept"})},
    fat_bits=12,
    size=4 << 20,
)
_ENTRY: Final = "title {0}\nlinux /{0}/vmlinuz\noptions tidegate.slot={1}\n"
SYSTEMD_BOOT: Final = Rig(
    name="systemd-boot",
    medium="vfat",
    writer="bootloader:systemd_boot",
    reader="entries",
    calls=THERE_AND_BACK,
    sources=("agent/bootloaders/systemd_boot.py", "agent/files.py"),
    settings={"esp": MOUNT, "efivars": "/tmp"},
    files={
        "loader/": b"",
        "loader/entries/": b"",
        "loader/entries/tidegate-2-a.conf": _ENTRY.format("a", "A").encode(),
        "loader/entries/tidegate-1-b.conf": _ENTRY.format("b", "B").encode(),
    },
    fat_bits=32,
    size=36 << 20,
)
#: As it is shipped in `boot/rpi` (the recording machine has no checkout).
AUTOBOOT: Final = b"""\
[all]
tryboot_a_b=1
boot_partition=2
[tryboot]
boot_partition=3
# tidegate trial=- bad=- boot=------------
"""
RPI_TRYBOOT: Final = Rig(
    name="rpi-tryboot",
    medium="vfat",
    writer="bootloader:rpi_tryboot",
    reader="autoboot",
    calls=THERE_AND_BACK,
    sources=("agent/bootloaders/rpi_tryboot.py", "agent/boot/inplace.py"),
    settings={"autoboot": f"{MOUNT}/autoboot.txt"},
    files={"autoboot.txt": AUTOBOOT},
    fat_bits=16,
    size=16 << 20,
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
        files={
            "loader/": b"",
            "loader/entries/": b"",
            "loader/entries/tidegate-2-a.conf": _ENTRY.format("a", "A").encode(),
            "loader/entries/tidegate-3-b+0.conf": _ENTRY.format("b", "B").encode(),
        },
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
        name="control-uboot-single-copy",
        medium="raw",
        writer="bootloader:uboot",
        reader="u_boot_single",
        calls=THERE_AND_BACK[:2],
        sources=_U_BOOT_SOURCES,
        settings={"env": _ON_DISK[:1], "lock": "/tmp/lock", "accept_single_copy": True},
        raw={ENV_AT[0]: u_boot_environment(_ORDER)},
        lost=True,
        size=1 << 20,
    ),
    Rig(
        # One block group, so no second superblock: its checksum spans two sectors.
        name="control-ext4-metadata-checksums",
        medium="ext4",
        writer="bootloader:file",
        reader="boot_record",
        calls=THERE_AND_BACK[:1],
        sources=FILE.sources,
        settings=FILE.settings,
        files=FILE.files,
        features="metadata_csum",
        block_bytes=1024,
        lost=True,
        size=4 << 20,
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
RIGS: Final = (
    U_BOOT,
    U_BOOT_FAT,
    U_BOOT_COUNT,
    GRUB,
    SYSTEMD_BOOT,
    RPI_TRYBOOT,
    FILE,
    JOURNAL,
    STORAGE,
    SLOT,
    *CONTROL,
)
