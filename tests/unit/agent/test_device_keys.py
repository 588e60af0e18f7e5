"""Device keys: made here, kept apart from other users, replaced with the power failing anywhere; in a file, and in a token."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.crash.lab import Answer as LabAnswer
from tests.tokens import PIN, Tokens
from tests.unit.server.rig import Rig

from tidegate.agent.board import SystemClock
from tidegate.agent.enrolment import KEY_NAME, NEXT_KEY_NAME, SESSION_NAME
from tidegate.agent.files import StateDirectory
from tidegate.agent.ports import Clock, PowerCut, Response, Storage
from tidegate.agent.settings import Settings
from tidegate.agent.trust import enrol
from tidegate.agent.trust.device_keys import DeviceKeys, FileKeys, source_of
from tidegate.core.errors import (
    ConfigError,
    DeviceError,
    RequestError,
    TidegateError,
    TransferError,
)
from tidegate.core.hardware import Hardware
from tidegate.server import devices, identity
from tidegate.server.store import admin_devices, device_queries
from tidegate.sim.clock import DeviceClock, VirtualTimeline
from tidegate.sim.disk import MemoryStorage, Power
from tidegate.sim.faults import Cut, CutMode, DiskFaults

SETTINGS = Settings(device_id="d1", product="gw1", hardware=Hardware("gw1", 1, "serial-d1"))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()


class Wire:
    """`agent.ports.Transport` to a server in process; the power, or the link, may fail before a request or after its answer was made."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.count = 0
        self.cut: tuple[int, str] | None = None
        self.lose: set[int] = set()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        self.count += 1
        if self.cut == (self.count, "before"):
            raise PowerCut
        found = self.rig.ask(method, path, body or b"", **dict(headers or {}))
        if self.cut == (self.count, "after"):
            raise PowerCut
        if self.count in self.lose:
            raise TransferError("download.timeout", "the answer was lost")
        return LabAnswer(found.status, found.body, found.headers)


class World:
    """What of `agent.ports.World` enrolment uses."""

    def __init__(
        self, rig: Rig, storage: Storage | None = None, clock: Clock | None = None
    ) -> None:
        self.power = Power(Random(1))
        self.clock: Any = clock or DeviceClock(VirtualTimeline(rig.now), Random(2))
        self.storage: Any = storage or MemoryStorage(self.power, DiskFaults())
        self.transport: Any = Wire(rig)
        self.board: Any = None

    def restart(self) -> None:
        self.power.restore()
        self.transport.cut = None


def joined(rig: Rig, settings: Settings = SETTINGS, **ports: Any) -> World:
    world = World(rig, **ports)
    assert enrol.enrol(world, settings, rig.claim()).state == "accepted"
    return world


def held_by_server(rig: Rig) -> str:
    return str(rig.read(lambda conn: device_queries.by_id(conn, "d1")).key_sha256)


def held_by_device(world: World, settings: Settings = SETTINGS) -> str:
    return enrol.keys_of(world, settings).present().public.identity


def test_a_device_goes_on_with_a_new_key(rig: Rig) -> None:
    world = joined(rig)
    before = held_by_device(world)
    enrol.session(world, SETTINGS, "b1")
    made = enrol.rekey(world, SETTINGS)
    assert made.state == "done"
    assert held_by_device(world) == held_by_server(rig) == made.fingerprint != before
    assert world.storage.read("fingerprint").decode() == made.fingerprint
    assert world.storage.read(NEXT_KEY_NAME) is None
    enrol.session(world, SETTINGS, "b1")


def _steps(rig: Rig) -> tuple[int, int]:
    """Return how many durable operations and requests one re-key takes."""
    world = joined(rig)
    operations, requests = world.power.operations, world.transport.count
    enrol.rekey(world, SETTINGS)
    return world.power.operations - operations, world.transport.count - requests


MODES: tuple[CutMode, ...] = ("before", "torn", "after")


def test_no_cut_of_the_power_locks_a_device_out(tmp_path: Path) -> None:
    """At every durable operation and every request of a re-key, before, in the middle and after; and once more during the recovery."""
    first = Rig(tmp_path / "first")
    operations, requests = _steps(first)
    first.close()
    assert operations >= 5
    assert requests == 2
    cuts: list[Any] = [Cut(n, mode) for n in range(1, operations + 1) for mode in MODES]
    cuts += [(n, when) for n in range(1, requests + 1) for when in ("before", "after")]
    for number, cut in enumerate(cuts):
        rig = Rig(tmp_path / f"{number}")
        world = joined(rig)
        _arm(world, cut)
        with pytest.raises(PowerCut):
            enrol.rekey(world, SETTINGS)
        for again in range(1, 4):
            world.restart()
            # the power fails again in the middle of finding out
            world.power.arm(Cut(again, "after"))
            try:
                enrol.session(world, SETTINGS, f"b{number}-{again}")
            except PowerCut:
                continue
        world.restart()
        world.power.arm()
        rig.now += 5
        enrol.session(world, SETTINGS, f"b{number}")
        assert held_by_device(world) == held_by_server(rig), cut
        assert world.storage.read(NEXT_KEY_NAME) is None, cut
        state = rig.read(lambda conn: device_queries.by_id(conn, "d1")).state
        assert state == "accepted"
        rig.close()


def _arm(world: World, cut: Any) -> None:
    if isinstance(cut, Cut):
        world.power.arm(cut)
    else:
        world.transport.cut = (world.transport.count + cut[0], cut[1])


def test_a_lost_answer_is_asked_for_again_with_the_next_session(rig: Rig) -> None:
    world = joined(rig)
    world.transport.lose = {world.transport.count + 2}
    with pytest.raises(TransferError):
        enrol.rekey(world, SETTINGS)
    assert held_by_device(world) != held_by_server(rig)
    enrol.session(world, SETTINGS, "b1")
    assert held_by_device(world) == held_by_server(rig)


def test_a_new_key_that_waits_for_a_person_does_not_keep_the_device_away(rig: Rig) -> None:
    world = joined(rig)
    row = rig.read(lambda conn: device_queries.by_id(conn, "d1")).row
    rig.write(lambda conn: devices.set_state(conn, row, "quarantined", int(rig.now)))
    made = enrol.rekey(world, SETTINGS)
    assert made.state == "pending"
    assert world.storage.read("fingerprint.next").decode() == made.fingerprint
    enrol.session(world, SETTINGS, "b1")
    assert enrol.rekey(world, SETTINGS).fingerprint == made.fingerprint

    def approve(conn: Any) -> None:
        found = admin_devices.device(conn, "d1")
        assert found is not None
        identity.promise_key(conn, found, made.fingerprint[:16], "ada", int(rig.now))

    rig.write(approve)
    enrol.session(world, SETTINGS, "b1")
    assert held_by_device(world) == held_by_server(rig) == made.fingerprint
    assert rig.read(lambda conn: device_queries.by_id(conn, "d1")).state == "accepted"


def test_a_revoked_device_comes_back_by_itself_once_its_new_key_is_approved(rig: Rig) -> None:
    world = joined(rig)
    row = rig.read(lambda conn: device_queries.by_id(conn, "d1")).row
    rig.write(lambda conn: devices.set_state(conn, row, "revoked", int(rig.now)))
    with pytest.raises(RequestError, match=r"device\.revoked"):
        enrol.rekey(world, SETTINGS)
    waiting = world.storage.read("fingerprint.next").decode()

    def approve(conn: Any) -> None:
        found = admin_devices.device(conn, "d1")
        assert found is not None
        identity.promise_key(conn, found, waiting, "ada", int(rig.now))

    rig.write(approve)
    enrol.session(world, SETTINGS, "b1")
    assert held_by_device(world) == held_by_server(rig) == waiting


def test_the_server_may_order_a_new_key(rig: Rig) -> None:
    world = joined(rig)
    before = held_by_device(world)

    def order(conn: Any) -> None:
        found = admin_devices.device(conn, "d1")
        assert found is not None
        identity.order_rekey(conn, found, "ada", "", int(rig.now))

    rig.write(order)
    made = enrol.session(world, SETTINGS, "b1")
    assert held_by_device(world) == held_by_server(rig) != before
    answer = rig.ask("GET", "/d/v1/poll", authorization=f"Bearer {made.token}")
    assert answer.status == 200


def test_a_full_disk_does_not_keep_a_device_away(rig: Rig) -> None:
    world = joined(rig)
    enrol.session(world, SETTINGS, "b1")
    before = world.storage.read(SESSION_NAME)
    world.storage._faults.full = True
    enrol.session(world, SETTINGS, "b1")
    enrol.session(world, SETTINGS, "b1")
    assert world.storage.read(SESSION_NAME) == before
    world.storage._faults.full = False
    enrol.session(world, SETTINGS, "b1")
    enrol.session(world, SETTINGS, "b1")
    assert rig.read(lambda conn: device_queries.by_id(conn, "d1")).state == "accepted"


# --- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
@pytest.mark.parametrize("name", [KEY_NAME, NEXT_KEY_NAME])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int, name: str) -> None:
    storage = StateDirectory(str(tmp_path / "state"))
    keys = DeviceKeys(storage, FileKeys(SystemClock()))
    keys.present(make=True)
    keys.next(make=True)
    path = tmp_path / "state" / name
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    with pytest.raises(DeviceError, match="others may read it") as caught:
        keys.present() if name == KEY_NAME else keys.next()
    assert caught.value.code == "key.exposed"
    assert "chmod 600" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    storage = StateDirectory(str(tmp_path / "state"))
    keys = DeviceKeys(storage, FileKeys(SystemClock()))
    keys.present(make=True)
    os.chown(tmp_path / "state" / KEY_NAME, 12345, 12345)
    with pytest.raises(DeviceError, match="belongs to user 12345"):
        keys.present()


def test_a_damaged_key_is_named_and_not_replaced(tmp_path: Path) -> None:
    storage = StateDirectory(str(tmp_path / "state"))
    storage.write(KEY_NAME, b"short")
    with pytest.raises(TidegateError) as caught:
        DeviceKeys(storage, FileKeys(SystemClock())).present(make=True)
    assert caught.value.code == "key.malformed"
    assert storage.read(KEY_NAME) == b"short"


# --- tokens --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token(tokens: Tokens) -> str:
    """The URI of a device key in a software token."""
    pin = tokens.folder / "board.pin"
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o600)
    return f"pkcs11:token=ada;object=device?module-path={tokens.library}&pin-source={pin}"


def test_a_device_lives_with_its_key_in_a_token(rig: Rig, token: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, key=token)
    world = joined(rig, settings, clock=SystemClock())
    handle = world.storage.read(KEY_NAME)
    assert handle.startswith(b"pkcs11:")
    rig.now = int(world.clock.now())
    before = held_by_device(world, settings)
    assert before == held_by_server(rig)
    made = enrol.session(world, settings, "b1")
    headers = {"authorization": f"Bearer {made.token}"}
    assert rig.ask("GET", "/d/v1/poll", **headers).status == 200
    assert enrol.rekey(world, settings).state == "done"
    assert held_by_device(world, settings) == held_by_server(rig) != before
    enrol.session(world, settings, "b1")
    with pytest.raises(DeviceError) as caught:
        source_of(token, SystemClock()).open(handle)
    assert caught.value.code == "key.token"


def test_a_device_moves_its_key_from_a_file_into_a_token(rig: Rig, token: str) -> None:
    world = joined(rig, clock=SystemClock())
    rig.now = int(world.clock.now())
    settings = msgspec.structs.replace(SETTINGS, key=token.replace("object=device", "object=moved"))
    enrol.session(world, settings, "b1")
    assert len(world.storage.read(KEY_NAME)) == 32
    assert enrol.rekey(world, settings).state == "done"
    assert world.storage.read(KEY_NAME).startswith(b"pkcs11:")
    enrol.session(world, settings, "b1")
    with pytest.raises(DeviceError, match="in a token"):
        enrol.session(world, SETTINGS, "b1")


def test_a_key_that_the_factory_put_into_the_token_is_used(token: str) -> None:
    uri = token.replace("object=device", "object=factory")
    source = source_of(uri, SystemClock())
    assert source.find() is None
    handle = source.make()
    assert source.find() == handle
    again = source.make()
    with pytest.raises(DeviceError, match="2 keys"):
        source.find()
    source.discard(again)
    source.discard(again)
    assert source.find() == handle
    signer = source.open(handle)
    for number in range(32):  # r and s of every length
        message = b"%d" % number
        assert signer.public.verifies(signer.sign(message), message)
    assert not signer.public.verifies(signer.sign(b"a"), b"b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("token=ada", "token=another%201"), "NoSuchToken"),
        (("pin-source=", "pin-value=wrong&x="), "not known"),
        (("object=device", "id=%01"), "object= are needed"),
        (("module-path=/", "module-path=/nowhere/"), "/nowhere/"),
        ((";object=", ";token=x;object="), "is no attribute"),
        (("token=ada;", "token=ada;nothing;"), "is no attribute"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(token: str, change: tuple[str, str], said: str) -> None:
    with pytest.raises((ConfigError, DeviceError), match=said):
        source_of(token.replace(*change), SystemClock()).find()


def test_a_wrong_pin_and_a_pin_that_others_may_read_are_refused(token: str, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("0000")
    pin.chmod(0o600)
    before, _, _ = token.partition("pin-source=")
    with pytest.raises(DeviceError, match="PinIncorrect"):
        source_of(f"{before}pin-source={pin}", SystemClock()).find()
    pin.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        source_of(f"{before}pin-source={pin}", SystemClock())


def test_a_setting_that_is_neither_is_refused() -> None:
    with pytest.raises(ConfigError):
        source_of("tpm", SystemClock())
