"""The doctor: says what is wrong and what to do, and changes nothing."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.server import backup
from tidegate.server.config import Settings
from tidegate.server.doctor import Check, examine
from tidegate.server.store.sqlite import DATABASE_NAME


def _found(rig: Rig, now: float | None = None) -> dict[str, Check]:
    settings = msgspec.structs.replace(rig.app.services.settings, listen="127.0.0.1:1")
    return {one.name: one for one in examine(settings, int(now or rig.now))}


def test_a_server_that_is_well_is_called_so_also_while_it_runs(rig: Rig) -> None:
    rig.publish_trust()
    rig.device()
    found = _found(rig)
    wrong = {name: one.text for name, one in found.items() if one.level != "ok"}
    assert set(wrong) == {"server", "two people"}
    assert found["fleet"].text.startswith("1 of 1")
    assert "targets" in found


def _old_schema(folder: Path) -> None:
    raw = sqlite3.connect(folder / DATABASE_NAME)
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("data", lambda folder: folder.chmod(0o755)),
        ("keys", lambda folder: (folder / "online" / "director.key").unlink()),
        ("keys", lambda folder: (folder / "online" / "audit.key").chmod(0o644)),
        ("database", lambda folder: (folder / DATABASE_NAME).write_bytes(b"junk" * 9000)),
        ("database", _old_schema),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    rig: Rig, name: str, spoil: Callable[[Path], None]
) -> None:
    rig.app.close()
    spoil(rig.folder)
    found = _found(rig)[name]
    assert found.level == "failed"
    assert found.fix


def test_payloads_that_are_not_there_are_missed(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    assert _found(rig)["blobs"].level == "failed"


@pytest.mark.parametrize(
    ("shift_days", "name", "level"),
    [
        (-1, "clock", "failed"),
        (3, "timestamp", "failed"),
        (320, "root", "warning"),
        (400, "root", "failed"),
    ],
)
def test_time_is_looked_at(rig: Rig, shift_days: int, name: str, level: str) -> None:
    rig.publish_trust()
    assert _found(rig, rig.now + shift_days * 86_400)[name].level == level


def test_an_empty_place_is_no_error(tmp_path: Path) -> None:
    found = examine(Settings(data_dir=tmp_path / "none"), 1)
    assert [one.level for one in found] == ["failed", "warning"]


def test_the_exit_code_says_whether_something_failed(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--data", str(rig.folder), "--json"]) == 0
    assert '"schema": "tidegate.doctor/1"' in capsys.readouterr().out
    rig.folder.chmod(0o777)
    assert run(["doctor", "--data", str(rig.folder)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_backup_that_is_missing_or_old_is_asked_for(rig: Rig, tmp_path: Path) -> None:
    rig.publish_trust()
    assert "backup" not in _found(rig)
    rig.release(1, payload=b"x" * 9)
    assert _found(rig)["backup"].level == "warning"
    backup.back_up(rig.folder, tmp_path / "b", int(rig.now))
    assert _found(rig)["backup"].level == "ok"
    old = _found(rig, rig.now + 3 * 86_400)["backup"]
    assert (old.level, old.fix) == ("warning", "tidegate backup --to FOLDER")
