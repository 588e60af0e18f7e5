"""The pages of the whole server, API and all, while devices report: what a device says is on an open page within seconds."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright
from tests.browser.test_pages import ARGS
from tests.unit.server.rig import Device, Rig

from tidegate.core.protocol import AssignmentBody
from tidegate.server.auth import Actor
from tidegate.server.operations import Operations, auth_of
from tidegate.server.tick import tick

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("tier: browser: install the Debian package chromium", allow_module_level=True)
pytestmark = pytest.mark.browser

T = TypeVar("T")
#: Playwright keeps an event loop in the test's thread; devices run theirs in another one.
DEVICES = ThreadPoolExecutor(1)
OLGA = Actor(name="olga", role="admin")
POLICY = {
    "preset": "lab",
    "guards": [{"type": "failure_rate", "max": "20%", "sample": 3}],
    "ring": [{"name": "all", "soak": "1h"}],
    "release": "gw1-1.2.0",
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def page(rig: Rig) -> Iterator[Page]:
    """A browser signed in by a one-time link at a served application, with a rollout under way."""
    rig.publish_trust()
    rig.release(1)
    rig.release(2, fallback_to=(1,))
    accounts = auth_of(rig.app.services)
    accounts.create_account("olga", "admin", "correct horse battery", OLGA, int(rig.now))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        rig.app.admin, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    ticket = accounts.sign_in_link_ticket("olga", int(rig.now))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        opened = browser.new_context(base_url=address).new_page()
        opened.goto(f"/sign-in/ticket?t={ticket}")
        opened.wait_for_url(address + "/")
        yield opened
        browser.close()
    server.should_exit = True
    thread.join(10)
    listener.close()


def aside(work: Callable[[], T]) -> T:
    return DEVICES.submit(work).result(60)


def fleet(rig: Rig, count: int) -> list[Device]:
    devices = aside(lambda: [rig.device(f"d{n}") for n in range(count)])
    Operations(rig.app.services).create(POLICY, OLGA, "try it", int(rig.now))
    return devices


def revert(device: Device) -> None:
    body = device.assignment()
    device.tell("staged", body)
    assert device.permit(body).envelope is not None
    device.tell("reverted", body, reason="boot.counter_exhausted")


def revert_all(devices: list[Device]) -> None:
    for device in devices:
        revert(device)


def stage(device: Device) -> AssignmentBody:
    body = device.assignment()
    device.tell("staged", body)
    return body


def test_an_open_page_follows_the_devices_until_the_gate_halts(rig: Rig, page: Page) -> None:
    devices = fleet(rig, 4)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/rollouts/gw1-1.2.0")
    expect(page.locator("h1")).to_contain_text("Active")
    expect(page.locator("#live-facts .big").nth(1)).to_contain_text("0 ")
    aside(lambda: devices[0].run(devices[0].assignment()))
    expect(page.locator("#live-facts .big").nth(1)).to_contain_text("1 ", timeout=10_000)
    aside(lambda: revert_all(devices[1:]))
    tick(rig.app.services, int(rig.now))
    expect(page.locator("h1")).to_contain_text("Halted by gate", timeout=10_000)
    expect(page.locator("#live-reasons")).to_contain_text("boot.counter_exhausted")
    expect(page.locator("#live-ask")).to_contain_text("INC-")
    assert complaints == []


def test_a_person_halts_a_real_rollout_and_reads_the_report(rig: Rig, page: Page) -> None:
    device = fleet(rig, 2)[0]
    body = aside(lambda: stage(device))
    page.goto("/")
    page.locator("#halt").click()
    page.locator("button#halt").click()
    expect(page.locator("h1")).to_contain_text("Halted by olga")
    assert aside(lambda: device.permit(body)).envelope is None
    page.get_by_role("link", name="INC-").first.click()
    expect(page.locator("h1")).to_contain_text("gw1-1.2.0 halted")
    link = page.get_by_role("link", name="Markdown").get_attribute("href")
    answer = page.request.get(link or "")
    assert answer.ok
    assert answer.text().startswith("# INC-")
