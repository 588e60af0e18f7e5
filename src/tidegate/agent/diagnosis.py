"""What the doctor asks of a board around the agent: its slots, its mounts, its kernel's command line, where the state lies, which programs are there.

Everything is read, nothing is changed. What cannot be told on this board is no fault of it: such a question is answered with a warning.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from tidegate.agent.boot.booted import PARAMETERS
from tidegate.agent.settings import Config
from tidegate.core.errors import ConfigError, DeviceError

Level = Literal["ok", "warn", "bad"]
#: File systems that are gone after a restart, or hide what is.
_FLEETING: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
#: File systems on which a new file renamed over an old one is not old or new after a power cut.
_NOT_ATOMIC: Final = frozenset({"vfat", "msdos", "exfat", "fuseblk", "ntfs3"})
_READ_ONLY: Final = frozenset({"squashfs", "erofs", "iso9660", "cramfs"})


class Answer(msgspec.Struct, frozen=True):
    """What was found. `todo`: what to do about it, in one clause; "" where nothing is to be done."""

    level: Level
    detail: str
    todo: str = ""


class Mount(msgspec.Struct, frozen=True):
    """One line of `/proc/self/mountinfo`.

    Attributes:
        device: major and minor number, `8:2`.
        point: where it is mounted.
        kind: of the file system.
        writable: mounted for writing, by the mount and by the file system.
    """

    device: str
    point: str
    kind: str
    source: str
    writable: bool


class Surroundings:
    """Where the answers are read from.

    Args:
        proc: the kernel's own file system; tests have one of their own.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = Path(proc)

    def mounts(self) -> list[Mount]:
        """Return what is mounted, the last mounted last."""
        try:
            lines = (self._proc / "self" / "mountinfo").read_text().splitlines()
        except OSError:
            return []
        return [one for line in lines if (one := _mount(line)) is not None]

    def command_line(self) -> list[str]:
        """Return the words that the kernel was started with."""
        try:
            return (self._proc / "cmdline").read_text().split()
        except OSError:
            return []

    def mount_of(self, path: str) -> Mount | None:
        """Return what a path lies on: of the mounts above it the nearest, and of those at one place the last."""
        found: Mount | None = None
        whole = os.path.realpath(path)
        for one in self.mounts():
            inside = whole == one.point or whole.startswith(one.point.rstrip("/") + "/")
            if inside and (found is None or len(one.point) >= len(found.point)):
                found = one
        return found

    def block_device(self, path: str) -> str | None:
        """Return the number of a block device, `8:2`; None for anything else."""
        try:
            found = Path(path).stat()
        except OSError:
            return None
        if not stat.S_ISBLK(found.st_mode):
            return None
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _mount(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    left, right = before.split(), after.split()
    if not dash or len(left) < 6 or len(right) < 3:
        return None
    options = left[5].split(","), right[2].split(",")
    return Mount(
        device=left[2],
        point=left[4].replace("\\040", " "),
        kind=right[0],
        source=right[1],
        writable=all("ro" not in one for one in options),
    )


# --- slots --------------------------------------------------------------------------------------------------------------


def slots(config: Config, around: Surroundings, current: str) -> Iterator[Answer]:
    """Ask whether both slots can hold an image, and whether the one that runs is the one that is said to.

    Args:
        config: of the agent.
        around: the board.
        current: the slot that runs, by the kernel's command line.
    """
    sizes: dict[str, int] = {}
    for name, (path, size) in config.slots.items():
        if not Path(path).exists():
            if size is not None and Path(path).parent.is_dir():
                yield Answer("ok", f"{name}: {path}, a file, made with its first image")
                continue
            yield Answer("bad", f"{name}: {path} is not there", _partition(path))
            continue
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - devices too
                sizes[name] = file.seek(0, os.SEEK_END)
        except OSError as error:
            yield Answer("bad", f"{name}: {path}: {error.strerror}", "run as root")
            continue
        yield _mounted(name, path, around, current)
    if len(sizes) == 2 and len(set(sizes.values())) == 2:
        small = min(sizes, key=lambda name: sizes[name])
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield Answer("warn", f"sizes differ: {told} bytes", f"an image must fit into {small}, too")
    yield from _one_device(config, around)
    yield from _root(config, around, current)


def _partition(path: str) -> str:
    near = f"look at `lsblk -o NAME,PARTLABEL,SIZE`, and mend [[slot]] path = {path!r}"
    return near[:200]


def _mounted(name: str, path: str, around: Surroundings, current: str) -> Answer:
    number = around.block_device(path)
    if number is None:
        return Answer("ok", f"{name}: {path}, a file")
    # That / is on the wrong slot is told by its own question; to unmount it is no advice.
    places = [one for one in around.mounts() if one.device == number and one.point != "/"]
    if name == current or not places:
        where = f", mounted on {places[0].point}" if places else ""
        return Answer("ok", f"{name}: {path}{where}")
    point = places[0].point
    if any(one.writable for one in places):
        return Answer(
            "bad",
            f"{name}: {path} does not run, and is mounted for writing on {point}",
            f"umount {point}, and take it out of /etc/fstab: an image would be written under it",
        )
    return Answer(
        "warn",
        f"{name}: {path} does not run, and is mounted on {point}",
        f"umount {point}: what is read there changes while an image is written",
    )


def _one_device(config: Config, around: Surroundings) -> Iterator[Answer]:
    found = {name: os.path.realpath(path) for name, (path, _) in config.slots.items()}
    numbers = {around.block_device(path) or path for path in found.values()}
    if len(found) == 2 and len(numbers) == 1:
        yield Answer("bad", "both slots are one device", "give each [[slot]] its own path")


def _root(config: Config, around: Surroundings, current: str) -> Iterator[Answer]:
    """Ask whether the root file system is the slot that the command line names. An overlay or a mapped device hides that."""
    root = around.mount_of("/")
    devices = {
        name: number
        for name, (path, _) in config.slots.items()
        if (number := around.block_device(path)) is not None
    }
    if root is None or current not in devices:
        return
    wrong = [name for name, number in devices.items() if number == root.device and name != current]
    if wrong:
        yield Answer(
            "bad",
            f"the kernel's command line says slot {current}, and / is on slot {wrong[0]}",
            f"the boot script must pass {PARAMETERS[0]} and root= of one slot, or [[slot]] paths are swapped",
        )
    elif devices[current] == root.device:
        yield Answer("ok", f"/ is on slot {current}")


# --- kernel -------------------------------------------------------------------------------------------------------------


def kernel(config: Config, around: Surroundings) -> Iterator[Answer]:
    """Ask whether the kernel's command line names the slot, and whether a panic restarts the board."""
    words = around.command_line()
    if config.bootloader != "file":
        named = [one for one in words if one.partition("=")[0] in PARAMETERS]
        if named:
            yield Answer("ok", named[-1])
        else:
            yield Answer(
                "bad",
                "the kernel's command line names no slot",
                f"have the boot script pass {PARAMETERS[0]}=NAME: docs/guides of your boot loader",
            )
        panic = [one.partition("=")[2] for one in words if one.startswith("panic=")]
        if not panic or panic[-1] == "0":
            yield Answer(
                "warn",
                "a kernel that panics stays where it is",
                "pass panic=-1 (or CONFIG_PANIC_TIMEOUT): only a restart spends the next try",
            )


def rivals(config: Config, root: str = "/") -> Iterator[Answer]:
    """Ask for services that keep a slot on trial behind the agent's back, as soon as it is up.

    Args:
        config: of the agent.
        root: where the service manager's folders lie.
    """
    folder = Path(root) / "etc/systemd/system"
    found = [one.name for one in folder.glob("*.wants/rauc-mark-good.service")]
    blessing = "systemd-bless-boot.service"
    shipped = any(
        (Path(root) / one / "systemd/system" / blessing).exists() for one in ("lib", "usr/lib")
    )
    if config.bootloader == "systemd_boot" and shipped and not _masked(folder / blessing):
        found.append(blessing)
    for name in found:
        yield Answer(
            "bad",
            f"{name} keeps each system that comes up, healthy or not",
            f"systemctl mask {name}: to keep it is the agent's to say",
        )


def _masked(path: Path) -> bool:
    return path.is_symlink() and str(path.readlink()) == "/dev/null"


# --- state --------------------------------------------------------------------------------------------------------------


def state(config: Config, around: Surroundings) -> Answer:
    """Ask whether the state directory outlives a restart, a slot, and a power cut."""
    path = config.state_dir
    found = around.mount_of(path)
    if found is None:
        return Answer("warn", f"{path}: nothing tells what it lies on")
    where = f"{path} lies on {found.kind}, mounted on {found.point}"
    if found.kind in _FLEETING:
        return Answer(
            "bad",
            f"{where}: gone after a restart",
            "give [state] dir a place on a data partition of its own",
        )
    if not found.writable or found.kind in _READ_ONLY:
        return Answer("bad", f"{where}, read-only", "mount it for writing, or move [state] dir")
    if found.kind in _NOT_ATOMIC:
        return Answer(
            "bad",
            f"{where}: there a renamed file may be lost in a power cut",
            "use ext4, f2fs, btrfs or xfs for [state] dir",
        )
    numbers = {around.block_device(slot) for slot, _ in config.slots.values()}
    if found.device in numbers:
        return Answer(
            "bad",
            f"{where}, which is a slot: each image would find another state, or none",
            "give [state] dir a partition of its own",
        )
    if found.kind == "overlay":
        return Answer(
            "warn", where, "make sure that its upper layer is on a partition beside the slots"
        )
    return Answer("ok", where)


# --- programs -----------------------------------------------------------------------------------------------------------


def health(_config: Config) -> Iterator[Answer]:
    """Ask for the programs that most health contracts want."""
    for program, checks in (
        ("systemctl", "`boot`, `services` and `failed_units`"),
        ("journalctl", "errors counted in the journal"),
    ):
        if shutil.which(program) is None:
            yield Answer(
                "warn",
                f"no {program} here: {checks} fail on this board",
                "let contracts for it use `boot` by marker, `process` and `command`",
            )


def installers(config: Config) -> Iterator[Answer]:
    """Ask whether the installers that this device allows can do their work."""
    from tidegate.agent import installers as shipped

    try:
        shipped.check(config.settings)
    except ConfigError as error:
        yield Answer("bad", error.detail, "mend [installer] in agent.toml")
        return
    for name in config.settings.allow:
        try:
            shipped.ready(config.settings, name)
        except DeviceError as error:
            yield Answer("bad", f"{name}: {error.detail}", error.hint)
        else:
            yield Answer("ok", name)


def zones(config: Config) -> Answer:
    """Ask whether the rules of the time zones that windows are in are on this board."""
    from tidegate.core.schedule import load_zone

    settings = config.settings
    wanted = {settings.zone}
    wanted |= {settings.download_zone} if settings.download_windows else set()
    wanted |= {settings.activate_zone} if settings.activate_windows else set()
    for name in sorted(wanted):
        try:
            load_zone(name)
        except ConfigError as error:
            return Answer("bad", error.detail, "install the zone data (Debian: tzdata)")
    return Answer("ok", f"known: {', '.join(sorted(wanted))}")


def watchdog(config: Config) -> Answer:
    """Ask whether something resets a board that hangs."""
    chosen = config.watchdog
    if chosen is not None:
        if not Path(chosen.device).exists():
            return Answer(
                "bad",
                f"{chosen.device} is not there",
                "load its driver, or take [watchdog] out",
            )
        return Answer("ok", f"{chosen.device}, {chosen.timeout_s} s")
    if any(Path("/dev").glob("watchdog*")):
        return Answer(
            "warn",
            "there is one, and the agent does not feed it",
            "set [watchdog] device, or let systemd do it (RuntimeWatchdogSec): a hanging image is not left otherwise",
        )
    return Answer(
        "warn", "none: an image that hangs without a panic stays", "use the board's, or softdog"
    )
