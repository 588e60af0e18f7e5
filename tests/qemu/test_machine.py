"""The lab's own ground: the root file system boots to a prompt with the real agent in it, and what was not flushed is lost with the power."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import images
from lab.kernel import kernel
from lab.machine import Hardware, Machine
from lab.volume import Volume

SEED = 1
LAYOUT = images.Layout()
WORDS = "console=ttyS0 root=/dev/vda2 tidegate.slot=A quiet panic=-1"


@pytest.fixture
def machine(accelerator: str, tmp_path: Path) -> Iterator[Machine]:
    """A machine without a boot loader: QEMU loads the kernel."""
    disk = tmp_path / "disk"
    data = {"factory/id": b"first\n", "factory/no-agent": b""}
    images.make_disk(disk, layout=LAYOUT, boot={}, slots=(images.slot("1.0.0"), None), data=data)
    direct = ("-kernel", str(kernel().image), "-initrd", str(images.initrd()), "-append", WORDS)
    made = Machine(
        Hardware(firmware=direct, accelerator=accelerator),
        Volume(disk, tmp_path / "s"),
        tmp_path / "console.log",
    )
    yield made
    made.kill()


@pytest.mark.timeout(400)
def test_the_real_agent_runs_and_the_disk_forgets_what_was_not_flushed(machine: Machine) -> None:
    machine.start()
    assert machine.expect(r"UP slot=(\S+) version=(\S+) ").groups() == ("A", "1.0.0")
    machine.expect("^READY")
    assert machine.ask("tidegate-agent --version").strip().startswith("tidegate-agent ")
    machine.ask("python3 -c 'import cryptography, msgspec, tuf, zstandard, tidegate.agent.worker'")
    machine.ask("echo kept >/data/kept && sync")
    machine.ask("dd if=/dev/zero of=/dev/vda3 bs=4096 count=64 && echo lost >/data/lost")
    assert isinstance(machine.disk, Volume)
    machine.kill()
    loss = machine.disk.cut(random.Random(SEED))
    assert loss.unflushed > 0
    machine.start()
    machine.expect("^READY")
    assert machine.ask("cat /data/kept").strip() == "kept"
    assert machine.ask("cat /data/lost || true").strip() != "lost"
