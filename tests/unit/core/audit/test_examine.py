"""Whatever is done to a copy of the log is found, and named by row and kind."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.audit.works import OTHER, chained, held, lines, log, signed

from tidegate.core.audit.entry import AuditRow, canon, read_row
from tidegate.core.audit.examine import AHEAD, FAULTS_MAX, Examined, Heads, examine
from tidegate.core.errors import PublisherError

ROWS = log(30)
HEADS = tuple(signed(ROWS[:count]) for count in (0, 10, 20, 30))


def told(found: Examined) -> list[tuple[str, int, int]]:
    return [(one.kind, one.first, one.last) for one in found.faults]


def edited(row: AuditRow, **values: object) -> AuditRow:
    return msgspec.structs.replace(row, **values)


def renumbered(rows: list[AuditRow]) -> list[AuditRow]:
    return [edited(one, seq=number) for number, one in enumerate(rows, 1)]


def test_a_whole_log_holds_as_far_as_it_is_signed() -> None:
    found = held(ROWS, *HEADS)
    assert found.ok
    assert (found.rows, found.checkpoints, found.covered) == (30, 4, 30)
    assert found.head == ROWS[-1].hash
    assert (found.begins_at, found.ends_at) == (ROWS[0].at, ROWS[-1].at)
    assert held(ROWS, HEADS[1]).covered == 10


def test_an_empty_log_holds() -> None:
    assert held([]).ok
    assert held([], HEADS[0]).ok


@pytest.mark.parametrize("row", [1, 2, 17, 29, 30])
@pytest.mark.parametrize(
    "values",
    [{"actor": "quinn"}, {"at": 5}, {"detail": {"reason": "x"}}, {"ip": "::1"}, {"action": "a.b"}],
)
def test_an_edited_row_is_named(row: int, values: dict[str, object]) -> None:
    rows = [*ROWS[: row - 1], edited(ROWS[row - 1], **values), *ROWS[row:]]
    assert told(held(rows, *HEADS)) == [("edited", row, row)]
    assert told(held(rows)) == [("edited", row, row)]


def test_an_edited_row_behind_a_checkpoint_is_that_row_and_no_other() -> None:
    rows = [*ROWS[:10], edited(ROWS[10], actor="quinn"), *ROWS[11:]]
    assert "or that one" not in held(rows, *HEADS).faults[0].text
    assert "or that one" in held(rows).faults[0].text


def test_rows_whose_hashes_were_all_made_anew_are_found_by_the_checkpoint_that_covers_them() -> (
    None
):
    rows = [*ROWS[:14], *chained([edited(ROWS[14], actor="quinn"), *ROWS[15:]], ROWS[13].hash)]
    assert held(rows).ok, "the chain alone cannot tell"
    assert told(held(rows, *HEADS)) == [("forked", 11, 20)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 9), (5, 5), (5, 12), (29, 29), (2, 28)])
def test_deleted_rows_are_named(first: int, last: int) -> None:
    rows = [*ROWS[: first - 1], *ROWS[last:]]
    assert told(held(rows, *HEADS)) == [("deleted", first, last)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (5, 5), (5, 12), (3, 28)])
def test_deleted_rows_are_named_though_the_rest_was_numbered_anew(first: int, last: int) -> None:
    rows = renumbered([*ROWS[: first - 1], *ROWS[last:]])
    assert told(held(rows, *HEADS)) == [("deleted", first, last)]


@pytest.mark.parametrize("place", [1, 2, 15, 30])
@pytest.mark.parametrize("anew", [False, True])
def test_an_inserted_row_is_named(place: int, anew: bool) -> None:
    false = chained(
        [edited(ROWS[place - 1], action="rollout.approve")],
        ROWS[place - 2].hash if place > 1 else "",
    )
    if anew:
        false = [edited(false[0], hash="0" * 64)]
    rows = [*ROWS[: place - 1], *false, *ROWS[place - 1 :]]
    if not anew:
        # its hash follows, so that the true row that it displaced looks false: the chain knows but one successor
        assert not held(rows, *HEADS).ok
        return
    assert told(held(rows, *HEADS)) == [("inserted", place, place)]
    assert told(held(renumbered(rows), *HEADS))[0] == ("inserted", place, place)


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("place", [1, 7, 29])
def test_reordered_rows_are_named(place: int, anew: bool) -> None:
    rows = [*ROWS[: place - 1], ROWS[place], ROWS[place - 1], *ROWS[place + 1 :]]
    if anew:
        rows = renumbered(rows)
    found = told(held(rows, *HEADS))
    assert found[0] == ("reordered", place, place + 1)
    assert {kind for kind, _, _ in found} == {"reordered"} or anew


def test_a_cut_tail_is_found_by_a_checkpoint() -> None:
    assert told(held(ROWS[:25], *HEADS)) == [("truncated", 26, 30)]
    assert told(held(ROWS[:29], *HEADS)) == [("truncated", 30, 30)]
    assert told(held([], *HEADS)) == [("truncated", 1, 30)]
    assert held(ROWS[:20], *HEADS[:3]).ok, "without a newer checkpoint nobody can tell"


def test_two_signed_heads_of_one_size_are_a_fork() -> None:
    other = log(20, seed=2)
    found = held(ROWS, *HEADS, signed(other))
    assert told(found) == [("forked", 20, 20)]


def test_a_checkpoint_by_another_key_is_a_forgery_and_one_that_is_none_unreadable() -> None:
    assert told(held(ROWS, signed(ROWS, OTHER))) == [("forged", 0, 0)]
    assert told(held(ROWS, "nothing")) == [("unreadable", 0, 0)]


def test_a_line_that_is_no_row_is_named() -> None:
    whole = lines(ROWS)
    heads = Heads([])
    found = examine([*whole[:3], b"{}\n", b"\n", b"[" * 99_999, *whole[3:]], heads)
    assert [one.kind for one in found.faults] == ["unreadable", "unreadable"]
    assert "line 4" in found.faults[0].text
    assert found.rows == 30


def test_a_log_of_faults_ends_the_reading() -> None:
    rows = [edited(one, actor="quinn") for one in log(200)]
    assert len(held(rows).faults) == FAULTS_MAX


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_two_unlike_copies_are_never_both_whole(seed: int) -> None:
    """Any change at random that leaves another list of rows is told of, hashes made anew or not."""
    chance = random.Random(seed)
    rows = list(ROWS)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(rows))
        match chance.randrange(5):
            case 0:
                rows[at] = edited(rows[at], actor=f"q{chance.random()}")
            case 1:
                del rows[at]
            case 2:
                rows.insert(at, edited(chance.choice(ROWS), object="x"))
            case 3:
                rows.insert(chance.randrange(len(rows)), rows.pop(at))
            case _:
                rows = renumbered(rows)
    if chance.random() < 0.5:
        rows = chained(rows)
    assert held(rows, *HEADS).ok == (rows == ROWS)


def test_memory_does_not_grow_with_the_log() -> None:
    state: list[int] = []

    def endless() -> object:
        before = ""
        for seq in range(1, 4_001):
            row = chained(
                [AuditRow(seq=seq, at=1, actor="a", action="b", object="c", detail={}, hash="")],
                before,
            )[0]
            before = row.hash
            state.append(seq)
            yield lines([row])[0]

    import tracemalloc

    tracemalloc.start()
    found = examine(endless(), Heads([]))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.ok
    assert found.rows == 4_000
    assert peak < 1 << 20
    assert AHEAD < 100


def test_rows_from_before_there_were_more_fields_keep_their_bytes() -> None:
    row = ROWS[2]
    assert (
        canon(edited(row, request=""))
        == b'{"action":"%s","actor":"%s","at":%d,"detail":{"generation":3,"reason":"\xc3\xbcnusual"},"object":"%s","seq":3}'
        % (row.action.encode(), row.actor.encode(), row.at, row.object.encode())
    )


def test_an_export_line_is_read_strictly() -> None:
    with pytest.raises(PublisherError) as caught:
        read_row(b'{"seq": "1"}')
    assert caught.value.code == "audit.unreadable"
