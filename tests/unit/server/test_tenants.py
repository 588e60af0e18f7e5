"""Several tenants in one server: found by host, kept apart, suspended one by one, bounded."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests import postgres, stores
from tests.unit.server.house import OWN, House, Tenant
from tests.unit.server.rig import Rig

from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.protocol import EventsRequest, Metrics
from tidegate.server import cells, groups, quotas, tenants
from tidegate.server.app import create_app
from tidegate.server.doctor import examine
from tidegate.server.store import opening
from tidegate.server.tokens import Tokens


@pytest.fixture
def house(tmp_path: Path, over: None) -> Iterator[House]:
    made = House(tmp_path / "data")
    yield made
    made.close()


def _fleet(tenant: Tenant) -> int:
    """Give a tenant a device and a rollout to it; return the rollout's row."""
    tenant.publish_trust()
    return tenant.rollout(tenant.release(1))


def test_each_tenant_rolls_out_to_its_own_and_a_halt_of_one_leaves_the_other(house: House) -> None:
    acme, rival = house.add("acme"), house.add("rival")
    first, second = _fleet(acme), _fleet(rival)
    devices = acme.device("d1"), rival.device("d1")  # the same id, twice
    assert [one.poll().work for one in devices] == [True, True]
    bodies = [one.assignment() for one in devices]
    assert [one.tenant for one in bodies] == ["acme", "rival"]

    halted = acme.call("POST", "rollouts/r-gw1-1.1.0/halt", {"reason": "smoke"})
    assert halted.status == 200, halted.body
    devices[0].tell("staged", bodies[0], bytes=1)
    devices[1].tell("staged", bodies[1], bytes=1)
    assert devices[0].permit(bodies[0]).envelope is None
    assert devices[1].permit(bodies[1]).envelope is not None
    assert acme.tallies(first) != rival.tallies(second)
    assert house.rig.app.services.fleet.ids in ([], [""]), "the default tenant has no device"


def test_a_host_picks_the_tenant_and_nothing_else_does(house: House) -> None:
    acme = house.add("acme")
    me = house.call("ACME.example.com.:8440", acme.token, "GET", "me")
    assert json.loads(me.body)["name"] == "token:local"
    assert house.call(OWN, acme.token, "GET", "me").code == "request.unauthenticated"
    assert house.call("elsewhere.example.com", house.token, "GET", "me").status == 200
    assert house.call(acme.host, house.token, "GET", "me").code == "request.unauthenticated"
    assert house.ask(acme.host, "GET", "/healthz").status == 200


def test_two_hosts_in_a_request_are_refused(house: House) -> None:
    house.add("acme")

    async def both() -> int:
        status = 0

        async def send(message: dict[str, object]) -> None:
            nonlocal status
            status = int(str(message.get("status", status)))

        hosts = [(b"host", b"acme.example.com"), (b"host", OWN.encode())]
        scope = {"type": "http", "method": "GET", "path": "/api/v1/me", "headers": hosts}
        await house.front(scope, None, send)  # type: ignore[arg-type]
        return status

    assert house.rig.loop.run_until_complete(both()) == 400


def test_a_strict_server_knows_its_own_host_and_those_of_its_tenants(
    tmp_path: Path, over: None
) -> None:
    house = House(tmp_path / "data", tenants_strict=True)
    try:
        house.add("acme")
        refused = house.ask("elsewhere.example.com", "GET", "/api/v1/me")
        assert (refused.status, refused.code) == (421, "tenant.unknown_host")
        assert house.ask("acme.example.com", "GET", "/api/v1/me").status == 401
        assert house.ask(OWN, "GET", "/api/v1/me").status == 401
    finally:
        house.close()


def test_a_token_says_whose_device_it_is_even_where_two_tenants_were_given_one_secret(
    house: House,
) -> None:
    acme, rival = house.add("acme"), house.add("rival")
    device = acme.device()
    rival.device()
    wrong = house.ask(rival.host, "GET", "/d/v1/poll", authorization=f"Bearer {device.token}")
    assert (wrong.status, wrong.code) == (401, "session.expired")

    first, second = (Tokens(b"s" * 32, house.rig.random.randbytes, number) for number in (1, 2))
    for one in (first, second):
        one.take_salts([(20_000, b"salt")])
    now = 20_000 * 86_400
    token = first.issue(7, 1, now, 60).encode()
    assert first.check(token, now) is not None
    assert second.check(token, now) is None


def test_a_suspended_tenant_is_refused_and_the_others_go_on(house: House) -> None:
    acme, rival = house.add("acme"), house.add("rival")
    devices = acme.device(), rival.device()
    assert house.manage("POST", "acme/suspend").status == 200
    for path in ("/d/v1/poll", "/api/v1/me", "/"):
        refused = acme.ask("GET", path, authorization=f"Bearer {devices[0].token}")
        assert (refused.status, refused.code) == (503, "tenant.suspended"), path
        assert int(refused.headers["retry-after"]) >= 60
    house.settle()
    assert house.cells.of_name("acme").app is None  # type: ignore[union-attr]
    assert devices[1].poll().work is False

    assert house.manage("POST", "acme/resume").status == 200
    house.settle()
    assert devices[0].poll().work is False
    log = house.call(OWN, house.token, "GET", "audit").body.decode()
    assert all(f"tenant.{verb}" in log for verb in ("add", "suspend", "resume"))


def test_what_is_removed_is_kept_until_somebody_purges_it(house: House) -> None:
    acme = house.add("acme")
    device = acme.device()
    assert house.manage("POST", "acme/remove").code == "request.conflict"
    house.manage("POST", "acme/suspend")
    assert json.loads(house.manage("POST", "acme/remove").body)["state"] == "removed"
    house.settle()
    assert acme.ask("GET", "/d/v1/poll").code == "tenant.suspended"
    again = house.manage("POST", "", {"name": "acme", "host": "new.example.com"})
    assert again.code == "request.conflict"

    house.manage("POST", "acme/restore")
    house.manage("POST", "acme/resume")
    house.settle()
    assert device.poll().work is False


def test_a_broken_tenant_is_broken_alone(house: House) -> None:
    house.add("acme")
    rival = house.add("rival")
    folder = tenants.folder_of(house.rig.folder, "acme")
    house.cells.close()
    (folder / "tidegate.toml").write_text('[http]\nlisten = "0.0.0.0:1"\n')
    house.restart()
    answer = house.ask("acme.example.com", "GET", "/api/v1/me")
    assert (answer.status, answer.code) == (503, "tenant.unavailable")
    assert rival.call("GET", "me").status == 200
    shown = json.loads(house.manage("GET", "acme").body)
    assert shown["state"] == "broken"
    assert "[http] listen belongs into the server's own file" in shown["wrong"]

    (folder / "tidegate.toml").write_text('[poll]\ninterval = "7s"\n')
    house.settle()
    cell = house.cells.of_name("acme")
    assert cell is not None
    assert cell.app is not None
    assert cell.app.services.settings.poll_interval_s == 7


def test_only_the_owner_of_the_server_manages_tenants(house: House) -> None:
    acme = house.add("acme")
    for method, path in (("GET", ""), ("POST", "/acme/suspend"), ("GET", "/acme")):
        refused = acme.call(method, f"tenants{path}")
        assert (refused.status, refused.code) == (404, "request.not_found"), path
    made = house.call(OWN, house.token, "POST", "tokens", {"name": "t", "role": "security-admin"})
    token = json.loads(made.body)["token"]
    assert house.call(OWN, token, "GET", "tenants").code == "request.forbidden"


@pytest.mark.parametrize(
    ("name", "host", "code"),
    [
        ("Acme", "a.example.com", "request.invalid"),
        ("../up", "a.example.com", "request.invalid"),
        ("a_b", "a.example.com", "request.invalid"),
        ("acme", "a/b", "request.invalid"),
        ("acme", OWN, "request.invalid"),
        ("default", "a.example.com", "request.conflict"),
        ("rival", "a.example.com", "request.conflict"),
        ("acme", "rival.example.com", "request.conflict"),
        ("acme", "Rival.Example.com.", "request.conflict"),
    ],
)
def test_a_name_or_host_that_cannot_be_is_refused(
    house: House, name: str, host: str, code: str
) -> None:
    house.add("rival")
    assert house.manage("POST", "", {"name": name, "host": host}).code == code
    assert len(json.loads(house.manage("GET").body)["items"]) == 1


# --- quotas ----------------------------------------------------------------------------------------------------------


def test_no_more_devices_are_let_in_than_the_quota(house: House) -> None:
    acme, rival = house.add("acme", devices_max=2), house.add("rival")
    for number in range(2):
        acme.device(f"d{number}")
    for number in range(3):
        rival.device(f"d{number}")
    third = acme.device("d3", join=False)
    refused = third.enrol("claim-1")
    assert (refused.status, refused.code) == (403, "quota.devices")
    waiting = acme.device("d4", join=False)
    waiting.enrol(None)
    assert acme.call("POST", "devices/d4/accept", {}).code == "quota.devices"

    house.manage("PATCH", "acme", {"devices_max": 3})
    assert third.enrol("claim-1").status == 200
    usage = json.loads(house.manage("GET", "acme").body)["usage"]
    assert usage["devices"] == 3


def test_events_over_the_quota_wait_and_outcomes_never_do(house: House) -> None:
    acme = house.add("acme", events_per_day=3)
    acme.publish_trust()
    rollout = acme.rollout(acme.release(1))
    device = acme.device()
    body = device.assignment()
    device.tell("downloading", body)
    device.tell("staged", body, bytes=1)
    beat = device.event("heartbeat", metrics=Metrics(device_s=60))
    device.report(beat)
    over = device.event("heartbeat", metrics=Metrics(device_s=60))
    refused = device.ask("POST", "/d/v1/events", EventsRequest(events=(over,)))
    assert (refused.status, refused.code) == (429, "quota.events")
    assert int(refused.headers["retry-after"]) > 0

    assert device.permit(body).envelope is not None
    answer = device.report(over, device.event("failed", body, reason="install.write"))
    assert answer.refused == ()
    assert answer.acked_seq == device.seq
    assert any(name.startswith("fail") for name in acme.tallies(rollout)), acme.tallies(rollout)
    house.rig.now += 86_400
    device.log_in()
    device.tell("heartbeat", metrics=Metrics(device_s=60))


def test_payloads_over_the_quota_are_not_published(house: House) -> None:
    acme = house.add("acme", stored_max=5000)
    acme.publish_trust()
    acme.release(1)
    acme.read(quotas.require_within_storage)
    acme.release(2)
    with pytest.raises(RequestError, match="8192 bytes") as refused:
        acme.read(quotas.require_within_storage)
    assert refused.value.code == "quota.storage"


def test_files_on_their_way_are_bounded_by_the_tenants_quota(house: House) -> None:
    acme = house.add("acme", uploads_max=100)
    wanted = {"sha256": "0" * 64, "length": 101}
    assert acme.call("POST", "uploads", wanted).code == "upload.quota"
    assert acme.call("POST", "uploads", {**wanted, "length": 100}).status == 200


def test_people_of_one_tenant_cannot_take_the_time_of_another(house: House) -> None:
    acme, rival = house.add("acme", requests_per_s=1), house.add("rival")
    device = acme.device()
    codes = [acme.call("GET", "me").status for _ in range(15)]
    assert codes.count(429) >= 4
    assert codes[0] == 200
    assert acme.call("GET", "me").code == "quota.requests"
    assert rival.call("GET", "me").status == 200
    assert device.poll().work is False, "devices are bounded by other means"


def test_the_doctor_names_tenants_and_what_is_nearly_full(house: House) -> None:
    acme = house.add("acme", devices_max=2)
    house.add("rival")
    for number in range(2):
        acme.device(f"d{number}")
    house.manage("POST", "rival/suspend")
    house.cells.close()
    settings = house.rig.app.services.settings
    found = [one for one in examine(settings, int(house.rig.now)) if one.name == "tenants"]
    told = {one.text: one.level for one in found}
    assert told == {"acme: devices 2 of 2": "warning", "rival is suspended": "ok"}


# --- one tenant ------------------------------------------------------------------------------------------------------


def test_whoever_has_one_tenant_sees_nothing_of_this(rig: Rig) -> None:
    rig.device()
    assert not (rig.folder / tenants.FOLDER).exists()
    assert rig.app.services.tokens.issue(1, 1, int(rig.now), 60).startswith("v1.")
    with opening.looking(rig.folder, rig.url or "") as conn:
        assert tenants.listed(conn) == []
    assert cells.settings_of(rig.app.services.settings, "default") is rig.app.services.settings


def test_a_tenants_folder_is_opened_for_nobody_else(house: House) -> None:
    house.add("acme")
    house.add("rival")
    house.cells.close()
    server = house.rig.app.services.settings
    wrong = cells.settings_of(server, "acme")
    folder = tenants.folder_of(house.rig.folder, "rival")
    if house.rig.url:
        return  # the schema follows from the name; tests/contract/test_store_tenants.py mixes up two
    with pytest.raises(ConfigError, match="belongs to the tenant"):
        create_app(msgspec.structs.replace(wrong, data_dir=folder))


def test_a_tenant_moves_to_postgresql_into_a_schema_of_its_own(tmp_path: Path, over: None) -> None:
    if stores.url_of(tmp_path / "data"):
        pytest.skip("it begins on SQLite")
    house = House(tmp_path / "data")
    acme = house.add("acme")
    assert acme.call("POST", "groups", {"name": "pilot", "query": "tag:beta"}).status == 201
    folder = tenants.folder_of(house.rig.folder, "acme")
    house.close()
    with postgres.database() as url:
        copied = {one.table: one.rows for one in opening.copy(folder, url, tenant="acme")}
        assert copied["device_group"] == copied["cell"] == 1
        store = opening.open_store(folder, url=url, tenant="acme")
        try:
            names = store.read(lambda conn: [one.name for one in groups.listed(conn)])
        finally:
            store.close()
        assert names == ["pilot"]
        with opening.looking(folder, url) as conn:
            assert groups.listed(conn) == []
        with pytest.raises(RequestError, match="only an empty database is filled"):
            opening.copy(folder, url, tenant="acme")
        with pytest.raises(ConfigError, match="belongs to the tenant"):
            opening.copy(folder, url)


def test_metrics_name_their_tenant_where_there_is_more_than_one(house: House) -> None:
    def told(host: str, token: str) -> list[str]:
        answer = house.ask(host, "GET", "/metrics", authorization=f"Bearer {token}")
        assert answer.status == 200, answer.body
        lines = answer.body.decode().splitlines()
        return [one for one in lines if one.startswith("tidegate_")]

    assert not [one for one in told(OWN, house.token) if "tenant=" in one]
    acme = house.add("acme")
    acme.device("d1")
    for host, token, name in ((OWN, house.token, "default"), (acme.host, acme.token, "acme")):
        for _ in range(2):  # what was scanned is shown again
            found = told(host, token)
            assert [one for one in found if f'tenant="{name}"' not in one] == []
    assert 'tidegate_devices{state="accepted",tenant="acme"} 1.0' in told(acme.host, acme.token)
