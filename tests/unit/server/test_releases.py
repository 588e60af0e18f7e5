"""Bundles: taken in after a device's own checks, with a device's own codes; and recalled."""

import dataclasses
import hashlib
import io
from pathlib import Path

import msgspec
import pytest
from tests.unit.server.rig import Rig

from tidegate.core.accept import role_keys
from tidegate.core.errors import PublisherError, RequestError, TidegateError
from tidegate.core.hardware import HardwareRange
from tidegate.core.metadata import (
    RoleKeys,
    make_product,
    parse_root,
    parse_targets,
    sign,
    signed_targets,
)
from tidegate.core.release import HealthContract, ReleaseTarget
from tidegate.core.verify import walk_repository
from tidegate.publisher.bundle import build, read, replace_documents, write
from tidegate.publisher.ceremony import RootSpec, begin_product, begin_root, begin_targets
from tidegate.publisher.lab import Lab, make_lab
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.publisher.staging import parse_staging
from tidegate.server import recalls, releases
from tidegate.server.actors import Actor
from tidegate.server.releases import Published

RITA = Actor(name="rita", role="admin")


def _lab(rig: Rig, folder: Path) -> Lab:
    keys = rig.app.services.keys
    online = {
        role: getattr(keys, role).public for role in ("snapshot", "timestamp", "director", "audit")
    }
    lab = make_lab(folder, online, ["gw1"], now=int(rig.now))
    _accept(rig, lab.trust)
    return lab


def _accept(rig: Rig, path: Path) -> Published:
    with path.open("rb") as file:
        return releases.accept_bundle(rig.app.services, file, actor=RITA, now=int(rig.now))


def _bundle(
    rig: Rig,
    lab: Lab,
    counter: int,
    *,
    signed: bool = True,
    mandate: str = "",
    content: bytes = b"",
) -> Path:
    image = lab.folder / f"image-{counter}"
    image.write_bytes(content or Path(hashlib.__file__).read_bytes() * 20 + bytes(counter))
    files = rig.app.services.repository
    version = files.versions.get("product/gw1", (0, 0))[0]
    made = build(
        ReleaseSpec(
            product="gw1",
            version=f"1.{counter}.0",
            counter=counter,
            security_version=1,
            kind="feature",
            health=HealthContract(),
            notes="",
            source="",
            min_agent=None,
            from_counters=(),
            requires=(),
            fallback_s=0,
            mandate=parse_staging(mandate) if mandate else None,
            expires_s=300 * 86_400,
            channels=("stable",),
            hardware=(HardwareRange("gw1", 0, 9),),
            components=(ComponentSpec(name="rootfs", format="raw_image", source=image, size=0),),
        ),
        lab.folder,
        previous=files.file(f"{version}.product/gw1.json"),
        now=int(rig.now),
        level=1,
    )
    if signed:
        sign_bundle(made.bundle, lab.signer("product"))
    return made.bundle


def test_a_signed_bundle_becomes_a_release_that_a_device_would_take(
    rig: Rig, tmp_path: Path
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    published = _accept(rig, _bundle(rig, lab, 1))
    assert published.releases == ("gw1-1.1.0",)
    repository = rig.app.services.repository
    files = {name.replace("/", "%2F"): body for name, body in repository._view.files.items()}
    trusted = walk_repository(files, anchor=lab.root.read_bytes(), now=int(rig.now))
    assert set(trusted.roles) == {"targets", "product/gw1"}
    device = rig.device()
    rig.rollout(_target(rig, 1))
    body = device.assignment()
    assert body.target is not None
    answer = device.ask("GET", f"/d/v1/blobs/{body.target.sha256}")
    assert hashlib.sha256(answer.body).hexdigest() == body.target.sha256
    assert len(answer.body) == body.target.length


def _target(rig: Rig, counter: int) -> ReleaseTarget:
    version = rig.app.services.repository.versions["product/gw1"][0]
    body = rig.app.services.repository.file(f"{version}.product/gw1.json")
    assert body is not None
    found = releases_of(body)
    return next(one for one in found if one.release_counter == counter)


def releases_of(body: bytes) -> list[ReleaseTarget]:
    return [one.release for one in signed_targets(parse_targets(body, "product/gw1")).values()]


def test_the_same_bundle_again_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    lab = _lab(rig, tmp_path / "lab")
    bundle = _bundle(rig, lab, 1)
    assert _accept(rig, bundle).releases == ("gw1-1.1.0",)
    assert _accept(rig, bundle).releases == ()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("unsigned", "sig.unknown_key"),
        ("foreign", "sig.unknown_key"),
        ("older", "compat.counter"),
        ("truncated", "release.malformed"),
        ("payload", "download.hash"),
        ("expired", "sig.expired"),
    ],
)
def test_what_a_device_would_refuse_is_refused_with_its_code(
    rig: Rig, tmp_path: Path, spoil: str, code: str
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    _accept(rig, _bundle(rig, lab, 5))
    before = rig.app.services.repository.versions
    content = _spoiled(rig, lab, spoil)
    with pytest.raises(TidegateError) as caught:
        releases.accept_bundle(rig.app.services, io.BytesIO(content), actor=RITA, now=int(rig.now))
    assert caught.value.code == code
    assert rig.app.services.repository.versions == before


def _spoiled(rig: Rig, lab: Lab, spoil: str) -> bytes:
    if spoil == "older":
        held = rig.app.services.repository._view
        rig.app.services.repository._view = type(held)({}, {}, 0)
        bundle = _bundle(rig, lab, 4)
        rig.app.services.repository._view = held
        body = read(bundle).documents["product/gw1"]
        document = parse_targets(body, "product/gw1")
        old = parse_targets(held.newest["product/gw1"].body, "product/gw1")
        targets = [*signed_targets(old).values(), *signed_targets(document).values()]
        made = make_product(version=2, expires_at=int(rig.now) + 9999, targets=targets)
        replace_documents(bundle, {"product/gw1": sign(made, lab.signer("product"))})
        return bundle.read_bytes()
    bundle = _bundle(rig, lab, 6, signed=spoil not in {"unsigned", "foreign"})
    if spoil == "foreign":
        body = read(bundle).documents["product/gw1"]
        replace_documents(bundle, {"product/gw1": sign(body, rig.signer("stranger"))})
    content = bundle.read_bytes()
    if spoil == "truncated":
        return content[: len(content) // 2]
    if spoil == "payload":
        at = content.rindex(b"payloads/") + 512 + 200
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    if spoil == "expired":
        rig.now += 400 * 86_400
    return content


def test_nothing_of_a_refused_bundle_is_kept(rig: Rig, tmp_path: Path) -> None:
    lab = _lab(rig, tmp_path / "lab")
    bundle = _bundle(rig, lab, 1, signed=False)
    payload = read(bundle).manifest.payloads[0].sha256
    with pytest.raises(PublisherError):
        _accept(rig, bundle)
    assert rig.app.services.blobs.size(payload) is None


def test_a_recall_ends_what_has_not_gone_too_far(rig: Rig) -> None:
    rig.publish_trust()
    target = rig.release(1)
    rig.rollout(target)
    early, late, other = rig.device("d1"), rig.device("d2"), rig.device("d3")
    first, second = early.assignment(), late.assignment()
    early.tell("staged", first)
    late.tell("staged", second)
    assert late.permit(second).envelope is not None
    rig.write(lambda conn: recalls.recall(conn, target.name, "burns the board", RITA, int(rig.now)))
    assert early.permit(first).envelope is None
    assert early.assignment().action == "none"
    assert late.assignment().action == "hold"
    assert other.assignment().action == "none"
    assert other.poll().work is False


def test_a_recall_needs_a_reason_and_a_release(rig: Rig) -> None:
    with pytest.raises(RequestError) as caught:
        rig.write(lambda conn: recalls.recall(conn, "gw1-1.0.0", " ", RITA, 1))
    assert caught.value.code == "request.confirmation_needed"
    with pytest.raises(RequestError) as caught:
        rig.write(lambda conn: recalls.recall(conn, "gw1-1.0.0", "because", RITA, 1))
    assert caught.value.code == "request.not_found"


def test_online_roles_are_renewed_at_half_their_time(rig: Rig) -> None:
    rig.publish_trust()
    repository = rig.app.services.repository
    before = repository.versions
    assert rig.write(lambda conn: repository.renew(conn, int(rig.now) + 3600)) is False
    rig.now += 86_400 + 1
    assert rig.write(lambda conn: repository.renew(conn, int(rig.now))) is True
    after = repository.versions
    assert after["timestamp"] > before["timestamp"]
    assert after["snapshot"] == before["snapshot"]
    rig.now += 7 * 86_400
    assert rig.write(lambda conn: repository.renew(conn, int(rig.now))) is True
    assert repository.versions["snapshot"] > after["snapshot"]


def test_a_root_that_names_other_online_keys_is_refused(rig: Rig, tmp_path: Path) -> None:
    stranger = rig.signer("stranger").public
    second = rig.signer("second").public
    third = rig.signer("third").public
    online = {"snapshot": stranger, "timestamp": second, "director": third, "audit": third}
    lab = make_lab(tmp_path / "lab", online, ["gw1"], now=int(rig.now))
    with pytest.raises(TidegateError) as caught:
        _accept(rig, lab.trust)
    assert caught.value.code == "key.missing"


@pytest.mark.parametrize("wrong", ["image", "index", "missing"])
def test_a_payload_that_does_not_make_the_signed_image_is_refused(
    rig: Rig, tmp_path: Path, wrong: str
) -> None:
    """All signatures are good here: whoever built the release made the mistake."""
    lab = _lab(rig, tmp_path / "lab")
    bundle = _bundle(rig, lab, 1, signed=False)
    found = read(bundle)
    one = next(iter(signed_targets(found.product).values()))
    other = "ab" * 32
    release = one.release
    if wrong == "image":
        install = msgspec.structs.replace(release.install, sha256=other)
        release = msgspec.structs.replace(release, install=install)
    elif wrong == "index":
        payload = msgspec.structs.replace(release.full, index_sha256=other)
        release = msgspec.structs.replace(release, payloads=(payload,))
    target = dataclasses.replace(one, release=release)
    body = make_product(version=1, expires_at=int(rig.now) + 9999, targets=[target])
    signed = sign(body, lab.signer("product"))
    if wrong == "missing":
        write(bundle, {"product/gw1": signed}, {}, product="gw1")
    else:
        replace_documents(bundle, {"product/gw1": signed})
    with pytest.raises(TidegateError) as caught:
        _accept(rig, bundle)
    assert caught.value.code == "release.malformed"
    assert "product/gw1" not in rig.app.services.repository.versions


def test_other_product_keys_come_together_with_what_they_signed_or_not_at_all(
    rig: Rig, tmp_path: Path
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    _accept(rig, _bundle(rig, lab, 1))
    repository, now = rig.app.services.repository, int(rig.now)
    before = dict(repository.versions)
    newcomer = rig.signer("newcomer")
    draft = begin_targets(
        {"gw1": RoleKeys((newcomer.public,), 1)},
        previous=repository.file("1.targets.json"),
        now=now,
    )
    targets = sign(draft, lab.signer("targets"))
    with pytest.raises(PublisherError) as caught:
        releases.publish_targets(rig.app.services, targets, actor=RITA, now=now)
    assert caught.value.code == "sig.unknown_key"
    assert repository.versions == before
    version = before["product/gw1"][0]
    again = begin_product(repository.file(f"{version}.product/gw1.json") or b"", "gw1", now=now)
    together = tmp_path / "together.bundle"
    write(together, {"targets": targets, "product/gw1": sign(again, newcomer)}, {})
    assert set(_accept(rig, together).roles) == {"targets", "product/gw1"}
    assert repository.versions["targets"][0] == before["targets"][0] + 1
    assert repository.versions["product/gw1"][0] == version + 1


def test_a_bundle_whose_documents_do_not_fit_together_leaves_everything_as_it_was(
    rig: Rig, tmp_path: Path
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    _accept(rig, _bundle(rig, lab, 1))
    repository, now = rig.app.services.repository, int(rig.now)
    before = dict(repository.versions)
    draft = begin_targets(
        {"gw1": RoleKeys((rig.signer("newcomer").public,), 1)},
        previous=repository.file("1.targets.json"),
        now=now,
    )
    alone = tmp_path / "alone.bundle"
    write(alone, {"targets": sign(draft, lab.signer("targets"))}, {})
    with pytest.raises(PublisherError):
        _accept(rig, alone)
    assert repository.versions == before


def test_a_root_with_other_targets_keys_comes_together_with_their_targets(
    rig: Rig, tmp_path: Path
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    repository, now = rig.app.services.repository, int(rig.now)
    before = dict(repository.versions)
    newcomer = rig.signer("newcomer")
    present = parse_root(lab.root.read_bytes())
    roles = {**role_keys(present), "targets": RoleKeys((newcomer.public,), 1)}
    spec = RootSpec(tenant="default", expires_s=300 * 86_400, roles=roles, lab=True)
    draft = begin_root(spec, previous=present.body, now=now)
    root = sign(draft, lab.signer("root"))
    with pytest.raises(PublisherError) as caught:
        releases.publish_root(rig.app.services, root, actor=RITA, now=now)
    assert caught.value.code == "sig.unknown_key"
    assert repository.versions == before
    again = begin_targets({}, previous=repository.file("1.targets.json"), now=now)
    together = tmp_path / "together.bundle"
    write(together, {"root": root, "targets": sign(again, newcomer)}, {})
    _accept(rig, together)
    assert (repository.versions["root"][0], repository.versions["targets"][0]) == (2, 2)
