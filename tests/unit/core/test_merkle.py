"""A proof shows one device in one cohort, and nothing else."""

import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core.errors import PublisherError
from tidegate.core.merkle import WIDTH, CohortProof, leaf, levels, node, prove, proves, widths


def cohort(count: int) -> tuple[list[str], bytes, str]:
    ids = [f"gw1-{number:06x}" for number in range(count)]
    found = levels(ids)
    return ids, b"".join(found), found[-1].hex()


def proof_of(joined: bytes, count: int, device_id: str) -> CohortProof | None:
    return prove(lambda offset, size: joined[offset : offset + size], count, device_id)


@pytest.mark.parametrize("count", [*range(1, 34), 255, 256, 257, 1000])
def test_every_member_is_proved_and_nobody_else(count: int) -> None:
    ids, joined, root = cohort(count)
    assert len(joined) == WIDTH * sum(widths(count))
    for one in ids[:60]:
        proof = proof_of(joined, count, one)
        assert proof is not None
        assert proves(proof, one, root=root, count=count)
        assert not proves(proof, one + "x", root=root, count=count)
    assert proof_of(joined, count, "stranger") is None


def test_a_million_devices_need_twenty_hashes() -> None:
    assert len(widths(1_000_000)) - 1 == 20


def test_the_order_in_which_devices_are_named_does_not_matter() -> None:
    assert levels(["a", "b", "c"]) == levels(["c", "a", "b", "a"])


def test_three_leaves_make_the_tree_of_rfc_6962() -> None:
    one, two, three = sorted(leaf(name) for name in "abc")
    root = hashlib.sha256(b"\x01" + hashlib.sha256(b"\x01" + one + two).digest() + three).digest()
    assert levels("abc")[-1] == root


def test_an_inner_node_never_passes_for_a_device() -> None:
    assert leaf("x") != hashlib.sha256(b"x").digest()
    one, two = sorted(leaf(name) for name in "ab")
    # A name made of two digests hashes otherwise than the node over them.
    assert leaf((one + two).hex()) != node(one, two)
    assert hashlib.sha256(b"\x00" + one + two).digest() != node(one, two)


def test_a_cohort_of_nobody_is_none() -> None:
    with pytest.raises(PublisherError) as caught:
        levels([])
    assert caught.value.code == "sig.malformed"


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 70), data=st.data())
def test_a_spoiled_proof_proves_nothing(count: int, data: st.DataObject) -> None:
    ids, joined, root = cohort(count)
    at = data.draw(st.integers(0, count - 1))
    good = proof_of(joined, count, ids[at])
    assert good is not None
    how = data.draw(st.sampled_from(["index", "drop", "add", "flip", "swap", "count", "root"]))
    bad, size, top = good, count, root
    if how == "index":
        bad = msgspec.structs.replace(good, index=data.draw(st.integers(0, count * 2 + 3)))
    elif how == "drop":
        bad = msgspec.structs.replace(good, hashes=good.hashes[1:])
    elif how == "add":
        bad = msgspec.structs.replace(good, hashes=(*good.hashes, "00" * 32))
    elif how == "flip":
        bad = msgspec.structs.replace(good, hashes=("00" * 32, *good.hashes[1:]))
    elif how == "swap":
        bad = msgspec.structs.replace(good, hashes=tuple(reversed(good.hashes)))
    elif how == "count":
        size = data.draw(st.integers(1, 200))
    else:
        top = "ab" * 32
    same = (bad, top) == (good, root) and (size == count or how == "count")
    if not same:
        assert not proves(bad, ids[at], root=top, count=size)
    if size == count and same:
        assert proves(bad, ids[at], root=top, count=size)
