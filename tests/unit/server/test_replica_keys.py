"""Servers of one PostgreSQL database have the same online keys, or do not start."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres

from tidegate.cli import run
from tidegate.core.errors import ConfigError
from tidegate.server import online
from tidegate.server.app import App, create_app
from tidegate.server.config import Settings
from tidegate.server.store import audit_rows


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.database() as made:
        yield made


def opened(folder: Path, url: str) -> App:
    return create_app(Settings(data_dir=folder, database_url=url, durable=False))


def test_a_second_server_starts_with_a_copy_of_the_keys_and_not_with_its_own(
    tmp_path: Path, url: str
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = opened(one, url)
    with pytest.raises(ConfigError) as refused:
        opened(two, url)
    assert refused.value.code == "key.other_server"
    assert not (two / online.FOLDER).exists()  # none were made that somebody would find later
    online.open_keys(two, os.urandom)
    with pytest.raises(ConfigError) as refused:
        opened(two, url)
    assert refused.value.code == "key.other_server"
    shutil.rmtree(two / online.FOLDER)
    shutil.copytree(one / online.FOLDER, two / online.FOLDER)
    second = opened(two, url)
    assert second.services.keys.digest == first.services.keys.digest
    second.close()
    first.close()


def test_another_session_secret_is_another_server(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "one"
    opened(folder, url).close()
    (folder / online.FOLDER / online.SECRET_NAME).write_bytes(os.urandom(32))
    with pytest.raises(ConfigError, match="not the keys"):
        opened(folder, url)


def test_keys_that_were_replaced_on_purpose_count_once_somebody_says_so(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one"
    opened(folder, url).close()
    shutil.rmtree(folder / online.FOLDER)
    online.open_keys(folder, os.urandom)
    monkeypatch.setenv("TIDEGATE_DATABASE_URL", url)
    assert run(["db", "adopt-keys", "--data", str(folder)]) == 0
    assert run(["db", "adopt-keys", "--data", str(folder)]) == 0
    assert "counted already" in capsys.readouterr().out
    app = opened(folder, url)
    acts = [one.action for one in app.store.read(lambda conn: list(audit_rows.entries(conn)))]
    app.close()
    assert acts.count("online_keys.adopt") == 1


def test_a_server_on_a_file_takes_new_keys_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    create_app(Settings(data_dir=folder, durable=False)).close()
    shutil.rmtree(folder / online.FOLDER)
    create_app(Settings(data_dir=folder, durable=False)).close()
