"""`tidegate audit verify` without a server: what it says of a copy, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.core.audit.works import KEY, OTHER, VERIFIER, chained, lines, log, signed

from tidegate.cli import run
from tidegate.core.audit.checkpoint import log_line
from tidegate.core.audit.entry import AuditRow

Verify = Callable[..., tuple[int, str, str]]
ROWS = log(40)


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    def call(
        rows: list[AuditRow], *more: str, heads: tuple[int, ...] = (10, 20, 40)
    ) -> tuple[int, str, str]:
        (tmp_path / "audit.jsonl").write_bytes(b"".join(lines(rows)))
        (tmp_path / "checkpoints.txt").write_text("\n".join(signed(ROWS[:one]) for one in heads))
        given = [str(tmp_path / "audit.jsonl"), str(tmp_path / "checkpoints.txt")]
        keys = () if "--key" in more else ("--key", VERIFIER.text)
        code = run(["audit", "verify", *given, *keys, *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_whole_log_is_whole(verify: Verify) -> None:
    code, out, err = verify(ROWS)
    assert code == 0, err
    assert "3 of them agree" in out
    assert "The log is whole up to row 40." in out


def test_rows_behind_the_newest_checkpoint_are_said_to_be(verify: Verify) -> None:
    code, _, err = verify(ROWS, heads=(10,))
    assert code == 0
    assert "the last 30 rows" in err


@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        ([*ROWS[:16], msgspec.structs.replace(ROWS[16], actor="quinn"), *ROWS[17:]], "edited", "row 17 was changed"),
        ([*ROWS[:16], *ROWS[17:]], "deleted", "row 17 is gone"),
        ([*ROWS[:16], msgspec.structs.replace(ROWS[3], object="x"), *ROWS[16:]], "inserted", "put in before row 17"),
        ([*ROWS[:16], ROWS[17], ROWS[16], *ROWS[18:]], "reordered", "row 17 stands behind"),
        (ROWS[:35], "truncated", "rows 36 to 40 are gone from the end"),
        (chained([*ROWS[:16], msgspec.structs.replace(ROWS[16], actor="quinn"), *ROWS[17:]]), "forked", "rows 11 to 20"),
    ],
)  # fmt: skip
def test_what_was_done_to_a_log_is_said_with_the_row(
    verify: Verify, rows: list[AuditRow], kind: str, text: str
) -> None:
    code, out, err = verify(rows)
    assert code == 3
    assert f"\n{kind}" in out
    assert text in out
    assert err.startswith("error[audit.mismatch]")
    code, out, _ = verify(rows, "--json")
    assert code == 3
    found = json.loads(out)
    assert (found["ok"], found["faults"][0]["kind"]) == (False, kind)


def test_a_checkpoint_by_another_key_is_no_checkpoint(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(signed(ROWS, OTHER))
    code, out, _ = verify(ROWS, str(tmp_path / "other.txt"))
    assert code == 3
    assert "other.txt, line 1" in out


def test_two_devices_that_were_shown_two_logs_prove_it(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "device-a.txt").write_text(signed(ROWS[:30]))
    (tmp_path / "device-b.txt").write_text(signed(log(30, seed=7)))
    code, out, _ = verify(ROWS, str(tmp_path / "device-a.txt"), str(tmp_path / "device-b.txt"))
    assert code == 3
    assert "forked" in out
    assert "device-b.txt, line 1: two signed checkpoints of 30 rows" in out


def test_checkpoints_are_found_in_a_servers_own_log(verify: Verify, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(
        f"Dec 01 tidegate[1]: INFO tidegate.audit: {log_line(signed(ROWS))}\n"
    )
    code, out, _ = verify(ROWS[:39], str(tmp_path / "journal"), heads=())
    assert code == 3
    assert "row 40 is gone from the end" in out


def test_keys_are_read_from_the_files_that_there_are(verify: Verify, tmp_path: Path) -> None:
    online = tmp_path / "online.pub.json"
    online.write_text(json.dumps({"audit": {"keyid": KEY.public.keyid, **KEY.public.to_dict()}}))
    assert verify(ROWS, "--key", str(online))[0] == 0
    line = tmp_path / "audit.key"
    line.write_text(VERIFIER.text + "\n")
    assert verify(ROWS, "--key", str(line))[0] == 0
    online.write_text("{}")
    assert verify(ROWS, "--key", str(online))[0] == 2
    assert verify(ROWS, "--key", str(tmp_path / "nothing"))[0] == 1


def test_the_audit_key_is_read_from_a_root(verify: Verify, tmp_path: Path) -> None:
    from tests.unit.core.repo import Repo

    repo = Repo()
    (tmp_path / "root.json").write_bytes(repo.root_body())
    code, out, _ = verify(ROWS, "--key", str(tmp_path / "root.json"))
    assert code == 3, "another key signed"
    assert "no known key" in out


def test_checkpoints_without_a_key_are_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "verify", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert run(["audit", "verify", str(tmp_path / "a")]) == 1
