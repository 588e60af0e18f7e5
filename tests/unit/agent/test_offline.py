"""A release by hand: the whole agent takes it from a bundle or a mirror without a server, and refuses each bad one by its own code with nothing installed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.crash.lab import Device, Order, Plane, make_device
from tests.crash.releases import DAY, make_release, signer
from tests.unit.agent.test_runner import forget, live, tell

from tidegate.agent.events import Assigned, Refused
from tidegate.agent.jobs import OpenBundle, Task
from tidegate.agent.state import Downloading, Idle, Refusal, Staged, State
from tidegate.agent.trust.offline import open_bundle
from tidegate.agent.verbs import VERBS, Request
from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.bundle import BundleManifest, Member, encode_manifest
from tidegate.core.errors import RequestError
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.ustar import END, header, padding
from tidegate.sim.faults import Behaviour


def files_of(plane: Plane, *digests: str) -> dict[str, bytes]:
    """Return what a bundle holds, by member name, in order."""
    newest = {}
    for name, body in plane.files.items():
        role = name.partition(".")[2] if name[0].isdigit() else name
        if "root" in role:
            newest[f"metadata/{name}"] = body
    for name, body in plane.files.items():
        newest.setdefault(f"metadata/{name}", body)
    payloads = {f"payloads/{one}": plane.blobs[one] for one in digests}
    return newest | payloads


def write(path: Path, files: Mapping[str, bytes], schema: str = "tidegate.offline/1") -> Path:
    members = tuple(
        Member(name=name, length=len(body), sha256=hashlib.sha256(body).hexdigest())
        for name, body in files.items()
    )
    manifest = BundleManifest(schema=schema, product="gw1", version="1", members=members)  # type: ignore[arg-type]
    head = encode_manifest(manifest)
    with path.open("wb") as out:
        for name, body in [("bundle.json", head), *files.items()]:
            out.write(header(name, len(body)) + body + padding(len(body)))
        out.write(END)
    return path


def payload(device: Device, index: int = 1) -> str:
    return device.plane.releases[index].target.release.full.sha256


def brought(device: Device, path: Path) -> Path:
    return write(path / "usb.bundle", files_of(device.plane, payload(device)))


def away(*counters: int, **settings: object) -> Device:
    """Make a device without a server that may take bundles."""
    wanted = {"offline_bundles": True, **settings}
    device = make_device(*(counters or (1, 2)), **wanted)  # type: ignore[arg-type]
    device.plane.down = True
    return device


def bring(device: Device, path: Path, limit_s: float = 4000.0) -> State:
    """Say `apply-now --bundle` once, and let it live on for so long."""
    state, asked, before = State(), False, device.plane.releases[0].target.release.release_counter
    for runner in device.run(limit_s):
        state = runner.state
        if not asked and state.next_seq:
            VERBS["apply-now"](runner, Request(verb="apply-now", bundle=str(path)))
            asked = True
        word = VERBS["bundle"](runner, Request(verb="bundle"))["bundle"]
        device.word = word if word["state"] != "none" else device.word  # type: ignore[attr-defined]
        refused = device.word["state"] == "refused"  # type: ignore[attr-defined]
        over = isinstance(state.phase, Idle) and device.runs != before
        if asked and not runner.busy and (refused or over):
            break
    return state


@pytest.fixture(autouse=True)
def _word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "word", {"state": "none"}, raising=False)


def code(device: Device, path: Path) -> str:
    bring(device, path, 300)
    word = device.word  # type: ignore[attr-defined]
    assert word["state"] == "refused", word
    assert device.runs == 1
    assert device.board.storage.read("payload.head") is None, "the slot was touched"
    return str(word["code"])


# --- taking it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["synced", "none"])
def test_a_device_without_server_takes_a_release_from_a_stick(tmp_path: Path, clock: str) -> None:
    device = away()
    device.clock.vouched = clock  # type: ignore[assignment]
    device.clock.skew_s = 0.0 if clock == "synced" else -56.0 * 365 * DAY
    state = bring(device, brought(device, tmp_path))
    assert device.word == {  # type: ignore[attr-defined]
        "state": "accepted",
        "path": str(tmp_path / "usb.bundle"),
        "code": "",
        "detail": "",
        "release": "gw1-1.2",
    }
    assert device.runs == 2
    assert state.slots[state.current].state == "confirmed"
    assert state.floor == 2
    assert device.plane.permits == {}
    # Once there is a server again, it is told, like of any other update.
    device.plane.down = False
    live(device, 7200)
    told = [one for one in device.plane.events.values() if one.kind != "heartbeat"]
    assert [one.kind for one in told] == [
        "downloading",
        "staged",
        "rebooting",
        "verifying",
        "confirmed",
    ]
    assert {one.update for one in told} == {None}
    assert {one.release_counter for one in told} == {2}
    assert told[-1].running_counter == 2


def test_a_mirror_directory_does_as_well(tmp_path: Path) -> None:
    device = away(1, 2, 3)
    (tmp_path / "repo").mkdir()
    (tmp_path / "blobs").mkdir()
    for name, body in device.plane.files.items():
        (tmp_path / "repo" / name).write_bytes(body)
    for digest, body in device.plane.blobs.items():
        (tmp_path / "blobs" / digest).write_bytes(body)
    bring(device, tmp_path)
    assert device.runs == 3, "the newest that is there"


def test_roots_on_the_stick_bring_a_device_over_three_ceremonies(tmp_path: Path) -> None:
    device = away()
    device.plane.director = signer("director, new")
    device.plane.rotate_root(3, epoch=2)
    bring(device, brought(device, tmp_path))
    assert device.runs == 2
    device.plane.down = False
    live(device, 7200)
    assert b'"version":4' in (device.board.storage.read("tuf.root.0") or b"").replace(b" ", b"")


def test_no_online_document_is_needed(tmp_path: Path) -> None:
    device = away()
    files = files_of(device.plane, payload(device))
    plain = {k: v for k, v in files.items() if "snapshot" not in k and "timestamp" not in k}
    bring(device, write(tmp_path / "usb.bundle", plain))
    assert device.runs == 2


def test_a_release_that_fails_its_checks_is_reverted_like_any_other_and_not_taken_twice(
    tmp_path: Path,
) -> None:
    device = make_device(1, 2, offline_bundles=True, behaviours={2: Behaviour(service=False)})
    device.plane.down = True
    path = brought(device, tmp_path)
    state = bring(device, path)
    assert device.runs == 1
    assert [one.reason for one in state.refused] == ["health.service"]
    device.word = {"state": "none"}  # type: ignore[attr-defined]
    bring(device, path, 300)
    assert device.word["code"] == "health.service"  # type: ignore[attr-defined]


# --- refusing it --------------------------------------------------------------------------------------------------------


def without_permission(device: Device, path: Path) -> None:
    for runner in device.run(10):
        with pytest.raises(RequestError) as caught:
            VERBS["apply-now"](runner, Request(verb="apply-now", bundle=str(path)))
        assert caught.value.code == "request.forbidden"
        break


def test_a_device_that_was_not_told_so_takes_nothing_by_hand(tmp_path: Path) -> None:
    device = make_device(1, 2)
    without_permission(device, brought(device, tmp_path))


def _flip(device: Device, path: Path) -> Path:
    body = bytearray(path.read_bytes())
    blob = device.plane.blobs[payload(device)]
    at = body.index(blob) + len(blob) - 40
    body[at] ^= 1
    path.write_bytes(body)
    return path


def _cut(device: Device, path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def _cut_in_front(device: Device, path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:700])
    return path


def _not_a_bundle(device: Device, path: Path) -> Path:
    path.write_bytes(b"hello" * 1000)
    return path


def _for_a_server(device: Device, path: Path) -> Path:
    files = {
        name: body
        for name, body in files_of(device.plane, payload(device)).items()
        if "snapshot" not in name and "timestamp" not in name
    }
    return write(path, files, "tidegate.bundle/1")


def _gone(device: Device, path: Path) -> Path:
    path.unlink()
    return path


def _other_payload(device: Device, path: Path) -> Path:
    """A whole bundle, of which the payload is nobody's."""
    files = files_of(device.plane)
    body = b"evil" * 5000
    return write(path, files | {f"payloads/{hashlib.sha256(body).hexdigest()}": body})


def _foreign(device: Device, path: Path) -> Path:
    """Another publisher's, with the same names and a root that says it follows ours."""
    files = {}
    for name, body in files_of(device.plane, payload(device)).items():
        plain = json.loads(body) if name.endswith(".json") else None
        if plain is not None and ("targets" in name or "product" in name):
            plain["signatures"] = [{**one, "sig": "00" * 64} for one in plain["signatures"]]
            files[name] = json.dumps(plain).encode()
        else:
            files[name] = body
    return write(
        path, {k: v for k, v in files.items() if "snapshot" not in k and "timestamp" not in k}
    )


def _mixed(device: Device, path: Path) -> Path:
    """Parts of two sets."""
    old = files_of(device.plane)
    device.plane.releases = (*device.plane.releases, make_release(7))
    device.plane.version += 1
    device.plane.publish()
    new = files_of(device.plane, payload(device))
    keep = {k: v for k, v in new.items() if "product" not in k}
    return write(path, keep | {k: v for k, v in old.items() if "product" in k})


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (_flip, "download.hash"),
        (_cut, "release.malformed"),
        (_cut_in_front, "release.malformed"),
        (_not_a_bundle, "release.malformed"),
        (_for_a_server, "release.malformed"),
        (_gone, "config.unreadable"),
        (_other_payload, "sig.director_mismatch"),
        (_foreign, "sig.threshold"),
        (_mixed, "sig.mix_and_match"),
    ],
    ids=lambda one: one.__name__.strip("_") if callable(one) else one,
)
def test_a_spoilt_bundle_is_refused(
    tmp_path: Path, spoil: Callable[[Device, Path], Path], wanted: str
) -> None:
    device = away()
    path = spoil(device, brought(device, tmp_path))
    assert code(device, path) == wanted


def releasing(**changes: object) -> Device:
    """Make a device to which a release with these changes is brought."""
    device = away()
    device.plane.releases = (device.plane.releases[0], make_release(2, **changes))
    device.plane.version += 1
    device.plane.publish()
    return device


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hardware": (HardwareRange("gw1", 4, 7),)}, "compat.hardware"),
        ({"hardware": (HardwareRange("gw2", 2, 7),)}, "compat.hardware"),
        ({"channels": ("pilot",)}, "compat.channel"),
        ({"from_counters": ((5, 9),)}, "compat.waypoint"),
        ({"min_agent": "99.0"}, "compat.agent"),
    ],
    ids=["revision", "model", "channel", "waypoint", "agent"],
)
def test_a_bundle_for_another_device_is_refused(
    tmp_path: Path, changes: dict[str, object], wanted: str
) -> None:
    device = releasing(**changes)
    assert code(device, brought(device, tmp_path)) == wanted


def test_a_bundle_of_another_product_is_refused(tmp_path: Path) -> None:
    device = away(product="gw9", hardware=Hardware("gw1", 3))
    assert code(device, brought(device, tmp_path)) == "compat.hardware"


@pytest.mark.parametrize("index", [0, 1], ids=["the same", "an older one"])
def test_a_bundle_that_is_not_newer_is_refused(tmp_path: Path, index: int) -> None:
    device = make_device(2, 1, offline_bundles=True)
    device.plane.down = True
    files = files_of(device.plane, payload(device, index))
    path = write(tmp_path / "old.bundle", files)
    bring(device, path, 300)
    assert device.word["code"] in ("compat.counter", "compat.floor")  # type: ignore[attr-defined]
    assert device.runs == 2


def test_a_bundle_from_before_a_withdrawal_that_the_device_has_seen_is_refused(
    tmp_path: Path,
) -> None:
    device = make_device(1, 2, offline_bundles=True)
    path = brought(device, tmp_path)
    device.plane.releases = (device.plane.releases[0], make_release(3))
    device.plane.version += 1
    device.plane.publish()
    device.plane.order = Order("install", device.plane.releases[0], "u-1")
    for runner in device.run(3000):
        if device.plane.outcomes():
            device.plane.order = None
            if not runner.state.outbox:
                break
    assert device.plane.outcomes() == [("confirmed", None)], "a repair: it has seen the new role"
    device.plane.down = True
    bring(device, path, 300)
    assert device.word["code"] == "sig.rollback"  # type: ignore[attr-defined]
    assert device.runs == 1


@pytest.mark.parametrize("where", ["by the clock", "nobody knows"])
def test_an_expired_bundle_is_refused_when_time_is_known(tmp_path: Path, where: str) -> None:
    device = away()
    path = brought(device, tmp_path)
    device.plane.clock.wait_until(400 * DAY)
    if where == "by the clock":
        assert code(device, path) == "sig.expired"
        return
    device.clock.vouched = "none"
    # Nothing vouches for the clock, and only offline keys' floors bound the time: no claim of freshness is made.
    bring(device, path)
    assert device.runs == 2


def test_a_clock_that_is_ahead_is_corrected_by_a_server_in_reach(tmp_path: Path) -> None:
    device = make_device(1, 2, offline_bundles=True)
    path = brought(device, tmp_path)
    device.clock.skew_s = 10.0 * 365 * DAY
    live(device, 200)
    bring(device, path)
    assert device.runs == 2
    assert "/d/v1/time" in device.plane.requests


def test_the_signers_schedule_holds_for_a_stick_as_well(tmp_path: Path) -> None:
    device = away()
    steps = (MandateStep(not_before=int(device.plane.clock.wall()) + DAY, bucket_max=10_000),)
    device.plane.mandates = (Mandate(counter=2, salt="5a" * 16, steps=steps),)
    device.plane.version += 1
    device.plane.publish()
    assert code(device, brought(device, tmp_path)) == "compat.mandate"


def test_what_the_server_held_back_stays_so_until_the_server_lets_it_go(tmp_path: Path) -> None:
    device = make_device(1, 2, offline_bundles=True)
    path = brought(device, tmp_path)
    device.plane.halted = True
    tell(device, "install", 1, "u-1")
    for runner in device.run(4000):
        if isinstance(runner.state.phase, Staged) and device.plane.order:
            device.plane.order = Order("hold", device.plane.releases[1], "u-1")
            device.plane.gate_epoch += 1
        if runner.state.halted:
            break
    device.plane.down = True
    bring(device, path, 600)
    assert device.word["code"] == "operator.halted"  # type: ignore[attr-defined]
    assert device.runs == 1
    device.plane.down = device.plane.halted = False
    device.plane.order = None
    live(device)
    assert ("declined", "operator.halted") in device.plane.outcomes()
    forget(device)
    tell(device, "install", 1, "u-1")
    device.plane.gate_epoch += 1
    live(device)
    assert device.runs == 2


def test_what_this_device_refused_before_is_not_taken_from_a_stick(tmp_path: Path) -> None:
    device = away()
    sha256 = device.plane.releases[1].target.release.install.sha256
    for runner in device.run(30):
        refused = (Refusal(sha256=sha256, reason="boot.no_return", at=1),)
        runner.state = msgspec.structs.replace(runner.state, refused=refused)
        runner._journal.write(runner.state)
        break
    assert code(device, brought(device, tmp_path)) == "boot.no_return"


def test_a_stick_that_is_pulled_out_is_waited_for(tmp_path: Path) -> None:
    device = away(sync_bytes=4096)
    path = brought(device, tmp_path)
    body = path.read_bytes()
    asked = False
    for runner in device.run(8000):
        if not asked:
            VERBS["apply-now"](runner, Request(verb="apply-now", bundle=str(path)))
            asked = True
        name = type(runner.state.phase).__name__
        if name == "Downloading" and path.exists() and device.plane.clock.at() < 100:
            path.unlink()
        elif not path.exists() and device.plane.clock.at() > 300:
            path.write_bytes(body)
        if device.runs == 2 and name == "Idle":
            break
    assert device.runs == 2


def test_whatever_happens_to_a_bundle_nothing_but_the_signed_release_comes_out_of_it(
    tmp_path: Path,
) -> None:
    device = away()
    for runner in device.run(10):
        if runner.state.next_seq:
            break
    assert device.runner is not None
    world, state = device.runner.ports, device.runner.state
    whole = brought(device, tmp_path).read_bytes()
    signed = device.plane.releases[1].target.release.install.sha256
    random, path = Random(5), tmp_path / "spoilt.bundle"
    verdicts: dict[str, int] = {}
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(body))
            match random.randrange(4):
                case 0:
                    body[at] ^= 1 << random.randrange(8)
                case 1:
                    del body[at : at + random.randint(1, 600)]
                case 2:
                    body[at:at] = body[: random.randint(1, 600)]
                case _:
                    del body[max(at, 600) :]
        path.write_bytes(body)
        job = OpenBundle(path=str(path))
        replies = list(open_bundle(world, device.settings, job, Task(job=job, state=state)))
        last = replies[-1]
        if isinstance(last, Assigned):
            assert last.update.release.install.sha256 == signed
            verdicts["taken"] = verdicts.get("taken", 0) + 1
        else:
            assert isinstance(last, Refused)
            verdicts[last.reason] = verdicts.get(last.reason, 0) + 1
    assert verdicts.pop("taken", 0) < 80, "only where padding was hit"
    assert {"release.malformed", "download.hash"} <= set(verdicts)
    assert "agent.internal" not in verdicts


def test_a_server_that_has_nothing_to_say_does_not_stop_what_a_person_began(tmp_path: Path) -> None:
    device = make_device(1, 2, offline_bundles=True, sync_bytes=4096)
    path = brought(device, tmp_path)
    device.plane.order = Order("none")
    asked = False
    for runner in device.run(8000):
        if not asked and device.plane.orders:
            VERBS["apply-now"](runner, Request(verb="apply-now", bundle=str(path)))
            asked = True
        if isinstance(runner.state.phase, Downloading | Staged):
            # Something new for everybody: the agent asks what that means for it.
            device.plane.gate_epoch += 1
            runner.check_now()
        if device.runs == 2 and isinstance(runner.state.phase, Idle):
            break
    assert device.runs == 2
    assert device.plane.orders > 1


def test_a_device_that_lost_what_it_had_seen_takes_nothing_by_hand(tmp_path: Path) -> None:
    """Without the versions seen, an old stick cannot be told from a new one; trying twice does not help."""
    device = away()
    path = brought(device, tmp_path)
    for name in ("tuf.seen.0", "tuf.seen.1"):
        device.board.storage.write(name, b"torn")
    assert code(device, path) == "agent.state_damaged"
    assert code(device, path) == "agent.state_damaged"
