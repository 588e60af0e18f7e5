"""The second lab device: a product with systemd, journald and the real agent, from Debian's packages, without installing any of them.

`mmdebstrap --variant=extract` unpacks what apt resolves, in seconds and without running a maintainer script; what these would have done and a device needs
(accounts, the merged /usr, compiled Python) is done here. Three layers, each in the cache: the packages; the agent of this check-out with its pinned
dependencies; one release. Slots with a kernel have Debian's cloud kernel, which starts in half the time. Where the loader reads its own partition, the usual
one stands there: only that has `i6300esb`, the watchdog that QEMU emulates.

What a boot costs in emulation is processes and the kernel's part of them, so this product has no more of systemd than it uses: no generators, of udev's rules
the one that tells systemd of devices, and no service that does nothing here.
"""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lab import cache, images
from lab.kernel import Kernel
from lab.kernel import kernel as cloud_kernel
from lab.tools import run

GUEST: Final = Path(__file__).with_name("guest_systemd")
LAYOUT: Final = images.Layout(boot=32, slot=104, data=48)
SUITE: Final = "bookworm"
_PYTHON: Final = "python3.11"
#: Where the Debian package has what a device carries.
_SITE: Final = "/usr/lib/tidegate/python"
_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_PACKAGING: Final = cache.ROOT / "packaging"
#: What the Debian package installs beside Python's part: the program, and its unit with all its hardening.
PACKAGING: Final = {
    "tidegate-agent": "usr/bin/tidegate-agent",
    "tidegate-agent.service": "usr/lib/systemd/system/tidegate-agent.service",
    "tidegate-agent.tmpfiles": "usr/lib/tmpfiles.d/tidegate-agent.conf",
}
#: What the image needs; apt adds what these need.
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "udev", "kmod", "mount", "busybox-static", "linux-image-amd64"),
    *("python3.11-minimal", "libpython3.11-stdlib"),
)
#: All that stays of the packages' programs.
PROGRAMS: Final = frozenset(
    {
        *("busybox", _PYTHON, "systemctl", "journalctl", "udevadm", "kmod", "mount", "umount"),
        *("systemd", "systemd-notify", "systemd-analyze", "systemd-cat", "systemd-tmpfiles"),
        *("init", "reboot", "poweroff", "halt", "shutdown"),
    }
)
#: What busybox stands in for.
APPLETS: Final = (
    *(
        "sh",
        "ls",
        "cat",
        "cp",
        "stty",
        "mkdir",
        "sync",
        "sleep",
        "echo",
        "ip",
        "httpd",
        "dd",
        "df",
        "grep",
    ),
    *("kill", "pidof", "head", "tail", "rm", "ln", "true", "false", "touch", "ps", "free", "wget"),
)
#: Parts of the packages that a small device does not carry.
UNWANTED: Final = (
    *("etc/apt", "etc/perl", "etc/init.d", "etc/rc*.d", "etc/pam.d", "etc/security", "usr/share/*"),
    *("usr/src", "usr/games", "usr/local", "usr/include", "usr/libexec", "usr/lib/klibc"),
    *("usr/lib/apt", "usr/lib/dpkg", "usr/lib/initramfs-tools", "usr/lib/udev/hwdb.d"),
    *("usr/lib/systemd/systemd-networkd*", "usr/lib/systemd/systemd-resolved"),
    *("usr/lib/systemd/systemd-timesyncd", "usr/lib/systemd/systemd-logind", "usr/lib/locale"),
    *("usr/lib/systemd/boot", "usr/lib/systemd/catalog", "usr/lib/kernel", "etc/systemd/system"),
    *("usr/lib/systemd/*generators", "usr/lib/udev/rules.d/[0-8]*", "usr/lib/udev/rules.d/95*"),
    *(
        f"usr/lib/tmpfiles.d/{name}.conf"
        for name in (
            *("debian", "home", "journal-nocow", "passwd", "provision", "static-nodes-permissions"),
            *("systemd-network", "systemd-nologin", "systemd-tmp", "tmp", "x11"),
        )
    ),
    *(
        f"{_LIBRARIES}/{name}"
        for name in ("gconv", "perl*", "security", "krb5", "engines-3", "cryptsetup", "libapt-*")
    ),
    *(
        f"usr/lib/{_PYTHON}/{name}"
        for name in (
            *("test", "unittest", "distutils", "pydoc_data", "idlelib", "tkinter", "turtle.py"),
            *("ensurepip", "lib2to3", "venv", "sqlite3", "curses", "dbm", "xmlrpc", "wsgiref"),
            *("asyncio", "xml", "pdb.py", "doctest.py", "pydoc.py"),
        )
    ),
)
#: Libraries that stay although no program here names them: what host names need, and what wheels for an older C library do.
_GLIBC: Final = (
    *("ld-", "libnss_files", "libnss_dns", "libc.", "libm.", "libpthread", "libdl", "librt."),
    *("libutil.", "libgcc_s", "libresolv"),
)
#: Units of the packages that a small headless product switches off.
MASKED: Final = (
    *("getty@.service", "serial-getty@.service", "console-getty.service", "getty.target"),
    *("systemd-logind.service", "systemd-timesyncd.service", "systemd-hwdb-update.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "modprobe@.service"),
    *("systemd-firstboot.service", "systemd-sysusers.service", "systemd-random-seed.service"),
    *("systemd-binfmt.service", "dev-hugepages.mount", "dev-mqueue.mount", "fstrim.timer"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("kmod-static-nodes.service", "systemd-modules-load.service", "systemd-user-sessions.service"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("systemd-machine-id-commit.service", "proc-sys-fs-binfmt_misc.automount"),
    *("systemd-remount-fs.service", "systemd-sysctl.service", "systemd-journal-flush.service"),
    *("systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-clean.timer"),
    *("systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-repart.service"),
)
#: Kernel modules that the initramfs inserts, each with what it needs.
MODULES: Final = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "crc32c_generic", "ext4", "vfat"),
    *(
        "nls_ascii",
        "nls_cp437",
        "nls_iso8859-1",
        "efivarfs",
        "efi_pstore",
        "ramoops",
        "i6300esb",
        "softdog",
    ),
)
#: Platforms whose wheels Debian 12's glibc can load.
_PLATFORMS: Final = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
_ACCOUNTS: Final = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
#: Those that units and rules of systemd and udev name.
_GROUPS: Final = {
    "root": 0,
    "adm": 4,
    "tty": 5,
    "disk": 6,
    "lp": 7,
    "kmem": 15,
    "dialout": 20,
    "cdrom": 24,
    "tape": 26,
    "audio": 29,
    "utmp": 43,
    "video": 44,
    "render": 992,
    "kvm": 993,
    "sgx": 994,
    "input": 995,
    "systemd-journal": 999,
    "nogroup": 65534,
}

#: What can be wrong with an image, by name: files that replace those of the good one (None: the file is not there). `/etc/fault` is for the product's own
#: software, which is well in all other ways.
FAULTS: Final[Mapping[str, Mapping[str, str | None]]] = {
    # Process 1 ends: the kernel panics.
    "panic": {"usr/sbin/init": "#!/bin/sh\necho INIT gives up >/dev/console\nexit 1\n"},
    # Up in the kernel's eyes, and nobody there: nothing but a watchdog ends this.
    "hang": {
        "usr/sbin/init": "#!/bin/sh\necho INIT hangs >/dev/console\nwhile :; do sleep 60; done\n"
    },
    # systemd and the product are well; the agent's own process starts and never answers.
    "agent-hangs": {
        "usr/bin/tidegate-agent": "#!/usr/bin/python3\n"
        "import os, socket, time\n"
        "manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "manager.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(1_000_000)\n"
    },
    "no-kernel": {"boot/vmlinuz": None},
}


# --- the packages -----------------------------------------------------------------------------------------------------


def base() -> Path:
    """Return the packages' part, a folder of the cache: `root`, `vmlinuz`, `initrd`.

    Raises:
        lab.tools.Missing: a tool is not there.
    """
    return cache.kept("systemd-base", [Path(__file__), GUEST], _base)


def _base(into: Path) -> None:
    root = into / "root"
    run(
        *("mmdebstrap", "--variant=extract", "--quiet", f"--include={','.join(PACKAGES)}"),
        *("--mode=root", "--format=directory", "--dpkgopt=path-exclude=/usr/share/*"),
        *(SUITE, root),
    )
    _merge_usr(root)
    _take_kernel(root, into)
    _prune(root)
    _set_up(root)
    _compile(root, root / "usr/lib" / _PYTHON, f"/usr/lib/{_PYTHON}")


def _merge_usr(root: Path) -> None:
    """Move /bin, /sbin and /lib* into /usr, as Debian's installer does."""
    for name in ("bin", "sbin", "lib", "lib64"):
        old = root / name
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if old.is_dir() and not old.is_symlink():
            run("cp", "-a", "--remove-destination", f"{old}/.", root / "usr" / name)
            shutil.rmtree(old)
        old.symlink_to(f"usr/{name}")


def _take_kernel(root: Path, into: Path) -> None:
    image = next((root / "boot").glob("vmlinuz-*")).rename(into / "vmlinuz")
    _initrd(Kernel(image, next((root / "usr/lib/modules").iterdir())), root, into)
    for name in ("boot", "usr/lib/modules"):
        shutil.rmtree(root / name)


def in_order(kernel: Kernel, names: Sequence[str]) -> dict[str, bytes]:
    """Return some kernel modules and all that they need, by name, in an order in which they can be inserted."""
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        body = None if name in found else kernel.module(name)
        if body is None:  # there already, built in, or not of this kernel
            return
        needs = re.search(rb"\0depends=([^\0]+)\0", body)
        for need in needs[1].decode().split(",") if needs is not None else ():
            add(need.replace("-", "_"))
        found[name] = body

    for name in names:
        add(name)
    return found


def _prune(root: Path) -> None:
    """Take away what this device does not use, and then the libraries that nothing names any more."""
    for pattern in UNWANTED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (*(root / "usr/bin").iterdir(), *(root / "usr/sbin").iterdir()):
        if path.name not in PROGRAMS:
            path.unlink()
    libraries = {path.name: path for path in (root / _LIBRARIES).glob("*.so*")}
    wanted = {name for name in libraries if name.startswith(_GLIBC)}
    todo = [libraries[name] for name in wanted]
    todo += [one for one in root.rglob("*") if one.is_file() and one not in libraries.values()]
    while todo:
        # Also what is only given to dlopen stands in a program as a text.
        for name in _libraries_named_in(todo.pop()) & libraries.keys() - wanted:
            target = libraries[name].resolve()
            wanted |= {name, target.name}
            todo.append(target)
    for name in libraries.keys() - wanted:
        libraries[name].unlink()


def _libraries_named_in(path: Path) -> set[str]:
    body = b"" if path.is_symlink() else path.read_bytes()
    if not body.startswith(b"\x7fELF"):
        return set()
    return {name.decode() for name in re.findall(rb"lib[A-Za-z0-9_+.-]+\.so[.0-9]*", body)}


def _set_up(root: Path) -> None:
    """Do what maintainer scripts and an image's builder do."""
    etc = root / "etc"
    (etc / "passwd").write_text(_ACCOUNTS)
    (etc / "group").write_text("".join(f"{name}:x:{gid}:\n" for name, gid in _GROUPS.items()))
    (etc / "os-release").unlink(missing_ok=True)
    for name in ("dev", "var", "run", "tmp", "proc", "sys"):
        shutil.rmtree(root / name, ignore_errors=True)
    folders = ("dev", "var", "run", "tmp", "proc", "sys", "boot", "data", "home", "root", "srv")
    for name in folders:
        (root / name).mkdir(exist_ok=True)
    (etc / "mtab").symlink_to("../proc/self/mounts")
    (root / "usr/bin/python3").symlink_to(_PYTHON)
    for name in APPLETS:
        if not (root / "usr/bin" / name).exists():
            (root / "usr/bin" / name).symlink_to("busybox")
    shutil.copytree(GUEST / "rootfs", root, symlinks=True, dirs_exist_ok=True)
    for name in MASKED:
        (etc / "systemd/system" / name).symlink_to("/dev/null")
    run("ldconfig", "-r", root)


def _compile(root: Path, folder: Path, at: str, *, keep_sources: bool = False) -> None:
    """Compile modules with the image's own interpreter, whatever this one is: the device's root is read-only, and its clock may say anything."""
    loader = next((root / "usr/lib64").glob("ld-linux-x86-64.so.*")).resolve()
    run(
        *(loader, "--library-path", f"{root / _LIBRARIES}:{root / 'usr/lib'}"),
        *(root / "usr/bin" / _PYTHON, "-s", "-m", "compileall", "-q", "-s", folder, "-p", at),
        *("--invalidation-mode", "unchecked-hash", folder),
        env={"PYTHONHOME": str(root / "usr"), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if keep_sources:
        return
    for compiled in folder.rglob("__pycache__/*.cpython-311.pyc"):
        source = compiled.parent.parent / f"{compiled.name.partition('.')[0]}.py"
        source.unlink(missing_ok=True)
        compiled.rename(source.with_suffix(".pyc"))


def _initrd(kernel: Kernel, root: Path, into: Path) -> None:
    """Pack the initramfs as `into/initrd`: busybox, the modules, a script."""
    inside = into / "inside"
    (inside / "bin").mkdir(parents=True)
    shutil.copy2(root / "usr/bin/busybox", inside / "bin/busybox")
    (inside / "bin/sh").symlink_to("busybox")
    (inside / "modules").mkdir()
    for place, (name, body) in enumerate(in_order(kernel, MODULES).items()):
        (inside / "modules" / f"{place:02}-{name}.ko").write_bytes(body)
    shutil.copy2(GUEST / "initramfs/init", inside / "init")
    names = "\n".join(sorted(str(one.relative_to(inside)) for one in inside.rglob("*")))
    packed = into / "packed"
    run(
        *("cpio", "-o", "-H", "newc", "--reproducible", "-R", "0:0", "-F", packed),
        cwd=inside,
        text=names + "\n",
    )
    run("zstd", "-q", "-3", packed, "-o", into / "initrd")
    packed.unlink()
    shutil.rmtree(inside)


def light_kernel() -> Path:
    """Return Debian's cloud kernel with an initramfs of this product's, a folder of the cache: `vmlinuz`, `initrd`."""
    found, under = cloud_kernel(), base()

    def make(into: Path) -> None:
        shutil.copyfile(found.image, into / "vmlinuz")
        _initrd(found, under / "root", into)

    return cache.kept("systemd-kernel", [found.version, under.name], make)


# --- the agent --------------------------------------------------------------------------------------------------------


def system() -> Path:
    """Return `base` with the agent of this check-out: `root` as a folder of the cache, not to be changed."""
    under, parts = base(), _dependencies()
    made_from: tuple[str | Path, ...] = (
        under.name,
        parts.name,
        *(cache.ROOT / "src" / "tidegate" / name for name in ("__init__.py", "agent", "core")),
        *(_PACKAGING / name for name in PACKAGING),
    )
    return cache.kept("systemd-system", made_from, lambda into: _system(into, under, parts))


def _system(into: Path, under: Path, parts: Path) -> None:
    run("cp", "-a", f"{under}/.", into)
    root = into / "root"
    site = root / _SITE.lstrip("/")
    site.mkdir(parents=True, exist_ok=True)
    run("cp", "-a", f"{parts}/.", site)
    source = cache.ROOT / "src" / "tidegate"
    (site / "tidegate").mkdir()
    shutil.copy2(source / "__init__.py", site / "tidegate")
    for name in ("agent", "core"):
        shutil.copytree(
            source / name, site / "tidegate" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    _compile(root, site / "tidegate", f"{_SITE}/tidegate", keep_sources=True)
    for name, place in PACKAGING.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_PACKAGING / name, root / place)


def _dependencies() -> Path:
    """Return what pip unpacks for the image's interpreter; hashes are checked."""
    pins = cache.ROOT / "requirements" / "agent.txt"
    under = base()

    def make(into: Path) -> None:
        run(
            *(sys.executable, "-m", "pip", "install", "-q", "--no-input", "--no-compile"),
            *("--disable-pip-version-check", "--require-hashes", "-r", pins, "--target", into),
            *("--no-deps", "--only-binary", ":all:", "--python-version", "3.11"),
            *(word for one in _PLATFORMS for word in ("--platform", one)),
        )
        # Python's binding is the one that is used; debugging symbols would be most of the wheel.
        for path in (*into.glob("zstandard/_cffi*"), *into.glob("bin"), *into.rglob("test_data")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        run("strip", "--strip-unneeded", *into.rglob("*.so"))
        _compile(under / "root", into, _SITE)

    return cache.kept("agent-packages", [pins, under.name, *_PLATFORMS], make)


# --- a release --------------------------------------------------------------------------------------------------------


def slot(version: str, fault: str = "", *, kernel: bool = True) -> Path:
    """Return a slot's image, from the cache.

    Args:
        version: what `/etc/version` says.
        fault: one of `FAULTS`, or a word that the product's own software understands (`guest_systemd/rootfs/usr/lib/app`).
        kernel: with kernel and initramfs under `/boot`, for boot loaders that read slots.
    """
    good, boot = system(), light_kernel() if kernel else None
    changes: dict[str, str | None] = {"etc/version": f"{version}\n", "etc/fault": f"{fault}\n"}
    changes |= FAULTS.get(fault, {})

    def make(into: Path) -> None:
        tree = into / "tree"
        run("cp", "-al", good / "root", tree)
        if boot is not None:
            for name in ("vmlinuz", "initrd"):
                run("cp", "-l", boot / name, tree / "boot" / name)
        for name, text in changes.items():
            (tree / name).unlink(missing_ok=True)
            if text is not None:
                (tree / name).write_text(text)
                (tree / name).chmod(0o755 if text.startswith("#!") else 0o644)
        images.make_ext4(tree, into / "slot.ext4", LAYOUT.size(2))
        shutil.rmtree(tree)

    parts = (
        good.name,
        boot.name if boot is not None else "",
        repr(sorted(changes.items())),
        str(LAYOUT.size(2)),
    )
    return cache.kept("systemd-slot", parts, make) / "slot.ext4"
