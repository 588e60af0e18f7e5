"""The theft exercise: every row of the security page's table of what an attacker can and cannot do, against real agent processes with slot files.

A real server is run, its data directory taken with every online key, and a thief's own server put in its place. Each test is a row: what the table says that
he can do is seen to work, so that the harness is no straw man; what it says that he cannot is tried and refused, with nothing changed on the device.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from tests.attack import works as vendor
from tests.attack.thief import HIGHEST, Loot, Thief, assigned, loot, without
from tests.attack.victim import Victim
from tests.attack.works import DAY, MAIN, SOLO, Works, image_of, signer
from tests.crash.releases import contain

from tidegate.core.grant import GRANT_TYPE, Cohort, GrantBody, Leaving, Resume, Return
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import Signer, add_signature, sign_document
from tidegate.core.metadata import (
    SignedTarget,
    make_product,
    make_targets,
    parse_targets,
    product_extra,
    sign,
    signed_targets,
)
from tidegate.core.protocol import ASSIGNMENT_TYPE, AssignmentBody, Envelope, RepoBinding
from tidegate.core.release import FallbackTo, HealthContract, Install, PayloadRef, ReleaseTarget
from tidegate.sim.virtual_board import VirtualBoard, wait_for

pytestmark = pytest.mark.e2e

#: Releases of the main product: what runs, and what is published and rolled out to nobody.
BEFORE, RUNS, NEXT, PILOT, STAGED, ELSEWHERE = 2, 3, 5, 6, 7, 8


@dataclass
class Scene:
    """What there was at the hour of the theft.

    Attributes:
        parked: boards that were switched off, by what they run: `strict` runs 2 over 1, and may go nowhere back; `lenient` runs 3 over 2, and may go back
            there; `late` runs 4 over 3, and its leave to go back has ended; `solo` is of the product that one key signs for.
    """

    works: Works
    taken: Loot
    parked: dict[str, Path] = field(default_factory=dict)

    def history(self, product: str, *, names: int) -> bytes:
        """Return the version of a product role in which this release was the newest."""
        return self.taken.named[product, names]


def _settled(works: Works, counter: int, *names: str) -> None:
    def done() -> bool:
        running = works.control.running()
        return all(running.get(one) == counter for one in names)

    assert wait_for(done, 60), works.control.running()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("t")
    works = Works(folder)
    works.release(1)
    works.release(1, product=SOLO)
    boards = {
        name: VirtualBoard(works.board(name, product))
        for name, product in (("gate-1", MAIN), ("gate-2", MAIN), ("solo-1", SOLO))
    }
    found = Scene(works, loot(works.served.data))

    def park(kind: str, name: str) -> None:
        boards[name].stop()
        found.parked[kind] = vendor.copy_board(folder / name, folder / f"parked-{kind}", "-")

    for one in boards.values():
        one.start()
    works.release(BEFORE)
    works.roll_out(BEFORE)
    _settled(works, BEFORE, "gate-1", "gate-2")
    _settled(works, 1, "solo-1")
    park("solo", "solo-1")
    park("strict", "gate-2")
    boards["gate-2"] = VirtualBoard(folder / "gate-2")
    boards["gate-2"].start()
    works.release(RUNS, fallback_to=(1, BEFORE), fallback_s=DAY)
    works.roll_out(RUNS)
    _settled(works, RUNS, "gate-1", "gate-2")
    park("lenient", "gate-1")
    works.release(4, fallback_to=(RUNS,), fallback_s=1)
    works.roll_out(4)
    _settled(works, 4, "gate-2")
    park("late", "gate-2")
    works.release(NEXT)
    works.release(PILOT, channels=("pilot",))
    works.release(STAGED, mandate="0.01%@+1d,100%@+2d")
    works.release(ELSEWHERE, hardware=(HardwareRange(MAIN, 2, 9),))
    works.halt_server()
    shutil.copytree(works.served.data, folder / "taken")
    found.taken = loot(folder / "taken")
    works.serve(works.served.data, port=works.served.port)
    yield found
    works.served.kill()


@dataclass
class Exercise:
    """One thief, one device."""

    scene: Scene
    thief: Thief
    victim: Victim
    count: int = 0

    @property
    def works(self) -> Works:
        return self.scene.works

    def target(self, counter: int, product: str = MAIN) -> SignedTarget:
        return self.works.targets[product, counter]

    def refused(
        self,
        code: str,
        action: str,
        image: SignedTarget | None,
        *,
        clean: bool = True,
        **changes: object,
    ) -> None:
        """Give an order and hold that it is refused under `code`, and that nothing moved.

        `clean`: no slot holds code of the thief's; False where he could run some before.
        """
        self.count += 1
        update = f"u-{self.count}"
        signed = changes.pop("sent", None)
        if isinstance(signed, Envelope):
            self.thief.say(signed)
        else:
            self.thief.order(action, image, update, **changes)  # type: ignore[arg-type]

        def told() -> bool:
            seen = self.thief.asked >= 2 and code in self.thief.alarms()
            return seen or ("failed", code) in self.thief.ends(update)

        assert wait_for(told, 20), (code, self.thief.ends(update), self.thief.alarms())
        self.thief.rest()
        self.victim.require_unmoved(clean=clean)

    def done(self, action: str, target: SignedTarget, **changes: object) -> None:
        """Give an order and hold that it is carried out: what the table says that he can."""
        self.count += 1
        update = f"u-{self.count}"
        self.thief.order(action, target, update, **changes)  # type: ignore[arg-type]
        reached = wait_for(lambda: ("confirmed", None) in self.thief.ends(update), 30)
        self.thief.rest()
        assert reached, (self.thief.ends(update), self.thief.alarms(), self.victim.log())
        assert self.victim.image() == target.release.install.sha256
        self.victim.mark()


Start = Callable[..., Exercise]


@pytest.fixture
def exercise(scene: Scene, tmp_path: Path) -> Iterator[Start]:
    running: list[Exercise] = []

    def start(kind: str = "lenient", *, without_keys: tuple[str, ...] = ()) -> Exercise:
        thief = Thief(scene.taken, without(scene.taken.keys, *without_keys))
        url = thief.open()
        folder = vendor.copy_board(scene.parked[kind], tmp_path / kind, url)
        made = Exercise(scene, thief, Victim(folder))
        running.append(made)
        made.victim.start()
        return made

    yield start
    for one in running:
        one.victim.stop()
        one.thief.close()


# --- the thief's own releases --------------------------------------------------------------------------------------------


def evil(counter: int, product: str = MAIN, text: str = "EVIL") -> tuple[SignedTarget, bytes]:
    """Return a release of the thief's own, with its payload."""
    image = image_of(f"{text} {product} {counter}")
    container = contain(image)
    head = 16 + int.from_bytes(container[8:12], "little")
    sha256 = vendor.digest(container)
    release = ReleaseTarget(
        product=product,
        version=f"9.{counter}.0",
        release_counter=counter,
        security_version=counter,
        channels=("stable", "pilot"),
        hardware=(HardwareRange(product, 0, 9),),
        install=Install(size=len(image), sha256=vendor.digest(image)),
        payloads=(
            PayloadRef(
                kind="full",
                sha256=sha256,
                length=len(container),
                index_sha256=vendor.digest(container[:head]),
            ),
        ),
        fallback_to=(FallbackTo(counter=1, expires=0xFFFFFFFF),),
        health=HealthContract(warmup_s=1, timeout_s=30, interval_s=1),
    )
    return SignedTarget(
        f"{product}/9.{counter}.0/rootfs", len(container), sha256, release
    ), container


def role_with(
    taken: Loot, target: SignedTarget | None, product: str, *signers: Signer, version: int = 0
) -> bytes:
    """Write a product role that names the honest releases and one more, signed by whom the thief has."""
    before = parse_targets(taken.documents[f"product/{product}"], f"product/{product}")
    named = list(signed_targets(before).values()) + ([target] if target is not None else [])
    body = make_product(
        version=version or before.version + 1,
        expires_at=int(time.time()) + 90 * DAY,
        targets=named,
        extra=product_extra(before),
    )
    return sign(body, *signers)


def try_own_code(
    play: Exercise, code: str, *signers: Signer, director: Signer | None = None
) -> None:
    """Try to have the thief's own image installed, with a product role signed by whatever keys he has."""
    target, container = evil(50)
    play.thief.blobs[target.sha256] = container
    before = dict(play.thief.documents)
    # Not a later version than the honest one, so that what was refused leaves nothing behind.
    version = parse_targets(before[f"product/{MAIN}"], f"product/{MAIN}").version
    body = role_with(play.scene.taken, target, MAIN, *signers, version=version)
    play.thief.publish(product_gw1=body)
    play.refused(code, "install", target, director=director)
    assert target.sha256 not in play.thief.downloads
    play.thief.documents = before
    play.thief.publish()


def try_every_downgrade(play: Exercise, *, resident: int = BEFORE) -> None:
    """Try every way down that a director's key opens, other than what release signers allowed."""
    for counter in sorted({1, resident}):
        code = "compat.floor" if counter < vendor.FLOOR else "compat.counter"
        play.refused(code, "install", play.target(counter))
    # The running release names 1 and 2, or nothing at all; 1 is below the floor either way.
    play.refused("compat.floor" if resident > 1 else "compat.counter", "fallback", play.target(1))
    lied = msgspec.structs.replace(assigned(play.target(1)), release_counter=99)
    play.refused("sig.director_mismatch", "install", play.target(1), target=lied)


def try_other_releases(play: Exercise) -> None:
    """Try what is signed and live, and not for this device, or not yet."""
    play.refused("compat.channel", "install", play.target(PILOT))
    play.refused("compat.hardware", "install", play.target(ELSEWHERE))
    play.refused("compat.hardware", "install", play.target(1, SOLO))
    play.count += 1
    play.thief.order("install", play.target(STAGED), f"u-{play.count}")
    assert wait_for(lambda: "compat.mandate" in play.thief.alarms(), 20), play.thief.alarms()
    play.thief.rest()
    play.victim.require_unmoved()
    assert play.target(STAGED).sha256 not in play.thief.downloads


# --- the rows ----------------------------------------------------------------------------------------------------------


def test_who_owns_the_network_can_hold_things_up_and_change_nothing(exercise: Start) -> None:
    play = exercise(without_keys=("snapshot", "timestamp", "director"))
    # He can: keep the device waiting for as long as he is there.
    assert wait_for(play.victim.polled, 20)
    play.victim.require_unmoved()
    # He cannot: order anything, by his own key or by an order that was made for another question or device.
    play.refused("sig.unknown_key", "install", play.target(NEXT))
    play.refused("sig.unknown_key", "fallback", play.target(BEFORE))
    director = play.scene.taken.keys.director
    play.thief.voice = director
    recorded = honest_order(play, director, nonce="00" * 16)
    play.refused("sig.replayed", "install", None, sent=recorded)
    play.refused(
        "sig.replayed", "install", play.target(NEXT), director=director, device_id="gate-2"
    )
    # Nor show metadata that are older than the director knows them to be.
    behind = RepoBinding(root_min=1, timestamp_min=play.thief.version + 5, snapshot_min=1)
    play.refused("sig.mix_and_match", "install", play.target(NEXT), director=director, repo=behind)
    # Nor hand out other bytes for a true order.
    play.thief.blobs[play.target(NEXT).sha256] = bytes(play.target(NEXT).length)
    play.thief.order("install", play.target(NEXT), "u-bytes", director=director)
    assert wait_for(lambda: "download.hash" in str(play.victim.status().get("because")), 20)
    play.thief.rest()
    assert play.victim.boots == 1
    assert play.victim.image() == play.target(RUNS).release.install.sha256


def honest_order(play: Exercise, director: Signer, *, nonce: str) -> Envelope:
    """Return an order as an honest director gave it to this device for another question."""
    now = int(time.time())
    body = AssignmentBody(
        device_id="gate-1",
        device_key=play.scene.taken.devices["gate-1"],
        seq=(now + 5) * 1000,
        issued=now,
        expires=now + DAY,
        nonce=nonce,
        action="install",
        update="u-old",
        target=assigned(play.target(NEXT)),
    )
    return sign_document(body, ASSIGNMENT_TYPE, director)


def test_timestamp_and_snapshot_keys_hide_releases_and_name_none(exercise: Start) -> None:
    play = exercise(without_keys=("director",))
    director = play.scene.taken.keys.director
    honest = dict(play.thief.documents)
    # He can: hide what was published since.
    seen = play.scene.history(MAIN, names=RUNS)
    play.thief.publish(product_gw1=seen)
    play.refused("sig.director_mismatch", "install", play.target(NEXT), director=director)
    # He cannot: go back below what the device saw, or name an image of his own.
    play.thief.publish(product_gw1=play.scene.history(MAIN, names=BEFORE))
    play.refused("sig.rollback", "install", play.target(NEXT), director=director)
    play.thief.documents = honest
    try_own_code(play, "sig.unknown_key", director=director)
    play.refused("sig.unknown_key", "install", play.target(NEXT))
    # He can: run far ahead, so that the honest server is not believed until root replaces both keys.
    play.thief.publish(version=HIGHEST)
    play.refused("compat.channel", "install", play.target(PILOT), director=director)
    play.thief.documents = honest
    play.thief.files["timestamp.json"] = honest["timestamp"]
    play.refused("sig.rollback", "install", play.target(NEXT), director=director)


def test_the_directors_key_chooses_among_signed_newer_releases_and_no_others(
    exercise: Start,
) -> None:
    play = exercise(without_keys=("snapshot", "timestamp"))
    try_every_downgrade(play)
    try_other_releases(play)
    mine, container = evil(50)
    play.thief.blobs[mine.sha256] = container
    play.refused("sig.director_mismatch", "install", mine)
    disguised = msgspec.structs.replace(assigned(mine), path=play.target(NEXT).path)
    play.refused("sig.director_mismatch", "install", mine, target=disguised)
    lied = msgspec.structs.replace(assigned(play.target(PILOT)), channels=("stable",))
    play.refused("sig.director_mismatch", "install", play.target(PILOT), target=lied)
    # He can: skip the rings, since no mandate binds this release.
    play.done("install", play.target(NEXT))
    # He can: use up every number of his epoch; the honest director is then not heard until root raises it.
    play.thief.order("hold", None, seq=HIGHEST)
    assert wait_for(lambda: play.thief.asked >= 2, 20)
    play.refused("sig.replayed", "install", play.target(STAGED))


def test_the_whole_server_exceeds_no_mandate_by_lies_about_time_or_older_metadata(
    exercise: Start,
) -> None:
    play = exercise()
    # By an older product role, without the mandate, there is no release either: the two came in the same one.
    newest = play.thief.documents["product/gw1"]
    play.thief.publish(product_gw1=play.scene.history(MAIN, names=PILOT))
    play.refused("sig.director_mismatch", "install", play.target(STAGED))
    play.thief.time_lie_s = 30 * DAY
    play.thief.publish(product_gw1=newest, issued=int(time.time()) + 30 * DAY)
    ahead = int(time.time()) + 30 * DAY
    play.thief.order("install", play.target(STAGED), "u-m", issued=ahead, expires=ahead + DAY)
    assert wait_for(lambda: "compat.mandate" in play.thief.alarms(), 20), play.thief.alarms()
    assert wait_for(lambda: play.thief.asked >= 3, 20)
    play.victim.require_unmoved()
    assert play.target(STAGED).sha256 not in play.thief.downloads
    assert [one["code"] for one in play.victim.status()["because"]] == ["wait.mandate"]


def test_the_whole_server_runs_no_code_of_its_own_and_brings_nobody_back(exercise: Start) -> None:
    play = exercise("strict")
    try_own_code(play, "sig.unknown_key")
    online = play.scene.taken.keys
    try_own_code(play, "sig.unknown_key", online.snapshot, online.timestamp, online.director)
    try_every_downgrade(play, resident=1)
    try_other_releases(play)
    # It can: install what is signed, newer and fits, at once.
    play.done("install", play.target(NEXT))
    play.refused("compat.counter", "fallback", play.target(BEFORE))


def test_the_whole_server_can_order_back_where_release_signers_allowed_it_and_nowhere_else(
    exercise: Start,
) -> None:
    play = exercise("lenient")
    try_every_downgrade(play)
    play.done("fallback", play.target(BEFORE))
    assert play.victim.status()["security_floor"] == vendor.FLOOR
    play.refused("compat.counter", "fallback", play.target(1))


def test_the_whole_server_does_not_revive_a_leave_that_has_ended(exercise: Start) -> None:
    play = exercise("late")
    play.refused("sig.expired", "fallback", play.target(RUNS))
    past = int(time.time()) - 400 * DAY
    play.thief.time_lie_s = -400 * DAY
    play.refused("sig.expired", "fallback", play.target(RUNS), issued=past, expires=past + DAY)
    # Not by metadata either that have expired as well, so that his word on the time is asked for.
    play.thief.publish(issued=past, expires=past + 30 * DAY)
    play.refused("sig.expired", "fallback", play.target(RUNS), issued=past, expires=past + DAY)


def test_one_product_key_of_one_and_the_server_run_code_until_targets_revokes_it(
    exercise: Start,
) -> None:
    play, other = exercise("solo"), exercise("lenient")
    sam = play.works.offline.solo[0]
    try_own_code(other, "sig.unknown_key", sam)
    mine, container = evil(50, SOLO)
    play.thief.blobs[mine.sha256] = container
    play.thief.publish(product_solo=role_with(play.scene.taken, mine, SOLO, sam))
    play.done("install", mine)
    # The product survives its key: targets names another one, and a higher counter brings the devices back.
    susan = signer("susan")
    ring = {MAIN: vendor.ring(2, *play.works.offline.main), SOLO: vendor.ring(1, susan)}
    previous = parse_targets(play.scene.taken.documents["targets"])
    targets = make_targets(
        version=previous.version + 1, expires_at=int(time.time()) + 90 * DAY, products=ring
    )
    play.thief.publish(targets=sign(targets, *play.works.offline.targets[:2]))
    again, container = evil(60, SOLO)
    play.thief.blobs[again.sha256] = container
    body = role_with(play.scene.taken, again, SOLO, sam, version=80)
    play.thief.publish(product_solo=body)
    play.refused("sig.unknown_key", "install", again, clean=False)
    honest, container = evil(70, SOLO, text="mended")
    play.thief.blobs[honest.sha256] = container
    play.thief.publish(product_solo=role_with(play.scene.taken, honest, SOLO, susan, version=90))
    play.done("install", honest)


def test_one_of_two_product_keys_is_good_for_nothing(exercise: Start) -> None:
    play = exercise()
    rita = play.works.offline.main[0]
    try_own_code(play, "sig.threshold", rita)
    try_own_code(play, "sig.threshold", rita, signer("forged rob"))
    try_own_code(play, "sig.threshold", rita, *play.works.offline.solo, play.thief.keys.director)


# --- the incident ring ---------------------------------------------------------------------------------------------------


def grant(play: Exercise, to: SignedTarget, leaving: int, **changes: object) -> Envelope:
    """Sign leave to go back with both keys of the incident ring."""
    running, now = play.target(leaving).release, int(time.time())
    body = GrantBody(
        product=MAIN,
        epoch=1,
        serial=7,
        incident="INC-2026-1",
        reason="theft exercise",
        hardware=(HardwareRange(MAIN, 0, 9),),
        cohort=Cohort(all=True),
        leaving=(Leaving(release_counter=leaving, sha256=running.install.sha256),),
        to=(
            Return(
                path=to.path,
                length=to.length,
                sha256=to.sha256,
                release_counter=to.release.release_counter,
                security_version=to.release.security_version,
            ),
        ),
        resume=Resume(min_counter=leaving + 1),
        issued=now,
        expires=now + DAY,
    )
    first, second = play.works.offline.incident
    changed = msgspec.structs.replace(body, **changes)
    return add_signature(sign_document(changed, GRANT_TYPE, first), second)


def test_incident_keys_without_the_director_move_nobody(exercise: Start) -> None:
    play = exercise("late", without_keys=("director", "snapshot", "timestamp"))
    leave = grant(play, play.target(BEFORE), 4)
    play.refused("sig.unknown_key", "fallback", play.target(BEFORE), grant=leave)
    first = play.works.offline.incident[0]
    play.refused("sig.unknown_key", "fallback", play.target(BEFORE), grant=leave, director=first)


def test_incident_keys_and_the_director_go_back_once_to_a_live_build_above_the_floor(
    exercise: Start,
) -> None:
    play = exercise("late")
    leave = grant(play, play.target(1), 4)
    play.refused("compat.floor", "fallback", play.target(1), grant=leave)
    mine, container = evil(2)
    play.thief.blobs[mine.sha256] = container
    play.refused("sig.director_mismatch", "fallback", mine, grant=grant(play, mine, 4))
    leave = grant(play, play.target(BEFORE), 4)
    play.done("fallback", play.target(BEFORE), grant=leave)
    assert play.victim.status()["security_floor"] == vendor.FLOOR
    # Once: neither again, nor up to what it left.
    play.refused("security.fallback_replayed", "fallback", play.target(BEFORE), grant=leave)
    play.refused("compat.counter", "install", play.target(4))
    play.done("install", play.target(NEXT))


# --- targets, root, and the way back from a theft --------------------------------------------------------------------------


def test_targets_keys_and_the_server_run_anything_until_root_replaces_them(
    exercise: Start,
) -> None:
    play = exercise()
    thief, offline = signer("thief's product"), play.works.offline
    mine, container = evil(50)
    play.thief.blobs[mine.sha256] = container
    forged = make_targets(
        version=7,
        expires_at=int(time.time()) + 90 * DAY,
        products={MAIN: vendor.ring(1, thief)},
    )
    forged = sign(forged, *offline.targets[:2])
    body = role_with(play.scene.taken, mine, MAIN, thief)
    play.thief.publish(targets=forged, product_gw1=body)
    play.done("install", mine)
    after = replace(offline, targets=tuple(signer(f"new targets {n}") for n in range(3)))
    online = {
        role: getattr(play.scene.taken.keys, role).public
        for role in ("snapshot", "timestamp", "director", "audit")
    }
    play.thief.files["2.root.json"] = after.root(online, previous=play.works.root)
    again, container = evil(60)
    play.thief.blobs[again.sha256] = container
    body = role_with(play.scene.taken, again, MAIN, thief, version=80)
    play.thief.publish(targets=forged, product_gw1=body)
    play.refused("sig.unknown_key", "install", again, clean=False)


def test_after_the_theft_a_root_ceremony_brings_the_fleet_to_a_new_release(
    exercise: Start, scene: Scene, tmp_path: Path
) -> None:
    plays = [exercise("lenient"), exercise("late")]
    for play in plays:
        # As much harm as the online keys can do: every number run ahead as far as numbers go.
        ahead = {"product/gw1": HIGHEST, "targets": HIGHEST}
        play.thief.publish(version=HIGHEST, says=ahead)
        play.thief.order("install", play.target(NEXT), "u-ahead", seq=HIGHEST)
        told = lambda: play.thief.asked >= 2 and bool(play.thief.alarms())  # noqa: B023, E731
        assert wait_for(told, 20)
        play.victim.require_unmoved()
        play.thief.close()
    works, old = scene.works, scene.works.served
    old.stop()
    rebuilt = tmp_path / "rebuilt"
    shutil.copytree(scene.taken.data, rebuilt)
    shutil.rmtree(rebuilt / "online")
    new = works.serve(rebuilt)
    try:
        works.root = works.offline.root(works.online, previous=works.root, epoch=True)
        works.publish_trust()
        for play in plays:
            play.victim.stop()
            vendor.point_at(play.victim.folder, works.url)
            play.victim = Victim(play.victim.folder)
            play.victim.start()
        target = works.release(20)
        works.roll_out(20)
        _settled(works, 20, "gate-1", "gate-2")
        for play in plays:
            assert play.victim.image() == target.release.install.sha256
            assert play.victim.status()["security_floor"] == vendor.FLOOR
        # What the thief still holds is good for nothing.
        late = Thief(scene.taken, scene.taken.keys)
        vendor_url = late.open()
        plays[0].victim.stop()
        vendor.point_at(plays[0].victim.folder, vendor_url)
        plays[0].thief, plays[0].victim = late, Victim(plays[0].victim.folder)
        plays[0].victim.start()
        plays[0].refused("sig.unknown_key", "install", target)
    finally:
        new.kill()
