import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tidegate.cli.client import find_client, save_token
from tidegate.core.errors import ConfigError


class _Echo(BaseHTTPRequestHandler):
    """Says back who asks."""

    def do_GET(self) -> None:
        body = json.dumps({"auth": self.headers.get("Authorization")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_options_win_over_environment_and_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("TIDEGATE_SERVER", "TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE", "TIDEGATE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert find_client(None, None).server == "http://127.0.0.1:8440"
    (tmp_path / "tidegate").mkdir()
    settings = tmp_path / "tidegate" / "config.toml"
    settings.write_text('profile = "lab"\n[profiles.lab]\nserver = "http://lab:1"\n')
    assert find_client(None, None).server == "http://lab:1"
    monkeypatch.setenv("TIDEGATE_SERVER", "http://env:2")
    assert find_client(None, None).server == "http://env:2"
    assert find_client("http://option:3", None).server == "http://option:3"
    with pytest.raises(ConfigError):
        find_client(None, "nowhere")
    settings.write_text("profile = [")
    with pytest.raises(ConfigError):
        find_client(None, None)


def test_a_kept_token_is_for_this_user_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = save_token("lab", "tg_secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "tg_secret\n"


def test_a_server_on_this_machine_lends_its_token_to_who_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("TIDEGATE_SERVER", "TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE", "TIDEGATE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDEGATE_DATA_DIR", str(tmp_path))
    (tmp_path / "bootstrap.token").write_text("tg_local\n")
    assert find_client(url, None).online_keys()["auth"] == "Bearer tg_local"
    monkeypatch.setenv("TIDEGATE_TOKEN", "tg_mine")
    assert find_client(url, None).online_keys()["auth"] == "Bearer tg_mine"


def test_a_server_elsewhere_never_gets_the_local_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEGATE_TOKEN", raising=False)
    monkeypatch.setenv("TIDEGATE_DATA_DIR", str(tmp_path))
    (tmp_path / "bootstrap.token").write_text("tg_local\n")
    assert "Authorization" not in find_client("http://elsewhere.example", None)._headers()
