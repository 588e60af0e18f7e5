"""The form that changes a rollout while it runs: what it shows is what stands, what it says is what would be done, and only what was shown is changed."""

import re
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import Office, opened

from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import presets
from tidegate.server import drafts
from tidegate.server.amendments import Terms
from tidegate.server.store import admin_rollouts
from tidegate.server.web.queries import edit_rollout as form

NAME = "gw1-1.1.0"
EDIT = f"/rollouts/{NAME}/edit"
TERMS = Terms(
    name=NAME,
    state="active",
    generation=4,
    policy=msgspec.structs.replace(presets.preset("normal"), at_once=50),
    delivery=DeliveryPolicy(activate_window=("Sat 02:00-05:00",), bps_max=1_048_576),
)


def test_what_is_sent_back_as_it_stands_changes_nothing() -> None:
    shown = {one.name: one.value for one in form.fields_of(TERMS, {})}
    assert shown["in_flight"] == "50"
    assert shown["activate"] == "Sat 02:00-05:00"
    assert form.parts_of(TERMS, shown) == {}
    assert form.parts_of(TERMS, {}) == {}


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("steps.fleet", "1%,5%, 100%", {"steps": {"fleet": ["1%", "5%", "100%"]}}),
        ("preset", "careful", {"preset": "careful"}),
        ("audience", "site = lab", {"audience": "site = lab"}),
        ("audiences.pilot", "", {"audiences": {"pilot": "rest"}}),
        ("gates.fleet", "soak time=48h; approval",
         {"gates": {"fleet": [{"type": "soak", "time": "48h"}, {"type": "approval"}]}}),
        ("guards", "none", {"guards": []}),
        ("in_flight", "10", {"flow": {"in_flight": 10}}),
        ("first", "none", {"flow": {"first": "none"}}),
        ("activate", "", {"windows": {"activate": "any"}}),
        ("download", "Sat 01:00-02:00;Sun 01:00-02:00",
         {"windows": {"download": ["Sat 01:00-02:00", "Sun 01:00-02:00"]}}),
        ("rate", "none", {"delivery": {"rate": "none"}}),
        ("priority", "-3", {"priority": -3}),
        ("priority", "high", {"priority": "high"}),
    ],
)  # fmt: skip
def test_what_differs_is_a_part(name: str, value: str, parts: dict[str, Any]) -> None:
    assert form.parts_of(TERMS, {name: value}) == parts
    field = next(one for one in form.fields_of(TERMS, {name: value}) if one.name == name)
    assert (field.value, field.stands) != (field.stands, field.value)


def test_a_ring_shows_what_it_asks_for_by_itself() -> None:
    policy = drafts.within(TERMS.policy, "site = lab")
    terms = msgspec.structs.replace(TERMS, policy=policy, audience="site = lab")
    shown = {one.name: one.value for one in form.fields_of(terms, {})}
    assert shown["audience"] == "site = lab"
    assert shown["audiences.pilot"] == "group:pilot"
    assert shown["audiences.fleet"] == "rest"


def test_whom_a_snapshot_means_is_fixed_and_says_why() -> None:
    terms = msgspec.structs.replace(TERMS, fixed=True, begun=True, release="gw1-1.1.0")
    fixed = {one.name for one in form.fields_of(terms, {}) if one.fixed}
    assert fixed == {"audience", "audiences.internal", "audiences.pilot", "audiences.fleet"}
    assert {term for term, _ in form.stays(terms)} == {"Release", "Name", "Rings", "Who is meant"}


def _row(office: Office) -> dict[str, Any]:
    found = office.rig.read(lambda conn: admin_rollouts.rollout(conn, NAME))
    assert found is not None
    return dict(found)


def _generation(office: Office, **query: str) -> str:
    page = office.client.get(EDIT, params=query).text
    found = re.search(r'name="generation" value="(\d+)"', page)
    assert found is not None
    return found.group(1)


def test_what_was_shown_is_changed_and_what_changed_meanwhile_is_not(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device()
    with opened(rig) as office:
        assert office.post("/rollouts", release=NAME, preset="normal") == 303
        first = _generation(office, in_flight="40")
        assert "only narrows" in office.page(f"{EDIT}?in_flight=40")
        assert "Wider: priority 5" in office.page(f"{EDIT}?priority=5")
        assert "Nothing differs yet" in office.page(EDIT)
        assert "This cannot be done" in office.page(f"{EDIT}?in_flight=many")
        assert "not KEY=VALUE" in office.page(f"{EDIT}?gates.fleet=soak+24h")
        assert "Wider: ring pilot has another audience" in office.page(
            f"{EDIT}?audiences.pilot=site+%3D+lab"
        )
        assert "there is no group nobody" in office.page(f"{EDIT}?audiences.pilot=not+group:nobody")
        assert "there is no group" not in office.page(f"{EDIT}?in_flight=40")
        assert "another release is another rollout" in office.page(EDIT).lower()
        assert _row(office)["policy"]["at_once"] == 0
        sent = {"in_flight": "40", "reason": "slower"}
        assert office.post(EDIT, **sent, generation="x") == 400
        assert office.post(EDIT, **sent, generation=first) == 303
        assert _row(office)["policy"]["at_once"] == 40
        assert office.post(EDIT, in_flight="30", reason="late", generation=first) == 409
        assert _row(office)["policy"]["at_once"] == 40
