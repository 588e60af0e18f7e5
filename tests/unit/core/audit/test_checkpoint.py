"""Checkpoints are notes that other tools read, and nothing but a note by a known key is believed."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.audit.works import KEY, ORIGIN, OTHER, VERIFIER, head_of, log, signed

from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.errors import PublisherError
from tidegate.core.keys import Signer

#: The example of golang.org/x/mod/sumdb/note, version 0.17: a verifier key, and a note that it signed. No checkpoint, but the same signature line.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)
#: The example of C2SP tlog-checkpoint; its key is not published.
SPEC_NOTE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


def code(note: str) -> str:
    with pytest.raises(PublisherError) as caught:
        notes.open_note(note, [VERIFIER], ORIGIN)
    return caught.value.code


def test_a_signed_head_is_read_back() -> None:
    rows = log(5)
    note = signed(rows)
    assert notes.open_note(note, [VERIFIER], ORIGIN) == head_of(rows) == notes.peek(note)
    assert note.split("\n")[:2] == [ORIGIN, "5"]


def test_a_key_and_a_signature_of_the_go_tools_are_ours_too() -> None:
    key = notes.read_verifier(GO_KEY)
    assert key.text == GO_KEY
    raw = base64.b64decode(GO_SIGNATURE)
    assert raw[:4] == key.key_id
    assert key.key.verifies(raw[4:], GO_TEXT.encode())
    assert not key.key.verifies(raw[4:], GO_TEXT.encode() + b" ")


def test_the_example_of_the_specification_is_read_and_believed_by_nobody() -> None:
    found = notes.peek(SPEC_NOTE)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert code(SPEC_NOTE) == "audit.checkpoint_forged"


def test_a_key_goes_over_one_line_and_back() -> None:
    assert notes.read_verifier(VERIFIER.text) == VERIFIER


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a",
        "a+b",
        "a+00000000+AA==",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "Pe ter"),
        "+" + GO_KEY,
    ],
)
def test_what_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(PublisherError) as caught:
        notes.read_verifier(line)
    assert caught.value.code == "audit.key"


def test_only_ed25519_signs() -> None:
    p256 = Signer.from_seed(bytes(48), "ecdsa")
    with pytest.raises(PublisherError) as caught:
        notes.sign(head_of(log(1)), p256)
    assert caught.value.code == "audit.key"


def test_another_key_and_another_log_are_forgeries() -> None:
    rows = log(3)
    assert code(signed(rows, OTHER)) == "audit.checkpoint_forged"
    elsewhere = Checkpoint(origin="else/where", size=3, root=head_of(rows).root)
    assert code(notes.sign(elsewhere, KEY)) == "audit.checkpoint_forged"


def test_one_more_signature_by_a_stranger_does_not_matter() -> None:
    note = signed(log(3))
    stranger = notes.sign(head_of(log(3)), OTHER).rpartition("\n\n")[2]
    assert notes.open_note(note + stranger, [VERIFIER], ORIGIN).size == 3


def test_a_bad_signature_by_a_known_key_refuses_the_note_though_a_good_one_stands_there() -> None:
    note, other = signed(log(3)), signed(log(2)).rpartition("\n\n")[2]
    assert code(note + other) == "audit.checkpoint_forged"


def test_lines_that_others_added_are_signed_too() -> None:
    made = Checkpoint(origin=ORIGIN, size=1, root=bytes(32), more=("witnessed",))
    note = notes.sign(made, KEY)
    assert notes.open_note(note, [VERIFIER]).more == ("witnessed",)
    assert code(note.replace("witnessed", "unwitnessed")) == "audit.checkpoint_forged"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n3\n", "\n03\n"),
        ("\n3\n", "\n-3\n"),
        ("\n3\n", "\n\u0663\n"),
        ("\n3\n", "\n99999999999999999999\n"),
        ("\n\n", "\n"),
        ("\u2014 ", "- "),
        ("\n\u2014", "\n\n\u2014"),
        ("=\n\n", "\n\n"),
        (ORIGIN + "\n3", ORIGIN + "\t\n3"),
        (ORIGIN + "\n", ""),
    ],
)
def test_what_is_no_checkpoint_is_unreadable(old: str, new: str) -> None:
    note = signed(log(3))
    assert old in note
    assert code(note.replace(old, new, 1)) == "audit.unreadable"


def test_a_huge_note_is_refused_unread() -> None:
    assert code("a" * 10_000) == "audit.unreadable"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_whatever_stands_there_is_an_error_with_a_code(text: str) -> None:
    assert code(text) in {"audit.unreadable", "audit.checkpoint_forged"}


@given(st.integers(0, 400), st.characters(codec="utf-8"))
def test_no_character_of_a_note_can_be_changed(place: int, other: str) -> None:
    note = signed(log(3))
    place %= len(note)
    changed = note[:place] + other + note[place + 1 :]
    if changed != note:
        assert code(changed) in {"audit.unreadable", "audit.checkpoint_forged"}


def test_notes_are_found_one_after_the_other_between_other_lines_and_in_a_servers_log() -> None:
    made = [signed(log(count)) for count in (1, 2, 3, 4)]
    text = (
        f"# kept by hand\n\n{made[0]}\n{made[1]}{made[2]}\n"
        f"2026-01-01 INFO {notes.log_line(made[3])}\nand so on\n\n- no note\n"
    )
    found = list(notes.notes_in(text.splitlines(keepends=True)))
    assert [one for _, one in found] == made
    assert found[0][0] == 3


def test_a_file_of_anything_holds_no_notes() -> None:
    lines = ["text\n", "\n", "- a b\n", "\u2014 alone\n", "\n"] * 1000
    assert list(notes.notes_in(lines)) == []
    assert list(notes.notes_in(["x\n"] * 100_000)) == []
