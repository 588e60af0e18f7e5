"""Somebody changes what operators did: with the server's database, and then with its audit key as well. Devices remember, and copies are held against that.

The device here is a real agent. What nobody can find out has tests of its own, at the end: it should be known, and not be believed away.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.attack.field import Field
from tests.crash.lab import make_device
from tests.crash.releases import signer
from tests.unit.core.audit.works import chained, lines, log

from tidegate.agent.events import Noticed, Witnessed
from tidegate.agent.journal import COPIES, unseal
from tidegate.agent.state import State, Witness
from tidegate.agent.trust.witness import FORK, look
from tidegate.cli import run
from tidegate.core.audit import checkpoint as notes
from tidegate.core.audit import tree
from tidegate.core.audit.checkpoint import Checkpoint
from tidegate.core.audit.entry import AuditRow, canon, leaf
from tidegate.core.keys import Signer
from tidegate.core.metadata import parse_root
from tidegate.core.protocol import AssignmentRequest, AuditNews

ORIGIN = notes.origin_of("default")
KEY = signer("audit")
NOW = 1_800_000_000
ROWS = log(40)


class Server:
    """A log, and what is shown of it: as an honest server does, from whatever rows it has."""

    def __init__(self, rows: list[AuditRow], key: Signer = KEY) -> None:
        self.rows, self.key = rows, key

    def head(self, size: int | None = None) -> str:
        """Return the signed head of the first rows."""
        count = len(self.rows) if size is None else size
        root = tree.root(count, self._at)
        return notes.sign(Checkpoint(origin=ORIGIN, size=count, root=root), self.key)

    def news(self, request: AssignmentRequest) -> AuditNews:
        """Return head and proof for a device that says what it saw."""
        seen = request.audit_seen
        old = notes.peek(seen).size if isinstance(seen, str) else 0
        proof = tree.consistency(min(old, len(self.rows)), len(self.rows), self._at) if old else ()
        return AuditNews(checkpoint=self.head(), proof=tuple(one.hex() for one in proof))

    def _at(self, level: int, number: int) -> bytes:
        width = 1 << level
        frontier = tree.Frontier()
        for row in self.rows[number * width : (number + 1) * width]:
            frontier.add(leaf(canon(row)))
        return frontier.head()


def edited(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:16], msgspec.structs.replace(rows[16], actor="quinn"), *rows[17:]]


def deleted(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:16], *rows[17:]]


def inserted(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:16], msgspec.structs.replace(rows[3], action="rollout.approve"), *rows[16:]]


def reordered(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:16], rows[17], rows[16], *rows[18:]]


def truncated(rows: list[AuditRow]) -> list[AuditRow]:
    return rows[:25]


DAMAGE: list[Callable[[list[AuditRow]], list[AuditRow]]] = [
    edited,
    deleted,
    inserted,
    reordered,
    truncated,
]


def anew(rows: list[AuditRow]) -> list[AuditRow]:
    """Number and chain rows anew: what whoever holds the database can do."""
    return chained(msgspec.structs.replace(one, seq=seq) for seq, one in enumerate(rows, 1))


def verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[AuditRow], *heads: str
) -> tuple[int, str]:
    """Hold a copy against heads, by the command."""
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines(rows)))
    key = notes.verifier_of(ORIGIN, KEY.public).text
    names = []
    for number, one in enumerate(heads):
        names.append(str(tmp_path / f"device-{number}.txt"))
        Path(names[-1]).write_text(one)
    code = run(["audit", "verify", str(tmp_path / "audit.jsonl"), *names, "--key", key])
    return code, capsys.readouterr().out


@pytest.fixture
def field() -> Field:
    made = Field(make_device(1, 2, 3))
    made.plane.assign = made.assign
    return made


def ask(field: Field, server: Server | None) -> None:
    """Have the device ask once what it should do, of a server with this log."""
    field.plane.audit = None if server is None else server.news
    field.order("none")
    requests = field.plane.orders
    for runner in field.device.run(7200):
        asked = field.plane.orders > requests
        if asked and not runner.busy and not runner.state.outbox:
            break
    assert field.plane.orders > requests


def forks(field: Field) -> list[Any]:
    return [one for one in field.events() if one.reason == FORK]


# --- a device -------------------------------------------------------------------------------------------------------


def test_a_device_remembers_a_head_and_follows_it_as_the_log_grows(field: Field) -> None:
    for count in (5, 5, 6, 40):
        ask(field, Server(ROWS[:count]))
        assert field.state.witness == Witness(note=Server(ROWS[:count]).head())
    assert forks(field) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_thief_with_database_and_audit_key_cannot_change_what_a_device_has_seen(
    field: Field,
    damage: Callable[[list[AuditRow]], list[AuditRow]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    honest = Server(ROWS[:30])
    ask(field, honest)
    thief = Server(anew(damage(ROWS[:30])))
    ask(field, thief)
    kept = field.state.witness
    assert kept is not None
    assert kept.note == honest.head(), "what it believed, it goes on believing"
    assert kept.fork == thief.head()
    (told,) = forks(field)
    assert [note for _, note in notes.notes_in(told.log.splitlines())] == [kept.note, kept.fork]
    # the thief goes on, and grows beyond what the device has seen
    longer = Server(anew([*thief.rows, *ROWS[30:]]))
    ask(field, longer)
    assert field.state.witness is not None
    assert field.state.witness.note == honest.head()
    # both heads are signed: whoever has the device's, and a copy from the thief, needs nothing else
    code, out = verdict(tmp_path, capsys, longer.rows, kept.note)
    assert code == 3
    assert "forked" in out
    code, out = verdict(tmp_path, capsys, thief.rows, kept.note)
    assert code == 3
    assert "forked" in out or "truncated" in out


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_thief_with_the_database_alone_is_found_by_the_heads_that_were_signed(
    damage: Callable[[list[AuditRow]], list[AuditRow]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = verdict(tmp_path, capsys, anew(damage(ROWS)), Server(ROWS).head())
    assert code == 3
    code, out = verdict(tmp_path, capsys, damage(ROWS), Server(ROWS).head())
    assert code == 3
    assert re.search(rf"^{damage.__name__} ", out, re.MULTILINE), out


def test_a_fork_is_no_reason_to_stop_updates(field: Field) -> None:
    ask(field, Server(ROWS[:30]))
    ask(field, Server(anew(edited(ROWS[:30]))))
    assert len(forks(field)) == 1
    field.install(2)
    assert field.state.slots[field.state.current].release_counter == 2


def test_a_device_that_finds_its_log_again_is_content(field: Field) -> None:
    ask(field, Server(ROWS[:30]))
    ask(field, Server(ROWS[:20]))
    assert field.state.witness is not None
    assert field.state.witness.fork == Server(ROWS[:20]).head(), "a restored backup, or a thief"
    ask(field, Server(ROWS))
    assert field.state.witness == Witness(note=Server(ROWS).head())


def test_a_head_outlives_a_restart_and_is_in_the_journal(field: Field) -> None:
    ask(field, Server(ROWS[:30]))
    files = field.device.board.storage.files
    bodies = [found for name in COPIES if (found := unseal(files[name])) is not None]
    kept = msgspec.json.decode(max(bodies)[1], type=State).witness
    assert kept == field.state.witness
    assert kept is not None


# --- who cannot sign ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "note",
    [
        Server(anew(edited(ROWS)), signer("thief")).head(),
        "nothing",
        Server(ROWS).head().replace("40", "41", 1),
        notes.sign(Checkpoint(origin="else/where", size=40, root=bytes(32)), KEY),
    ],
)
def test_a_head_that_the_audit_key_did_not_sign_moves_nothing_and_alarms_nobody(
    field: Field, note: str
) -> None:
    ask(field, Server(ROWS[:30]))
    before = field.state.witness
    field.plane.audit = lambda _: AuditNews(checkpoint=note)
    root = parse_root(field.plane.root)
    assert look(before, AuditNews(checkpoint=note), root, NOW) == ()
    assert look(None, AuditNews(checkpoint=note), root, NOW) == ()


def test_any_proof_but_the_right_one_is_none() -> None:
    root = parse_root(make_device(1).plane.root)
    kept = Witness(note=Server(ROWS[:13]).head())
    right = Server(ROWS).news(
        AssignmentRequest(nonce="0" * 32, state=_state(), audit_seen=kept.note)
    )
    assert [type(one) for one in look(kept, right, root, NOW)] == [Witnessed]
    for proof in (
        (),
        right.proof[1:],
        right.proof[::-1],
        (*right.proof, "00" * 32),
        ("00" * 32,) * len(right.proof),
    ):
        wrong = msgspec.structs.replace(right, proof=proof)
        assert [type(one) for one in look(kept, wrong, root, NOW)] == [Witnessed, Noticed]


def _state() -> Any:
    from tests.unit.core.test_protocol_golden import STATE

    return STATE


# --- others ---------------------------------------------------------------------------------------------------------


def test_an_older_server_shows_nothing_and_is_no_fork(field: Field) -> None:
    ask(field, None)
    assert field.state.witness is None
    ask(field, Server(ROWS[:30]))
    kept = field.state.witness
    ask(field, None)
    assert field.state.witness == kept
    assert forks(field) == []


def test_a_raised_epoch_lets_a_log_begin_anew(field: Field) -> None:
    ask(field, Server(ROWS[:30]))
    field.plane.epoch, field.plane.version = 2, 2
    field.plane.publish()
    ask(field, Server(log(3, seed=9)))
    assert field.state.witness == Witness(note=Server(log(3, seed=9)).head(), epoch=2)
    assert forks(field) == []


def test_two_devices_that_are_shown_two_histories_prove_it_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = Server(ROWS), Server(anew(edited(ROWS)))
    one, other = Field(make_device(1)), Field(make_device(1, seed=2))
    for field, server in ((one, mine), (other, theirs)):
        field.plane.assign = field.assign
        ask(field, server)
        assert field.state.witness is not None
        assert forks(field) == [], "one alone sees one history"
    assert one.state.witness is not None
    assert other.state.witness is not None
    code, out = verdict(
        tmp_path, capsys, mine.rows, one.state.witness.note, other.state.witness.note
    )
    assert code == 3
    assert "two signed checkpoints of 40 rows" in out
    ask(other, mine)
    assert len(forks(other)) == 1, "and whoever shows one the other's history is found by it"


# --- what cannot be found -------------------------------------------------------------------------------------------


def test_rows_behind_every_head_that_was_seen_can_be_changed_by_who_holds_database_and_key(
    field: Field, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Server(ROWS[:16])
    ask(field, seen)
    thief = Server(anew(edited(ROWS)))
    ask(field, thief)
    assert forks(field) == []
    assert verdict(tmp_path, capsys, thief.rows, seen.head(), thief.head())[0] == 0


def test_silence_is_no_proof(field: Field) -> None:
    ask(field, Server(ROWS[:30]))
    ask(field, None)
    assert forks(field) == []
