"""What every installer must hold: it writes only its slot, says only what is durable, and can be called again after any cut.

These run `raw_image` on a simulated board. It over real HTTP is in `tests/unit/agent/test_download.py`, and what a power cut does to it in `tests/crash`;
the foreign installers, with the real programs, are in `tests/e2e/test_foreign_installers.py`.
"""

from typing import Any

import pytest
from tests.crash.lab import Order, make_device
from tests.unit.agent.test_download import settings

from tidegate.agent import installers
from tidegate.agent.events import (
    Downloaded,
    Progressed,
)
from tidegate.core.errors import ConfigError, DeviceError
from tidegate.sim.disk import MemorySlot


@pytest.mark.parametrize("name", installers.names())
def test_an_installer_has_a_page_and_one_function(name: str) -> None:
    module = __import__(f"tidegate.agent.installers.{name}", fromlist=["download"])
    assert module.__doc__
    assert callable(installers.load(name, (name,)).download)


def test_an_installer_that_is_not_allowed_or_not_there_is_refused() -> None:
    for name, allowed in (("raw_image", ()), ("nothing", ("nothing",)), ("os.path", ("os.path",))):
        with pytest.raises(DeviceError) as caught:
            installers.load(name, allowed)
        assert caught.value.code == "install.installer"


def test_only_the_candidate_slot_is_written() -> None:
    device = make_device(1, 2)
    before = list(device.board.media["A"].pages)
    device.plane.order = Order("install", device.plane.releases[1], "u-1")
    for _ in device.run(1200):
        if device.plane.outcomes():
            break
    assert device.board.media["A"].pages == before
    assert device.runs == 2


def test_nothing_is_said_to_be_durable_before_it_was_flushed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pending = []
    write, flush = MemorySlot.write_at, MemorySlot.flush

    def noted(self: MemorySlot, offset: int, data: bytes) -> None:
        pending.append(offset)
        write(self, offset, data)

    def flushed(self: MemorySlot) -> None:
        flush(self)
        pending.clear()

    monkeypatch.setattr(MemorySlot, "write_at", noted)
    monkeypatch.setattr(MemorySlot, "flush", flushed)
    device = make_device(1, 2)
    device.plane.order = Order("install", device.plane.releases[1], "u-1")
    said = []
    device.start()
    assert device.runner is not None
    feed = device.runner.feed

    def listening(event: object) -> None:
        if isinstance(event, Progressed | Downloaded):
            said.append(list(pending))
        feed(event)  # type: ignore[arg-type]

    monkeypatch.setattr(device.runner, "feed", listening)
    for _ in device.run(1200):
        if device.plane.kinds()[-1:] == ["staged"]:
            break
    assert len(said) > 2
    assert said == [[]] * len(said)


def test_a_configuration_that_names_no_installer_of_ours_is_refused() -> None:
    given: tuple[dict[str, Any], ...] = (
        {"allow": ("raw_imag",)},
        {"installers": {"nothing": {}}},
        {"installers": {"raw_image": {"speed": 1}}},
    )
    for one in given:
        with pytest.raises(ConfigError) as caught:
            installers.check(settings(**one))
        assert caught.value.code == "config.invalid"
    installers.check(settings(allow=tuple(installers.names())))
