"""The guest's root file system, filled from this machine: Python and the real agent of this check-out with what it depends on, busybox, and our init.

Nothing is installed, nothing needs root, and no network is asked: the dependencies are those of this check-out's `.venv`, named by
`requirements/agent.txt`, and every shared library that something needs is found with `ldd`.
"""

import compileall
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

from lab.cache import ROOT
from lab.kernel import Kernel
from lab.tools import find, run

GUEST: Final = Path(__file__).with_name("guest")
_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: Parts of the standard library that no device carries.
_LEFT_OUT: Final = {
    "test", "idlelib", "tkinter", "lib2to3", "ensurepip", "distutils", "venv", "pydoc_data", "turtledemo", "site-packages", "dist-packages",
    "unittest", "sqlite3", "dbm", "curses", "wsgiref", "xmlrpc", "msilib", "__pycache__",
}  # fmt: skip
_EXTENSIONS_LEFT_OUT: Final = re.compile(
    r"_test|_tkinter|_curses|_dbm|_gdbm|_sqlite3|readline|xxlimited|_codecs_(cn|hk|jp|kr|tw|iso2022)|nis"
)
_LINKS: Final = (
    "[", "awk", "basename", "blkdiscard", "cat", "chmod", "cmp", "cp", "cut", "date", "dd", "df", "dmesg", "echo", "env", "expr", "false",
    "find", "free", "grep", "head", "hexdump", "hostname", "httpd", "insmod", "ip", "kill", "ln", "ls", "lsmod", "md5sum", "mkdir", "mkfifo", "mknod",
    "mount", "mv", "nc", "od", "pidof", "ping", "poweroff", "printf", "ps", "pwd", "readlink", "reboot", "rm", "rmdir", "sed", "seq", "setsid",
    "sh", "sha256sum", "sleep", "sort", "stat", "stty", "switch_root", "sync", "tail", "tee", "test", "timeout", "top", "touch", "tr", "true",
    "umount", "uname", "uniq", "usleep", "watchdog", "wc", "xargs",
)  # fmt: skip
#: Kernel modules of the root file system, in the order in which they are inserted.
MODULES: Final = (
    "fat",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "failover",
    "net_failover",
    "virtio_net",
)


def make_tree(tree: Path, kernel: Kernel) -> None:
    """Fill an empty folder with the root file system of a product that is whole and well."""
    for name in (
        "bin",
        "sbin",
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "boot",
        "data",
        "mnt",
        "usr/bin",
        "usr/lib",
        "var",
    ):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "var" / "lock").symlink_to("/run/lock")
    (tree / "var" / "run").symlink_to("/run")
    shutil.copy2(find("busybox"), tree / "bin" / "busybox")
    for name in _LINKS:
        (tree / "bin" / name).symlink_to("busybox")
    _python(tree)
    _agent(tree)
    _modules(tree, kernel)
    shutil.copytree(GUEST / "rootfs", tree, dirs_exist_ok=True)
    _libraries(tree)


def _python(tree: Path) -> None:
    """Copy the interpreter that runs this, and its standard library."""
    program = Path(os.path.realpath(sys.executable))
    shutil.copy2(program, tree / "usr" / "bin" / _PYTHON)
    (tree / "usr" / "bin" / "python3").symlink_to(_PYTHON)
    library = Path(sysconfig.get_path("stdlib")).resolve()
    target = tree / "usr" / "lib" / _PYTHON
    shutil.copytree(library, target, symlinks=False, ignore=_ignore)
    (target / "site-packages").mkdir()
    _strip(target.rglob("*.so"))


def _ignore(folder: str, names: list[str]) -> set[str]:
    inside = Path(folder).name
    return {
        one
        for one in names
        if one in _LEFT_OUT
        or one.startswith("config-")
        or (inside == "lib-dynload" and _EXTENSIONS_LEFT_OUT.match(one))
    }


def _agent(tree: Path) -> None:
    """Install the device's half of Tidegate, and exactly the pinned packages that it needs."""
    site = tree / "usr" / "lib" / _PYTHON / "site-packages"
    text = (ROOT / "requirements" / "agent.txt").read_text()
    for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text):
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate()))
            unused = {"..", "__pycache__", "test_data", "tests"} & set(file.parts)
            if unused or source.suffix == ".pyi" or not source.is_file():
                continue
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, site / file)
    for part in ("__init__.py", "core", "agent"):
        source = ROOT / "src" / "tidegate" / part
        if source.is_dir():
            shutil.copytree(
                source, site / "tidegate" / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            (site / "tidegate").mkdir()
            shutil.copy2(source, site / "tidegate" / part)
    _strip(site.rglob("*.so"))
    program = tree / "usr" / "bin" / "tidegate-agent"
    program.write_text(
        "#!/usr/bin/python3 -s\nimport sys\nfrom tidegate.agent.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    # Never looked at again: a read-only system whose clock may be anything. Sources would be a fifth of what each update carries.
    library = tree / "usr" / "lib" / _PYTHON
    compileall.compile_dir(
        library,
        quiet=2,
        stripdir=str(tree),
        workers=os.cpu_count() or 1,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        legacy=True,
    )
    for source in library.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def _modules(tree: Path, kernel: Kernel) -> None:
    folder = tree / "lib" / "lab"
    folder.mkdir(parents=True, exist_ok=True)
    there = []
    for name in MODULES:
        body = kernel.module(name)
        if body is not None:
            (folder / f"{name}.ko").write_bytes(body)
            there.append(name)
    (folder / "order").write_text("\n".join(there) + "\n")


def _libraries(tree: Path) -> None:
    """Copy every shared library that a program or an extension of the tree needs, to where it will be looked for."""
    wanted: dict[str, Path] = {}
    for path in (*(tree / "usr" / "bin").iterdir(), *tree.rglob("*.so")):
        if path.is_symlink() or path.read_bytes()[:4] != b"\x7fELF":
            continue
        said = subprocess.run(
            [find("ldd"), str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")},
        )
        for name, where in re.findall(r"(?:(\S+) => )?(/\S+) \(0x", said.stdout):
            wanted[name or where] = Path(where)
    for name, where in wanted.items():
        # The loader itself stands where programs say; all others are found in a folder that it searches.
        target = tree / (
            name.lstrip("/") if name.startswith("/") else f"usr/lib/x86_64-linux-gnu/{name}"
        )
        if str(where).startswith(str(tree)) or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(where.resolve(), target)
        target.chmod(0o755)
    _strip((tree / "usr" / "lib" / "x86_64-linux-gnu").glob("*.so*"))


def _strip(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_file() and not path.is_symlink() and "musl" not in path.name:
            run("strip", "--strip-unneeded", path)
