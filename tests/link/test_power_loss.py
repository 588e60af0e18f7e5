"""What is fetched again after the power went in the middle of a download: what the medium lost, and hardly a byte more."""

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.link.device import SEGMENT, Device, Goods, serving
from tests.link.proxy import Answer, Proxy, Wire

from tidegate.core.payload import Index
from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
HERE = Path(__file__).parent


@dataclass
class Plug:
    """A fault: after so many bytes the worker is killed, once most of them were written. What it did not read yet is lost, too."""

    device: Device
    after: int
    came: list[int] = field(default_factory=list)

    def __call__(self, wire: Wire, answer: Answer) -> bool:
        after = min(self.after, len(answer.body) * 3 // 4)
        wire.send(answer.head())
        wire.body(answer.body[:after])
        last = (answer.first + after * 4 // 5) // SEGMENT - 1
        assert wait_for(lambda: self._wrote(last), 30)
        process = self.device.worker._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        self.came.append(answer.first + wire.passed)
        return False

    def _wrote(self, number: int) -> bool:
        with (self.device.folder / "B").open("rb") as file:
            file.seek(number * SEGMENT)
            image = self.device.goods.image
            return file.read(SEGMENT) == image[number * SEGMENT : (number + 1) * SEGMENT]


def forget(slot: Path, dice: random.Random | None) -> None:
    """Take back what was written and not flushed: all of it, or what the dice say of each write, as a medium that reorders would."""
    log = slot.with_name(f"{slot.name}.unflushed")
    entries, body = [], log.read_bytes()
    while len(body) > 16:
        offset, length = int.from_bytes(body[:8], "big"), int.from_bytes(body[8:16], "big")
        # The last note may be torn; then its write was not made.
        if len(body) >= 16 + length:
            entries.append((offset, body[16 : 16 + length]))
        body = body[16 + length :]
    with slot.open("r+b") as file:
        for offset, before in reversed(entries):
            if dice is None or dice.random() < 0.5:
                file.seek(offset)
                file.write(before)
    log.write_bytes(b"")


def durable(slot: Path, goods: Goods) -> int:
    """Return how many bytes of the payload need not come again, by an independent look: all before the first segment that is not in its place."""
    found, index = slot.read_bytes(), Index.parse(goods.body)
    for number, segment in enumerate(index.segments):
        part = slice(number * SEGMENT, (number + 1) * SEGMENT)
        if found[part] != goods.image[part]:
            return segment.offset
    return index.length


@pytest.fixture(
    params=[(1, MIB >> 2), (8, 2 * MIB), (24, 8 * MIB)], ids=["1 MiB", "8 MiB", "24 MiB"]
)
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Device, Proxy]]:
    size, sync_bytes = request.param
    slot = tmp_path / "dev" / "B"
    goods = Goods(tmp_path, size * MIB)
    with serving(goods.served) as port:
        proxy = Proxy(port)
        url = f"http://127.0.0.1:{proxy.port}"
        device = Device(tmp_path / "dev", goods, url, sync_bytes=sync_bytes)
        monkeypatch.setenv("PYTHONPATH", f"{HERE / 'lossy'}:{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.setenv("TIDEGATE_TEST_SLOT", str(slot))
        yield device, proxy
        device.close()
        proxy.close()


def test_after_power_cuts_only_what_the_medium_lost_is_fetched_again(
    rig: tuple[Device, Proxy],
) -> None:
    device, proxy = rig
    goods, slot = device.goods, device.folder / "B"
    length, dice = len(goods.body), random.Random(len(device.goods.body))
    lost = 0
    kept: list[int] = []
    for number in range(3):
        plug = Plug(device, dice.randrange(length // 3, length // 2))
        proxy.faults = [plug]
        before = device.progress
        ended = device.fetch()
        assert ended == "agent.internal"
        forget(slot, dice if number % 2 else None)
        there = durable(slot, goods)
        kept.append(there)
        lost += max(0, plug.came[0] - there)
        if number % 2:
            # The journal's last step is lost as well: what the slot holds is all that is known.
            device.progress = before
    proxy.faults = []
    device.fetch_all(most=2)
    assert device.holds_it()
    again = sum(passed for _, passed in proxy.asked) - length
    assert again <= lost + length * 0.02, (again, lost, kept, proxy.asked)
    # And it was worth keeping: cuts found something in its place.
    assert max(kept) > length // 4, kept
