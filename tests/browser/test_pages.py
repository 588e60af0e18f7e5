"""The pages in a real browser: nothing overflows, nothing is blocked, halting works with and without script, and a page stays live."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from litestar import Litestar
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.browser.accounts import PASSWORD, FixtureAuth
from tests.browser.fixtures import FixtureStory
from tests.browser.records import NOW

from tidegate.server.web.router import create_router

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("tier: browser: install the Debian package chromium", allow_module_level=True)
pytestmark = pytest.mark.browser

#: A panel may clip without the page scrolling: nothing inside is wider than its panel.
WIDER = """
[...document.querySelectorAll('.panel')]
    .filter(panel => panel.scrollWidth > panel.clientWidth + 1)
    .map(panel => panel.id || panel.innerText.slice(0, 40))
"""
#: Whether anything was painted on the first canvas of the page.
PAINTED = """
[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 600, 300).data].some(v => v)
"""
LOST = "document.body.dispatchEvent(new CustomEvent('htmx:sseError', {bubbles: true}))"
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = (
    "/",
    "/rollouts",
    "/rollouts/gw1-2.5.0",
    "/rollouts/modem-31.004",
    "/rollouts/gw1-2.6.0",
    "/rollouts/config-7",
    "/new-rollout?release=gw1-2.5.0&preset=careful&holdback=1%25",
    "/rollouts/gw1-2.5.0/devices?state=past",
    "/rollouts/gw1-2.5.0/edit",
    "/rollouts/gw1-2.5.0/edit?steps.fleet=1%25,100%25&in_flight=50",
    "/rollouts/gw1-2.5.0/history",
    "/rollouts/gw1-2.6.0/history",
    "/history",
    "/notifications",
    "/notifications?state=dead",
    "/halt",
    "/devices",
    "/devices/gw1-7F3A-91",
    "/releases",
    "/releases/gw1-2.5.0",
    "/incidents",
    "/incidents/INC-2026-014",
    "/components",
    "/components?q=openssl&below=3.0.17",
    "/components?q=pkg:%25",
    "/advisories",
    "/advisories/1",
    "/audit",
    "/audit?check=1",
    "/sign-in",
    "/rollouts/nope",
)


@dataclass
class Served:
    """The pages over a story that a test can change, on a free port."""

    story: FixtureStory = field(default_factory=FixtureStory)
    auth: FixtureAuth = field(default_factory=FixtureAuth)
    address: str = ""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    it = Served()
    app = Litestar([create_router(it.story, it.story, it.auth, lambda: NOW)], openapi_config=None)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    it.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    yield it
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        it = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield it
        it.close()


@pytest.fixture(autouse=True)
def fresh_story(served: Served) -> None:
    served.story.state = "active"
    served.story.said.clear()


def open_context(
    browser: Browser, served: Served, width: int = 1280, *, script: bool = True
) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=script
    )
    page = context.new_page()
    page.goto(served.address + "/sign-in")
    page.get_by_label("Name").fill("jonas.weber")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(served.address + "/")
    page.close()
    return context


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_overflows_or_is_blocked(
    browser: Browser, served: Served, width: int, theme: str, tmp_path: Path
) -> None:
    context = open_context(browser, served, width)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    overflowing: list[str] = []
    for path in PAGES:
        joint = "&" if "?" in path else "?"
        page.goto(f"{served.address}{path}{joint}theme={theme}")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            overflowing.append(path)
        # A panel may clip without the page scrolling: nothing inside is wider than its panel.
        wide = page.evaluate(WIDER)
        overflowing += [f"{path} {name}" for name in wide]
    context.close()
    assert overflowing == []
    assert [text for text in complaints if "404" not in text] == []


def test_a_halt_is_one_click_and_an_open_page_learns_of_it(
    browser: Browser, served: Served
) -> None:
    context = open_context(browser, served)
    onlooker, operator = context.new_page(), context.new_page()
    onlooker.goto(served.address + "/rollouts/gw1-2.5.0")
    expect(onlooker.locator("h1")).to_contain_text("Active")
    operator.goto(served.address + "/rollouts/gw1-2.5.0")
    operator.locator("#halt").click()
    expect(operator.locator("h1")).to_contain_text("Halted by gate")
    expect(operator.get_by_role("status")).to_contain_text("effective now")
    expect(onlooker.locator("h1")).to_contain_text("Halted by gate", timeout=10_000)
    expect(onlooker.locator("#halt")).to_have_count(1 if served.story.state == "active" else 0)
    context.close()
    assert [said[:3] for said in served.story.said] == [("halt", "gw1-2.5.0", "jonas.weber")]


def test_everything_works_without_script(browser: Browser, served: Served) -> None:
    context = open_context(browser, served, 390, script=False)
    page = context.new_page()
    page.goto(served.address + "/rollouts/gw1-2.5.0")
    page.get_by_text("Keep one hardware variant, or").click()
    page.get_by_label("Variant, or where and a query").fill("gw1-r4")
    page.locator("form[action$='/isolate']").get_by_label("Reason").fill("seen on site")
    page.get_by_role("button", name="Isolate", exact=True).click()
    page.locator(".dock button.halt").click()
    expect(page.locator("h1")).to_contain_text("Halted by gate")
    context.close()
    assert [said[0] for said in served.story.said] == ["isolate", "halt"]
    assert served.story.said[0][3] == "seen on site"


def test_a_rollout_is_understood_before_it_is_made_and_the_form_needs_no_script(
    browser: Browser, served: Served
) -> None:
    context = open_context(browser, served, 390, script=False)
    page = context.new_page()
    page.goto(served.address + "/rollouts")
    page.get_by_role("link", name="New rollout").click()
    expect(page.get_by_role("button", name="Make the rollout")).to_have_count(0)
    page.get_by_text("Careful", exact=True).click()
    page.get_by_label("Hold back").select_option("1%")
    page.get_by_role("button", name="See whom it reaches").click()
    expect(page.locator("tfoot")).to_contain_text("118,600")
    page.get_by_label("Reason").fill("fixes the modem")
    page.get_by_role("button", name="Make the rollout").click()
    page.wait_for_url(served.address + "/rollouts/gw1-2.6.0")
    context.close()
    verb, policy, _, reason = served.story.said[0]
    assert (verb, reason) == ("create", "fixes the modem")
    for word in ("'preset': 'careful'", "'holdback': '1%'", "'draft': True"):
        assert word in policy


def test_a_field_is_not_taken_from_under_the_hands_and_focus_survives(
    browser: Browser, served: Served
) -> None:
    context = open_context(browser, served)
    page = context.new_page()
    page.goto(served.address + "/rollouts/gw1-2.5.0")
    page.get_by_text("Keep one hardware variant, or").click()
    page.get_by_label("Variant, or where and a query").fill("half-wri")
    served.story.confirmed += 1
    served.story.at += 1
    expect(page.locator("#live-rings")).to_contain_text(
        f"{served.story.confirmed:,}", timeout=10_000
    )
    assert page.get_by_label("Variant, or where and a query").input_value() == "half-wri"
    assert page.evaluate("document.activeElement.name") == "variant"
    context.close()


def test_charts_are_drawn_and_follow_the_theme(browser: Browser, served: Served) -> None:
    context = open_context(browser, served)
    page = context.new_page()
    page.goto(served.address + "/")
    expect(page.locator("figure[data-chart=firmware] canvas")).to_have_count(1)
    assert page.evaluate(PAINTED)
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") in {"light", "dark"}
    expect(page.locator("figure[data-chart=firmware] canvas")).to_have_count(1)
    context.close()


def test_keys_move_focus_and_never_act(browser: Browser, served: Served) -> None:
    context = open_context(browser, served)
    page: Page = context.new_page()
    page.goto(served.address + "/rollouts/gw1-2.5.0")
    page.keyboard.press("Shift+H")
    assert page.evaluate("document.activeElement.id") == "halt"
    assert served.story.said == []
    page.keyboard.press("g")
    page.keyboard.press("d")
    page.wait_for_url(served.address + "/devices")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("gd")
    assert page.url == served.address + "/devices"
    context.close()


def test_a_page_that_lost_its_server_says_since_when(browser: Browser, served: Served) -> None:
    context = open_context(browser, served)
    page = context.new_page()
    page.goto(served.address + "/")
    expect(page.locator("[data-live]")).to_have_text("live")
    # Read at once: the next message of the stream says "live" again, as it should.
    said = page.evaluate(
        f"(() => {{ {LOST}; return document.querySelector('[data-live]').innerText }})()"
    )
    context.close()
    assert "reconnecting" in said
