"""The lab's second product comes up behind both of its boot loaders, and the back ends read there what the real loader wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lab import grub, images, systemd_boot, systemd_image
from lab.machine import Hardware, Machine
from lab.volume import Volume

Board = Callable[[Path], tuple[dict[str, bytes], tuple[str, ...], dict[str, str]]]


def bios(folder: Path) -> tuple[dict[str, bytes], tuple[str, ...], dict[str, str]]:
    return grub.boot_files(folder), (), {"name": "grub"}


def efi(folder: Path) -> tuple[dict[str, bytes], tuple[str, ...], dict[str, str]]:
    settings = {"name": "systemd_boot", "esp": "/boot"}
    return systemd_boot.boot_files(), systemd_boot.firmware(folder), settings


@pytest.mark.timeout(900)
@pytest.mark.parametrize("board", [bios, efi])
def test_systemd_comes_up_and_the_back_end_reads_the_loaders_record(
    accelerator: str, tmp_path: Path, board: Board
) -> None:
    boot, firmware, settings = board(tmp_path)
    disk = tmp_path / "disk"
    data = {"factory/no-agent": b"", "tidegate/factory": b""}
    slots = (systemd_image.slot("1.0.0", kernel=not firmware), None)
    images.make_disk(disk, layout=systemd_image.LAYOUT, boot=boot, slots=slots, data=data)
    if not firmware:
        grub.install(disk)
    machine = Machine(
        Hardware(firmware=firmware, machine="q35", accelerator=accelerator),
        Volume(disk, tmp_path / "s"),
        tmp_path / "console.log",
    )
    try:
        machine.start()
        assert machine.expect(r"^UP slot=(\S+) version=(\S+) uptime=").groups() == ("A", "1.0.0")
        assert machine.ask("systemctl is-system-running --wait").strip() == "running"
        assert machine.ask("wget -qO- http://127.0.0.1:8080/index.html").strip() == "all is well"
        given = {key: value for key, value in settings.items() if key != "name"}
        given_text = repr({**given, "slots": ["A", "B"]})
        said = machine.ask(
            'PYTHONPATH=/usr/lib/tidegate/python python3.11 -c "from tidegate.agent import bootloaders; '
            f"it = bootloaders.load('{settings['name']}', {given_text}); "
            "print(it.current(), it.primary(), it.state('A'))\""
        )
        assert said.split() == ["A", "A", "good"]
    finally:
        machine.kill()
