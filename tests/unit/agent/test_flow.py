"""What a download is allowed while it runs: windows that close, a metered link, a throttle that people and orders change. On simulated time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.crash import releases
from tests.crash.lab import Answer, Device, Order, make_device
from tests.crash.releases import BLOCK

from tidegate.agent.flow import WISHES_NAME, Throttle
from tidegate.agent.net.pacer import Tap
from tidegate.agent.ports import Response
from tidegate.agent.runner import Runner
from tidegate.agent.state import Downloading
from tidegate.core import schedule
from tidegate.core.errors import ConfigError
from tidegate.core.protocol import DeliveryPolicy

HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give releases bytes that do not pack: about 48 KiB come over the link."""

    def image(counter: int, blocks: int = 12) -> bytes:
        return Random(counter).randbytes(blocks * BLOCK - 100)

    monkeypatch.setattr(releases, "make_image", image)


class Watched:
    """A device with the offsets at which it asked for bytes, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        self.device: Device = make_device(1, 2, **given)
        plane = self.device.plane
        self.asked: list[tuple[float, int]] = []
        blob = plane._blob

        def noted(sha256: str, headers: Mapping[str, str]) -> Response:
            first = int(headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.asked.append((plane.clock.at(), first))
            return blob(sha256, headers)

        monkeypatch.setattr(plane, "_blob", noted)
        self.length = plane.releases[1].target.length

    def order(self, **policy: Any) -> None:
        release = self.device.plane.releases[1]
        self.device.plane.order = Order("install", release, "u-1", policy=DeliveryPolicy(**policy))

    def run(self, limit_s: float) -> Iterator[Runner]:
        return self.device.run(limit_s)

    def rest(self, seconds: float) -> Runner:
        """Let time pass; return the runner."""
        *_, last = self.device.run(seconds)
        return last

    def until(self, kind: str, limit_s: float = 3 * DAY) -> float:
        """Run until something was reported; return when."""
        for _ in self.device.run(limit_s):
            if kind in self.device.plane.kinds():
                return self.device.plane.clock.at()
        raise AssertionError(f"no {kind}: {self.device.plane.kinds()}")

    def bytes(self) -> int:
        return next(one.bytes for one in self.device.plane.events.values() if one.kind == "staged")


def test_a_window_that_closes_stops_a_running_download_and_the_next_one_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Midnight, UTC, is where simulated time begins. At 100 bytes a second it takes eight minutes.
    watched = Watched(monkeypatch, rate=100, download_windows=("00:00-00:05",))
    watched.order()
    said = set()
    for runner in watched.run(2 * HOUR):
        said |= {one.code for one in runner.because()}
    assert isinstance(runner.state.phase, Downloading)
    assert said == {"wait.download_window"}
    progress = runner.state.phase.progress
    assert progress is not None
    # It stopped in the minute in which the window closed, and kept all but a piece of a segment.
    assert 24_000 < progress.stored_bytes < 31_000
    at = watched.until("staged")
    assert DAY < at < DAY + 5 * 60
    assert watched.asked[0][1] == 0
    assert watched.asked[-1][1] > 20_000
    assert watched.bytes() <= watched.length + 4096


def test_an_orders_window_closes_as_well_and_a_person_does_not_get_round_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, rate=100)
    watched.order(download_window=("00:00-00:05",))
    runner = watched.rest(HOUR)
    assert [one.code for one in runner.because()] == ["wait.download_window"]
    assert len(watched.asked) == 1


def test_a_clock_that_jumps_out_of_the_window_stops_it_and_back_lets_it_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, rate=100, download_windows=("00:00-02:00",))
    watched.order()
    clock = watched.device.clock
    runner = watched.rest(200)
    assert len(watched.asked) == 1
    clock.skew_s = 5 * HOUR
    runner = watched.rest(600)
    assert [one.code for one in runner.because()] == ["wait.download_window"]
    clock.skew_s = 0
    watched.until("staged", HOUR)
    assert watched.bytes() <= watched.length + 4096


@pytest.mark.parametrize(
    ("zone", "text", "open_at"),
    [
        # The clock jumps from 02:00 to 03:00: what begins in the gap begins where it ends.
        ("Europe/Berlin", "2026-03-29T01:00:00+00:00", "02:30-03:30"),
        ("America/New_York", "2026-03-08T07:00:00+00:00", "02:30-03:30"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00+00:00", "02:15-03:00"),
    ],
)
def test_a_window_in_the_hour_that_is_skipped_opens_where_the_clock_jumps_to(
    zone: str, text: str, open_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    jump = datetime.fromisoformat(text).timestamp()
    watched = Watched(monkeypatch, download_windows=(open_at,), download_zone=zone)
    timeline = watched.device.plane.clock
    timeline.wait_until(jump - 20 * 60 - timeline.wall())
    watched.order()
    began = timeline.at()
    watched.until("downloading")
    watched.until("staged", 2 * HOUR)
    assert watched.asked[0][0] - began == pytest.approx(20 * 60, abs=5)


@pytest.mark.parametrize(
    ("zone", "text", "open_at", "twice_s"),
    [
        # The clock goes back: 02:30 comes twice, an hour apart; on Lord Howe 01:45, half an hour.
        ("Europe/Berlin", "2026-10-25T01:00:00+00:00", "02:30-02:40", HOUR),
        ("America/New_York", "2026-11-01T06:00:00+00:00", "01:30-01:40", HOUR),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00+00:00", "01:35-01:45", HOUR // 2),
    ],
)
def test_a_window_in_the_hour_that_comes_twice_closes_and_opens_a_second_time(
    zone: str, text: str, open_at: str, twice_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    back = datetime.fromisoformat(text).timestamp()
    # Needs about fifteen minutes: the window has ten, twice.
    watched = Watched(monkeypatch, rate=56, download_windows=(open_at,), download_zone=zone)
    timeline = watched.device.plane.clock
    timeline.wait_until(back - HOUR - timeline.wall())
    watched.device.plane.rotate_root(1)  # the first one has run out by then
    watched.order()
    watched.until("staged", 3 * HOUR)
    first, *_, last = [at for at, _ in watched.asked]
    assert last - first == pytest.approx(twice_s, abs=10)
    assert watched.bytes() <= watched.length + 4096


# --- metered ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "kind", "waits"),
    [
        ("allow", "feature", False),
        ("deny", "feature", True),
        ("deny", "security", True),
        ("security-only", "feature", True),
        ("security-only", "security", False),
    ],
)
def test_a_metered_link_is_used_as_the_rule_says(
    rule: str, kind: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = tmp_path / "metered"
    word.write_text("yes\n")
    watched = Watched(monkeypatch, metered=rule, metered_file=str(word))
    plane = watched.device.plane
    target = plane.releases[1].target
    release = msgspec.structs.replace(target.release, kind=kind)
    changed = releases.Release(
        plane.releases[1].image,
        plane.releases[1].container,
        type(target)(target.path, target.length, target.sha256, release),
    )
    plane.releases = (plane.releases[0], changed)
    plane.publish()
    watched.order()
    runner = watched.rest(600)
    assert (("staged" in plane.kinds()), bool(watched.asked)) == (not waits, not waits)
    if waits:
        assert [one.code for one in runner.because()] == ["wait.metered"]
        word.write_text("no\n")
        watched.until("staged", HOUR)


def test_a_link_that_becomes_metered_stops_a_running_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, rate=100, metered="deny")
    watched.order()
    runner = watched.rest(200)
    runner.flow.metered("yes")
    runner = watched.rest(300)
    assert [one.code for one in runner.because()] == ["wait.metered"]
    # A person's word outlives the agent.
    watched.device.runner = None
    runner = watched.rest(120)
    assert [one.code for one in runner.because()] == ["wait.metered"]
    runner.flow.metered("auto")
    watched.until("staged", HOUR)
    assert watched.bytes() <= watched.length + 4096


# --- throttle ---------------------------------------------------------------------------------------------------------


def test_a_person_changes_the_throttle_of_a_running_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, rate=50)
    watched.order()
    runner = watched.rest(100)
    runner.flow.throttle(Throttle(rate=10_000))
    at = watched.until("staged", HOUR)
    # A simulated device is up to one interval between two flushes ahead; without a word it takes a quarter of an hour.
    assert at < 420
    assert len(watched.asked) == 1


def test_what_an_order_allows_is_not_widened_by_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.order(bps_max=100)
    watched.rest(10).flow.throttle(Throttle(rate=0))
    assert watched.until("staged", HOUR) > 0.95 * watched.length / 100


def test_a_throttle_ends_when_it_was_said_to_and_stays_over_a_restart_only_if_it_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, rate=1000)
    runner = watched.rest(5)
    now = runner.now()
    runner.flow.throttle(Throttle(rate=10, until_at=now + 60))
    assert runner.flow.rate(None) == 10
    assert runner.ports.storage.read(WISHES_NAME) is None
    runner = watched.rest(70)
    assert runner.flow.rate(None) == 1000
    for keep, after in ((False, 1000), (True, 10)):
        runner.flow.throttle(Throttle(rate=10, keep=keep))
        watched.device.runner = None
        runner = watched.rest(5)
        assert runner.flow.rate(None) == after
    runner.ports.storage.write(WISHES_NAME, b"{damaged")
    watched.device.runner = None
    runner = watched.rest(5)
    assert runner.flow.rate(None) == 1000


# --- the worker is told -----------------------------------------------------------------------------------------------


class Told:
    """A worker of another process: says nothing, and obeys or not."""

    def __init__(self) -> None:
        self.taps: list[Tap] = []


def test_a_worker_is_told_once_and_ended_when_it_does_not_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, metered="deny")
    watched.order()
    for runner in watched.run(60):
        if isinstance(runner.state.phase, Downloading):
            break
    told = Told()
    flow = runner.flow
    monkeypatch.setattr(flow, "_tell", told.taps.append)
    timeline, clock = watched.device.plane.clock, watched.device.clock

    def later(seconds: float) -> None:
        timeline.wait_until(timeline.at() + seconds)
        clock.wake()

    assert flow.began() == Tap()
    later(2)
    assert not flow.steer()
    assert told.taps == []
    flow.throttle(Throttle(rate=77))
    assert not flow.steer()
    flow.metered("yes")
    assert not flow.steer()
    assert told.taps == [Tap(rate=77), Tap(rate=77, open=False)]
    later(5)
    assert not flow.steer()
    later(6)
    assert flow.steer()
    assert len(told.taps) == 2


# --- a server that is away --------------------------------------------------------------------------------------------


def test_a_busy_server_is_asked_for_bytes_when_it_said_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    plane, blob = watched.device.plane, watched.device.plane._blob
    refused: list[float] = []

    def busy(sha256: str, headers: Mapping[str, str]) -> Response:
        if len(refused) < 2:
            refused.append(plane.clock.at())
            # Absurd the second time: an hour is the most that anybody is left alone.
            return Answer(503, b"", {"retry-after": ("700", "31536000")[len(refused) - 1]})
        return blob(sha256, headers)

    monkeypatch.setattr(plane, "_blob", busy)
    watched.order()
    assert watched.until("staged") > 0
    assert 700 <= refused[1] - refused[0] < 780
    assert 3600 <= watched.asked[0][0] - refused[1] < 3700


def test_bytes_that_cannot_be_had_for_a_day_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    plane = watched.device.plane
    blobs, plane.blobs = plane.blobs, {}
    watched.order()
    watched.rest(20 * HOUR)
    assert plane.outcomes() == []
    assert len(watched.asked) > 50
    plane.blobs = blobs
    watched.until("staged", HOUR)


# --- zones ------------------------------------------------------------------------------------------------------------


def test_an_order_in_a_zone_that_is_not_known_here_waits_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    watched.order(download_window=("00:00-23:00",), zone="Mars/Olympus")
    (because,) = watched.rest(HOUR).because()
    assert because.code == "wait.download_window"
    assert because.detail.startswith('"Mars/Olympus" is not a time zone')


def test_without_time_zone_data_utc_is_known_and_the_rest_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import zoneinfo

    def nothing(name: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    nothing.from_file = zoneinfo.ZoneInfo.from_file  # type: ignore[attr-defined]
    monkeypatch.setattr(schedule, "ZoneInfo", nothing)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    windows = schedule.parse_windows(["00:00-01:00"])
    assert schedule.next_open(windows, schedule.load_zone("UTC"), DAY + HOUR) == 2 * DAY
    with pytest.raises(ConfigError) as caught:
        schedule.load_zone("Europe/Berlin", "download.zone")
    assert "install tzdata" in caught.value.detail
