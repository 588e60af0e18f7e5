"""The pages over a real server: what devices reported is what a page says, and what a button does is done."""

import contextlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from tests.unit.server.rig import Device, Rig

from tidegate.core.hardware import HardwareRange
from tidegate.core.protocol import CheckResult, LogRequest
from tidegate.core.release import HealthContract, ReleaseTarget
from tidegate.publisher.bundle import build
from tidegate.publisher.lab import make_lab
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.server.auth import Actor
from tidegate.server.operations import Operations, auth_of
from tidegate.server.tick import tick
from tidegate.server.web.domain import create_web
from tidegate.server.web.guard import form_token
from tidegate.server.web.reader import Account
from tidegate.server.web.render import LIVE
from tidegate.server.web.store_reader import StoreReader

Client = TestClient[Litestar]
OLGA = Actor(name="olga", role="admin")
PASSWORD = "correct horse battery"
POLICY: dict[str, Any] = {
    "preset": "lab",
    "guards": [{"type": "failure_rate", "max": "20%", "sample": 3}],
    "ring": [
        {"name": "internal", "audience": "site = north and revision = 1", "soak": "1h"},
        {"name": "fleet", "steps": ["50%", "100%"], "soak": "1h"},
    ],
}


class Office:
    """A server with people, and a browser signed in as olga."""

    def __init__(self, rig: Rig, client: Client) -> None:
        self.rig = rig
        self.client = client
        self.operations = Operations(rig.app.services)
        self.token = ""

    def sign_in(self, name: str) -> None:
        answer = self.client.post(
            "/sign-in", data={"name": name, "password": PASSWORD}, follow_redirects=False
        )
        assert answer.status_code == 303, answer.text
        self.token = form_token(self.client.cookies["tidegate_session"])

    def page(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200, (path, answer.text[-500:])
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))

    def post(self, path: str, **fields: str) -> int:
        answer = self.client.post(path, data=fields | {"csrf": self.token}, follow_redirects=False)
        return answer.status_code

    def tick(self) -> None:
        tick(self.rig.app.services, int(self.rig.now))


@pytest.fixture
def office(rig: Rig) -> Iterator[Office]:
    rig.publish_trust()
    with opened(rig) as it:
        yield it


@pytest.fixture
def bare_office(rig: Rig) -> Iterator[Office]:
    """An office without a root of trust yet."""
    with opened(rig) as it:
        yield it


@contextlib.contextmanager
def opened(rig: Rig) -> Iterator[Office]:
    services = rig.app.services
    accounts = auth_of(services)
    for name, role in (("olga", "admin"), ("eve", "viewer")):
        accounts.create_account(name, role, PASSWORD, OLGA, int(rig.now))
    router = create_web(services, accounts, Operations(services))
    with TestClient(Litestar([router], openapi_config=None), base_url="http://tg.test") as client:
        office = Office(rig, client)
        office.sign_in("olga")
        yield office


def begin(office: Office, devices: int = 6) -> tuple[list[Device], ReleaseTarget]:
    """Two releases, devices on the first, a rollout of the second that its internal ring sees."""
    rig = office.rig
    first = rig.release(1)
    second = rig.release(2, fallback_to=(1,))
    made = [rig.device(f"d{n}", rev=1 + n % 2) for n in range(devices)]
    for device in made:
        device.tell(
            "heartbeat",
            running_counter=1,
            running_sha256=first.install.sha256,
            running_version=first.version,
        )
        device.counter, device.sha256 = 1, first.install.sha256
    data = {**POLICY, "release": "gw1-1.2.0"}
    office.operations.create(data, OLGA, "try it", int(rig.now))
    return made, second


def revert(device: Device, reason: str = "health.network", **more: Any) -> None:
    body = device.assignment()
    device.tell("downloading", body)
    device.tell("staged", body, bytes=4096)
    assert device.permit(body).envelope is not None
    device.tell("rebooting", body)
    device.tell("verifying", body)
    device.tell("reverted", body, reason=reason, **more)


def test_every_page_of_an_empty_server_says_what_would_be_there(office: Office) -> None:
    for path in ("/", "/rollouts", "/releases", "/devices", "/incidents", "/halt"):
        office.page(path)
    assert "No rollout in progress" in office.page("/")
    assert "No incident" in office.page("/incidents")
    assert "0 devices" in office.page("/")


@pytest.mark.parametrize("kind", ["rollouts", "releases", "devices", "incidents"])
def test_what_is_not_there_is_not_found(office: Office, kind: str) -> None:
    assert office.client.get(f"/{kind}/nope").status_code == 404


def test_a_rollout_page_counts_what_devices_reported(office: Office) -> None:
    devices, _ = begin(office)
    devices[0].run(devices[0].assignment())
    office.tick()
    page = office.page("/rollouts/gw1-1.2.0")
    assert "Active" in page
    assert re.search(r"1 confirmed of 6", page)
    assert re.search(r"internal .*?Soaking .*?3 1 0 0 0 0 0 0 2 ", page), page
    assert "by gate, plan" in page or "olga, plan" in page
    assert "0.0" in page
    fleet = office.page("/")
    assert "gw1-1.2.0" in fleet
    assert re.search(r"1\.2\.0 1 16\.7", fleet), fleet


def test_the_devices_of_a_rollout_are_listed_by_where_they_stand(office: Office) -> None:
    device = begin(office)[0][0]
    where = "/rollouts/gw1-1.2.0/devices"
    body = device.assignment()
    device.tell("staged", body, bytes=4096)
    assert device.permit(body).envelope is not None
    assert "d0" in office.page(f"{where}?state=past")
    device.tell("reverted", body, reason="health.network")
    assert "d0" not in office.page(f"{where}?state=past")
    reverted = office.page(f"{where}?state=reverted")
    assert ("d0" in reverted, "health.network" in reverted) == (True, True)
    assert "No device stands there." in office.page(f"{where}?state=lost")
    assert "Nothing of this rollout was ordered back." in office.page(f"{where}?state=stragglers")
    assert office.client.get("/rollouts/none/devices").status_code == 404
    assert office.client.get(f"{where}?state=nowhere").status_code == 400


def test_the_terms_of_a_rollout_are_on_its_page(office: Office) -> None:
    begin(office)
    page = office.page("/rollouts/gw1-1.2.0")
    for said in ("Level required:", "Deadlines start", "Retry 3 attempts in all"):
        assert said in page, said


def test_a_device_page_says_why_and_what_happened(office: Office) -> None:
    devices, _ = begin(office)
    waiting = office.page("/devices/d1")
    assert "is not updating, because" in waiting
    assert "ring" in waiting
    devices[0].run(devices[0].assignment())
    after = office.page("/devices/d0")
    assert "Confirmed on 1.2.0." in after
    assert "1.1.0 → 1.2.0" in after
    assert "Up to date" in after


def test_a_revert_is_told_with_its_reason_and_the_devices_own_words(office: Office) -> None:
    devices, _ = begin(office)
    said = (CheckResult(name="net", ok=False, detail="no route"),)
    revert(devices[0], detail="no default <b>route</b>", health=said, log="wwan0: denied")
    page = office.page("/devices/d0")
    html = office.client.get("/devices/d0").text
    assert "health.network" in page
    assert "no default &lt;b&gt;route&lt;/b&gt;" in html
    assert "wwan0: denied" in page
    rollout = office.page("/rollouts/gw1-1.2.0")
    assert "health.network" in rollout
    assert "the network did not come up" in rollout


def test_a_log_that_a_device_sent_is_shown_as_text(office: Office) -> None:
    devices, _ = begin(office)
    body = devices[0].assignment()
    assert devices[0].tell("failed", body, reason="install.write").want_log
    text = "x" * 10_000 + "\n</pre><script>alert(1)</script>\x1b[2J\u202e the end"
    sent = LogRequest(update=body.update or "", attempt=1, data=zlib.compress(text.encode()))
    assert devices[0].ask("POST", "/d/v1/log", sent).status == 200
    html = office.client.get("/devices/d0").text
    assert "Log after install.write" in html
    assert "&lt;/pre&gt;&lt;script&gt;" in html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "x" * 7_000 not in html
    assert "the end" in html


def test_a_gate_that_halts_shows_on_every_page_that_speaks_of_it(office: Office) -> None:
    devices, _ = begin(office)
    for device in devices[::2]:
        revert(device)
    office.tick()
    rollout = office.page("/rollouts/gw1-1.2.0")
    assert "Halted by gate" in rollout
    assert "Nothing moves" in rollout
    assert "INC-" in rollout
    assert "3 of 3 attempts ended badly" in rollout
    assert "Fall back" in rollout
    fleet = office.page("/")
    assert "gw1-1.2.0 halted by gate" in fleet
    name = re.findall(r"INC-\d{4}-\d{3}", office.page("/incidents"))[0]
    incident = office.page(f"/incidents/{name}")
    assert "gw1-1.2.0 halted" in incident
    assert re.search(r"Ended badly 3 ", incident)
    assert "corrective action" in incident
    assert office.post(f"/incidents/{name}/close", reason="done") == 409
    assert office.post(f"/incidents/{name}/note", kind="action", text="Wait for the modem") == 303
    assert office.post(f"/incidents/{name}/close", reason="done") == 303
    assert "Closed" in office.page(f"/incidents/{name}")


def test_a_halt_from_the_page_is_in_effect_when_it_is_answered(office: Office) -> None:
    devices, _ = begin(office)
    body = devices[0].assignment()
    devices[0].tell("staged", body)
    assert office.post("/rollouts/gw1-1.2.0/halt") == 303
    answer = devices[0].permit(body)
    assert answer.envelope is None
    page = office.page("/rollouts/gw1-1.2.0")
    assert "Halted by olga" in page
    assert "Effective now" in page
    assert "1 staged and inert" in page


def test_what_was_halted_by_the_gate_stays_bad_when_it_is_cancelled(office: Office) -> None:
    devices, _ = begin(office)
    for device in devices[::2]:
        revert(device)
    office.tick()
    assert office.post("/rollouts/gw1-1.2.0/cancel", reason="not again") == 303
    page = office.page("/rollouts/gw1-1.2.0")
    assert "Halted by gate, cancelled" in page
    html = office.client.get("/rollouts/gw1-1.2.0").text
    assert re.search(r'class="state bad[^"]*">.{0,80}Halted by gate, cancelled', html, re.DOTALL)
    assert "Yes. " in page
    assert "3 of 3 attempts ended badly" in page
    for path in ("/rollouts", "/releases/gw1-1.2.0"):
        assert "Halted by gate, cancelled" in office.page(path)


def test_a_device_page_shows_the_slot_that_it_switched_into_since_it_last_asked(
    office: Office,
) -> None:
    devices, _ = begin(office)
    device = devices[0]
    device.run(device.assignment())
    slots = re.search(r"Slots (.*?) Health contract", office.page("/devices/d0"))
    assert slots is not None
    assert re.search(r"1\.1\.0 .*counter 1 .*a way back", slots[1]), slots[1]
    assert re.search(r"Running .{0,40}1\.2\.0 .{0,20}counter 2", slots[1]), slots[1]


def test_a_cohort_is_ordered_back_from_the_page(office: Office) -> None:
    devices, _ = begin(office)
    devices[0].run(devices[0].assignment())
    devices[0].assignment()
    assert office.post("/rollouts/gw1-1.2.0/halt") == 303
    done = office.post(
        "/rollouts/gw1-1.2.0/fallback", reason="errors", to="gw1-1.1.0", scope="exposed"
    )
    assert done == 303
    page = office.page("/rollouts/gw1-1.2.0")
    assert "Falling back" in page
    assert "Ordered back by" in page
    html = office.client.get("/rollouts/gw1-1.2.0").text
    child = re.findall(r'Ordered back by <a href="/rollouts/([^"]+)"', html)[0]
    assert "Fallback of" in office.page(f"/rollouts/{child}")
    assert devices[0].assignment().action == "fallback"


def test_a_variant_is_isolated_and_let_in_again(office: Office) -> None:
    begin(office)
    assert office.post("/rollouts/gw1-1.2.0/isolate", variant="gw1-r1", reason="seen") == 303
    page = office.page("/rollouts/gw1-1.2.0")
    assert "Isolated: gw1-r1" in page
    assert "variant gw1-r1 is isolated in gw1-1.2.0" in office.page("/devices/d0")
    assert "Known issue: gw1-r1 is isolated" in office.page("/releases/gw1-1.2.0")
    assert office.post("/rollouts/gw1-1.2.0/readmit", variant="gw1-r1", reason="fixed") == 303
    assert "Isolated: gw1-r1" not in office.page("/rollouts/gw1-1.2.0")


def test_a_paused_rollout_is_resumed_with_a_reason(office: Office) -> None:
    begin(office)
    assert office.post("/rollouts/gw1-1.2.0/pause") == 303
    assert "Paused" in office.page("/rollouts/gw1-1.2.0")
    assert office.post("/rollouts/gw1-1.2.0/resume") == 409
    assert office.post("/rollouts/gw1-1.2.0/resume", reason="checked") == 303
    assert "Active" in office.page("/rollouts/gw1-1.2.0")


def test_a_recall_halts_what_is_under_way(office: Office) -> None:
    begin(office)
    assert office.post("/releases/gw1-1.2.0/recall", reason="goes dark") == 303
    page = office.page("/releases/gw1-1.2.0")
    assert "Recalled" in page
    assert "goes dark" in page
    assert "Halted by olga" in office.page("/rollouts/gw1-1.2.0")


def test_a_viewer_changes_nothing(office: Office) -> None:
    begin(office)
    office.sign_in("eve")
    assert office.post("/rollouts/gw1-1.2.0/halt") == 403
    assert "Active" in office.page("/rollouts/gw1-1.2.0")


def test_devices_are_found_by_query_and_by_words(office: Office) -> None:
    begin(office)
    found = office.page("/devices?q=revision%20%3D%202")
    assert {"d1", "d3", "d5"} <= set(found.split())
    assert not {"d0", "d2", "d4"} & set(found.split())
    assert "d4" in office.page("/devices?q=serial-d4").split()
    broken = office.page("/devices?q=model%20%3D%20(")
    assert "d0" not in broken.split()


def test_a_device_without_a_claim_is_let_in_by_a_person(office: Office) -> None:
    stranger = office.rig.device("stranger", join=False)
    assert stranger.enrol(None).status in {200, 202}
    assert "stranger" in office.page("/devices")
    assert "1 device asks to enrol" in office.page("/")
    assert office.post("/devices/stranger/accept", back="inbox") == 303
    stranger.log_in()
    assert office.post("/devices/stranger/reject") == 409
    assert office.post("/devices/stranger/hold") == 303
    assert "Held" in office.page("/devices/stranger")
    assert office.post("/devices/stranger/unhold") == 303


def test_refusals_of_devices_are_on_the_fleet_page(office: Office) -> None:
    devices, _ = begin(office)
    body = devices[0].assignment()
    devices[0].tell("failed", body, reason="sig.threshold")
    page = office.page("/")
    assert "sig.threshold" in page
    assert "d0 refused it" in page


def test_what_a_device_tells_of_one_refusal_stands_once(office: Office) -> None:
    devices, _ = begin(office)
    body = devices[0].assignment()
    devices[0].tell("security", body, reason="sig.threshold")
    devices[0].tell("failed", body, reason="sig.threshold")
    assert office.page("/").count("d0 refused it") == 1
    office.rig.now += 3600
    devices[0].tell("security", reason="sig.threshold")
    assert office.page("/").count("d0 refused it") == 2


def test_the_chart_shows_each_sample_as_shares_of_the_fleet(office: Office) -> None:
    devices, _ = begin(office)
    office.tick()
    devices[0].run(devices[0].assignment())
    office.rig.now += 7_200
    office.tick()
    reader = StoreReader(office.rig.app.store, office.operations.audiences.count)
    chart = reader.fleet(int(office.rig.now)).chart
    assert chart.drawable
    assert [one.label for one in chart.series] == ["1.2.0", "1.1.0"]
    assert all(abs(sum(one.y[n] for one in chart.series) - 100) < 0.1 for n in range(len(chart.x)))
    assert chart.series[0].y[-1] == pytest.approx(16.67, abs=0.01)


def test_the_position_moves_with_every_report_and_stands_otherwise(office: Office) -> None:
    reader = StoreReader(office.rig.app.store, office.operations.audiences.count)
    before = reader.position()
    office.page("/")
    assert reader.position() == before
    devices, _ = begin(office)
    between = reader.position()
    assert between != before
    devices[0].assignment()
    assert reader.position() != between


def test_every_live_region_of_a_page_renders_over_the_store(office: Office) -> None:
    from tidegate.server.web.assets import Assets
    from tidegate.server.web.render import Renderer

    devices, _ = begin(office)
    devices[0].run(devices[0].assignment())
    office.rig.now += 300
    office.tick()
    reader = StoreReader(office.rig.app.store, office.operations.audiences.count)
    olga = Account("olga", "admin", OLGA.may)
    now = int(office.rig.now)
    pages = {
        "fleet": reader.fleet(now),
        "rollouts": reader.rollouts(now, ""),
        "rollout": reader.rollout("gw1-1.2.0", olga, now),
        "device": reader.device("d0", now),
        "incidents": reader.incidents(now),
    }
    renderer = Renderer(Assets())
    context = {"account": olga, "counts": reader.counts(now), "csrf_token": "t"}
    for page, regions in LIVE.items():
        for region in regions:
            if region != "exposure":
                renderer.fragment(page, region, context | {"page": pages[page]})


def test_a_request_to_widen_waits_for_somebody_else(office: Office) -> None:
    begin(office)
    accounts = auth_of(office.rig.app.services)
    accounts.create_account("pia", "approver", PASSWORD, OLGA, int(office.rig.now))
    office.post("/rollouts/gw1-1.2.0/halt")
    assert office.post("/rollouts/gw1-1.2.0/resume", reason="explained") == 303
    page = office.client.get("/rollouts/gw1-1.2.0").text
    assert "olga asks: resume" in page
    assert 'title="Needs somebody else"' in page
    number = re.findall(r"/requests/(\d+)/approve", page)[0]
    assert office.post(f"/requests/{number}/approve", back="gw1-1.2.0") == 403
    office.sign_in("pia")
    assert office.post(f"/requests/{number}/approve", back="gw1-1.2.0") == 303
    assert "Active" in office.page("/rollouts/gw1-1.2.0")


def test_a_signed_bundle_is_published_from_the_page_and_a_changed_one_refused(
    bare_office: Office, tmp_path: Path
) -> None:
    office, rig = bare_office, bare_office.rig
    assert "No root of trust yet" in office.page("/releases")
    keys = rig.app.services.keys
    online = {
        role: getattr(keys, role).public for role in ("snapshot", "timestamp", "director", "audit")
    }
    lab = make_lab(tmp_path / "lab", online, ["box"], now=int(rig.now))
    image = tmp_path / "image"
    image.write_bytes(Path(re.__file__).read_bytes() * 5)
    made = build(
        ReleaseSpec(
            product="box",
            version="3.0.0",
            counter=3,
            security_version=1,
            kind="feature",
            health=HealthContract(),
            notes="a note",
            source="",
            min_agent=None,
            from_counters=(),
            requires=(),
            fallback_s=0,
            expires_s=300 * 86_400,
            channels=("stable",),
            hardware=(HardwareRange("box", 0, 9),),
            components=(ComponentSpec(name="rootfs", format="raw_image", source=image, size=0),),
        ),
        tmp_path,
        previous=None,
        now=int(rig.now),
        level=1,
    )

    def upload(body: bytes) -> tuple[int, str, str]:
        answer = office.client.post(
            "/releases",
            data={"csrf": office.token},
            files={"bundle": ("it.bundle", body)},
            follow_redirects=False,
        )
        return answer.status_code, answer.headers.get("location", ""), answer.text

    unsigned = made.bundle.read_bytes()
    sign_bundle(made.bundle, lab.signer("product"))
    signed = made.bundle.read_bytes()
    status, to, _ = upload(lab.trust.read_bytes())
    assert (status, to) == (303, "/releases")
    status, _, text = upload(unsigned)
    assert status == 422
    assert re.findall(r"<code>([a-z_.]+)</code>", text) == ["sig.unknown_key"]
    status, to, _ = upload(signed)
    assert (status, to) == (303, "/releases/box-3.0.0")
    page = office.page("/releases/box-3.0.0")
    assert "No device is offered it before a rollout" in page
    assert "a note" in page
    assert re.search(r"Signed [0-9a-f…]+", page)
    assert upload(signed)[:2] == (303, "/releases")
    assert "It brought no new release" in office.page("/releases")


def test_every_page_says_what_lapses_within_a_month(office: Office) -> None:
    assert "expires in" not in office.page("/")
    office.rig.now += 340 * 86_400
    office.sign_in("olga")
    for path in ("/", "/devices"):
        page = office.page(path)
        assert "root 1 expires in 25 days" in page
        assert "tidegate root begin" in page
        assert "One person can release gw1 to every device" in page
    office.rig.now += 30 * 86_400
    office.sign_in("olga")
    assert "root 1 has expired" in office.page("/")
