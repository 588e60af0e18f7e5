"""`tidegate db` and `tidegate serve` on a PostgreSQL server, as a person runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests import postgres
from tests.e2e.served import Served, environment

pytestmark = [pytest.mark.e2e]


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate.cli", *arguments]
    env = {**environment(), **environ}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_a_schema_is_made_before_a_server_is_started_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.database(postgres.Server.database) as url:
        monkeypatch.setenv("TIDEGATE_DATABASE_URL", url)
        data = tmp_path / "data"
        with pytest.raises(AssertionError, match=r"data\.older_schema"):
            Served(data)
        checked = _run("db", "upgrade", "--check")
        assert checked.returncode == 1
        assert "data.older_schema" in checked.stderr
        assert "tidegate db upgrade" in checked.stderr
        made = _run("db", "upgrade", "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["before"] is None
        assert _run("db", "upgrade", "--check").returncode == 0
        assert "as it was" in _run("db", "upgrade").stdout
        one = Served(data)
        two = Served(data)
        try:
            assert one.said("database PostgreSQL")
            assert one.ask("GET", "/readyz")[0] == two.ask("GET", "/readyz")[0] == 200
            assert not (data / "tidegate.db").exists()
        finally:
            two.kill()
            assert one.stop() == 0
        looked = _run("doctor", "--data", str(data))
        assert data.stat().st_mode & 0o777 == 0o700
        # the test server's own settings: nobody should keep a fleet on them
        assert "fsync and full_page_writes off" in looked.stdout


def test_a_password_is_nowhere_to_be_read(tmp_path: Path) -> None:
    url = postgres.server().url("nosuch").replace("postgres@", "nobody:s3cret@")
    file = tmp_path / "tidegate.toml"
    (tmp_path / "password").write_text("s3cret\n")
    clean = postgres.server().url("nosuch").replace("postgres@", "nobody@")
    file.write_text(
        f'[database]\nurl = "{clean}"\npassword_file = "{tmp_path / "password"}"\n[log]\nlevel = "debug"\n'
    )
    for arguments, environ in (
        (("db", "upgrade"), {"TIDEGATE_DATABASE_URL": url}),
        (("serve", "--data", str(tmp_path / "a")), {"TIDEGATE_DATABASE_URL": url}),
        (("doctor", "--data", str(tmp_path / "a")), {"TIDEGATE_DATABASE_URL": url}),
        (("db", "upgrade", "--config", str(file)), {}),
        (("serve", "--config", str(file), "--data", str(tmp_path / "a")), {}),
    ):
        done = _run(*arguments, **environ)
        assert done.returncode != 0 or "doctor" in arguments, arguments
        assert "data.denied" in done.stderr or "refuses" in done.stdout, done.stderr + done.stdout
        assert "s3cret" not in done.stdout + done.stderr, arguments


def test_a_password_in_a_file_of_settings_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text('[database]\nurl = "postgresql://u:s3cret@localhost/x"\n')
    done = _run("db", "upgrade", "--config", str(file))
    assert done.returncode == 1
    assert "password_file" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_file_in_the_data_directory_is_brought_up_to_date_as_well(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
    assert "TIDEGATE_DATABASE_URL" not in environ
    data = tmp_path / "data"
    assert _run("db", "upgrade", "--check", "--data", str(data)).returncode == 1
    assert _run("db", "upgrade", "--data", str(data)).returncode == 0
    assert (data / "tidegate.db").is_file()
    assert _run("db", "upgrade", "--check", "--data", str(data)).returncode == 0
