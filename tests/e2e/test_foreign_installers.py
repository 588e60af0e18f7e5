"""Foreign installers with the real programs of Debian's packages: RAUC on a bus of its own, SWUpdate started for the job. Real updates, real failures."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.plant import PRODUCT, Plant, slot_digest

from tidegate.agent.boot import file_record as boot_file
from tidegate.sim.virtual_board import VirtualBoard, slot_path, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

NAME = "board-1"
BUS = """<busconfig>
<type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/>
</policy></busconfig>
"""
SYSTEM = """[system]
compatible={product}
bootloader=custom
mountprefix={folder}/mnt
statusfile={folder}/status
bundle-formats=plain
{activate}
[handlers]
bootloader-custom-backend={folder}/backend
[keyring]
path={folder}/cert.pem
[slot.rootfs.0]
device={a}
type=raw
bootname=A
[slot.rootfs.1]
device={b}
type=raw
bootname=B
"""
#: RAUC's side of the boot loader: Tidegate decides what boots, so nothing that RAUC says of it has an effect here. Every word is kept.
BACKEND = """#!/bin/sh
echo "$@" >> {folder}/words
case "$1" in get-primary|get-current) echo A;; get-state) echo good;; esac
"""


def needs(*programs: str) -> None:
    for name, package in programs_of(programs):
        if shutil.which(name) is None:
            pytest.skip(f"tier: {name} is not here; install the Debian package {package}")


def programs_of(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    packages = {"dbus-daemon": "dbus", "mksquashfs": "squashfs-tools"}
    return ((one, packages.get(one, one)) for one in names)


def certificate(folder: Path, *extra: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
    command += " -keyout key.pem -out cert.pem -subj /CN=maker"
    subprocess.run([*command.split(), *extra], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    if made.served.process.poll() is None:
        made.served.kill()


def running(board: Path) -> VirtualBoard:
    made = VirtualBoard(board)
    made.start()
    return made


def allow(board: Path, text: str) -> None:
    path = board / "agent.toml"
    path.write_text(path.read_text() + text)


def reason(plant: Plant, state: str) -> str:
    """Wait until an update has ended so; return its reason with the detail."""
    found: list[tuple[str, str]] = []

    def ended() -> bool:
        found[:] = plant.rows(
            'SELECT reason, detail FROM "update" WHERE state = :state', state=state
        )
        return bool(found)

    assert wait_for(ended, 60), plant.control.device_log(NAME)
    code, detail = found[0]
    return f"{code}: {detail}"


def stays(plant: Plant, board: Path, image: Path) -> None:
    """Hold the board against the image that it ran before: same slot, same bytes, nothing armed."""
    assert slot_digest(board, "A") == hashlib.sha256(image.read_bytes()).hexdigest()
    record = boot_file.decode((board / "boot.json").read_bytes())
    assert (record.primary, record.trial) == ("A", None)


# --- RAUC -------------------------------------------------------------------------------------------------------------


class Rauc:
    """RAUC's service on a bus of its own, for the slots of one virtual board."""

    def __init__(self, folder: Path, board: Path, *, activate: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "mnt").mkdir(exist_ok=True)
        backend = folder / "backend"
        backend.write_text(BACKEND.format(folder=folder))
        backend.chmod(0o755)
        self.config = folder / "system.conf"
        a, b = (slot_path(board, one) for one in "AB")
        self.config.write_text(
            SYSTEM.format(product=PRODUCT, folder=folder, a=a, b=b, activate=activate)
        )
        # D-Bus' addresses are short: the path of a socket has at most 107 bytes.
        self.address = f"unix:path={folder}/bus"
        (folder / "bus.conf").write_text(BUS.format(path=f"{folder}/bus"))
        self._processes = [
            subprocess.Popen(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"])
        ]
        assert wait_for((folder / "bus").exists, 10)
        with (folder / "service.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    ["rauc", "-c", str(self.config), "service", "--override-boot-slot=A"],
                    env={
                        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                        "DBUS_SYSTEM_BUS_ADDRESS": self.address,
                    },
                    stdout=log,
                    stderr=log,
                )
            )

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)

    def words(self) -> list[str]:
        """Return what RAUC asked its boot loader back end to change."""
        path = self.folder / "words"
        lines = path.read_text().splitlines() if path.exists() else []
        return [one for one in lines if one.startswith("set-")]


def bundle_of(image: Path, keys: Path) -> tuple[str, Path]:
    """Make a signed RAUC bundle of an image."""
    content = image.with_suffix(".content")
    content.mkdir()
    shutil.copyfile(image, content / "rootfs.img")
    (content / "manifest.raucm").write_text(
        f"[update]\ncompatible={PRODUCT}\nversion=1\n[image.rootfs]\nfilename=rootfs.img\n"
    )
    package = image.with_suffix(".raucb")
    subprocess.run(
        ["rauc", "bundle", f"--cert={keys}/cert.pem", f"--key={keys}/key.pem", content, package],
        check=True,
        capture_output=True,
    )
    return "rauc", package


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


def rauc_board(
    plant: Plant, folder: Path, monkeypatch: pytest.MonkeyPatch, activate: str
) -> tuple[Path, Path, Rauc]:
    needs("rauc", "dbus-daemon", "mksquashfs")
    certificate(folder)
    image = plant.release(1)
    board = plant.board(NAME, image)
    rauc = Rauc(folder, board, activate=activate)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", rauc.address)
    allow(board, f'[installer]\nallow = ["rauc"]\n[installer.rauc]\nconfig = "{rauc.config}"\n')
    return board, image, rauc


def test_rauc_installs_a_bundle_and_refuses_one_that_is_not_for_its_keyring(
    plant: Plant, tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, image, rauc = rauc_board(plant, short, monkeypatch, "activate-installed=false")
    certificate(tmp_path / "other")
    plant.release(2, wrap=lambda one: bundle_of(one, tmp_path / "other"))
    device = running(board)
    try:
        plant.roll_out(2)
        assert "install.installer: rauc: " in (said := reason(plant, "failed"))
        assert "signature" in said, said
        stays(plant, board, image)

        plant.release(3, wrap=lambda one: bundle_of(one, short))
        rollout = plant.roll_out(3)
        assert plant.ends(rollout, "completed"), (plant.control.device_log(NAME), _log(board))
    finally:
        device.stop()
        rauc.close()
    assert slot_digest(board, "B") == plant.digests[3]
    assert device.running == "B"
    # RAUC took the slot out of use before it wrote it, and never put it into use: that was Tidegate's to do, with leave.
    assert set(rauc.words()) == {"set-state B bad"}
    assert list((board / "state" / "spool").iterdir()) == []


def test_a_rauc_that_activates_by_itself_is_refused_before_anything_is_fetched(
    plant: Plant, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, image, rauc = rauc_board(plant, short, monkeypatch, "")
    plant.release(2, wrap=lambda one: bundle_of(one, short))
    device = running(board)
    try:
        plant.roll_out(2)
        assert "activate-installed=false belongs there" in reason(plant, "failed")
    finally:
        device.stop()
        rauc.close()
    stays(plant, board, image)
    assert rauc.words() == []
    assert not (board / "state" / "spool").exists()


# --- SWUpdate ---------------------------------------------------------------------------------------------------------


def swu_of(image: Path, keys: Path, board: Path, digest: str | None = None) -> tuple[str, Path]:
    """Make a signed SWU file of an image; with `digest`, one that lies about the image inside."""
    folder = image.with_suffix(".content")
    folder.mkdir()
    shutil.copyfile(image, folder / "rootfs.img")
    found = digest or hashlib.sha256(image.read_bytes()).hexdigest()
    modes = "".join(
        f'{slot} = {{ images: ( {{ filename = "rootfs.img"; device = "{slot_path(board, slot)}"; '
        f'type = "raw"; sha256 = "{found}"; installed-directly = true; }} ); }};\n'
        for slot in "AB"
    )
    (folder / "sw-description").write_text(
        f'software = {{ version = "1"; hardware-compatibility: [ "1" ]; stable = {{ {modes} }}; }}\n'
    )
    sign = f"openssl cms -sign -signer {keys}/cert.pem -inkey {keys}/key.pem -outform DER"
    sign += " -nosmimecap -binary -in sw-description -out sw-description.sig"
    subprocess.run(sign.split(), cwd=folder, check=True)
    package = image.with_suffix(".swu")
    with package.open("wb") as out:
        subprocess.run(
            ["cpio", "-o", "-H", "crc", "--quiet"],
            input=b"sw-description\nsw-description.sig\nrootfs.img\n",
            stdout=out,
            cwd=folder,
            check=True,
        )
    return "swupdate", package


def test_swupdate_installs_a_file_and_refuses_one_whose_image_is_another(
    plant: Plant, tmp_path: Path
) -> None:
    needs("swupdate", "cpio")
    keys = tmp_path / "keys"
    certificate(keys, "-addext", "extendedKeyUsage=emailProtection")
    image = plant.release(1)
    board = plant.board(NAME, image)
    allow(
        board, f'[installer]\nallow = ["swupdate"]\n[installer.swupdate]\nkey = "{keys}/cert.pem"\n'
    )
    plant.release(2, wrap=lambda one: swu_of(one, keys, board, "11" * 32))
    device = running(board)
    try:
        plant.roll_out(2)
        said = reason(plant, "failed")
        assert said.startswith("install.installer: swupdate: "), said
        assert "HASH mismatch" in said, said
        stays(plant, board, image)

        plant.release(3, wrap=lambda one: swu_of(one, keys, board))
        rollout = plant.roll_out(3)
        assert plant.ends(rollout, "completed"), (plant.control.device_log(NAME), _log(board))
    finally:
        device.stop()
    assert slot_digest(board, "B") == plant.digests[3]
    assert device.running == "B"
    assert list((board / "state" / "spool").iterdir()) == []


def _log(board: Path) -> str:
    return (board / "agent.log").read_text()[-2000:]
