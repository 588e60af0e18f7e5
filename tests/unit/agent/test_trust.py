"""What a device keeps of the repository, and what is left of it when files are lost, torn or flipped."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.conformance.clients import Wrist
from tests.conformance.repository import Answer
from tests.unit.core.repo import DAY, NOW, Repo, signer

from tidegate.agent.files import StateDirectory
from tidegate.agent.trust.store import TrustStore
from tidegate.core.errors import PublisherError, TidegateError
from tidegate.core.keys import Signer
from tidegate.core.metadata import parse_snapshot, parse_targets

GOOD = Repo()


class Shelf:
    """`agent.ports.Transport` over files in memory, which notes what was asked and how much was sent."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        assert method == "GET"
        name = path.rpartition("/")[2]
        self.asked.append(name)
        found = self.files.get(name)
        return Answer(404, b"") if found is None else Answer(200, found)


def opened(
    folder: Path, shelf: Shelf, *, now: int = NOW, anchor: bytes | None = None
) -> TrustStore:
    storage = StateDirectory(str(folder / "state"))
    return TrustStore(storage, shelf, anchor or GOOD.root_body(), now, clock=Wrist(now))


def refreshed(folder: Path, shelf: Shelf, *, now: int = NOW) -> TrustStore:
    store = opened(folder, shelf, now=now)
    store.refresh_root()
    store.refresh("gw1")
    return store


def code(folder: Path, shelf: Shelf, *, now: int = NOW) -> str:
    with pytest.raises(TidegateError) as caught:
        refreshed(folder, shelf, now=now)
    return caught.value.code


def newer() -> Repo:
    return GOOD.but(online=200, product_version=2)


def old_product_again() -> Shelf:
    """What a thief of the online keys would serve."""
    return Shelf(GOOD.but(online=300).files())


def place(folder: Path, name: str) -> Path:
    return folder / "state" / name


def flip(body: bytes, old: bytes, new: bytes) -> bytes:
    assert old in body
    return body.replace(old, new)


def test_a_warm_refresh_asks_twice_and_fetches_one_document(tmp_path: Path) -> None:
    shelf = Shelf(GOOD.files())
    assert refreshed(tmp_path, shelf).condition == "blank"
    assert len(shelf.asked) == 5
    shelf.asked.clear()
    assert refreshed(tmp_path, shelf).condition == "ok"
    assert shelf.asked == ["2.root.json", "timestamp.json"]


@pytest.mark.parametrize("cut", [0, 1, 100, 300])
def test_documents_torn_by_a_power_cut_are_fetched_again_and_open_no_way_back(
    tmp_path: Path, cut: int
) -> None:
    refreshed(tmp_path, Shelf(newer().files()))
    for name in ("timestamp", "snapshot", "targets", "product%2Fgw1"):
        torn = place(tmp_path, f"tuf.{name}.json")
        torn.write_bytes(torn.read_bytes()[:cut])
    assert code(tmp_path, old_product_again()) == "sig.rollback"
    honest = Shelf(newer().but(online=400).files())
    assert refreshed(tmp_path, honest).condition == "ok"


def test_a_flipped_number_in_one_copy_is_not_believed(tmp_path: Path) -> None:
    """The number stands in front of its checksum: a rotten 100 in place of 200 would let an old repository in."""
    refreshed(tmp_path, Shelf(newer().files()))
    first = place(tmp_path, "tuf.seen.0")
    whole = first.read_bytes()
    rotten = flip(whole, b'"timestamp":200,"snapshot":200', b'"timestamp":100,"snapshot":100')
    first.write_bytes(flip(rotten, b'"product/gw1":2', b'"product/gw1":1'))
    assert code(tmp_path, Shelf(GOOD.files())) == "sig.rollback"
    assert first.read_bytes() == whole, "the good copy mends the bad one"


def test_a_flipped_letter_in_a_kept_document_is_not_believed(tmp_path: Path) -> None:
    refreshed(tmp_path, Shelf(GOOD.files()))
    kept = place(tmp_path, "tuf.timestamp.json")
    # JSON does not mind, nor does the signature, which is over canonical bytes: only the checksum tells.
    kept.write_bytes(flip(kept.read_bytes(), b'"signatures":', b'"x":0,"signatures":'))
    store = opened(tmp_path, Shelf(GOOD.files()))
    assert "timestamp.json" not in dict(store.documents())


@pytest.mark.parametrize("damage", [b"", b"tidegate-journal 1 0 00\n{}", b"\xff" * 300])
def test_both_copies_damaged_is_said_and_survived(tmp_path: Path, damage: bytes) -> None:
    refreshed(tmp_path, Shelf(newer().files()))
    for name in ("tuf.seen.0", "tuf.seen.1"):
        place(tmp_path, name).write_bytes(damage)
    store = opened(tmp_path, Shelf(newer().files()))
    assert store.condition == "degraded"
    assert store.at(NOW + 1).condition == "degraded", "another time of reference heals nothing"
    store.refresh_root()
    store.keep()
    assert opened(tmp_path, Shelf({})).condition == "degraded", "no timestamp was believed yet"
    store.refresh("gw1")
    assert refreshed(tmp_path, Shelf(newer().files())).condition == "ok"


def test_a_damaged_root_is_mended_by_a_refresh_that_brings_no_newer_one(tmp_path: Path) -> None:
    second = GOOD.but(root_version=2).root_body()
    shelf = Shelf(GOOD.files() | {"2.root.json": second})
    refreshed(tmp_path, shelf)
    for name in ("tuf.root.0", "tuf.root.1"):
        place(tmp_path, name).write_bytes(b"torn")
    again = opened(tmp_path, shelf, anchor=second)
    assert again.condition == "degraded"
    again.refresh("gw1")
    assert opened(tmp_path, shelf, anchor=second).condition == "ok"


def test_lost_versions_beside_a_kept_root_are_damage_and_no_blank_device(tmp_path: Path) -> None:
    refreshed(tmp_path, Shelf(GOOD.files() | {"2.root.json": GOOD.but(root_version=2).root_body()}))
    for name in ("tuf.seen.0", "tuf.seen.1"):
        place(tmp_path, name).unlink()
    assert opened(tmp_path, Shelf({})).condition == "degraded"


def test_a_lost_root_leaves_the_one_of_the_image(tmp_path: Path) -> None:
    second = GOOD.but(root_version=2).root_body()
    shelf = Shelf(GOOD.files() | {"2.root.json": second})
    assert refreshed(tmp_path, shelf).trusted.root.version == 2
    assert opened(tmp_path, shelf).trusted.root.version == 2
    for name in ("tuf.root.0", "tuf.root.1"):
        place(tmp_path, name).write_bytes(second[:90])
    store = opened(tmp_path, shelf)
    assert (store.condition, store.trusted.root.version) == ("degraded", 1)
    assert refreshed(tmp_path, shelf).trusted.root.version == 2


def test_an_image_with_a_newer_root_goes_first(tmp_path: Path) -> None:
    shelf = Shelf(GOOD.files() | {"2.root.json": GOOD.but(root_version=2).root_body()})
    refreshed(tmp_path, shelf)
    store = opened(tmp_path, shelf, anchor=GOOD.but(root_version=3).root_body())
    assert store.trusted.root.version == 3


def test_what_is_not_believed_is_not_kept(tmp_path: Path) -> None:
    refreshed(tmp_path, Shelf(GOOD.files()))
    before = dict(opened(tmp_path, Shelf({})).documents())
    expired = GOOD.but(online=200, expires={"timestamp": NOW - 1})
    assert code(tmp_path, Shelf(expired.files())) == "sig.expired"
    foreign = GOOD.but(online=200, timestamp=signer("foreign"))
    assert code(tmp_path, Shelf(foreign.files())) == "sig.unknown_key"
    assert dict(opened(tmp_path, Shelf({})).documents()) == before


def test_another_content_of_the_same_version_is_not_taken(tmp_path: Path) -> None:
    refreshed(tmp_path, Shelf(GOOD.files()))
    other = GOOD.but(product_version=2)
    store = refreshed(tmp_path, Shelf(other.files()))
    assert store.trusted.roles["product/gw1"].version == 1


def test_a_kept_timestamp_that_expired_still_bars_older_ones(tmp_path: Path) -> None:
    refreshed(tmp_path, Shelf(newer().files()))
    assert code(tmp_path, Shelf(GOOD.files()), now=NOW + 20 * DAY) == "sig.rollback"


def test_a_chain_of_roots_is_walked_256_at_a_time(tmp_path: Path) -> None:
    roots = {f"{n}.root.json": GOOD.but(root_version=n).root_body() for n in range(1, 260)}
    shelf = Shelf(GOOD.files() | roots)
    store = opened(tmp_path, shelf)
    store.refresh_root()
    assert store.trusted.root.version == 257
    store = opened(tmp_path, shelf)
    store.refresh_root()
    assert store.trusted.root.version == 259


def consistent(repo: Repo, forger: Repo, forged: str) -> Shelf:
    """Sign everything once (ECDSA never signs alike twice), with one role by another's keys."""

    def by(role: str) -> Repo:
        return forger if role == forged else repo

    targets = by("targets").targets_body()
    product = repo.product_body(*by("product").product)
    named = {
        "targets": parse_targets(targets).info,
        "product/gw1": parse_targets(product, "product/gw1").info,
    }
    snapshot = by("snapshot").snapshot_body(named)
    timestamp = by("timestamp").timestamp_body(parse_snapshot(snapshot).info)
    return Shelf(
        {
            "2.root.json": by("roots").but(root_version=2).root_body(),
            "timestamp.json": timestamp,
            f"{repo.online}.snapshot.json": snapshot,
            "1.targets.json": targets,
            "1.product%2Fgw1.json": product,
        }
    )


@pytest.mark.parametrize("keytype", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("role", ["roots", "targets", "product", "snapshot", "timestamp"])
def test_both_kinds_of_keys_speak_for_every_role_and_no_others(
    tmp_path: Path, role: str, keytype: str
) -> None:
    count = {"roots": 3, "targets": 2}.get(role, 1)

    def keys(name: str) -> Signer | tuple[Signer, ...]:
        found = tuple(signer(f"{role} {n} {name}", keytype) for n in range(count))
        return found[0] if role in ("snapshot", "timestamp") else found

    repo = GOOD.but(**{role: keys("of a kind")})
    forger = repo.but(**{role: keys("of none")})
    # Of targets only the signature is the forger's: whom it names stays.
    anchor = repo.root_body()

    def look(folder: Path, shelf: Shelf) -> TrustStore:
        store = opened(folder, shelf, anchor=anchor)
        store.refresh_root()
        store.refresh("gw1")
        return store

    assert "product/gw1" in look(tmp_path, consistent(repo, repo, "")).trusted.roles
    with pytest.raises(PublisherError) as caught:
        look(tmp_path / "other", consistent(repo, forger, role))
    assert caught.value.code == "sig.unknown_key"
