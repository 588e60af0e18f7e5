"""What a device tells is always a message that a server reads: one that is not would stand before all that follow it, for ever."""

import pytest
from tests.crash.lab import make_device
from tests.crash.releases import DAY

from tidegate.agent import outbox
from tidegate.agent.settings import Settings
from tidegate.agent.state import Report
from tidegate.core import codec
from tidegate.core.hardware import Hardware
from tidegate.core.protocol import EventBody

LONG = Settings(
    device_id="d" * 64,
    product="gw1",
    channel="stable",
    hardware=Hardware("m" * 64, 65535, "s" * 64),
    region="r" * 300,
    site="\N{SNOWMAN}" * 300,
)


@pytest.mark.parametrize("at", [-5, 0, 4_102_444_800, 1 << 33, 1 << 62])
def test_every_report_is_a_message_that_a_server_reads(at: int) -> None:
    report = Report(seq=1, at=at, kind="downloading", running_version="v" * 64)
    body = codec.decode(codec.encode(outbox.complete(report, LONG, "b" * 64)), EventBody)
    assert body.site == LONG.site[:64]
    assert 0 <= body.at <= 0xFFFFFFFF


def test_a_clock_beyond_all_that_can_be_told_keeps_no_report_back() -> None:
    device = make_device(1)
    device.clock.skew_s = 200 * 365 * DAY
    for _ in device.run(2 * 3600):
        pass
    assert sum(one.kind == "heartbeat" for one in device.plane.events.values()) > 1
