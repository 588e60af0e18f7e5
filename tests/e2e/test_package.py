"""The Debian package: built from this tree, installed by dpkg into a root of its own, and used there with nothing else of ours."""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Of `systemd-analyze security`, 0 to 10. The agent writes block devices and restarts the board, so it cannot be near 0. That it may
#: read what the kernel kept of a crash (CAP_SYSLOG, for the report of a revert) costs 0.2.
EXPOSURE_MAX = 5.3
INSTALLED_KIB_MAX = 30_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def package() -> Path:
    if shutil.which("dpkg-buildpackage") is None and os.geteuid() != 0:
        pytest.skip("tier: dpkg-buildpackage is not here; install the Debian package dpkg-dev")
    done = subprocess.run([ROOT / "tools" / "deb"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.split()[-1]


def field(package: Path, name: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def names(package: Path) -> list[str]:
    """Return the paths in the package."""
    listing = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    assert listing.stdout is not None
    with tarfile.open(fileobj=listing.stdout, mode="r|") as tar:
        found = [one.name.removeprefix(".") for one in tar]
    assert listing.wait() == 0
    return found


def test_it_holds_what_a_device_needs_and_nothing_of_the_server(
    package: Path, names: list[str]
) -> None:
    ours = {
        one.split("/")[6] for one in names if one.startswith("/usr/lib/tidegate/python/tidegate/")
    }
    assert {one for one in ours if one} == {"__init__.py", "__pycache__", "core", "agent"}
    foreign = {one.split("/")[5] for one in names if one.startswith("/usr/lib/tidegate/python/")}
    assert not foreign & {"litestar", "sqlalchemy", "click", "jinja2", "pytest", "uvicorn", "rich"}
    assert int(field(package, "Installed-Size")) < INSTALLED_KIB_MAX
    for one in (
        "/usr/bin/tidegate-agent",
        "/lib/systemd/system/tidegate-agent.service",
        "/usr/share/tidegate/boot/uboot/tidegate.cmd",
        "/usr/share/tidegate/boot/grub/tidegate.cfg",
        "/usr/share/doc/tidegate-agent/examples/agent.toml",
    ):
        assert one in names, one
    depends = field(package, "Depends")
    assert re.search(r"python3 \(>= 3\.\d+\), python3 \(<< 3\.\d+\)", depends), depends


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Path]:
    """Stack a root of its own over this machine's: what is installed there is gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("tier: only root can stack a root of its own; run as root")
    root, upper, work = tmp_path / "root", tmp_path / "upper", tmp_path / "work"
    for one in (root, upper, work):
        one.mkdir()
    # The lower file system may itself be stacked, which some kernels do not allow twice; a tmpfs takes the changes.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        for one in (root, upper, work):
            one.mkdir()
        options = f"lowerdir=/,upperdir={upper},workdir={work}"
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, root],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"tier: no overlay file system in this kernel: {done.stderr.strip()}")
        try:
            yield root
        finally:
            subprocess.run(["umount", "-l", root], check=True)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def there(board: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the board's root, as a login there would."""
    return subprocess.run(
        ["chroot", board, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
    )


def test_it_is_installed_used_and_removed_without_a_trace(package: Path, board: Path) -> None:
    shutil.copy(package, board / "package.deb")
    done = there(board, "dpkg", "-i", "/package.deb")
    assert done.returncode == 0, done.stderr
    done = there(board, "tidegate-agent", "--help")
    assert (done.returncode, "apply-now" in done.stdout) == (0, True), done.stderr
    # Without a configuration: one clear line, and what to do.
    done = there(board, "tidegate-agent", "run")
    assert done.returncode != 0
    assert done.stderr.startswith("error[config.missing]: no agent.toml"), done.stderr
    # The example is one that the agent takes, once the files that it names are there.
    (board / "etc/tidegate/root.json").write_text("{}")
    (board / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    example = "/usr/share/doc/tidegate-agent/examples/agent.toml"
    done = there(board, "tidegate-agent", "--config", example, "config", "check")
    assert (done.returncode, done.stdout) == (0, "The configuration is in order.\n"), done.stderr
    # The worker's libraries as well, the compiled ones too, and from nowhere else, wherever it is called from.
    (board / "srv/tidegate").mkdir(parents=True)
    (board / "srv/tidegate/__init__.py").write_text("raise SystemExit('the wrong one')")
    load = (
        "import tidegate.agent.worker, tuf, cryptography, zstandard, msgspec, os;"
        "print({m.__file__.split('/python/')[0] for m in (tidegate, tuf, cryptography, zstandard, msgspec)})"
    )
    wrapper = (board / "usr/bin/tidegate-agent").read_text()
    probe = board / "usr/bin/probe"
    probe.write_text(wrapper.replace('-m tidegate.agent.main "$@"', f'-c "{load}"'))
    probe.chmod(0o755)
    done = there(board, "sh", "-c", "cd /srv && probe")
    assert done.stdout == "{'/usr/lib/tidegate'}\n", done.stdout + done.stderr
    done = there(board, "dpkg", "-P", "tidegate-agent")
    assert done.returncode == 0, done.stderr
    assert not (board / "usr/lib/tidegate").exists()
    assert not (board / "lib/systemd/system/tidegate-agent.service").exists()


def test_the_service_is_as_narrow_as_its_work_allows(package: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("tier: systemd-analyze is not here; install the Debian package systemd")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    unit = tmp_path / "lib/systemd/system/tidegate-agent.service"
    unit.write_text(
        unit.read_text().replace("/usr/bin/tidegate-agent", f"{tmp_path}/usr/bin/tidegate-agent")
    )
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        ["systemd-analyze", "verify", unit],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    wrong = [line for line in done.stderr.splitlines() if "tidegate-agent" in line]
    assert (done.returncode, wrong) == (0, []), done.stderr
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={int(EXPOSURE_MAX * 10)}",
            unit,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-300:]
