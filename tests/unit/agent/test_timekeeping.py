"""Time on a device: what is decided from which source, and what outlives a cut."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.crash.lab import Device, Order, Plane, make_device
from tests.crash.releases import DAY, make_release, signer
from tests.unit.agent.test_runner import live, tell

from tidegate.agent import timekeeping
from tidegate.agent.board import SystemClock
from tidegate.agent.ports import Proof, ProvenClock
from tidegate.agent.state import SlotRecord, State
from tidegate.agent.timekeeping import Floors, TimeStore, read
from tidegate.core.protocol import EventBody, TimeAnswer
from tidegate.sim.clock import DeviceClock
from tidegate.sim.disk import MemoryStorage, Power
from tidegate.sim.faults import DiskFaults

NOW = 1_795_000_000
YEAR = 365 * DAY
PROOFS: tuple[Proof, ...] = ("synced", "rtc", "none")


# --- the decision -------------------------------------------------------------------------------------------------------


def test_a_vouched_clock_above_the_floor_is_the_time() -> None:
    found = read(Floors(offline=NOW - 9, online=NOW - 5), NOW, "rtc")
    assert (found.now, found.source, found.trusted, found.offline_now) == (NOW, "clock", True, NOW)


@pytest.mark.parametrize("proof", PROOFS)
def test_a_clock_at_1970_is_not_believed_and_the_floor_stands_in(proof: Proof) -> None:
    found = read(Floors(offline=NOW - 9, online=NOW), 0, proof)
    assert (found.now, found.source, found.trusted) == (NOW, "floor", False)
    assert found.offline_now == NOW - 9


def test_a_clock_that_nobody_vouches_for_is_not_believed() -> None:
    found = read(Floors(offline=NOW), NOW + 10 * YEAR, "none")
    assert (found.now, found.trusted, found.offline_now) == (NOW, False, NOW)


def test_the_signed_time_decides_over_a_clock_that_is_ahead() -> None:
    found = read(Floors(offline=NOW - YEAR), NOW + 10 * YEAR, "synced", signed=NOW)
    assert (found.now, found.source, found.trusted) == (NOW, "nonce", True)


def test_the_signed_time_does_not_go_below_the_floor() -> None:
    assert read(Floors(online=NOW), NOW, "synced", signed=NOW - YEAR).now == NOW


def test_no_word_of_an_online_key_moves_the_offline_time() -> None:
    for proof, signed in product(PROOFS, (None, NOW + 50 * YEAR)):
        pushed = Floors(offline=NOW, online=NOW + 70 * YEAR)
        plain = Floors(offline=NOW)
        for clock in (0, NOW + 5, NOW + YEAR):
            same = read(plain, clock, proof).offline_now
            assert read(pushed, clock, proof, signed).offline_now == same


def test_a_clock_that_was_set_by_the_directors_word_tells_no_offline_time_until_synchronised() -> (
    None
):
    stepped = Floors(offline=NOW, stepped=True)
    assert read(stepped, NOW + YEAR, "rtc").offline_now == NOW
    assert read(stepped, NOW + YEAR, "synced").offline_now == NOW + YEAR


@given(
    st.builds(
        Floors, offline=st.integers(0, 2**40), online=st.integers(0, 2**40), epoch=st.integers(1, 9)
    ),
    st.lists(st.tuples(st.sampled_from(["offline", "online", "epoch"]), st.integers(0, 2**40))),
)
def test_the_offline_floor_never_goes_down_and_the_online_one_only_with_the_epoch(
    floors: Floors, moves: list[tuple[str, int]]
) -> None:
    for what, at in moves:
        before = floors
        if what == "offline":
            floors = timekeeping.raise_offline(floors, at)
        elif what == "online":
            floors = timekeeping.raise_online(floors, at)
        else:
            floors = timekeeping.at_epoch(floors, at % 12)
        assert floors.offline >= before.offline
        assert floors.online >= before.online or floors.epoch > before.epoch
        assert floors.epoch >= before.epoch


def test_only_a_confirmed_image_raises_the_floor() -> None:
    release = make_release(2, built_at=NOW).target.release
    for word in ("empty", "writing", "staged", "trying", "bad"):
        slots = {"A": SlotRecord(state=word, release=release)}
        state = State(slots=slots, current="A")
        assert timekeeping.of_image(Floors(), state).offline == 0, word
    confirmed = {"A": SlotRecord(state="confirmed", release=release)}
    assert timekeeping.of_image(Floors(), State(slots=confirmed, current="A")).offline == NOW
    assert timekeeping.of_image(Floors(), State(slots=confirmed, current="B")).offline == 0


# --- what is kept -------------------------------------------------------------------------------------------------------


def test_one_damaged_copy_costs_nothing_and_two_are_noticed() -> None:
    storage = MemoryStorage(Power(Random(1)), DiskFaults())
    TimeStore(storage).write(Floors(offline=5, online=9, epoch=1))
    for name in timekeeping.COPIES:
        whole = storage.read(name)
        assert whole is not None
        storage.write(name, whole[:-1] + b"x")
        assert TimeStore(storage).read() == (Floors(offline=5, online=9, epoch=1), False)
        storage.write(name, whole)
    for name in timekeeping.COPIES:
        storage.write(name, b"rubbish")
    assert TimeStore(storage).read() == (Floors(), True)


# --- the ports ----------------------------------------------------------------------------------------------------------


def test_the_systems_clock_says_what_vouches_for_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rtc = tmp_path_factory.mktemp("rtc")
    clock = SystemClock(str(rtc))
    assert isinstance(clock, ProvenClock)
    assert SystemClock(str(rtc / "none")).proof() in ("synced", "none")
    if clock.proof() == "synced":
        return
    assert clock.proof() == "none"
    (rtc / "rtc0").mkdir()
    (rtc / "rtc0" / "since_epoch").write_text("12\n")
    assert clock.proof() == "none", "a battery that is empty"
    (rtc / "rtc0" / "since_epoch").write_text(f"{int(clock.now())}\n")
    assert clock.proof() == "rtc"


def test_a_simulated_clock_is_one_that_can_say() -> None:
    assert isinstance(make_device(1).clock, ProvenClock)
    assert isinstance(make_device(1).clock, DeviceClock)


# --- a whole agent ------------------------------------------------------------------------------------------------------


def security(device: Device) -> list[EventBody]:
    return [one for one in device.plane.events.values() if one.kind == "security"]


def floors(device: Device) -> Floors:
    return TimeStore(device.board.storage).read()[0]


@pytest.mark.parametrize(
    ("vouched", "skew", "told"),
    [
        ("none", -56 * YEAR, 0),
        ("rtc", -56 * YEAR, 1),
        ("rtc", 10 * YEAR, 1),
        ("synced", 10 * YEAR, 1),
        ("none", 10 * YEAR, 1),
        ("synced", 0, 0),
    ],
    ids=["1970", "1970, empty battery", "+10y", "+10y by NTP", "+10y, nobody vouches", "right"],
)
def test_a_wrong_clock_does_not_keep_a_device_from_updating(
    vouched: Proof, skew: int, told: int
) -> None:
    device = make_device(1, 2)
    device.clock.skew_s, device.clock.vouched = float(skew), vouched
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.runs == 2
    assert device.plane.outcomes() == [("confirmed", None)]
    said = security(device)
    assert [one.reason for one in said] == ["clock.untrusted"] * told
    if told:
        assert "signed time" in said[0].detail


def test_a_clock_that_is_stepped_back_in_the_middle_of_an_update_changes_nothing() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    steps = iter((-56 * YEAR, 10 * YEAR, -3 * DAY) * 9)
    phase = ""
    for runner in device.run(40_000):
        name = type(runner.state.phase).__name__
        if name != phase:
            phase, device.clock.skew_s = name, float(next(steps))
        if device.plane.outcomes():
            device.plane.order = None
        if device.plane.order is None and name == "Idle" and not runner.state.outbox:
            break
    assert device.runs == 2
    assert device.plane.outcomes() == [("confirmed", None)]


@pytest.mark.parametrize("skew", [0, -56 * YEAR], ids=["right", "1970"])
def test_what_has_expired_by_the_signed_time_is_refused_whatever_the_clock_says(skew: int) -> None:
    device = make_device(1, 2)
    device.clock.skew_s = float(skew - 400 * DAY)
    device.plane.skew_s = 0
    device.plane.clock.wait_until(400 * DAY)
    tell(device, "install", 1, "u-1")
    for _ in device.run(4000):
        if device.plane.outcomes():
            break
    assert device.plane.outcomes() == [("failed", "sig.expired")]
    assert device.runs == 1


def test_a_device_that_was_away_for_two_months_recovers() -> None:
    device = make_device(1, 2)
    device.clock.vouched = "none"
    live(device, 100)
    device.clock.skew_s = -60.0 * DAY
    device.plane.clock.wait_until(device.plane.clock.at() + 60 * DAY)
    device.plane.rotate_root(3)
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.runs == 2
    assert device.plane.outcomes() == [("confirmed", None)]


def test_the_first_contact_after_each_boot_asks_for_the_time_with_a_nonce() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    live(device)
    asked = [one for one in device.plane.requests if one == "/d/v1/time"]
    orders = [one for one in device.plane.requests if one == "/d/v1/assignment"]
    assert 1 <= len(asked) <= len(orders)
    assert device.plane.requests.index("/d/v1/time") < device.plane.requests.index(
        "/d/v1/assignment"
    )
    # Only the image before had its say: its successor was confirmed after the last question.
    assert floors(device).online > 0


class Replay(Plane):
    """Answers each question about the time with the answer to the first."""

    first: TimeAnswer | None = None

    def _time(self, body: bytes) -> TimeAnswer:
        if self.first is None:
            self.first = super()._time(body)
        return self.first


def test_a_signed_time_made_for_another_question_is_refused_and_told() -> None:
    device = make_device(1, 2)
    device.clock.vouched = "none"
    device.plane.__class__ = Replay
    live(device, 200)
    device.plane._time(b'{"nonce":"' + b"00" * 16 + b'"}')
    tell(device, "install", 1, "u-1")
    seq = -1
    for runner in device.run(900):
        seq = runner.state.order.seq
        if security(device):
            break
    assert [one.reason for one in security(device)] == ["sig.replayed"]
    assert device.runs == 1
    assert seq == 0, "not even asked what to do"


def test_a_time_pushed_by_a_stolen_director_is_forgotten_when_root_replaces_it() -> None:
    device = make_device(1, 2)
    device.plane.skew_s = 70 * YEAR
    device.plane.order = Order("none")
    live(device, 300)
    assert floors(device).online > NOW + 60 * YEAR
    offline = floors(device).offline
    device.plane.skew_s = 0
    tell(device, "install", 1, "u-1")
    for _ in device.run(900):
        if device.plane.outcomes():
            break
    assert device.plane.outcomes() == [("failed", "sig.expired")], "that much it can do"
    device.plane.director = signer("director, new")
    device.plane.rotate_root(1, epoch=2)
    device.plane.events.clear()
    tell(device, "install", 1, "u-2")
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    assert floors(device).online < NOW + YEAR
    assert floors(device).epoch == 2
    assert floors(device).offline >= offline
