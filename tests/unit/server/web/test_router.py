import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from tests.browser.accounts import PASSWORD, FixtureAuth
from tests.browser.fixtures import FixtureStory, small_bundle
from tests.browser.records import HOSTILE, NOW

from tidegate.server.web.guard import form_token
from tidegate.server.web.router import create_router

Client = TestClient[Litestar]

PAGES = (
    "/",
    "/rollouts",
    "/rollouts?cursor=c2",
    "/rollouts/gw1-2.5.0",
    "/rollouts/modem-31.004",
    "/halt",
    "/devices",
    "/devices?q=((",
    "/devices/gw1-7F3A-91",
    "/releases",
    "/releases/gw1-2.5.0",
    "/releases/gw1-2.4.2",
    "/incidents",
    "/incidents/INC-2026-014",
    "/components",
    "/components?q=openssl&below=3.0.17",
    "/components?q=pkg:%25",
    "/advisories",
    "/advisories/1",
)


@pytest.fixture
def story() -> FixtureStory:
    return FixtureStory()


@pytest.fixture
def client(story: FixtureStory) -> Iterator[Client]:
    router = create_router(story, story, FixtureAuth(), lambda: NOW)
    with TestClient(Litestar([router], openapi_config=None), base_url="http://tidegate.test") as it:
        yield it


def sign_in(client: Client, name: str = "jonas.weber") -> str:
    answer = client.post(
        "/sign-in", data={"name": name, "password": PASSWORD}, follow_redirects=False
    )
    assert answer.status_code == 303
    return form_token(f"session-{name}")


class Scan(HTMLParser):
    """Collects what a policy without inline code would block, and every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "script" and "src" not in found and found.get("type") != "application/json":
            self.inline.append("script")
        if tag == "style":
            self.inline.append("style")
        self.inline += [name for name in found if name == "style" or name.startswith("on")]


def scan(html: str) -> Scan:
    parser = Scan()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("path", [*PAGES, "/sign-in", "/rollouts/nope"])
def test_no_page_holds_inline_style_or_script_and_each_forbids_them(
    client: Client, path: str
) -> None:
    sign_in(client)
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert scan(answer.text).inline == []
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_small_and_has_one_heading(client: Client, path: str) -> None:
    sign_in(client)
    answer = client.get(path)
    tags = [tag for tag, _ in scan(answer.text).tags]
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.content) < 60_000
    assert (tags.count("h1"), tags.count("main"), tags.count("header") > 0) == (1, 1, True)


@pytest.mark.parametrize("path", PAGES)
def test_text_from_a_device_never_becomes_markup(client: Client, path: str) -> None:
    sign_in(client)
    html = client.get(path).text
    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert HOSTILE not in html


def test_hostile_text_is_shown_with_its_hidden_characters(client: Client) -> None:
    sign_in(client)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+202E][U+0007]" in client.get("/devices").text


def test_ids_in_a_page_are_unique(client: Client) -> None:
    sign_in(client)
    for path in PAGES:
        ids = [found["id"] for _, found in scan(client.get(path).text).tags if "id" in found]
        assert sorted(set(ids), key=str) == sorted(ids, key=str), path


@pytest.mark.parametrize("path", [*PAGES, "/live?page=fleet"])
def test_nothing_is_shown_to_a_stranger(client: Client, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in {303, 401}
    assert "gw1" not in answer.text


def test_a_sign_in_leads_back_to_the_page_that_was_asked_for_and_never_elsewhere(
    client: Client,
) -> None:
    asked = client.get("/rollouts/gw1-2.5.0?x=1", follow_redirects=False)
    assert asked.headers["location"] == "/sign-in?next=%2Frollouts%2Fgw1-2.5.0%3Fx%3D1"
    for target, to in (
        ("/devices", "/devices"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
    ):
        form = {"name": "jonas.weber", "password": PASSWORD, "next": target}
        assert client.post("/sign-in", data=form, follow_redirects=False).headers["location"] == to


def test_a_wrong_password_says_nothing_about_what_is_wrong(client: Client) -> None:
    one = client.post("/sign-in", data={"name": "jonas.weber", "password": "no"})
    two = client.post("/sign-in", data={"name": "jonas.weber", "password": ""})
    assert (one.status_code, two.status_code) == (401, 401)
    assert "do not match" in one.text
    assert "set-cookie" not in one.headers


def test_the_session_cookie_is_strict_and_out_of_reach_of_scripts(client: Client) -> None:
    answer = client.post(
        "/sign-in",
        data={"name": "jonas.weber", "password": PASSWORD},
        follow_redirects=False,
    )
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_one_time_link_works_once(client: Client) -> None:
    assert client.get("/sign-in/ticket?t=good").status_code == 200
    assert client.get("/").status_code == 200
    client.cookies.clear()
    assert client.get("/sign-in/ticket?t=good").status_code == 401
    assert client.get("/sign-in/ticket").status_code == 401


def test_halt_is_one_post_and_asks_nothing(client: Client, story: FixtureStory) -> None:
    token = sign_in(client)
    answer = client.post("/rollouts/gw1-2.5.0/halt", data={"csrf": token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts/gw1-2.5.0")
    assert story.said == [("halt", "gw1-2.5.0", "jonas.weber", "", "{}")]
    page = client.get("/rollouts/gw1-2.5.0").text
    assert "Halt: effective now." in page
    assert "Halted by gate" in page
    assert "Halt: effective now." not in client.get("/rollouts/gw1-2.5.0").text


@pytest.mark.parametrize("token", ["", "0" * 64, "\u20ac", form_token("session-ana.ruiz")])
def test_a_form_without_its_own_token_changes_nothing(
    client: Client, story: FixtureStory, token: str
) -> None:
    sign_in(client)
    answer = client.post("/rollouts/gw1-2.5.0/halt", data={"csrf": token})
    assert answer.status_code == 403
    assert "request.forbidden" in answer.text
    assert story.said == []


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
def test_a_form_from_another_site_changes_nothing(
    client: Client, story: FixtureStory, headers: dict[str, str]
) -> None:
    token = sign_in(client)
    answer = client.post("/rollouts/gw1-2.5.0/halt", data={"csrf": token}, headers=headers)
    assert answer.status_code == 403
    assert story.said == []


def test_a_form_from_this_site_is_taken(client: Client, story: FixtureStory) -> None:
    token = sign_in(client)
    headers = {"origin": "http://tidegate.test", "sec-fetch-site": "same-origin"}
    client.post("/devices/gw1-1/hold", data={"csrf": token}, headers=headers)
    assert story.said == [("hold", "gw1-1", "jonas.weber")]


def test_a_viewer_sees_the_buttons_disabled_and_is_refused_behind_them(
    client: Client, story: FixtureStory
) -> None:
    token = sign_in(client, "guest")
    html = client.get("/rollouts/gw1-2.5.0").text
    assert re.search(r'id="halt"[^>]* disabled title="Your role, viewer, lacks rollout.halt"', html)
    for path in (
        "/rollouts/gw1-2.5.0/halt",
        "/requests/7/approve",
        "/devices/x/accept",
        "/releases/gw1-2.5.0/recall",
        "/incidents/INC-1/note",
        "/incidents/INC-1/close",
        "/incidents/INC-1/publish",
        "/incidents",
    ):
        assert (
            client.post(path, data={"csrf": token, "text": "x", "reason": "x"}).status_code == 403
        )
    assert story.said == []


def test_what_the_domain_refuses_is_said_with_its_code(client: Client) -> None:
    token = sign_in(client)
    answer = client.post("/rollouts/gw1-2.5.0/cancel", data={"csrf": token, "reason": "over"})
    assert answer.status_code == 409
    assert "request.conflict" in answer.text
    assert "nothing is left to cancel" in answer.text


@pytest.mark.parametrize(
    ("path", "form", "said"),
    [
        (
            "/rollouts/gw1-2.5.0/fallback",
            {"reason": "errors", "to": "gw1-2.4.1", "other": "x"},
            ("fallback", "gw1-2.5.0", "jonas.weber", "errors", "{'to': 'gw1-2.4.1'}"),
        ),
        (
            "/rollouts/gw1-2.5.0/isolate",
            {"reason": "r", "variant": "gw1-r3"},
            ("isolate", "gw1-2.5.0", "jonas.weber", "r", "{'variant': 'gw1-r3'}"),
        ),
        ("/requests/7/approve", {"back": "gw1-2.5.0"}, ("approve", "7", "jonas.weber", "")),
        ("/requests/7/decline", {}, ("decline", "7", "jonas.weber", "")),
        ("/devices/gw1-1/accept", {"back": "inbox"}, ("accept", "gw1-1", "jonas.weber")),
        (
            "/releases/gw1-2.5.0/recall",
            {"reason": "dark"},
            ("recall", "gw1-2.5.0", "jonas.weber", "dark"),
        ),
        (
            "/incidents/INC-1/note",
            {"kind": "action", "text": "Lint it"},
            ("note", "INC-1", "jonas.weber", "action", "Lint it"),
        ),
        ("/incidents/INC-1/close", {"reason": "done"}, ("close", "INC-1", "jonas.weber", "done")),
        ("/incidents", {"summary": "Screens black"}, ("open", "Screens black", "jonas.weber")),
    ],
)
def test_every_form_reaches_its_command(
    client: Client, story: FixtureStory, path: str, form: dict[str, str], said: tuple[str, ...]
) -> None:
    token = sign_in(client)
    answer = client.post(path, data=form | {"csrf": token}, follow_redirects=False)
    assert answer.status_code == 303
    assert story.said == [said]


@pytest.mark.parametrize(
    "path",
    [
        "/rollouts/r/explode",
        "/devices/d/explode",
        "/requests/7/explode",
        "/incidents/INC-1/explode",
        "/nowhere",
    ],
)
def test_an_unknown_verb_is_not_here(client: Client, path: str) -> None:
    token = sign_in(client)
    assert client.post(path, data={"csrf": token}).status_code in {404, 405}


def test_a_recall_needs_a_reason(client: Client, story: FixtureStory) -> None:
    token = sign_in(client)
    answer = client.post("/releases/gw1-2.5.0/recall", data={"csrf": token, "reason": " "})
    assert answer.status_code == 400
    assert story.said == []


def test_a_bundle_arrives_byte_for_byte(client: Client, story: FixtureStory) -> None:
    token = sign_in(client)
    answer = client.post(
        "/releases",
        data={"csrf": token},
        files={"bundle": ("gw1-2.5.0.bundle", small_bundle())},
        follow_redirects=False,
    )
    assert answer.headers["location"] == "/releases/gw1-2.5.0"
    assert story.published == small_bundle().read()


def test_a_bundle_that_is_refused_says_the_same_code_as_a_device(client: Client) -> None:
    token = sign_in(client)
    answer = client.post(
        "/releases", data={"csrf": token}, files={"bundle": ("x.bundle", b"nonsense")}
    )
    assert answer.status_code == 422
    assert "release.malformed" in answer.text


@pytest.mark.parametrize("files", [{}, {"bundle": ("", b"")}])
def test_an_upload_without_a_file_is_refused(
    client: Client, story: FixtureStory, files: dict[str, tuple[str, bytes]]
) -> None:
    token = sign_in(client)
    answer = client.post("/releases", data={"csrf": token}, files=files)
    assert answer.status_code == 400
    assert story.published == b""


def test_an_upload_without_the_token_is_refused(client: Client, story: FixtureStory) -> None:
    sign_in(client)
    answer = client.post(
        "/releases", data={"csrf": "x"}, files={"bundle": ("gw1.bundle", small_bundle())}
    )
    assert answer.status_code == 403
    assert story.published == b""


def test_a_form_of_more_than_a_form_is_refused(client: Client, story: FixtureStory) -> None:
    token = sign_in(client)
    form = {"csrf": token, "reason": "x" * 100_000}
    assert client.post("/rollouts/gw1-2.5.0/halt", data=form).status_code == 413
    assert story.said == []


def test_static_files_are_kept_for_ever_only_at_the_address_of_their_content(
    client: Client,
) -> None:
    html = client.get("/sign-in").text
    found = re.search(r'href="(/static/tidegate.css\?v=\w+)"', html)
    assert found is not None
    answer = client.get(found[1])
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert client.get("/static/tidegate.css?v=other").headers["cache-control"] == "no-cache"
    again = client.get("/static/tidegate.css", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/../router.py").status_code == 404
    assert client.get("/static/%2e%2e/router.py").status_code == 404


def test_signing_out_ends_the_session(client: Client) -> None:
    token = sign_in(client)
    kept = client.cookies["tidegate_session"]
    client.post("/sign-out", data={"csrf": token})
    client.cookies.set("tidegate_session", kept)
    assert client.get("/", follow_redirects=False).status_code == 303
