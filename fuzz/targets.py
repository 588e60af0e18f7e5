"""What is fuzzed: one function per parser. Each takes any bytes and must return, or raise the one exception that callers are promised.

A target must not depend on anything but its input, so that a crash can be played again from its file.
"""

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
from tests.unit.core.repo import NOW, Repo
from tests.unit.core.supply import paper

from fuzz import supply
from fuzz.kind import Target, refusing
from tidegate.agent import journal
from tidegate.agent.board import SystemClock
from tidegate.agent.boot import uboot_env, uboot_store
from tidegate.agent.boot.uboot_styles import Bootcount, Order
from tidegate.agent.bootloaders import grub
from tidegate.agent.install import unpack
from tidegate.agent.net.retry_after import WISH_MAX_S, wish_s
from tidegate.core import archive, bundle, codec, content, protocol
from tidegate.core.amounts import parse_duration, parse_rate, parse_share, parse_size
from tidegate.core.director import check_assignment
from tidegate.core.errors import TidegateError
from tidegate.core.grant import GRANT_TYPE, GrantBody, accept_grant
from tidegate.core.keys import (
    SEED_BYTES,
    Signer,
    open_envelope,
    peek_payload,
    public_key_from,
    sign_document,
    sign_envelope,
)
from tidegate.core.merkle import CohortProof, proves
from tidegate.core.metadata import (
    Document,
    parse_root,
    parse_snapshot,
    parse_targets,
    parse_timestamp,
    product_extra,
    root_extra,
    signed_targets,
)
from tidegate.core.payload import Index, decode_segment
from tidegate.core.schedule import parse_window
from tidegate.core.supply import documents
from tidegate.core.supply.advisory import Subject, concerns, judge
from tidegate.core.supply.policy import signed_by
from tidegate.core.supply.sbom import Part
from tidegate.core.ustar import END, Reader, header
from tidegate.core.verify import walk_repository
from tidegate.publisher import bundle as bundles
from tidegate.publisher import ceremony, keyfile, manifest
from tidegate.publisher.grant import describe_grant
from tidegate.rollout import query

REPO: Final = Repo()
FILES: Final = REPO.files()
NAMES: Final = tuple(sorted(FILES))
_SLOTS: Final = ("A", "B")
_STYLES: Final = (
    Order(slots=_SLOTS),
    Bootcount(slots=_SLOTS, select={one: {"tidegate_slot": one} for one in _SLOTS}),
)
KEY: Final = Signer.from_seed(b"\x07" * SEED_BYTES["ed25519"])


# --- signed documents ---------------------------------------------------------------------------------------------------


def _metadata(body: bytes) -> None:
    for parse in (parse_root, parse_targets, parse_snapshot, parse_timestamp):
        with contextlib.suppress(TidegateError):
            found: Document[Any] = parse(body)
            assert found.version == found.signed.version
            if parse is parse_root:
                root_extra(found)
            if parse is parse_targets:
                product_extra(found)
                signed_targets(found)


def _repository(body: bytes) -> None:
    """The first byte picks the file of a good repository that the rest takes the place of."""
    name = NAMES[body[0] % len(NAMES)] if body else NAMES[0]
    trusted = walk_repository(FILES | {name: body[1:]}, anchor=FILES["1.root.json"], now=NOW)
    # Nothing but the very bytes that were signed is believed; an old root is not asked for again.
    assert body[1:] == FILES[name] or trusted.root.body == FILES["1.root.json"], name


def _envelope(body: bytes) -> None:
    envelope = codec.decode(body, protocol.Envelope)
    payload = open_envelope(envelope, protocol.ASSIGNMENT_TYPE, {KEY.public.keyid: KEY.public}, 1)
    assert payload == GOOD_PAYLOAD, "a payload was believed that this key never signed"


def _assignment(body: bytes) -> None:
    found = codec.decode_document(body, protocol.AssignmentBody)
    check_assignment(
        found, parse_root(FILES["1.root.json"]), device_id="d1", device_key_sha256="ab" * 32,
        nonce="00" * 16, last=(1, 7), now=NOW,
    )  # fmt: skip


def _grant(body: bytes) -> None:
    """What holders read; and what a device would make of such a body if it were signed."""
    envelope = codec.decode(body, protocol.Envelope)
    found = codec.decode_document(peek_payload(envelope), GrantBody)
    describe_grant(found)
    root = parse_root(FILES["1.root.json"])
    document = parse_targets(FILES["1.product%2Fgw1.json"], "product/gw1")
    accept_grant(found, root=root, document=document, now=NOW)


def _proof(body: bytes) -> None:
    proof = codec.decode(body, CohortProof)
    assert not proves(proof, "d1", root="00" * 32, count=7), "a digest of zeros was found"


def _documents(body: bytes) -> None:
    for kind in (
        protocol.PermitBody, protocol.TimeBody, protocol.EnrolBody, protocol.SessionBody, protocol.EventBody,
    ):  # fmt: skip
        with contextlib.suppress(TidegateError):
            codec.decode_document(body, kind)


def _messages(body: bytes) -> None:
    for kind in (
        protocol.EnrolRequest, protocol.SessionRequest, protocol.AssignmentRequest, protocol.PermitRequest,
        protocol.TimeRequest, protocol.EventsRequest, protocol.AssignmentAnswer, protocol.PermitAnswer,
        protocol.SessionAnswer, protocol.PollAnswer, protocol.Problem,
    ):  # fmt: skip
        with contextlib.suppress(TidegateError):
            codec.decode(body, kind)


def _public_key(body: bytes) -> None:
    public_key_from(codec.screen(body, codec.DOCUMENT_MAX))


# --- files ----------------------------------------------------------------------------------------------------------------


def _on_file(work: Callable[[Path], object], name: str) -> Callable[[bytes], None]:
    """Give a reader of files its input as one, in memory where the system has such a place."""
    shm = Path("/dev/shm")
    place = tempfile.mkdtemp(prefix="tidegate-fuzz-", dir=shm if shm.is_dir() else None)
    path = Path(place, name)

    def check(body: bytes) -> None:
        path.write_bytes(body)
        work(path)

    return check


def _bundle(path: Path) -> None:
    found = bundles.read(path)
    for member in found.manifest.payloads:
        bundles.extract_member(path, member, path.with_suffix(".out"))


def _archive(body: bytes) -> None:
    """Read an archive as whoever publishes does, and as a device: the same must be refused, and nothing made that the digest does not name."""
    said: tuple[int, str] | None = None
    refusal: TidegateError | None = None
    try:
        said = archive.measure(io.BytesIO(body).read)
    except TidegateError as error:
        refusal = error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        path.write_bytes(body)
        tree = Path(folder) / "tree"
        with mock.patch.object(os, "sync"):
            try:
                unpack.unpack(str(path), str(tree), frozenset())
            except TidegateError:
                # Names that this file system cannot hold are refused there alone.
                return
        assert refusal is None, refusal
        assert unpack.tree_digest(str(tree), frozenset()) == said
        assert sorted(one.name for one in Path(folder).iterdir()) == ["a.tar", "tree"]


def _module_files(body: bytes) -> None:
    reader = Reader(io.BytesIO(body).read)
    for _ in content.files_of(reader):
        for _piece in reader.pieces():
            pass


def _archive_seeds() -> tuple[bytes, ...]:
    found = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for name in ("a", "d/b", "n" * 120):
                member = tarfile.TarInfo(name)
                member.size = 5
                tar.addfile(member, io.BytesIO(b"bytes"))
            for name, kind, target in (("l", b"2", "a"), ("h", b"1", "a"), ("e", b"5", "")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode = kind, target, 0o755
                tar.addfile(member)
        found.append(out.getvalue())
    return tuple(found)


def _key_file(path: Path) -> None:
    with contextlib.suppress(TidegateError):
        keyfile.read_public(path)
    # A file may ask for a gigabyte of Argon2id, which is its owner's wish; here only cheap ones are opened.
    try:
        sealed = msgspec.json.decode(path.read_bytes(), type=keyfile._Sealed)
        cheap = sealed.memory_kib <= 64 and sealed.passes <= 2
    except (msgspec.DecodeError, ValueError):
        cheap = True  # refused before any cost
    if cheap:
        keyfile.open_key(path, PASSPHRASE)


# --- payloads -------------------------------------------------------------------------------------------------------------


def _payload(body: bytes) -> None:
    index = Index.parse(body)
    assert index.head_size <= len(body)
    for number, one in enumerate(index.segments[:8]):
        index.writes(number)
        with contextlib.suppress(TidegateError):
            plain = decode_segment(index, number, body[one.offset : one.offset + one.stored_length])
            assert len(plain) == one.plain_length
    assert all(size >= 0 for _, size in index.zeros())


# --- what is kept, and what people write ------------------------------------------------------------------------------------


def _journal(body: bytes) -> None:
    opened = journal.unseal(body)
    if opened is not None:
        assert journal.seal(*opened) == body, "another text was taken for the sealed one"


def _uboot_env(body: bytes) -> None:
    for redundant in (False, True):
        copy = uboot_env.read_copy(body, redundant=redundant)
        if copy is not None:
            flag = copy.flag if redundant else None
            made = uboot_env.make_copy(copy.environment, len(body), flag)
            assert uboot_env.read_copy(made, redundant=redundant) == copy
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(TidegateError):
        uboot_store.parse_places(text, "fuzz")
    names = ("BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT", "tidegate_slot")
    pieces = text.split("\n")
    entries = tuple(f"{name}={piece}".encode() for name, piece in zip(names, pieces, strict=False))
    for style in _STYLES:
        with contextlib.suppress(TidegateError):
            style.primary(uboot_env.Environment(entries))
            for slot in _SLOTS:
                changes = style.armed(uboot_env.Environment(entries), slot, 3)
                after = uboot_env.Environment(entries).changed(changes)
                assert style.state(after, slot, None) == "trial"
                assert style.tries_left(after, slot) == 3


def _grub_env(body: bytes) -> None:
    block = (grub.HEADER + body)[: grub.SIZE].ljust(grub.SIZE, b"#")
    held = grub.decode(block, "fuzz")
    with contextlib.suppress(TidegateError):
        record = grub.Record(held, _SLOTS, "fuzz")
        assert record.order in (_SLOTS, _SLOTS[::-1])
    changes = {"ORDER": "B A", "B_OK": "0", "B_TRY": "03"}
    with contextlib.suppress(TidegateError):  # no room
        after = grub.encode(block, changes, "fuzz")
        assert grub.decode(after, "fuzz") == held | changes
        assert grub.encode(after, changes, "fuzz") == after


def _texts(body: bytes) -> None:
    text = body.decode("utf-8", "replace")
    for parse in (query.parse, parse_window, parse_duration, parse_share, parse_size, parse_rate):
        with contextlib.suppress(TidegateError):
            parse(text)
    # A server's own words, and a stranger's: any text gives a pause that is none, or bounded.
    left, _, right = text.partition("\n")
    found = wish_s({"retry-after": left, "date": right}, SystemClock())
    assert 0 <= found <= WISH_MAX_S, found


# --- other people's documents -------------------------------------------------------------------------------------------


def _sbom(body: bytes) -> None:
    found = documents.read("sbom", body).sbom
    known = documents.read_advisories(paper.dumps(paper.osv())).advisories[0]
    for part in found.parts if found is not None else ():
        concerns(known, part)
        assert part.name.isprintable(), "a control character got through"


def _provenance(body: bytes) -> None:
    for claim in documents.read("provenance", body).claims:
        signed_by(claim, [KEY.public])


def _advisories(body: bytes) -> None:
    found = documents.read_advisories(body)
    said = [(one, False) for one in found.statements]
    for one in found.advisories:
        if concerns(one, PART):
            judge(one, PART, SUBJECT, said)


# --- seeds ----------------------------------------------------------------------------------------------------------------

PASSPHRASE: Final = "correct horse battery"
ASSIGNMENT: Final = protocol.AssignmentBody(
    device_id="d1", device_key="ab" * 32, epoch=1, seq=8, issued=NOW, expires=NOW + 3600, nonce="00" * 16,
    action="hold", poll_after_s=60,
)  # fmt: skip
GOOD_PAYLOAD: Final = codec.canonical(ASSIGNMENT)


def _golden() -> tuple[bytes, ...]:
    folder = Path(__file__).parents[1] / "tests/golden/protocol"
    return tuple(one.read_bytes() for one in sorted(folder.glob("*.json")))


def _bodies() -> tuple[bytes, ...]:
    """The signed bodies of the golden files, out of their envelopes."""
    found = []
    for one in _golden():
        with contextlib.suppress(TidegateError, msgspec.MsgspecError):
            found.append(msgspec.json.encode(msgspec.json.decode(one)))
    return tuple(found)


def _containers() -> tuple[bytes, ...]:
    folder = Path(__file__).parents[1] / "tests/golden/payload"
    files = [one.read_bytes() for one in sorted(folder.iterdir()) if one.is_file()]
    return tuple(one for one in files if len(one) < (256 << 10))


def _sealed_key() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = keyfile.new_key(
            Path(folder) / "k.key", "k", PASSPHRASE, memory_kib=8,
            randomness=lambda size: hashlib.shake_128(b"key").digest(size),
        )  # fmt: skip
        return made.private_path.read_bytes()


def _bundle_file() -> bytes:
    documents = {"root": FILES["1.root.json"]}
    payload = b"bytes of a payload"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "payload"
        file.write_bytes(payload)
        path = Path(folder) / "b.bundle"
        digest = hashlib.sha256(payload).hexdigest()
        bundles.write(path, documents, {digest: file}, product="gw1", version="1")
        return path.read_bytes()


def _signature_file() -> bytes:
    made = ceremony.sign_draft(FILES["1.root.json"], KEY, "ann", now=NOW)
    return msgspec.json.encode(made)


def _grant_file() -> bytes:
    body = (Path(__file__).parents[1] / "tests/golden/protocol/grant_body.json").read_bytes()
    return msgspec.json.encode(sign_envelope(body.rstrip(), GRANT_TYPE, KEY))


PROOF: Final = msgspec.json.encode(CohortProof(index=1, hashes=("ab" * 32, "cd" * 32)))


def _positions(files: Mapping[str, bytes]) -> tuple[bytes, ...]:
    return tuple(bytes([number]) + files[name] for number, name in enumerate(NAMES))


RELEASE_TOML: Final = b"""product = "gw1"
version = "2.4.1"
counter = 118
security_version = 6
channels = ["pilot", "stable"]
from_counters = [[90, 117]]
[[component]]
name = "rootfs"
image = "rootfs.img"
[[component.hardware]]
model = "gw1"
revisions = "3-7"
[health]
warmup = "10m"
"""
CEREMONY_TOML: Final = b"""tenant = "acme"
online = "online.pub.json"
[root]
needs = 2
keys = ["a.pub.json", "b.pub.json"]
"""
_JSON: Final = (
    b'"crit"',
    b'"_type"',
    b'"spec"',
    b"\\ud800",
    b"\\u0000",
    b"1e999",
    b"-0",
    b"NaN",
    b"[[[[",
    b"null",
    b"true",
)
_META: Final = (
    *_JSON,
    b'"x-tidegate"',
    b'"keyids"',
    b'"threshold"',
    b'"delegations"',
    b'"consistent_snapshot"',
    b'"hashes"',
)
_BODIES: Final = _bodies()
PART: Final = Part(
    name="openssl",
    version="3.0.16-1~deb12u1",
    type="deb",
    key="deb/debian/openssl",
    distro="debian-12",
)
SUBJECT: Final = Subject(product="gw1", version="2.4.1")
_BOMS: Final = tuple(
    paper.dumps(one)
    for one in (
        paper.cyclonedx(paper.component("openssl", "3.0.16-1~deb12u1", paper.OPENSSL)),
        paper.spdx(paper.package("libssl3", "3.0.16-1~deb12u1", paper.LIBSSL)),
    )
)
_PROVENANCE: Final = tuple(
    json.dumps(paper.dsse(one, KEY)).encode()
    for one in (paper.statement("ab" * 32), paper.statement_02("ab" * 32))
)
_ADVISORIES: Final = tuple(paper.dumps(one) for one in (paper.osv(), paper.openvex(), paper.csaf()))


def targets() -> tuple[Target, ...]:
    """Return every target, in the order in which they are run."""
    files = tuple(FILES[name] for name in NAMES)
    envelope = msgspec.json.encode(sign_document(ASSIGNMENT, protocol.ASSIGNMENT_TYPE, KEY))
    containers = _containers()
    on_file = _on_file
    return (
        Target("metadata", refusing(_metadata), files, _META),
        Target("repository", refusing(_repository), _positions(FILES), _META),
        Target("envelope", refusing(_envelope), (envelope,), _JSON),
        Target("assignment", refusing(_assignment), (GOOD_PAYLOAD, *_BODIES), _JSON),
        Target("grant", refusing(_grant), (_grant_file(),), (*_JSON, b'"payloadType"')),
        Target("cohort_proof", refusing(_proof), (PROOF,), _JSON),
        Target("documents", refusing(_documents), _BODIES, _JSON),
        Target("messages", refusing(_messages), _golden(), _JSON),
        Target("public_key", refusing(_public_key), tuple(_key_bodies()), _JSON),
        Target("bundle_manifest", refusing(bundle.parse_manifest), (_manifest(),), _JSON),
        Target(
            "bundle", refusing(on_file(_bundle, "b.bundle")), (_bundle_file(),), (b"ustar", *_JSON)
        ),
        Target("archive", refusing(_archive), _archive_seeds(), (b"ustar\x0000", b"../", b"path=")),
        Target(
            "module_files",
            refusing(_module_files),
            (header("one", 3) + b"one".ljust(512, b"\0") + END,),
            (b"ustar\x0000", b"../"),
        ),
        Target("key_file", refusing(on_file(_key_file, "k.key")), (_sealed_key(),), _JSON),
        Target(
            "signature_file",
            refusing(on_file(ceremony.read_signature, "r.sig")),
            (_signature_file(),),
            _JSON,
        ),
        Target("payload", refusing(_payload), containers, ()),
        Target("sbom", refusing(_sbom), _BOMS, (b"pkg:deb/debian/", *_JSON)),
        Target("provenance", refusing(_provenance), _PROVENANCE, _JSON),
        Target("advisories", refusing(_advisories), _ADVISORIES, (b'"introduced"', *_JSON)),
        Target(
            "grub_env",
            refusing(_grub_env),
            (b"ORDER=A B\nA_OK=1\nA_TRY=15\nB_OK=0\nB_TRY=00\n", b"x=a\\\nb\nB_TRY=3\nB_TRY=4\n"),
            (b"ORDER=", b"\\\n", b"#", b"=", b"B_TRY="),
        ),
        Target(
            "uboot_env",
            refusing(_uboot_env),
            (
                uboot_env.make_copy(uboot_env.Environment((b"BOOT_ORDER=A B",)), 64, 3),
                b"/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 -0x4000 0x4000\n",
                b"B A\n3\nf\nA",
            ),
            (b"BOOT_ORDER=", b"A B", b"0x"),
        ),
        Target("journal", refusing(_journal), (journal.seal(3, b"{}"),)),
        Target(
            "release_toml",
            refusing(on_file(manifest.read_release, "release.toml")),
            (RELEASE_TOML,),
        ),
        Target(
            "ceremony_toml",
            refusing(on_file(ceremony.read_ceremony, "ceremony.toml")),
            (CEREMONY_TOML,),
        ),
        Target(
            "texts",
            refusing(_texts),
            (
                b"model = gw1 and not site in (a, b)",
                b"Mon-Fri 01:00-05:00",
                b"24h",
                b"12.5 %",
                b"Sat, 28 Nov 2026 12:02:00 GMT\nSat, 28 Nov 2026 12:00:00 GMT",
            ),
        ),
        *supply.targets(),
    )


def _key_bodies() -> list[bytes]:
    keys = (KEY, Signer.from_seed(b"\x09" * SEED_BYTES["ecdsa"], "ecdsa"))
    return [codec.canonical(one.public.to_dict()) for one in keys]


def _manifest() -> bytes:
    root = FILES["1.root.json"]
    member = bundle.Member(
        name=bundle.document_name("root", 1),
        length=len(root),
        sha256=hashlib.sha256(root).hexdigest(),
    )
    return bundle.encode_manifest(bundle.BundleManifest(members=(member,)))


def target(name: str) -> Target:
    """Return a target by name.

    Raises:
        KeyError: no such target.
    """
    return {one.name: one for one in targets()}[name]
