"""A device's own metrics: read from what the configuration names, told as what they amounted to since the server heard of them."""

import sys
from pathlib import Path

import msgspec
import pytest
from tests.crash.lab import make_device
from tests.unit.agent.test_config import GOOD, mistakes, write

from tidegate.agent import assemble, config
from tidegate.agent.checkup import meters
from tidegate.agent.checkup.meters import DeviceMeters
from tidegate.agent.runner import Runner
from tidegate.agent.settings import MeterSource
from tidegate.core.protocol import EventBody


def made(*sources: MeterSource) -> DeviceMeters:
    found = meters.meters(sources)
    assert found is not None
    return found


def test_a_gauge_is_its_value_times_the_seconds_and_a_counter_what_it_grew_by(
    tmp_path: Path,
) -> None:
    gauge, counter = tmp_path / "gauge", tmp_path / "counter"
    gauge.write_text("2.5 volts\n")
    counter.write_text("100")
    both = made(
        MeterSource(name="volts", file=str(gauge)),
        MeterSource(name="frames", file=str(counter), counter=True),
    )
    assert both.told(60) == {"volts": 150.0}
    counter.write_text("130")
    assert both.told(60) == {"volts": 150.0, "frames": 30.0}
    counter.write_text("140")
    assert both.told(120)["frames"] == 40.0, "it was not heard: it is told with what came since"
    both.heard()
    assert both.told(60)["frames"] == 0.0
    counter.write_text("7")
    assert both.told(60)["frames"] == 7.0, "it began anew"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e31", "", "volts", "0x10", "\xff"])
def test_what_is_no_number_is_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "value"
    path.write_text(text, "latin-1")
    assert made(MeterSource(name="volts", file=str(path))).told(60) == {}
    path.unlink()
    assert made(MeterSource(name="volts", file=str(path))).told(60) == {}


def test_a_command_prints_it_and_one_that_fails_says_nothing() -> None:
    def says(text: str) -> dict[str, float]:
        return made(MeterSource(name="t", command=(sys.executable, "-c", text))).told(10)

    assert says("print(-4.5)") == {"t": -45.0}
    assert says("print(3); raise SystemExit(1)") == {}
    assert made(MeterSource(name="t", command=("/no/such/program",))).told(10) == {}


def test_a_round_ends_before_people_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "ROUND_S", 0.0)
    looked: list[str] = []

    def look() -> float | None:
        looked.append("once")
        return 1.0

    assert DeviceMeters({"a": (False, look)}).told(60) == {}
    assert looked == []


def test_the_heartbeat_carries_them_and_a_device_without_any_says_what_it_said_before(
    tmp_path: Path,
) -> None:
    device = make_device(1)
    device.settle()
    plain = [one for one in device.plane.events.values() if one.metrics is not None]
    assert plain
    assert all(b"named" not in msgspec.json.encode(one) for one in plain)

    path = tmp_path / "volts"
    path.write_text("2")
    assert device.runner is not None
    ports = msgspec.structs.replace(
        device.runner.ports, meters=made(MeterSource(name="volts", file=str(path)))
    )
    device.runner = Runner(ports, device.settings)
    for _ in device.run(3 * 3600):
        pass
    told = [one.metrics for one in device.plane.events.values() if one.metrics is not None]
    last = told[-1]
    assert last.named == {"volts": 2.0 * last.device_s}
    older = msgspec.defstruct("Older", [("errors", int, 0), ("device_s", int, 0)])
    assert msgspec.json.decode(msgspec.json.encode(last), type=older) is not None
    again = msgspec.json.encode(next(iter(device.plane.events.values())))
    assert msgspec.json.decode(again, type=EventBody).device_id == "dev-1"


def test_a_good_table_is_understood(tmp_path: Path) -> None:
    text = (
        GOOD
        + '[metric.frames]\nfile = "/sys/frames"\nkind = "counter"\n[metric.ms]\nmetrics = "/run/m"\nmetric = "up"\n'
    )
    found = config.read(write(tmp_path, text))
    assert found.meters == (
        MeterSource(name="frames", file="/sys/frames", counter=True),
        MeterSource(name="ms", metrics="/run/m", metric="up"),
    )
    assert assemble._meters(found) is not None
    assert assemble._meters(config.read(write(tmp_path))) is None


def test_every_mistake_in_a_table_is_told_at_once(tmp_path: Path) -> None:
    wrong = """
[metric.errors]
file = "/x"
[metric.Loud]
file = "/x"
[metric.nothing]
kind = "gauge"
[metric.two]
file = "/x"
command = ["/y"]
[metric.near]
file = "x"
[metric.word]
command = "uptime"
[metric.kind]
file = "/x"
kind = "sum"
[metric.typo]
flie = "/x"
"""
    found = mistakes(tmp_path, GOOD + wrong)
    assert len(found) == 8
    assert all(line.startswith("metric.") for line in found)
    assert "file" in found[-1]
    many = "".join(f'[metric.m{one}]\nfile = "/x"\n' for one in range(17))
    assert "at most 16" in mistakes(tmp_path, GOOD + many)[0]
