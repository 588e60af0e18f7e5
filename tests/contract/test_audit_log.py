"""The operators' log keeps what it promises on each back end: a row, its hash and its place in the tree, all or nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import stores

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.audit.tree import proves_consistency
from tidegate.core.keys import Signer
from tidegate.server import audit
from tidegate.server.store import Connection, Store
from tidegate.server.store.origin import ORIGIN, Origin

KEY = Signer.from_seed(bytes(32))


@pytest.fixture(params=stores.BACK_ENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with stores.place(request.param, tmp_path / "data") as place:
        made = place.open()
        yield made
        made.close()


def act(number: int) -> str:
    return f"act {number}"


def fill(store: Store, first: int, last: int) -> None:
    def work(number: int) -> None:
        store.write(
            lambda conn: audit.record(
                conn, 1_800_000_000 + number, "ölga", "x.y", act(number), {"n": number, "ok": True}
            )
        ).result(30)

    for number in range(first, last):
        work(number)


def test_rows_tree_and_heads_agree(store: Store) -> None:
    heads: list[Checkpoint] = []
    for last in (3, 11, 12):
        fill(store, (heads[-1].size if heads else 0), last)
        signed = store.write(lambda conn: audit.make_checkpoint(conn, KEY, 1_800_000_100)).result(
            30
        )
        assert signed is not None
        heads.append(
            notes.open_note(
                signed.note, [notes.verifier_of(notes.origin_of("default"), KEY.public)]
            )
        )
    for old in heads:

        def ask(conn: Connection, size: int = old.size) -> audit.Proof:
            return audit.consistency(conn, size, 12)

        proof = store.read(ask)
        assert proves_consistency(
            [bytes.fromhex(one) for one in proof.hashes],
            old=old.size, old_head=old.root, new=12, new_head=heads[-1].root,
        )  # fmt: skip
    assert store.read(audit.verify) == audit.Verdict(
        ok=True, rows=12, head=store.read(audit.export)[-1].hash, covered=12
    )
    assert (
        store.write(lambda conn: audit.make_checkpoint(conn, KEY, 1_900_000_000)).result(30) is None
    )


def test_an_act_that_fails_leaves_no_row_and_no_node(store: Store) -> None:
    fill(store, 0, 2)

    def fails(conn: Connection) -> None:
        audit.record(conn, 1, "olga", "x.y", "z")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.write(fails).result(30)
    fill(store, 2, 4)
    assert [one.object for one in store.read(audit.export)] == [act(number) for number in range(4)]
    assert store.read(audit.verify).ok


def test_the_request_behind_the_work_reaches_the_writer_and_ends_with_it(store: Store) -> None:
    token = ORIGIN.set(Origin("r-1", "192.0.2.7"))
    try:
        fill(store, 0, 1)
    finally:
        ORIGIN.reset(token)
    fill(store, 1, 2)
    assert [(one.request, one.ip) for one in store.read(audit.export)] == [
        ("r-1", "192.0.2.7"),
        ("", ""),
    ]
