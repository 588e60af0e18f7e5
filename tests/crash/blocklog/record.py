"""Records the block logs anew: a Debian kernel in QEMU, a Python of this host, the agent of this checkout, and one disk a rig whose every write is logged.

Needs QEMU, a cloud kernel with its modules, static busybox, dosfstools, mtools, e2fsprogs and zstd; no root and no network. About half a minute.
"""

import ast
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
from tests.crash.blocklog.log import MARK_BYTES
from tests.crash.blocklog.rigs import RIGS, Rig

ROOT: Final = Path(__file__).resolve().parents[3]
HERE: Final = Path(__file__).resolve().parent
LOGS: Final = ROOT / "tests" / "crash" / "logs"
MANIFEST: Final = "manifest.json"
COMMAND: Final = ".venv/bin/python tools/record-crash-logs"
_MODULES: Final = (
    "virtio_pci", "virtio_blk", "crc32c_generic", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1",
)  # fmt: skip
_HEAVY: Final = (
    "test", "idlelib", "tkinter", "lib2to3", "ensurepip", "site-packages", "turtledemo",
    "pydoc_data", "config-*", "unittest", "distutils", "__pycache__",
)  # fmt: skip
#: Software emulation on a loaded machine.
_GUEST_LIMIT_S: Final = 300
_INIT: Final = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for one in $(/bin/busybox cat /modules/order); do /bin/busybox insmod "/modules/$one"; done
PYTHONHOME={home} PYTHONPATH=/rig:/site {python} -X utf8 -B -m tests.crash.blocklog.guest {names}
/bin/busybox sync
/bin/busybox poweroff -f
"""


class RecordingError(Exception):
    """The recording did not come about; it says why."""


def digest(rig: Rig) -> str:
    """Return the digest of all that makes a rig's log: its own data, and its sources without comments, docstrings and white space."""
    data = replace(rig, reader="", lost=False, inert=False)
    found = hashlib.sha256(repr(data).encode())
    for name in rig.sources:
        text = (ROOT / "src" / "tidegate" / name).read_text()
        found.update(f"{name}\n".encode() + "\n".join(_code(text)).encode())
    return found.hexdigest()[:32]


def _code(text: str) -> Iterator[str]:
    lines = [list(line) for line in text.splitlines()]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            del lines[row - 1][column:]
    for line in lines:
        if stripped := "".join("".join(line).split()):
            yield stripped


def manifest(logs: Path = LOGS) -> dict[str, Any]:
    """Return what is said about the logs in a folder, those that are checked in by default; nothing where there are none."""
    path = logs / MANIFEST
    loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return loaded


def outdated() -> tuple[str, ...]:
    """Name the rigs whose log is of other code than is here, or is not there."""
    told = manifest()
    return tuple(one.name for one in RIGS if told.get(one.name, {}).get("sources") != digest(one))


def record(names: tuple[str, ...], logs: Path = LOGS) -> tuple[str, ...]:
    """Record the rigs named (`all`: all); their logs and images in a folder are replaced, and its manifest. Return their names.

    Raises:
        RecordingError: something is missing, or the guest failed.
    """
    rigs = [one for one in RIGS if "all" in names or one.name in names]
    if not rigs:
        return ()
    states = _journal_states() if any(one.writer == "journal" for one in rigs) else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for rig in rigs:
            _disk(rig, folder)
        initrd = _initrd(folder, rigs, states)
        kernel = _kernel()[0]
        console = _boot(folder, kernel, initrd, rigs)
        if "ALL RECORDED" not in console:
            raise RecordingError(f"the guest said:\n{console[-4000:]}")
        logs.mkdir(exist_ok=True)
        told = manifest(logs)
        for rig in rigs:
            for kind in ("img", "log"):
                packed = lzma.compress((folder / f"{rig.name}.{kind}").read_bytes(), preset=9)
                (logs / f"{rig.name}.{kind}.xz").write_bytes(packed)
            told[rig.name] = {
                "sources": digest(rig),
                "kernel": kernel.name.removeprefix("vmlinuz-"),
                "calls": [name for name, _ in states]
                if rig.writer == "journal"
                else [one.name for one in rig.calls],
            }
    known = {one.name for one in RIGS}
    told = {name: told[name] for name in sorted(told) if name in known}
    (logs / MANIFEST).write_text(json.dumps(told, indent=2) + "\n")
    return tuple(one.name for one in rigs)


def _journal_states() -> list[tuple[str, str]]:
    """Return every durable state of an update that is confirmed and of one that reverts, as the machine makes them."""
    from tests.crash.stories import STORIES, run_story

    from tidegate.agent.journal import Journal
    from tidegate.agent.state import Reverting, State, durable

    kept: list[State] = []
    writes = Journal.write

    def noting(journal: Journal, state: State) -> None:
        kept.append(durable(state))
        writes(journal, state)

    told = []
    with patch.object(Journal, "write", noting):
        for name in ("a good release", "a release whose service fails"):
            kept.clear()
            run_story(STORIES[name].prepare(1))
            told.append(tuple(kept))
    whole, failed = told
    # The second begins as the first does.
    first = next(n for n, state in enumerate(failed) if isinstance(state.phase, Reverting))
    chosen = (*whole, *failed[first - 1 :])
    named = [(f"{n} {type(s.phase).__name__}", s) for n, s in enumerate(chosen)]
    return [(name, msgspec.json.encode(state).decode()) for name, state in named]


# --- the disks --------------------------------------------------------------------------------------------------------


def _disk(rig: Rig, folder: Path) -> None:
    image = folder / f"{rig.name}.img"
    with image.open("wb") as file:
        file.truncate(rig.size)
    if rig.medium == "vfat":
        _fat(rig, image)
    elif rig.medium == "ext4":
        _ext4(rig, image, folder / f"{rig.name}.tree")
    with image.open("r+b") as file:
        for offset, data in rig.raw.items():
            file.seek(offset)
            file.write(data)
        # Room for the marks, behind the file system.
        file.truncate(rig.size + MARK_BYTES)
    shutil.copyfile(image, folder / f"{rig.name}.disk")
    (folder / f"{rig.name}.log").touch()


def _fat(rig: Rig, image: Path) -> None:
    _run("mkfs.vfat", "-F", str(rig.fat_bits), "-n", "BOOT", "-i", "7DE6A7E0", str(image))
    for name, data in rig.files.items():
        if name.endswith("/"):
            _run("mmd", "-i", str(image), f"::{name.rstrip('/')}")
        else:
            _run("mcopy", "-i", str(image), "-", f"::{name}", data=data)


def _ext4(rig: Rig, image: Path, tree: Path) -> None:
    tree.mkdir()
    for name, data in rig.files.items():
        if name.endswith("/"):
            (tree / name).mkdir(parents=True)
        else:
            (tree / name).write_bytes(data)
    seed = "7de6a7e0-0000-4000-8000-000000000001"
    options = f"lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed={seed}"
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(rig.block_bytes), "-N", "64",
         "-J", f"size={rig.block_bytes >> 10}", "-O", rig.features,
         "-E", options, "-U", seed, "-d", str(tree), str(image))  # fmt: skip


# --- the guest --------------------------------------------------------------------------------------------------------


def _kernel() -> tuple[Path, Path]:
    found = sorted(Path("/boot").glob("vmlinuz-*-cloud-*"))
    modules = [Path("/lib/modules") / one.name.removeprefix("vmlinuz-") for one in found]
    if not found or not modules[-1].is_dir():
        raise RecordingError("no kernel: install the Debian package linux-image-cloud-amd64")
    return found[-1], modules[-1]


def _initrd(folder: Path, rigs: list[Rig], states: list[tuple[str, str]]) -> Path:
    tree = folder / "initrd"
    for one in ("bin", "proc", "sys", "dev", "mnt", "tmp", "modules", "rig", "site"):
        (tree / one).mkdir(parents=True)
    _copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    order = list(_with_needs(_kernel()[1]))
    for path in order:
        _copy(path, tree / "modules" / path.name)
    (tree / "modules/order").write_text("\n".join(one.name for one in order))
    python, home = _python(tree)
    for name in ("guest.py", "rigs.py", "writers.py"):
        _copy(HERE / name, tree / "rig/tests/crash/blocklog" / name)
    (tree / "rig/states.json").write_text(json.dumps(states))
    for package in ("agent", "core"):
        shutil.copytree(ROOT / "src/tidegate" / package, tree / "site/tidegate" / package,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    _copy(ROOT / "src/tidegate/__init__.py", tree / "site/tidegate/__init__.py")
    shutil.copytree(Path(msgspec.__file__).parent, tree / "site/msgspec")
    names = " ".join(one.name for one in rigs)
    init = tree / "init"
    init.write_text(_INIT.format(home=home, python=python, names=names))
    init.chmod(0o755)
    packed = folder / "initrd.cpio.zst"
    command = "find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 | zstd -q -1 -T2"
    with packed.open("wb") as file:
        subprocess.run(["bash", "-c", command], cwd=tree, check=True, stdout=file)
    return packed


def _with_needs(modules: Path) -> Iterator[Path]:
    """Return the modules wanted, each after those that it needs; what is built in is left out."""
    needs: dict[str, tuple[Path, list[str]]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        names = [Path(one).name.partition(".")[0] for one in reversed(rest.split())]
        needs[Path(path).name.partition(".")[0]] = (modules / path, names)
    seen: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        if name in seen or name not in needs:
            return
        seen.add(name)
        path, others = needs[name]
        for other in others:
            yield from visit(other)
        yield path

    for name in _MODULES:
        yield from visit(name)


def _python(tree: Path) -> tuple[str, str]:
    """Put the host's Python into the tree; return (program, PYTHONHOME)."""
    program = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    library = Path(sysconfig.get_paths()["stdlib"])
    inside = tree / str(library).lstrip("/")
    shutil.copytree(library, inside, ignore=shutil.ignore_patterns(*_HEAVY), symlinks=False)
    _copy(program, tree / str(program).lstrip("/"))
    objects = [
        program,
        *library.glob("lib-dynload/*.so"),
        *Path(msgspec.__file__).parent.glob("*.so"),
    ]
    for one in objects:
        listed = subprocess.run(["ldd", one], check=False, capture_output=True, text=True).stdout
        for word in listed.split():
            if word.startswith("/") and not (tree / word.lstrip("/")).exists():
                _copy(word, tree / word.lstrip("/"))
    return str(program), sys.base_prefix


def _boot(folder: Path, kernel: Path, initrd: Path, rigs: list[Rig]) -> str:
    command = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512",
        "-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel),
        "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1",
    ]  # fmt: skip
    for number, rig in enumerate(rigs):
        disk, log = folder / f"{rig.name}.disk", folder / f"{rig.name}.log"
        command += [
            "-drive",
            f"driver=blklogwrites,if=none,id=d{number},file.driver=file,file.filename={disk},log.driver=file,log.filename={log},log-sector-size=512,cache.direct=off",
            "-device", f"virtio-blk-pci,drive=d{number},serial={rig.name[:20]}",
        ]  # fmt: skip
    try:
        done = subprocess.run(
            command, check=False, timeout=_GUEST_LIMIT_S, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise RecordingError("install the Debian package qemu-system-x86") from error
    except subprocess.TimeoutExpired as error:
        raise RecordingError(
            f"the guest did not end:\n{(error.output or b'')[-4000:]!r}"
        ) from error
    return done.stdout.decode("utf-8", "replace")


def _copy(source: str | Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _run(*command: str, data: bytes | None = None) -> None:
    done = subprocess.run(command, check=False, input=data, capture_output=True)
    if done.returncode:
        raise RecordingError(f"{' '.join(command)}: {done.stderr.decode('utf-8', 'replace')}")
