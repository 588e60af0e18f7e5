"""How calls of the typed client travel: what is sent, what is sent again, and what an answer becomes."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate.client import Client, File, Listing, StreamEvent, Tag, problem, structs
from tidegate.client.link import TRIES, Call, quoted
from tidegate.client.problems import wait_of
from tidegate.client.stream import events_of
from tidegate.core.errors import (
    HINTS,
    BusyError,
    ConfigError,
    PublisherError,
    RequestError,
    TidegateError,
    TransferError,
)

Plain = dict[str, Any]
A = "/api/v1/a"


class Numbers(msgspec.Struct):
    """A page of numbers."""

    items: list[int]
    next: str | None = None


class _Answers(BaseHTTPRequestHandler):
    """A server made of the standard library: it says back what it was sent."""

    #: Idempotency keys of the calls that came, and how many calls to cut off yet.
    keys: list[str]
    cuts = 0

    def do_GET(self) -> None:
        if self.path.startswith("/api/v1/no"):
            self._say(409, {"code": "release.exists", "detail": "there already"})
        elif self.path.startswith("/api/v1/pages"):
            last = "cursor=2" in self.path
            self._say(200, {"items": [2] if last else [1], "next": None if last else "2"})
        elif self.path.startswith("/api/v1/tagged"):
            known = self.headers.get("If-None-Match") == '"7"'
            self._say(304 if known else 200, None if known else {"n": 7}, {"ETag": '"7"'})
        elif not self._cut():
            self._say(200, {"path": self.path, "auth": self.headers.get("Authorization")})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.keys.append(str(self.headers.get("Idempotency-Key")))
        busy = "busy" in self.path and (len(self.keys) < 3 or "always" in self.path)
        if busy:
            self._say(503, {"code": "server.busy"}, {"Retry-After": "7"})
        elif not self._cut():
            told = {"length": len(body), "key": self.headers.get("Idempotency-Key")}
            self._say(200, {**told, "match": self.headers.get("If-Match")})

    def _cut(self) -> bool:
        """Go away without a word, as a server does that is killed."""
        kind = type(self)
        if kind.cuts == 0:
            return False
        kind.cuts -= 1
        self.close_connection = True
        self.connection.close()
        return True

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Bench:
    """A server that answers, and a client of it that does not really wait."""

    def __init__(self, url: str, kind: type[_Answers]) -> None:
        self.waited: list[float] = []
        self.url, self.kind = url, kind
        self.client = Client(url, "tg_x", sleep=self.waited.append)

    @property
    def keys(self) -> list[str]:
        return self.kind.keys


@pytest.fixture
def bench() -> Iterator[Bench]:
    kind = type("Answers", (_Answers,), {"keys": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Bench(f"http://127.0.0.1:{server.server_port}", kind)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_call_carries_token_and_query(bench: Bench) -> None:
    found = bench.client.ask("GET", A, Plain, query={"q": "a b", "none": None, "yes": True})
    assert found == {"path": "/api/v1/a?q=a+b&yes=true", "auth": "Bearer tg_x"}


def test_a_name_cannot_leave_its_place_in_the_path(bench: Bench) -> None:
    with pytest.raises(RequestError) as caught:
        bench.client.groups_show("../no?x=1#")
    assert caught.value.code == "link.answer"  # and not what stands at /api/v1/no
    assert quoted("../no?x=1#") == "..%2Fno%3Fx%3D1%23"


def test_a_problem_becomes_the_error_that_it_names(bench: Bench) -> None:
    with pytest.raises(PublisherError) as caught:
        bench.client.ask("GET", "/api/v1/no", Plain)
    assert (caught.value.code, caught.value.detail) == ("release.exists", "there already")


def test_an_answer_of_another_form_is_one_clear_error(bench: Bench) -> None:
    with pytest.raises(RequestError) as caught:
        bench.client.groups_show("pilot")
    assert caught.value.code == "link.answer"


def test_pages_are_asked_for_as_they_are_walked_through(bench: Bench) -> None:
    listing: Listing[int, Numbers] = Listing(bench.client, "/api/v1/pages", Numbers)
    assert list(listing) == [1, 2]
    assert list(listing) == [1, 2]
    assert listing.first().items == [1]
    assert [page.items for page in listing.pages("2")] == [[2]]


def test_a_stretch_of_a_file_is_streamed_and_progress_told(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(bytes(600_000))
    seen: list[tuple[int, int]] = []
    body = File(path, 100_000, 400_000, lambda done, size: seen.append((done, size)))
    assert bench.client.ask("POST", A, Plain, body=body)["length"] == 400_000
    assert seen[-1] == (500_000, 600_000)
    assert bench.client.ask("POST", A, Plain, body=File(path, 100_000))["length"] == 500_000


def test_two_posts_have_two_keys_unless_one_is_given(bench: Bench) -> None:
    for key in (None, None, "mine"):
        with pytest.raises(RequestError):  # the answer is none of a group
            bench.client.groups_create(structs.NewGroup(name="g"), key=key)
    assert len(set(bench.keys)) == 3
    assert bench.keys[2] == "mine"


def test_a_busy_server_is_asked_again_when_it_says_and_with_the_same_key(bench: Bench) -> None:
    found = bench.client.ask("POST", "/api/v1/busy", Plain, body={"a": 1}, key="k")
    assert bench.waited == [7.0, 7.0]
    assert (bench.keys, found["key"]) == (["k"] * 3, "k")


def test_a_server_that_stays_busy_is_told_so_after_a_few_tries(bench: Bench) -> None:
    with pytest.raises(BusyError):
        bench.client.ask("POST", "/api/v1/busy/always", Plain, body={})
    assert len(bench.keys) == TRIES
    assert bench.waited == [7.0] * (TRIES - 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_that_was_cut_off_is_sent_again_where_that_is_safe(
    bench: Bench, method: str
) -> None:
    bench.kind.cuts = 1
    bench.client.ask(method, A, Plain, key="k")
    assert len(bench.waited) == 1
    bench.kind.cuts = 2
    with pytest.raises(TransferError) as caught:
        bench.client.ask(method, A, Plain, key="k")
    assert caught.value.code == "link.unreachable"
    assert bench.kind.cuts == 0


def test_a_call_that_may_have_been_done_is_not_sent_twice_without_a_key(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"x")
    calls: list[Call] = [{"body": {}}, {"body": File(path), "key": "k"}]
    for more in calls:
        bench.kind.cuts, before = 1, len(bench.keys)
        with pytest.raises(TransferError):
            bench.client.ask("POST", A, Plain, **more)
        assert len(bench.keys) == before + 1


def test_what_did_not_change_is_not_sent_again_and_is_the_same(bench: Bench) -> None:
    tag = Tag()
    assert bench.client.ask("GET", "/api/v1/tagged", Plain, tag=tag) == {"n": 7}
    assert (tag.value, tag.changed) == ('"7"', True)
    assert bench.client.ask("GET", "/api/v1/tagged", Plain, tag=tag) == {"n": 7}
    assert (tag.value, tag.changed) == ('"7"', False)
    assert bench.client.ask("POST", A, Plain, if_match=tag)["match"] == '"7"'
    assert bench.client.ask("POST", A, Plain, if_match="*")["match"] == "*"


def test_events_are_read_as_they_are_written() -> None:
    lines = [
        ": follow",
        "id: 1.2",
        "",
        "event: change",
        "data: {",
        "data: }",
        "id:3.4",
        "",
        "data: lost",
    ]
    assert list(events_of(lines)) == [StreamEvent(event="change", data="{\n}", id="3.4")]


@pytest.mark.parametrize(
    ("said", "wait_s"), [(None, 1), ("x", 1), ("-3", 1), ("0", 0), ("9999", 30), ("9" * 99, 1)]
)
def test_what_a_server_asks_for_is_believed_within_reason(said: str | None, wait_s: float) -> None:
    assert wait_of(said) == wait_s


def test_no_server_is_one_clear_error() -> None:
    with pytest.raises(TransferError) as caught:
        Client("http://127.0.0.1:1").status()
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


def test_what_the_server_says_to_do_is_told_and_where_it_says_nothing_the_code_does() -> None:
    told = problem(409, b'{"code":"request.conflict","detail":"no way back","hint":"sign one"}')
    assert (told.detail, told.hint) == ("no way back", "sign one")
    assert problem(409, b'{"code":"request.conflict"}').hint == HINTS["request.conflict"]
    assert (
        len(problem(409, b'{"code":"request.conflict","hint":"%s"}' % (b"x" * 9000)).hint) == 1000
    )


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (502, b"<html>502 Bad Gateway</html>", "link.unreachable"),
        (504, b"", "link.unreachable"),
        (502, b'{"code": "blobs.untrue", "detail": "other bytes"}', "blobs.untrue"),
        (404, b'{"code": "request.not_found", "detail": "Not Found"}', "link.answer"),
        (404, b'{"code": "request.not_found", "detail": "no rollout r1"}', "request.not_found"),
    ],
)
def test_what_no_server_of_this_version_said_is_not_taken_for_its_word(
    status: int, body: bytes, code: str
) -> None:
    assert problem(status, body).code == code
