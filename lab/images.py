"""Images of a lab device: initramfs, slots, the boot partition and the whole disk. Nothing needs root, a loop device or a mount."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab import cache, rootfs
from lab.kernel import Kernel, kernel
from lab.tools import run

MIB: Final = 1 << 20
BUILT_AT: Final = 1_750_000_000
_UUID: Final = "7d1e6a7e-0000-4000-8000-0000000000aa"
#: In the order in which they are inserted.
_FIRST_MODULES: Final = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the disk is divided, in MiB: a gap of one for what must come first, the FAT that loader and Linux share, two slots, and the data that stay."""

    boot: int = 32
    slot: int = 80
    data: int = 32

    def start(self, part: int) -> int:
        """Return where a partition begins, 1 to 4, in bytes."""
        before = (0, self.boot, self.slot, self.slot)
        return (1 + sum(before[:part])) * MIB

    def size(self, part: int) -> int:
        """Return how long it is, in bytes."""
        return (self.boot, self.slot, self.slot, self.data)[part - 1] * MIB

    @property
    def total(self) -> int:
        """Length of the disk, in bytes."""
        return self.start(4) + self.size(4) + MIB


#: What can be wrong with an image, by name: files that replace those of the good one (None: the file is not there).
FAULTS: Final[Mapping[str, Mapping[str, str | None]]] = {
    "": {},
    # Process 1 ends: the kernel panics.
    "panic": {"sbin/init": "#!/bin/sh\necho INIT gives up\nexit 1\n"},
    # Neither up nor down: nothing but a watchdog ends this.
    "hang": {"sbin/init": "#!/bin/sh\necho INIT hangs\nwhile true; do sleep 60; done\n"},
    "no-kernel": {"boot/vmlinuz": None},
    "dead-service": {"usr/bin/app": "#!/bin/sh\necho 0 >/run/app.errors\necho APP cannot start\nexit 1\n"},
    "errors": {
        "usr/bin/app": "#!/bin/sh\necho $$ >/run/app.pid\ncount=0\n"
        "while true; do count=$((count + 5)); echo $count >/run/app.errors; sleep 0.2; done\n"
    },
}  # fmt: skip


def tree() -> Path:
    """Return the root file system of a good product, as a folder of the cache: do not change it."""
    found = kernel()
    parts = (
        rootfs.GUEST,
        Path(rootfs.__file__),
        cache.ROOT / "requirements" / "agent.txt",
        cache.ROOT / "src" / "tidegate" / "core",
        cache.ROOT / "src" / "tidegate" / "agent",
        found.version,
        initrd().read_bytes(),
    )

    def make(into: Path) -> None:
        rootfs.make_tree(into / "tree", found)
        shutil.copy2(found.image, into / "tree" / "boot" / "vmlinuz")
        shutil.copy2(initrd(), into / "tree" / "boot" / "initrd")

    return cache.kept("rootfs", parts, make) / "tree"


def initrd() -> Path:
    """Return the initramfs: busybox, the modules of the disk, and a script."""
    found = kernel()
    script = rootfs.GUEST / "initramfs"
    return (
        cache.kept("initrd", [found.version, script], lambda into: _initrd(into, found)) / "initrd"
    )


def _initrd(into: Path, found: Kernel) -> None:
    inside = into / "inside"
    shutil.copytree(rootfs.GUEST / "initramfs", inside)
    for name in ("bin", "proc", "sys", "dev", "root", "modules"):
        (inside / name).mkdir(exist_ok=True)
    shutil.copy2(shutil.which("busybox") or "/bin/busybox", inside / "bin" / "busybox")
    for name in ("sh", "cat", "insmod", "mount", "reboot", "sleep", "switch_root", "echo"):
        (inside / "bin" / name).symlink_to("busybox")
    bodies = {name: found.module(name) for name in (*_FIRST_MODULES, "watchdog", "softdog")}
    for name, body in bodies.items():
        if body is not None:
            (inside / "modules" / f"{name}.ko").write_bytes(body)
    order = [name for name in _FIRST_MODULES if bodies[name] is not None]
    (inside / "modules" / "order").write_text("\n".join(order) + "\n")
    names = "\n".join(sorted(str(one.relative_to(inside)) for one in inside.rglob("*")))
    packed = into / "packed"
    run(
        "cpio",
        "-o",
        "-H",
        "newc",
        "--reproducible",
        "-R",
        "0:0",
        "-F",
        packed,
        cwd=inside,
        text=names + "\n",
    )
    run("zstd", "-q", "-3", packed, "-o", into / "initrd")
    packed.unlink()
    shutil.rmtree(inside)


def slot(
    version: str,
    fault: str = "",
    *,
    files: Mapping[str, str | None] | None = None,
    layout: Layout | None = None,
) -> Path:
    """Return a slot's image, from the cache.

    Args:
        version: what `/etc/version` says.
        fault: one of `FAULTS`.
        files: more files that replace or, as None, leave out those of the good product.
        layout: which slots it is made for.
    """
    size = (layout or Layout()).size(2)
    good = tree()
    changes = {**FAULTS[fault], **(files or {}), "etc/version": version + "\n"}

    def make(into: Path) -> None:
        run("cp", "-al", good, into / "tree")
        for name, text in changes.items():
            target = into / "tree" / name
            mode = target.stat().st_mode if target.exists() else 0o100644
            target.unlink(missing_ok=True)
            if text is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                target.chmod(mode & 0o7777)
        make_ext4(into / "tree", into / "slot.ext4", size)
        shutil.rmtree(into / "tree")

    parts = (good.parent.name, repr(sorted(changes.items())), str(size))
    return cache.kept("slot", parts, make) / "slot.ext4"


def make_ext4(source: Path | None, image: Path, size: int, *, journal: bool = False) -> None:
    """Make an ext4 file system that a boot loader can read (`journal`: that Linux can write to and lose power)."""
    features = "^metadata_csum,^64bit,^resize_inode" + ("" if journal else ",^has_journal")
    command = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-m",
        "0",
        "-O",
        features,
        "-U",
        _UUID,
    ]
    command += ["-E", f"hash_seed={_UUID},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"]
    if source is not None:
        command += ["-d", str(source)]
    run(*command, image, str(size // 4096), env={"E2FSPROGS_FAKE_TIME": str(BUILT_AT)})


def make_fat(files: Mapping[str, bytes], image: Path, size: int, scratch: Path) -> None:
    """Make the boot partition; names may hold one folder after the other."""
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.vfat", "-n", "BOOT", "-i", "7DE6A7E0", image)
    for name, body in files.items():
        folder, parent = name.rpartition("/")[0], ""
        for part in filter(None, folder.split("/")):
            parent = f"{parent}/{part}"
            try:
                run("mdir", "-i", image, f"::{parent}")
            except RuntimeError:
                run("mmd", "-i", image, f"::{parent}")
        (scratch / "one").write_bytes(body)
        run("mcopy", "-i", image, scratch / "one", f"::{name}")


def make_disk(
    disk: Path,
    *,
    layout: Layout,
    boot: Mapping[str, bytes],
    slots: tuple[Path | None, Path | None],
    data: Mapping[str, bytes],
) -> None:
    """Put a whole disk together.

    Args:
        disk: the file to make.
        layout: how it is divided.
        boot: files of the FAT partition.
        slots: images of A and B; None leaves one empty.
        data: files of the data partition; `factory/` is where the guest looks for what this one device is.
    """
    scratch = disk.with_name(disk.name + ".parts")
    scratch.mkdir()
    with disk.open("wb") as file:
        file.truncate(layout.total)
    kinds = ("ef", "83", "83", "83")
    table = "label: dos\nlabel-id: 0x7de6a7e0\n" + "".join(
        f"start={layout.start(part) // 512},size={layout.size(part) // 512},type={kinds[part - 1]}\n"
        for part in (1, 2, 3, 4)
    )
    run("sfdisk", "-q", disk, text=table)
    make_fat(boot, scratch / "fat", layout.size(1), scratch)
    kept = scratch / "data"
    kept.mkdir()
    for name, body in data.items():
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(body)
    make_ext4(kept, scratch / "data.ext4", layout.size(4), journal=True)
    for part, source in (
        (1, scratch / "fat"),
        (2, slots[0]),
        (3, slots[1]),
        (4, scratch / "data.ext4"),
    ):
        if source is not None:
            put(disk, layout.start(part), source)
    shutil.rmtree(scratch)


def put(disk: Path, offset: int, source: Path) -> None:
    """Write a file into a disk, leaving out what is zero."""
    with disk.open("r+b") as out, source.open("rb") as file:
        while piece := file.read(MIB):
            if piece.count(0) != len(piece):
                out.seek(offset)
                out.write(piece)
            offset += len(piece)


def read(disk: Path, offset: int, length: int) -> bytes:
    """Read a piece of a disk."""
    with disk.open("rb") as file:
        file.seek(offset)
        return file.read(length)
