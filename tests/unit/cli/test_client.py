import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidegate.cli.client import TRIES, Client, find_client, problem, save_token, wait_of
from tidegate.core.errors import (
    BusyError,
    ConfigError,
    PublisherError,
    RequestError,
    TidegateError,
    TransferError,
)

#: Idempotency keys of the calls to a server that is busy.
_keys: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    """A server made of the standard library: it says back what it was sent."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/v1/no"):
            self._say(409, {"code": "release.exists", "detail": "there already"})
        elif self.path.startswith("/api/v1/pages"):
            last = "cursor=2" in self.path
            self._say(200, {"items": [2] if last else [1], "next": None if last else "2"})
        else:
            self._say(200, {"path": self.path, "auth": self.headers.get("Authorization")})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/v1/busy"):
            _keys.append(str(self.headers.get("Idempotency-Key")))
            if len(_keys) < 3 or "always" in self.path:
                self._say(503, {"code": "server.busy"}, {"Retry-After": "7"})
                return
        self._say(200, {"length": len(body), "key": self.headers.get("Idempotency-Key")})

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_call_carries_token_and_query(url: str) -> None:
    found = Client(url, "tg_x").get("/api/v1/a", {"q": "a b", "none": None})
    assert found == {"path": "/api/v1/a?q=a+b", "auth": "Bearer tg_x"}


def test_a_problem_becomes_the_error_that_it_names(url: str) -> None:
    with pytest.raises(PublisherError) as caught:
        Client(url).get("/api/v1/no")
    assert (caught.value.code, caught.value.detail) == ("release.exists", "there already")


def test_pages_are_read_to_the_end(url: str) -> None:
    assert list(Client(url).pages("/api/v1/pages")) == [1, 2]


def test_a_file_is_streamed_and_progress_told(url: str, tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    file.write_bytes(bytes(600_000))
    seen: list[int] = []
    found = Client(url).upload(
        "/api/v1/bundles",
        file,
        content_type="application/x-tar",
        progress=lambda done, _total: seen.append(done),
    )
    assert found["length"] == 600_000
    assert seen[-1] == 600_000


def test_two_posts_have_two_keys_unless_one_is_given(url: str) -> None:
    client = Client(url)
    assert client.post("/api/v1/a", {})["key"] != client.post("/api/v1/a", {})["key"]
    assert client.post("/api/v1/a", {}, idempotency_key="k")["key"] == "k"


def test_a_busy_server_is_asked_again_when_it_says_and_with_the_same_key(url: str) -> None:
    _keys.clear()
    waited: list[float] = []
    found = Client(url, sleep=waited.append).post("/api/v1/busy", {"a": 1})
    assert waited == [7.0, 7.0]
    assert len(set(_keys)) == 1
    assert (len(_keys), found["key"]) == (3, _keys[0])


def test_a_server_that_stays_busy_is_told_so_after_a_few_tries(url: str) -> None:
    _keys.clear()
    waited: list[float] = []
    with pytest.raises(BusyError):
        Client(url, sleep=waited.append).post("/api/v1/busy/always", {})
    assert len(_keys) == TRIES
    assert waited == [7.0] * (TRIES - 1)


@pytest.mark.parametrize(
    ("said", "wait_s"), [(None, 1), ("x", 1), ("-3", 1), ("0", 0), ("9999", 30), ("9" * 99, 1)]
)
def test_what_a_server_asks_for_is_believed_within_reason(said: str | None, wait_s: float) -> None:
    assert wait_of(said) == wait_s


def test_no_server_is_one_clear_error() -> None:
    with pytest.raises(TransferError) as caught:
        Client("http://127.0.0.1:1").get("/api/v1/a")
    assert caught.value.code == "link.unreachable"


@pytest.mark.parametrize("server", ["ftp://x", "localhost:1", ""])
def test_what_is_no_url_is_refused(server: str) -> None:
    with pytest.raises(ConfigError):
        Client(server)


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        (401, b"", "request.unauthenticated", RequestError),
        (404, b"<html>", "request.not_found", RequestError),
        (503, b"[]", "server.busy", BusyError),
        (500, b"{}", "server.internal", RequestError),
        (422, b'{"code":"sig.threshold"}', "sig.threshold", PublisherError),
        (422, b'{"code":"from.tomorrow","detail":"d"}', "request.invalid", RequestError),
    ],
)
def test_any_answer_is_an_error_with_a_known_code(
    status: int, body: bytes, code: str, kind: type[TidegateError]
) -> None:
    found = problem(status, body)
    assert (found.code, type(found)) == (code, kind)


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
    assert find_client(url, None).get("/a")["auth"] == "Bearer tg_local"
    monkeypatch.setenv("TIDEGATE_TOKEN", "tg_mine")
    assert find_client(url, None).get("/a")["auth"] == "Bearer tg_mine"


def test_a_server_elsewhere_never_gets_the_local_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEGATE_TOKEN", raising=False)
    monkeypatch.setenv("TIDEGATE_DATA_DIR", str(tmp_path))
    (tmp_path / "bootstrap.token").write_text("tg_local\n")
    assert "Authorization" not in find_client("http://elsewhere.example", None)._headers()
