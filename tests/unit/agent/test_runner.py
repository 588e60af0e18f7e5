"""Whole stories of one device: the real machine, runner and worker on simulated ports, against a control plane with real keys."""

import msgspec
import pytest
from tests.crash.lab import Device, Order, make_device
from tests.crash.releases import BLOCK, DAY, HARDWARE, SLOT_SIZE, make_release, signer

from tidegate.agent.events import (
    HoldAsked,
    ReleaseAsked,
    RevertAsked,
)
from tidegate.agent.journal import COPIES
from tidegate.agent.state import (
    Downloading,
    Idle,
    Staged,
    State,
)
from tidegate.core.errors import DeviceError
from tidegate.core.hardware import Hardware
from tidegate.core.protocol import DeliveryPolicy
from tidegate.sim.disk import MemorySlot
from tidegate.sim.faults import Behaviour


def tell(device: Device, action: str, release: int, update: str, **more: object) -> None:
    order = Order(action, device.plane.releases[release], update)
    for name, value in more.items():
        object.__setattr__(order, name, value)
    device.plane.order = order


def live(device: Device, limit_s: float = 7200.0) -> State:
    """Run until the order has an outcome that was told, or time is up."""
    state = State()
    for runner in device.run(limit_s):
        state = runner.state
        if device.plane.outcomes():
            device.plane.order = None
        done = isinstance(state.phase, Idle) and not state.outbox and not runner.busy
        if device.plane.order is None and done and state.next_seq > 1:
            break
    return state


def forget(device: Device) -> None:
    """Let the plane forget what it heard, so that the next story stands alone."""
    beats = {seq: one for seq, one in device.plane.events.items() if one.kind == "heartbeat"}
    device.plane.events = beats


def test_a_good_release_is_confirmed_and_told_with_the_devices_signature() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    state = live(device)
    assert device.plane.kinds() == ["downloading", "staged", "rebooting", "verifying", "confirmed"]
    assert device.runs == 2
    assert state.floor == 2
    ended = next(one for one in device.plane.events.values() if one.kind == "confirmed")
    assert (ended.from_counter, ended.release_counter, ended.running_counter) == (1, 2, 2)
    assert (ended.variant, ended.update, ended.attempt) == (HARDWARE.variant, "u-1", 1)
    assert [one.name for one in ended.health] == ["core"]


def test_the_floor_rises_no_further_than_the_product_says() -> None:
    device = make_device(1, 5)
    device.plane.floor = 3
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    assert live(device).floor == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(service=False), "health.service"),
        (Behaviour(boots=False), "boot.counter_exhausted"),
        (Behaviour(hangs=True), "boot.watchdog"),
        (Behaviour(errors_per_hour=1_000_000), "health.error_rate"),
    ],
)
def test_a_bad_release_is_taken_back_and_not_tried_again(behaviour: Behaviour, reason: str) -> None:
    device = make_device(1, 2, behaviours={2: behaviour})
    tell(device, "install", 1, "u-1")
    state = live(device)
    assert device.plane.outcomes() == [("reverted", reason)]
    assert (device.runs, state.floor) == (1, 0)
    forget(device)
    tell(device, "install", 1, "u-2")
    live(device)
    assert device.plane.outcomes() == [("declined", reason)]
    assert device.runs == 1


def test_the_server_may_ask_for_another_try() -> None:
    device = make_device(1, 2, behaviours={2: Behaviour(service=False)})
    tell(device, "install", 1, "u-1")
    live(device)
    forget(device)
    device.board.truth.behaviours.clear()
    tell(device, "install", 1, "u-2", allow_refused=True)
    state = live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    assert state.refused == ()


def test_an_order_back_needs_no_download_and_bars_what_was_left() -> None:
    device = make_device(1, 2)
    device.plane.floor = 1
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    live(device)
    forget(device)
    device.plane.requests.clear()
    tell(device, "fallback", 0, "u-2")
    state = live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    assert device.runs == 1
    assert not [one for one in device.plane.requests if "/blobs/" in one]
    assert [one.reason for one in state.refused] == ["operator.fallback"]


@pytest.mark.parametrize(
    ("action", "release", "floor", "reason"),
    [
        ("install", 0, 1, "compat.counter"),
        ("install", 0, 100, "compat.floor"),
        ("fallback", 0, 100, "compat.floor"),
        ("fallback", 2, 1, "compat.counter"),
    ],
)
def test_a_device_refuses_what_a_stolen_director_may_not_order(
    action: str, release: int, floor: int, reason: str
) -> None:
    device = make_device(1, 2, 3)
    device.plane.floor = floor
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    live(device)
    forget(device)
    tell(device, action, release, "u-2")
    live(device)
    assert device.plane.outcomes() == [("failed", reason)]
    assert device.runs == 2


def test_wrong_hardware_and_channel_are_refused() -> None:
    for changes, reason in (
        ({"hardware": Hardware("gw1", 9)}, "compat.hardware"),
        ({"channel": "pilot"}, "compat.channel"),
    ):
        device = make_device(1, 2, **changes)
        tell(device, "install", 1, "u-1")
        live(device)
        assert device.plane.outcomes() == [("failed", reason)]


def test_a_foreign_director_is_not_believed() -> None:
    device = make_device(1, 2)
    device.plane.director = signer("a thief")
    tell(device, "install", 1, "u-1")
    for _ in device.run(600):
        pass
    assert device.plane.outcomes() == []
    told = [(one.kind, one.reason) for one in device.plane.events.values() if one.reason]
    assert told == [("security", "sig.unknown_key")]
    assert not [one for one in device.plane.requests if "/blobs/" in one]


def test_metadata_signed_by_a_foreign_key_are_refused() -> None:
    device = make_device(1, 2)
    device.plane.product = signer("a thief")
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("failed", "sig.unknown_key")]


def test_tampered_bytes_never_reach_the_boot_flag() -> None:
    device = make_device(1, 2)
    name = device.plane.releases[1].target.sha256
    body = bytearray(device.plane.blobs[name])
    body[-7] ^= 1
    device.plane.blobs[name] = bytes(body)
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("failed", "download.hash")]
    assert device.plane.permits == {}


def test_a_medium_that_loses_what_it_flushed_is_found_before_the_boot_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = MemorySlot.read_at

    def lying(self: MemorySlot, offset: int, length: int) -> bytes:
        found = right(self, offset, length)
        return bytes(len(found)) if offset <= 5 * BLOCK < offset + length else found

    monkeypatch.setattr(MemorySlot, "read_at", lying)
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("failed", "install.readback")]
    assert device.plane.permits == {}


def test_an_image_larger_than_the_slot_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    device = make_device(1, 2)
    for medium in device.board.media.values():
        medium.size = 4 * BLOCK
        del medium.pages[4:]
    big = make_release(2)
    assert len(big.image) > 4 * BLOCK
    first = next(iter(device.board.catalogue.images.values()))
    monkeypatch.setattr(device.board, "image_in", lambda _slot: first)
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("failed", "install.slot")]
    assert SLOT_SIZE > 4 * BLOCK


def test_a_slot_that_cannot_be_written_ends_the_update() -> None:
    device = make_device(1, 2)
    device.board.disk.bad_blocks = frozenset({6 * BLOCK})
    tell(device, "install", 1, "u-1")
    live(device)
    assert device.plane.outcomes() == [("failed", "install.write")]


def test_a_halt_between_staging_and_permit_leaves_the_slot_inert() -> None:
    device = make_device(1, 2)
    device.plane.halted = True
    tell(device, "install", 1, "u-1")
    for _ in device.run(3600):
        pass
    assert device.runner is not None
    assert isinstance(device.runner.state.phase, Staged)
    assert device.board.history.boots == 1
    device.plane.halted = False
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_a_held_device_downloads_and_waits() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    held = False
    for runner in device.run(1800):
        if not held:
            runner.feed(HoldAsked(now=runner.now(), reason="field test", until_at=1 << 33))
            held = True
    assert device.runner is not None
    assert isinstance(device.runner.state.phase, Staged)
    assert [one.code for one in device.runner.because()] == ["wait.hold"]
    device.runner.feed(ReleaseAsked(now=device.runner.now()))
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_windows_of_the_order_are_kept() -> None:
    # Virtual time begins on a Monday at 00:00 UTC.
    policy = DeliveryPolicy(
        download_window=("02:00-03:00",), activate_window=("04:00-05:00",), zone="UTC"
    )
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1", policy=policy)
    started: dict[str, float] = {}
    for _ in device.run(6 * 3600):
        for path in device.plane.requests:
            started.setdefault(path.split("/")[3], device.plane.clock.at())
        device.plane.requests.clear()
        if device.plane.outcomes():
            break
    assert 2 * 3600 <= started["blobs"] < 2 * 3600 + 600
    assert 4 * 3600 <= started["permit"] < 4 * 3600 + 600


#: The payload is some hundred bytes: minutes, and every poll on the way says that there is something to do.
SLOWLY = DeliveryPolicy(bps_max=1)


def test_polls_during_a_slow_download_do_not_interrupt_it() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1", policy=SLOWLY)
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    asked = [path.split("/")[3] for path in device.plane.requests]
    assert asked[: asked.index("permit")].count("poll") > 2
    assert asked.count("assignment") == 1
    assert asked.count("blobs") == 1


def test_a_stop_during_a_slow_download_is_heard() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1", policy=SLOWLY)
    for runner in device.run(3600):
        if runner.busy and isinstance(runner.state.phase, Downloading):
            tell(device, "none", 1, "u-1")
            device.plane.gate_epoch = 2
            break
    for runner in device.run(3600):
        if isinstance(runner.state.phase, Idle):
            break
    assert "/d/v1/permit" not in device.plane.requests
    assert device.plane.requests.count("/d/v1/assignment") == 2


def test_a_person_goes_back_and_the_image_is_not_tried_again() -> None:
    device = make_device(1, 2)
    device.plane.floor = 1
    device.plane.publish()
    tell(device, "install", 1, "u-1")
    live(device)
    forget(device)
    assert device.runner is not None
    device.runner.feed(RevertAsked(now=device.runner.now(), reason="fan noise"))
    for runner in device.run(600):
        if device.plane.outcomes() and not runner.state.outbox:
            break
    assert device.plane.outcomes() == [("reverted", "user.declined")]
    assert device.runs == 1


def test_a_server_that_is_away_costs_nothing_but_time() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    device.plane.down = True
    for _ in device.run(4 * 3600):
        pass
    device.plane.down = False
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_a_server_that_opens_no_session_is_asked_again_after_ever_longer_pauses() -> None:
    """By hand: six devices asked sixty times a second, until their address was refused."""
    device = make_device(1, 2)
    device.plane.closed = True
    tell(device, "install", 1, "u-1")
    for _ in device.run(3600):
        if device.plane.requests.count("/d/v1/session") > 100:
            break
    assert 5 <= device.plane.requests.count("/d/v1/session") <= 30
    device.plane.closed = False
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_a_lost_journal_is_told_and_the_counters_stand() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    live(device)
    floor = device.runner.state.floor if device.runner else 0
    for name in COPIES:
        device.board.storage.files[name] = b"gone"
    device.runner = None
    state = State()
    for runner in device.run(600):
        state = runner.state
    assert (state.floor, state.slots["B"].release_counter) == (floor, 2)
    told = [one.reason for one in device.plane.events.values() if one.kind == "security"]
    assert told == ["agent.state_damaged"]
    forget(device)
    tell(device, "install", 0, "u-3")
    live(device)
    assert device.plane.outcomes() == [("failed", "compat.floor")]


def test_a_state_directory_that_is_full_stops_work_and_nothing_else() -> None:
    device = make_device(1, 2)
    device.settle(120)
    device.board.disk.full = True
    tell(device, "install", 1, "u-1")
    for _ in device.run(1800):
        pass
    assert device.runs == 1
    assert device.runner is not None
    assert "install.space" in device.runner.problem
    device.board.disk.full = False
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_a_clock_that_is_years_wrong_does_not_stop_an_honest_update() -> None:
    for skew_s in (-50 * 365 * DAY, 70 * 365 * DAY):
        device = make_device(1, 2)
        device.clock.skew_s = skew_s
        tell(device, "install", 1, "u-1")
        live(device)
        assert device.plane.outcomes() == [("confirmed", None)]


def test_heartbeats_carry_errors_and_the_time_that_they_cover() -> None:
    device = make_device(1, behaviours={1: Behaviour(errors_per_hour=60)})
    for _ in device.run(2 * 3600):
        pass
    beats = [one.metrics for one in device.plane.events.values() if one.kind == "heartbeat"]
    covered = sum(one.device_s for one in beats if one is not None)
    errors = sum(one.errors for one in beats if one is not None)
    assert 1.8 * 3600 < covered <= 2 * 3600
    assert 80 < errors < 160


def test_a_boot_loader_that_fails_returns_the_leave_and_ends_the_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")

    def broken(slot: str, tries: int) -> None:
        raise DeviceError("activate.bootloader", "the environment is read-only")

    monkeypatch.setattr(device.board.bootloader, "arm_trial", broken)
    live(device)
    assert device.plane.kinds()[-2:] == ["permit_returned", "failed"]
    assert device.plane.outcomes() == [("failed", "activate.bootloader")]


def test_a_restart_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    right = device.board.reboot
    failures: list[float] = []

    def reboot() -> None:
        if len(failures) < 3:
            failures.append(device.clock.monotonic())
            raise DeviceError("activate.bootloader", "reboot: exit code 1")
        right()

    monkeypatch.setattr(device.board, "reboot", reboot)
    live(device)
    assert len(failures) == 3
    assert failures[2] - failures[0] >= 10
    assert device.plane.outcomes() == [("confirmed", None)]


def test_a_boot_record_that_is_damaged_stops_the_agent_from_doing_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")

    def damaged() -> str:
        raise DeviceError("activate.bootloader", "the checksum is wrong")

    with monkeypatch.context() as broken:
        broken.setattr(device.board.bootloader, "primary", damaged)
        for runner in device.run(600):
            assert "activate.bootloader" in runner.problem
    assert device.plane.requests == []
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]


def test_the_state_that_is_kept_is_small() -> None:
    device = make_device(1, 2)
    tell(device, "install", 1, "u-1")
    state = live(device)
    assert len(msgspec.json.encode(state)) < 8192
