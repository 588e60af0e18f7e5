"""From a directory to a bundle that devices would accept, and every way in which it would not."""

import gzip
import hashlib
import json
import lzma
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard
from tests.unit.core.repo import NOW, signer

from tidegate.core.accept import accept_release
from tidegate.core.errors import ConfigError, PublisherError, TidegateError
from tidegate.core.keys import PublicKey
from tidegate.core.metadata import parse_root, parse_targets
from tidegate.publisher.bundle import (
    Built,
    build,
    check_payload,
    extract_member,
    read,
    replace_documents,
    write,
)
from tidegate.publisher.image import make_ext4
from tidegate.publisher.lab import Lab, make_lab, open_lab
from tidegate.publisher.manifest import read_health, read_release, source_date_epoch
from tidegate.publisher.sign import check_bundle, sign_bundle, summary

RELEASE = """
product = "gw1"
version = "{version}"
counter = {counter}
security_version = 6
channels = ["pilot", "stable"]
contract = "health.toml"
[hardware]
model = "gw1"
revisions = "3-7"
exclude = [5]
[[component]]
name = "rootfs"
directory = "tree"
size = "4MiB"
"""
HEALTH = """
warm_up = "30s"
give_up = "5m"
every = "1s"
errors_per_hour = 6
[[check]]
type = "boot"
[[check]]
name = "core"
type = "services"
units = ["core.service"]
timeout_s = 10
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    online: dict[str, PublicKey] = {
        name: signer(f"online {name}").public
        for name in ("snapshot", "timestamp", "director", "audit")
    }
    make_lab(tmp_path / "lab", online, ["gw1"], now=NOW)
    return open_lab(tmp_path / "lab")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "os-release").write_text('VERSION_ID="1"\n')
    library = Path(json.__file__).parent
    for one in library.glob("*.py"):
        (tree / one.name).write_bytes(one.read_bytes())
    (tmp_path / "health.toml").write_text(HEALTH)
    return tmp_path


def manifest(shop: Path, version: str = "1.0.0", counter: int = 1) -> Path:
    path = shop / "release.toml"
    path.write_text(RELEASE.format(version=version, counter=counter))
    return path


def built(
    shop: Path, version: str = "1.0.0", counter: int = 1, previous: bytes | None = None
) -> Built:
    spec = read_release(manifest(shop, version, counter))
    return build(spec, shop / "out", previous=previous, now=NOW, level=3)


def check(lab: Lab, path: Path, previous: bytes | None = None) -> object:
    targets = parse_targets(read(lab.trust).documents["targets"])
    return check_bundle(path, targets=targets, previous=previous, now=NOW, folder=path.parent)


def code(lab: Lab, path: Path, previous: bytes | None = None) -> str:
    with pytest.raises(TidegateError) as caught:
        check(lab, path, previous)
    return caught.value.code


def test_a_directory_becomes_a_bundle_that_devices_accept(lab: Lab, shop: Path) -> None:
    made = built(shop)
    sign_bundle(made.bundle, lab.signer("product"))
    check(lab, made.bundle)
    release = made.targets[0].release
    assert release.install.size == 4 << 20
    assert (release.health.warmup_s, release.health.error_rate_per_hour) == (30, 6)
    assert release.health.checks[1].settings == {"units": ["core.service"], "timeout_s": 10}
    assert release.fallback_to == ()


def test_mirrors_are_signed_in_their_order_and_a_release_without_says_nothing(
    lab: Lab, shop: Path
) -> None:
    assert b'"mirrors"' not in (built(shop).bundle).read_bytes()
    path = manifest(shop, "1.0.1", 2)
    asked = ["https://two.example/gw1", "http://one.example:8080"]
    path.write_text(path.read_text().replace("counter = 2", f"counter = 2\nmirrors = {asked}"))
    made = build(read_release(path), shop / "out", previous=None, now=NOW, level=3)
    sign_bundle(made.bundle, lab.signer("product"))
    check(lab, made.bundle)
    role = parse_targets(read(made.bundle).documents["product/gw1"]).signed
    (signed,) = role.targets.values()
    assert signed.unrecognized_fields["custom"]["tidegate"]["mirrors"] == asked


def test_a_check_may_be_called_optional(tmp_path: Path) -> None:
    path = tmp_path / "health.toml"
    path.write_text('[[check]]\ntype = "boot"\n[[check]]\ntype = "tcp"\noptional = true\n')
    first, second = read_health(path).checks
    assert (first.optional is True, second.optional) == (False, True)
    assert second.settings == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('warm_up = "10m"\ngive_up = "10m"\n', "give_up must be longer than warm_up"),
        ('[[check]]\ntype = "boot"\n[[check]]\ntype = "boot"\n', "two checks are called boot"),
        ('[[check]]\ntype = "boot"\noptional = "yes"\n', "optional"),
    ],
)
def test_a_contract_that_could_never_hold_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "health.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_health(path)
    assert words in error.value.detail


def test_the_same_inputs_give_the_same_bytes(shop: Path) -> None:
    first = built(shop).bundle.read_bytes()
    for one in (shop / "tree").rglob("*"):
        one.touch()
    assert first == built(shop).bundle.read_bytes()


def test_an_image_of_a_directory_is_a_clean_file_system(shop: Path) -> None:
    import subprocess

    from tidegate.publisher.image import find_tool

    make_ext4(shop / "tree", shop / "image", 64 << 20, NOW)
    done = subprocess.run(
        [str(find_tool("e2fsck")), "-fn", str(shop / "image")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_later_release_names_its_predecessor_as_the_way_back(lab: Lab, shop: Path) -> None:
    first = built(shop)
    sign_bundle(first.bundle, lab.signer("product"))
    previous = read(first.bundle).product.body
    (shop / "tree" / "new").write_text("more")
    second = built(shop, "1.1.0", 2, previous)
    assert [one.counter for one in second.targets[0].release.fallback_to] == [1]
    assert second.targets[0].release.fallback_to[0].expires == NOW + 30 * 86_400
    sign_bundle(second.bundle, lab.signer("product"))
    check(lab, second.bundle, previous)
    document = read(second.bundle).product
    assert document.version == 2
    assert len(document.signed.targets) == 2


def test_an_unsigned_or_foreign_bundle_is_refused(lab: Lab, shop: Path) -> None:
    path = built(shop).bundle
    assert code(lab, path) == "sig.unknown_key"
    sign_bundle(path, signer("mallory"))
    assert code(lab, path) == "sig.unknown_key"


def test_signing_twice_changes_nothing(lab: Lab, shop: Path) -> None:
    path = built(shop).bundle
    sign_bundle(path, lab.signer("product"))
    once = path.read_bytes()
    words = summary(path).words
    sign_bundle(path, lab.signer("product"))
    assert (path.read_bytes(), summary(path).words) == (once, words)


def test_a_downgrade_is_refused_when_built_and_when_accepted(lab: Lab, shop: Path) -> None:
    first = built(shop, "1.0.0", 5)
    sign_bundle(first.bundle, lab.signer("product"))
    previous = read(first.bundle).product.body
    with pytest.raises(PublisherError, match=r"compat\.counter"):
        built(shop, "0.9.0", 5, previous)
    with pytest.raises(PublisherError, match=r"release\.exists"):
        built(shop, "1.0.0", 6, previous)
    sneaky = built(shop, "0.9.0", 4)
    sign_bundle(sneaky.bundle, lab.signer("product"))
    assert code(lab, sneaky.bundle, previous) in ("compat.counter", "release.exists")


def test_a_published_release_never_changes(lab: Lab, shop: Path) -> None:
    first = built(shop)
    sign_bundle(first.bundle, lab.signer("product"))
    previous = read(first.bundle).product.body
    (shop / "tree" / "new").write_text("changed after the fact")
    again = built(shop)
    sign_bundle(again.bundle, lab.signer("product"))
    assert code(lab, again.bundle, previous) == "release.exists"


def test_one_flipped_byte_anywhere_in_the_payload_is_found(lab: Lab, shop: Path) -> None:
    path = built(shop).bundle
    sign_bundle(path, lab.signer("product"))
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        payload = tar.getmembers()[-1]
    for at in (
        payload.offset_data,
        payload.offset_data + 40,
        payload.offset_data + payload.size - 1,
    ):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert code(lab, path) == "download.hash"


@pytest.mark.parametrize("keep", [0, 100, 600, 5_000, 10_000])
def test_a_truncated_bundle_is_one_clear_error(lab: Lab, shop: Path, keep: int) -> None:
    path = built(shop).bundle
    sign_bundle(path, lab.signer("product"))
    path.write_bytes(path.read_bytes()[:keep])
    assert code(lab, path) == "release.malformed"


def test_a_document_can_be_replaced_and_payloads_stay(lab: Lab, shop: Path) -> None:
    path = built(shop).bundle
    before = read(path).manifest.payloads
    replace_documents(path, {"root": lab.root.read_bytes()})
    bundle = read(path)
    assert (bundle.manifest.payloads, list(bundle.documents)) == (before, ["root", "product/gw1"])


def test_a_lab_says_so_in_its_root(lab: Lab) -> None:
    from tidegate.core.metadata import root_extra

    assert root_extra(parse_root(lab.root.read_bytes())).lab
    assert lab.passphrase.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError):
        make_lab(lab.folder, {}, ["gw1"], now=NOW)


def test_a_product_role_may_not_delegate_or_change_product(lab: Lab, shop: Path) -> None:
    made = built(shop)
    sign_bundle(made.bundle, lab.signer("product"))
    body = read(made.bundle).product.body
    targets = parse_targets(read(lab.trust).documents["targets"])
    with pytest.raises(PublisherError):
        accept_release(body, product="gw2", targets=targets, previous=None, now=NOW)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("counter = 1", "contour = 1", "config.unknown_key"),
        ("counter = 1", "", "config.missing"),
        ("counter = 1", 'counter = "1"', "config.invalid"),
        ('directory = "tree"', 'directory = "nowhere"', "config.unreadable"),
        ('directory = "tree"', "", "config.invalid"),
        ('size = "4MiB"', "size = 4", "config.invalid"),
        ('revisions = "3-7"', 'revisions = "three"', "config.invalid"),
        ('contract = "health.toml"', 'contract = "none.toml"', "config.unreadable"),
        ("[hardware]", "[hardware", "config.invalid"),
        ("counter = 1", 'counter = 1\nmirrors = "http://x"', "config.invalid"),
        ("counter = 1", 'counter = 1\nmirrors = ["http://me:secret@x"]', "config.invalid"),
        ("counter = 1", f"counter = 1\nmirrors = {['http://x'] * 9}", "config.invalid"),
    ],
)
def test_a_mistake_in_the_manifest_names_file_and_key(
    shop: Path, old: str, new: str, code: str
) -> None:
    path = manifest(shop)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_release(path)
    assert caught.value.code == code
    assert ".toml" in caught.value.detail


def test_a_package_is_signed_with_the_image_that_is_inside(lab: Lab, shop: Path) -> None:
    (shop / "gateway.raucb").write_bytes(b"bundle" * 3000)
    (shop / "rootfs.img").write_bytes(b"image" * 5000)
    path = manifest(shop)
    whole = path.read_text()
    whole = whole.replace(
        'directory = "tree"\nsize = "4MiB"',
        'type = "rauc"\nimage = "gateway.raucb"\ninstalled = "rootfs.img"',
    )
    path.write_text(whole)
    (target,) = build(read_release(path), shop / "out", previous=None, now=NOW).targets
    release = target.release
    assert release.install.sha256 == hashlib.sha256(b"image" * 5000).hexdigest()
    assert release.unpacked.sha256 == hashlib.sha256(b"bundle" * 3000).hexdigest()
    # An agent that does not know packages must refuse it, not write a bundle into a slot.
    assert release.crit == ("package",)
    for without, words in (
        (whole.replace('installed = "rootfs.img"', ""), "needs installed"),
        (whole.replace('"rauc"', '"raw_image"'), "takes no installed"),
        (whole.replace('"rootfs.img"', '"nothing.img"'), "is not there, or empty"),
    ):
        path.write_text(without)
        with pytest.raises(ConfigError, match=words):
            read_release(path)


#: What comes beside the image: a tree, and files for an update module.
BESIDE = """
[[component]]
name = "app"
type = "archive"
directory = "app"
with = "rootfs"
[[component]]
name = "motd"
type = "module"
module = "single-file"
directory = "motd"
with = ["rootfs"]
"""


@pytest.fixture
def joint(shop: Path) -> Path:
    (shop / "app" / "bin").mkdir(parents=True)
    (shop / "app" / "bin" / "run").write_text("program")
    (shop / "app" / "now").symlink_to("bin/run")
    (shop / "motd").mkdir()
    for name in ("motd", "dest_dir", "filename"):
        (shop / "motd" / name).write_text(name)
    return shop


def test_components_that_belong_together_are_one_target(lab: Lab, joint: Path) -> None:
    path = manifest(joint)
    path.write_text(path.read_text() + BESIDE)
    made = build(read_release(path), joint / "out", previous=None, now=NOW)
    sign_bundle(made.bundle, lab.signer("product"))
    check(lab, made.bundle)
    (target,) = made.targets
    release = target.release
    assert [one.component for one in release.pieces] == ["rootfs", "app", "motd"]
    assert release.crit == ("parts",)
    assert release.parts[1].settings == {"module": "single-file"}
    payloads = {one.sha256 for one in read(made.bundle).manifest.payloads}
    assert payloads == {one.full.sha256 for one in release.pieces}
    # The tree's own digest is signed, and the archive's beside it.
    app = release.parts[0]
    assert app.package is not None
    assert app.install.sha256 != app.package.sha256
    assert app.install.size == len("program")


def test_the_same_tree_gives_the_same_archive(joint: Path) -> None:
    path = manifest(joint)
    path.write_text(path.read_text() + BESIDE)
    first = build(read_release(path), joint / "out", previous=None, now=NOW).targets
    for one in (joint / "app").rglob("*"):
        if not one.is_symlink():
            one.touch()
    assert build(read_release(path), joint / "out", previous=None, now=NOW).targets == first


@pytest.mark.parametrize("tool", ["gzip", "xz", "zstd"])
def test_a_compressed_archive_is_taken_and_packed_plainly(joint: Path, tool: str) -> None:
    plain = joint / "app.tar"
    with tarfile.open(plain, "w") as members:
        members.add(joint / "app", ".")
    packed = joint / "app.tar.packed"
    with packed.open("wb") as out:
        match tool:
            case "gzip":
                out.write(gzip.compress(plain.read_bytes()))
            case "xz":
                out.write(lzma.compress(plain.read_bytes()))
            case _:
                out.write(zstandard.compress(plain.read_bytes()))
    text = manifest(joint).read_text()
    digests = set()
    for name in ("app.tar", "app.tar.packed"):
        path = joint / "release.toml"
        path.write_text(text + BESIDE.replace('directory = "app"', f'image = "{name}"'))
        made = build(read_release(path), joint / "out", previous=None, now=NOW)
        digests.add(made.targets[0].release.parts[0].install.sha256)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('with = "rootfs"', 'with = "roof"', "is no component of this release"),
        ('with = "rootfs"', 'with = "motd"', "without a `with` of its own"),
        ('with = "rootfs"', "with = 3", "or a list of components"),
        ('name = "app"', 'name = "motd"', "twice"),
        ('module = "single-file"', "", "no update module"),
        ('module = "single-file"', 'module = "../sh"', "no update module"),
        ('with = "rootfs"', 'with = "rootfs"\nkeep = ["all"]', "is none of"),
        ('with = "rootfs"', 'with = "rootfs"\nmodule = "x"', "module"),
        ('with = "rootfs"', 'with = "rootfs"\ncontract = "health.toml"', "are those of rootfs"),
    ],
)
def test_a_mistake_about_components_is_named(joint: Path, old: str, new: str, words: str) -> None:
    path = manifest(joint)
    path.write_text(path.read_text() + BESIDE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words):
        read_release(path)


def test_an_archive_that_no_device_takes_is_not_built(joint: Path) -> None:
    (joint / "app" / "out").symlink_to("/etc/passwd")
    path = manifest(joint)
    path.write_text(path.read_text() + BESIDE)
    with pytest.raises(PublisherError, match="keep = "):
        build(read_release(path), joint / "out", previous=None, now=NOW)
    text = path.read_text().replace(
        'type = "archive"', 'type = "archive"\nkeep = ["absolute_links"]'
    )
    path.write_text(text)
    build(read_release(path), joint / "out", previous=None, now=NOW)


def test_a_part_whose_payload_is_not_there_or_not_its_own_is_refused(lab: Lab, joint: Path) -> None:
    path = manifest(joint)
    path.write_text(path.read_text() + BESIDE)
    made = build(read_release(path), joint / "out", previous=None, now=NOW)
    part = made.targets[0].release.parts[0]
    for harmed in (
        msgspec.structs.replace(part, install=msgspec.structs.replace(part.install, size=8)),
        msgspec.structs.replace(part, settings={"keep": ["nothing"]}),
        msgspec.structs.replace(part, format="module", settings={"module": "x"}),
    ):
        with made.bundle.open("rb") as bundle, tarfile.open(fileobj=bundle) as members:
            found = members.extractfile(f"payloads/{part.full.sha256}")
            assert found is not None
            container = joint / "container"
            container.write_bytes(found.read())
        check_payload(container, part)
        with pytest.raises(PublisherError):
            check_payload(container, harmed)
    whole = read(made.bundle)
    payloads = {}
    for member in whole.manifest.payloads:
        if member.sha256 != part.full.sha256:
            payloads[member.sha256] = joint / member.sha256
            extract_member(made.bundle, member, payloads[member.sha256])
    write(made.bundle, whole.documents, payloads, product="gw1", version="1.0.0")
    sign_bundle(made.bundle, lab.signer("product"))
    assert code(lab, made.bundle) == "release.malformed"


def test_a_typing_error_gets_the_nearest_key(shop: Path) -> None:
    path = manifest(shop)
    path.write_text(path.read_text().replace("counter = 1", "contour = 1"))
    with pytest.raises(ConfigError, match='did you mean "counter"'):
        read_release(path)


def test_the_time_of_a_build_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch(5) == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError):
        source_date_epoch(5)


def test_a_tree_that_does_not_fit_is_one_clear_error(shop: Path) -> None:
    (shop / "tree" / "big").write_bytes(hashlib.sha256(b"x").digest() * (1 << 18))
    with pytest.raises(ConfigError, match="mke2fs"):
        built(shop)


def test_a_withdrawn_version_is_named_no_more(lab: Lab, shop: Path) -> None:
    first = built(shop)
    sign_bundle(first.bundle, lab.signer("product"))
    previous = read(first.bundle).product.body
    (shop / "tree" / "new").write_text("more")
    spec = read_release(manifest(shop, "1.1.0", 2))
    second = build(spec, shop / "out", previous=previous, now=NOW, level=3, withdraw=("1.0.0",))
    sign_bundle(second.bundle, lab.signer("product"))
    check(lab, second.bundle, previous)
    assert list(read(second.bundle).product.signed.targets) == [second.targets[0].path]
    with pytest.raises(TidegateError) as caught:
        build(spec, shop / "out", previous=previous, now=NOW, level=3, withdraw=("0.9",))
    assert caught.value.code == "request.not_found"
