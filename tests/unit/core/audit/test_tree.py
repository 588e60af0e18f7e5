"""The tree is RFC 6962's: other people's vectors, a naive tree, and every proof of small logs."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.audit import tree
from tidegate.core.audit.entry import leaf
from tidegate.core.audit.tree import Frontier

VECTORS = json.loads((Path(__file__).parents[3] / "golden/merkle/rfc6962.json").read_text())
#: Inputs and heads of the log that certificate-transparency implementations share.
INPUTS = [
    bytes.fromhex(one)
    for one in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
HEADS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


class Kept:
    """The nodes of a log, as a server keeps them."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        for size, one in enumerate(leaves):
            for level, number, digest in tree.grown(size, one, self.at):
                assert (level, number) not in self.nodes
                self.nodes[level, number] = digest

    def at(self, level: int, number: int) -> bytes:
        return self.nodes[level, number]


def naive(leaves: list[bytes]) -> bytes:
    """Section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:half]) + naive(leaves[half:])).digest()


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def proof(case: dict[str, Any]) -> list[bytes]:
    return [raw(one) for one in case["proof"] or ()]


def test_the_vectors_are_all_there() -> None:
    assert (len(VECTORS["inclusion"]), len(VECTORS["consistency"])) == (98, 98)
    assert sum(not one["wantErr"] for one in VECTORS["inclusion"]) >= 5
    assert sum(not one["wantErr"] for one in VECTORS["consistency"]) >= 5


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda one: str(one["name"]))
def test_inclusion_as_the_reference_has_it(case: dict[str, Any]) -> None:
    holds = tree.proves_inclusion(
        proof(case),
        leaf=raw(case["leafHash"]),
        index=case["leafIdx"],
        size=case["treeSize"],
        head=raw(case["root"]),
    )
    assert holds is not case["wantErr"]


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda one: str(one["name"]))
def test_consistency_as_the_reference_has_it(case: dict[str, Any]) -> None:
    holds = tree.proves_consistency(
        proof(case),
        old=case["size1"],
        old_head=raw(case["root1"]),
        new=case["size2"],
        new_head=raw(case["root2"]),
    )
    assert holds is not case["wantErr"]


def test_the_shared_log_has_the_heads_that_others_compute() -> None:
    leaves = [leaf(one) for one in INPUTS]
    kept, frontier = Kept(leaves), Frontier()
    for size, head in enumerate(HEADS):
        assert tree.root(size, kept.at).hex() == head
        assert frontier.head().hex() == head
        if size < len(leaves):
            frontier.add(leaves[size])


def test_every_proof_of_small_logs_holds_and_every_other_head_is_refused() -> None:
    leaves = [leaf(bytes([one])) for one in range(40)]
    kept = Kept(leaves)
    heads = [tree.root(size, kept.at) for size in range(41)]
    for new in range(41):
        assert heads[new] == naive(leaves[:new])
        for old in range(new + 1):
            found = tree.consistency(old, new, kept.at)
            given_heads = {"old": old, "new": new, "new_head": heads[new]}
            shows = old > 0
            assert tree.proves_consistency(found, old_head=heads[old], **given_heads) is shows  # type: ignore[arg-type]
            assert not tree.proves_consistency(found, old_head=b"x" * 32, **given_heads)  # type: ignore[arg-type]
        for index in range(new):
            shown = tree.inclusion(index, new, kept.at)
            where = {"index": index, "size": new, "head": heads[new]}
            assert tree.proves_inclusion(shown, leaf=leaves[index], **where)  # type: ignore[arg-type]
            assert not tree.proves_inclusion(shown, leaf=leaves[index - 1], **where) or new == 1  # type: ignore[arg-type]


@given(
    st.lists(st.binary(max_size=4), min_size=1, max_size=70),
    st.data(),
)
def test_a_log_that_differs_in_one_row_is_never_consistent(
    rows: list[bytes], data: st.DataObject
) -> None:
    new = len(rows)
    old = data.draw(st.integers(1, new))
    changed = data.draw(st.integers(0, old - 1))
    leaves = [leaf(one) for one in rows]
    others = [*leaves[:changed], leaf(rows[changed] + b"!"), *leaves[changed + 1 :]]
    mine, theirs = Kept(leaves), Kept(others)
    shown = tree.consistency(old, new, theirs.at)
    assert tree.proves_consistency(
        shown,
        old=old,
        old_head=tree.root(old, theirs.at),
        new=new,
        new_head=tree.root(new, theirs.at),
    )
    assert not tree.proves_consistency(
        shown,
        old=old,
        old_head=tree.root(old, mine.at),
        new=new,
        new_head=tree.root(new, theirs.at),
    )


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=80))
def test_nodes_are_two_a_row_at_most_and_answer_every_size(rows: list[bytes]) -> None:
    leaves = [leaf(one) for one in rows]
    kept = Kept(leaves)
    assert len(kept.nodes) < 2 * len(rows)
    for size in range(len(rows) + 1):
        assert tree.root(size, kept.at) == naive(leaves[:size])


def test_what_a_proof_reads_is_known_beforehand_and_little() -> None:
    kept = Kept([leaf(str(one).encode()) for one in range(1000)])
    wanted = tree.places(lambda at: tree.consistency(333, 1000, at))
    assert len(wanted) <= 2 * 10
    seen: list[tuple[int, int]] = []

    def at(level: int, number: int) -> bytes:
        seen.append((level, number))
        return kept.at(level, number)

    tree.consistency(333, 1000, at)
    assert set(seen) == set(wanted)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3)])
def test_there_is_no_proof_of_a_row_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError):
        tree.inclusion(index, size, Kept([leaf(b"a")] * 3).at)


def test_a_proof_of_a_thousand_hashes_is_refused_before_it_is_hashed() -> None:
    many = [bytes(32)] * 1000
    assert not tree.proves_consistency(many, old=1, old_head=bytes(32), new=9, new_head=bytes(32))
    assert not tree.proves_inclusion(many, leaf=bytes(32), index=0, size=9, head=bytes(32))
