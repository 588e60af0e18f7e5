"""The doctor: says what is wrong and what to do, and changes nothing."""

import hashlib
import resource
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.server import backup, tls
from tidegate.server.config import Settings
from tidegate.server.doctor import Check, examine
from tidegate.server.store import admin_log
from tidegate.server.store.sqlite import DATABASE_NAME


def _found(rig: Rig, now: float | None = None) -> dict[str, Check]:
    settings = msgspec.structs.replace(rig.app.services.settings, listen="127.0.0.1:1")
    return {one.name: one for one in examine(settings, int(now or rig.now))}


def test_a_server_that_is_well_is_called_so_also_while_it_runs(rig: Rig) -> None:
    rig.publish_trust()
    rig.device()
    found = _found(rig)
    wrong = {name: one.text for name, one in found.items() if one.level != "ok"}
    # the PostgreSQL of the tests forgets on purpose, and that is said
    forgetful = wrong.pop("database", "")
    assert ("fsync" in forgetful) == bool(rig.url)
    assert set(wrong) == {"server", "two people"}
    assert found["fleet"].text.startswith("1 of 1")
    assert "targets" in found


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("data", lambda folder: folder.chmod(0o755)),
        ("keys", lambda folder: (folder / "online" / "director.key").unlink()),
        ("keys", lambda folder: (folder / "online" / "audit.key").chmod(0o644)),
        pytest.param(
            "database",
            lambda folder: (folder / DATABASE_NAME).write_bytes(b"junk" * 9000),
            marks=pytest.mark.sqlite("damages the file"),
        ),
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


def test_a_schema_of_another_release_is_named_with_what_to_do(rig: Rig) -> None:
    rig.write(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    rig.app.close()
    found = _found(rig)["database"]
    assert found.level == "failed"
    assert "9999" in found.text
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


@pytest.mark.sqlite("PostgreSQL has backups of its own, which nobody sees from here")
def test_a_backup_that_is_missing_or_old_is_asked_for(rig: Rig, tmp_path: Path) -> None:
    rig.publish_trust()
    assert "backup" not in _found(rig)
    rig.release(1, payload=b"x" * 9)
    assert _found(rig)["backup"].level == "warning"
    backup.back_up(rig.folder, tmp_path / "b", int(rig.now))
    assert _found(rig)["backup"].level == "ok"
    old = _found(rig, rig.now + 3 * 86_400)["backup"]
    assert (old.level, old.fix) == ("warning", "tidegate backup --to FOLDER")


def _levels(rig: Rig, now: float | None = None) -> dict[str, str]:
    return {name: one.level for name, one in _found(rig, now).items()}


def test_blobs_that_nothing_names_are_told_of(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1, payload=b"x" * 9)
    assert "orphans" not in _found(rig)
    digest = hashlib.sha256(b"left behind").hexdigest()
    rig.app.services.blobs.put(digest, iter([b"left behind"]))
    found = _found(rig)["orphans"]
    assert found.level == "warning"
    assert digest[:12] in found.text


def test_messages_that_were_given_up_or_wait_for_long_are_told_of(rig: Rig) -> None:
    assert _levels(rig)["messages"] == "ok"
    rig.write(lambda conn: admin_log.add_outbox(conn, "webhook", {}, int(rig.now)))
    assert _levels(rig)["messages"] == "ok"
    assert _levels(rig, rig.now + 3_601)["messages"] == "warning"


def test_active_rollouts_that_nobody_plans_are_a_failure(rig: Rig) -> None:
    rig.publish_trust()
    rig.device()
    rig.rollout(rig.release(1))
    rig.app.tick(int(rig.now))
    found = _found(rig)["rollouts"]
    assert found.level == "ok"
    assert found.text == "rings of active rollouts: 1 passed"
    assert _levels(rig, rig.now + 3_600)["rollouts"] == "failed"


def test_few_open_files_are_warned_of(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, level in ((1_024, "warning"), (65_536, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, n=limit: (n, n))
        assert _levels(rig)["open files"] == level


@pytest.mark.parametrize("status", [200, 503])
def test_a_server_with_a_certificate_of_its_own_is_asked_too(
    rig: Rig, tmp_path: Path, status: int
) -> None:
    now = datetime.now(UTC)
    context = tls.context_for(Settings(data_dir=tmp_path, tls=True), now)
    assert context is not None
    body = b'{"ready":false,"checks":[{"name":"blobs","level":"failed","text":"no answer"}]}'

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as served:
        served.socket = context.wrap_socket(served.socket, server_side=True)
        threading.Thread(target=served.handle_request, daemon=True).start()
        settings = msgspec.structs.replace(
            rig.app.services.settings, tls=True, listen=f"127.0.0.1:{served.server_port}"
        )
        found = {one.name: one for one in examine(settings, int(rig.now))}["server"]
    assert found.level == ("ok" if status == 200 else "failed")
    assert ("blobs: no answer" in found.text) == (status == 503)


def test_a_certificate_is_warned_of_before_it_lapses(rig: Rig, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    made += ["-nodes", "-keyout", "k.pem", "-out", "c.pem", "-days", "40", "-subj", "/CN=x"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    settings = msgspec.structs.replace(
        rig.app.services.settings, tls_cert=str(tmp_path / "c.pem"), listen="127.0.0.1:1"
    )
    lapses = tls.expires_at(tmp_path / "c.pem")
    for left, level in ((30 * 86_400, "ok"), (20 * 86_400, "warning"), (-1, "failed")):
        found = {one.name: one for one in examine(settings, lapses - left)}
        assert found["tls"].level == level
    (tmp_path / "c.pem").write_text("junk")
    assert {one.name: one.level for one in examine(settings, lapses)}["tls"] == "failed"
