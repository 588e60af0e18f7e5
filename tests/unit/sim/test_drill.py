"""The drill finds what is there: it passes a sound installation, names what a thief gets, and fails one that could not be won back."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.core.repo import ring, signer
from tests.unit.server.rig import YEAR, Rig

from tidegate.cli import run
from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.errors import ConfigError
from tidegate.core.keys import Signer
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    RoleKeys,
    SignedTarget,
    make_product,
    parse_targets,
    product_extra,
    sign,
    signed_targets,
)
from tidegate.publisher.ceremony import RootSpec, begin_product, begin_root, begin_targets
from tidegate.server import recalls
from tidegate.server.auth import Actor
from tidegate.server.store import tables
from tidegate.sim.drill import theft
from tidegate.sim.drill.drill import PARTS, Report, rehearse

RITA = Actor(name="rita", role="admin")
ROOTS = (signer("root a"), signer("root b", "ecdsa"), signer("root c"))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()


def trust(rig: Rig, *, roots: tuple[Signer, ...] = ROOTS, needs: int = 2) -> None:
    online = rig.app.services.keys
    names = ("snapshot", "timestamp", "director", "audit")
    roles = {
        "root": ring(*roots, threshold=needs),
        "targets": ring(signer("t 1"), signer("t 2"), threshold=2),
        "incident": ring(signer("i 1"), signer("i 2"), threshold=2),
        **{name: RoleKeys((getattr(online, name).public,), 1) for name in names},
    }
    now, repository = int(rig.now), rig.app.services.repository
    spec = RootSpec(tenant="default", expires_s=YEAR, roles=roles)
    root = sign(begin_root(spec, previous=None, now=now), *roots[:needs])
    key = rig.signer("product/gw1")
    draft = begin_targets({"gw1": ring(key)}, previous=None, now=now, one_signer=["gw1"])
    targets = sign(draft, signer("t 1"), signer("t 2"))
    rig.write(lambda conn: repository.publish_root(conn, root, now))
    rig.write(lambda conn: repository.publish_targets(conn, targets, now))


def place(rig: Rig, device_id: str, **values: Any) -> None:
    rig.device(device_id)
    if "running_counter" in values:
        role = rig.app.services.repository.file(newest(rig)) or b""
        for one in signed_targets(parse_targets(role, "product/gw1")).values():
            if one.release.release_counter == values["running_counter"]:
                values["running_sha256"] = one.release.install.sha256
    d = tables.device
    rig.write(lambda conn: conn.execute(d.update().where(d.c.id == device_id).values(**values)))


def newest(rig: Rig) -> str:
    return f"{rig.app.services.repository.versions['product/gw1'][0]}.product/gw1.json"


def mandate(rig: Rig, counter: int, share: int) -> None:
    """Publish a release that has a mandate: so much of the fleet now, the rest in thirty days."""
    repository, now = rig.app.services.repository, int(rig.now)
    before = parse_targets(repository.file(newest(rig)) or b"", "product/gw1")
    target = next(
        one for one in signed_targets(before).values() if one.release.release_counter == counter - 1
    )
    version = f"1.{counter}.0"
    release = msgspec.structs.replace(
        target.release,
        version=version,
        release_counter=counter,
        install=msgspec.structs.replace(target.release.install, sha256="ab" * 32),
    )
    steps = (
        MandateStep(not_before=now - 10, bucket_max=share),
        MandateStep(not_before=now + 30 * 86_400, bucket_max=10_000),
    )
    staged = Mandate(counter=counter, salt="5a" * 16, steps=steps)
    body = make_product(
        version=before.version + 1,
        expires_at=before.expires_at,
        targets=[
            *signed_targets(before).values(),
            SignedTarget(f"gw1/{version}/rootfs", target.length, target.sha256, release),
        ],
        extra=with_mandates(product_extra(before), [staged]),
    )
    signed = sign(body, rig.signer("product/gw1"))
    rig.write(lambda conn: repository.publish_product(conn, "gw1", signed, now))


def drill(rig: Rig, *parts: str) -> Report:
    return rehearse(rig.folder, parts or PARTS, now=int(rig.now), randomness=os.urandom)


def rows(report: Report) -> dict[str, theft.Attempt]:
    assert report.theft is not None
    return {one.goal: one for one in report.theft.attempts}


@pytest.fixture
def sound(rig: Rig) -> Rig:
    trust(rig)
    rig.release(1, rev_max=5)
    rig.release(2, fallback_to=(1,), rev_max=5)
    rig.release(3, fallback_to=(2,), rev_max=5)
    place(rig, "old", running_counter=1)
    place(rig, "now", running_counter=3)
    place(rig, "pilot", running_counter=1, channel="pilot")
    place(rig, "other", running_counter=1, rev=7)
    place(rig, "floor", running_counter=2, security_floor=1)
    return rig


def test_a_sound_installation_passes_and_nothing_of_it_is_touched(sound: Rig) -> None:
    sound.close()
    found = drill(sound)
    assert found.theft is not None
    steps = (*found.rotation, *found.lost_key, *found.theft.recovery)
    assert [one for one in steps if not one.ok] == []
    assert not found.failed
    assert found.untouched
    assert found.devices == 5
    assert len(found.lost_key) == 6
    assert "product/gw1" in found.scratch
    assert "root" in found.scratch
    sound.start()


def test_a_thief_reaches_what_offline_keys_signed_and_nothing_else(sound: Rig) -> None:
    found = drill(sound, "theft")
    tried = rows(found)
    assert all(one.breach == 0 for one in tried.values())
    newer = tried["skip the staging: a newer release for such devices"]
    assert newer.obeyed == newer.allowed == 3  # old to 2 and to 3, floor to 3
    assert found.theft is not None
    assert found.theft.reached == 2
    assert {(one.release, one.at_once) for one in found.theft.reach} == {
        ("gw1-1.2.0", 1),
        ("gw1-1.3.0", 2),
    }
    for goal in (
        "run his own code: an image that nobody signed",
        "run his own code: other bytes under a signed name",
        "run his own code: a product role of his own",
        "run his own code: targets of his own",
        "take over for good: a root of his own",
        "move the security floor",
        "have one device follow another's order",
        "show an older product role again",
    ):
        assert tried[goal].obeyed == 0, goal
        assert sum(tried[goal].reasons.values()) == tried[goal].tried >= 5, goal
    assert tried["downgrade: an older release as an update"].reasons == {"compat.counter": 3}
    assert set(tried["put a build of another channel on a device"].reasons) == {"compat.channel"}
    assert set(tried["put a build for other hardware on a device"].reasons) == {"compat.hardware"}
    assert set(tried["take over for good: a root of his own"].reasons) <= {
        "sig.threshold",
        "sig.unknown_key",
    }


def test_the_one_way_back_that_release_signers_allowed_is_counted_as_allowed(sound: Rig) -> None:
    role = parse_targets(sound.app.services.repository.file(newest(sound)) or b"", "product/gw1")
    digests = {
        one.release.release_counter: one.release.install.sha256
        for one in signed_targets(role).values()
    }
    slot = {"state": "confirmed", "release_counter": 2, "version": "1.2.0", "sha256": digests[2]}
    running = {"state": "confirmed", "release_counter": 3, "version": "1.3.0", "sha256": digests[3]}
    place(sound, "now-2", running_counter=3, slots={"A": running, "B": slot})
    back = rows(drill(sound, "theft"))["order a way back"]
    assert (back.obeyed, back.allowed) == (1, 1)
    granted = rows(drill(sound, "theft"))["order a way back, by a grant of his own"]
    assert granted.obeyed == 0


def test_a_mandate_holds_most_of_the_fleet_back(sound: Rig) -> None:
    mandate(sound, 4, 2_000)
    for number in range(40):
        place(sound, f"d{number}", running_counter=3)
    found = drill(sound, "theft")
    assert not found.failed
    assert found.theft is not None
    staged = next(one for one in found.theft.reach if one.release == "gw1-1.4.0")
    assert staged.at_once + staged.held == 43
    assert 0 < staged.at_once < 20
    assert staged.all_by == int(sound.now) + 30 * 86_400
    tried = rows(found)["skip the staging: a newer release with a mandate"]
    assert tried.obeyed == tried.allowed == staged.at_once
    assert tried.reasons == {"compat.mandate": staged.held}


def test_a_release_that_was_only_recalled_is_still_in_a_thiefs_reach(sound: Rig) -> None:
    sound.write(lambda conn: recalls.recall(conn, "gw1-1.3.0", "bricks", RITA, int(sound.now)))
    found = drill(sound, "theft")
    assert found.theft is not None
    assert {one.release: one.recalled for one in found.theft.reach} == {
        "gw1-1.2.0": False,
        "gw1-1.3.0": True,
    }
    repository, now = sound.app.services.repository, int(sound.now)
    body = begin_product(repository.file(newest(sound)) or b"", "gw1", now=now, withdraw=[3])
    signed = sign(body, sound.signer("product/gw1"))
    sound.write(lambda conn: repository.publish_product(conn, "gw1", signed, now))
    found = drill(sound, "theft")
    assert found.theft is not None
    assert {one.release for one in found.theft.reach} == {"gw1-1.2.0"}
    assert not found.failed


def test_a_root_that_needs_every_key_cannot_replace_a_lost_one(rig: Rig) -> None:
    trust(rig, roots=ROOTS[:2], needs=2)
    rig.release(1)
    place(rig, "d", running_counter=0)
    found = drill(rig, "lost-key")
    assert found.failed
    replaced = [one for one in found.lost_key if "replace" in one.what]
    assert [one.ok for one in replaced] == [False, False]
    assert "meta.incomplete" in replaced[0].text


def test_a_root_of_one_key_falls_to_whoever_has_it(rig: Rig) -> None:
    trust(rig, roots=ROOTS[:1], needs=1)
    rig.release(1)
    found = drill(rig, "lost-key")
    stolen = next(one for one in found.lost_key if "stolen" in one.what)
    assert not stolen.ok
    assert "ONE root key" in stolen.text


def test_a_device_without_the_check_is_a_breach(
    sound: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.agent.trust.orders.own_refusal", lambda *_a, **_k: None)
    found = drill(sound, "theft")
    assert found.failed
    assert rows(found)["downgrade: an older release as an update"].breach > 0


def test_an_expired_root_is_told_and_not_called_safe(sound: Rig) -> None:
    sound.now += YEAR + 10
    found = drill(sound, "theft")
    assert found.failed
    assert found.theft is not None
    assert found.theft.broken


def test_the_command_says_plainly_that_its_keys_are_scratch_keys(
    sound: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.cli.drill.time.time", lambda: sound.now)
    assert run(["drill", "--data", str(sound.folder)]) == 0
    shown = capsys.readouterr().out
    assert "scratch  every key: root, targets" in shown
    assert "THE THIEF TRIES TO" in shown
    assert "What he would reach at once: 2 of 5 devices" in shown
    assert run(["drill", "theft", "--data", str(sound.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["failed"]) == ("tidegate.drill/1", False)
    assert found["theft"]["reached"] == 2


def test_without_an_installation_there_is_nothing_to_rehearse(tmp_path: Path, rig: Rig) -> None:
    with pytest.raises(ConfigError) as caught:
        rehearse(tmp_path, PARTS, now=1, randomness=os.urandom)
    assert caught.value.code == "config.unreadable"
    with pytest.raises(ConfigError) as caught:
        drill(rig)
    assert caught.value.code == "meta.no_root"
