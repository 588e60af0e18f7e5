"""The form for a new rollout: what it says of a preset is the preset's, whom it reaches is counted, and what it makes is what was shown."""

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import Office, opened

from tidegate.core import amounts
from tidegate.rollout import presets
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.server.store import admin_rollouts
from tidegate.server.web import words
from tidegate.server.web.queries import new_rollout

NAME = "gw1-1.1.0"


def asked(office: Office, **fields: str) -> str:
    answer = office.client.get("/new-rollout", params=fields)
    assert answer.status_code == 200, answer.text[-500:]
    return str(answer.text)


@pytest.mark.parametrize("name", new_rollout.CHOICES)
def test_what_a_preset_means_is_read_from_the_preset(name: str) -> None:
    said = next(one.says for one in new_rollout.choices() if one.name == name)
    harm, written = PRESETS[name], presets.PRESETS[name]["ring"]
    *rings, proof, watch = said
    assert len(rings) == len(written)
    for line, ring in zip(rings, written, strict=True):
        assert line.startswith(f"{ring['name'].capitalize()}: ")
        assert f"{ring['gates'][0]['healthy']} healthy" in line
        soak_s = amounts.parse_duration(ring["soak"], "soak")
        assert line.endswith(f" and {words.duration(soak_s)}.")
        for step in ring.get("steps", []):
            assert step.replace("%", f"{words.NBSP}%") in line
    assert proof.startswith("No proof" if not harm.soaks else "Grows as")
    assert all(words.duration(gate.age_s) in proof for gate in harm.soaks)
    assert f"Halts at {words.odds(harm.odds)};" in watch
    assert f"watched {words.duration(harm.watch_s)} " in watch


def test_no_two_presets_say_the_same_of_their_rings() -> None:
    assert len({one.says[:-2] for one in new_rollout.choices()}) == len(new_rollout.CHOICES)


def test_a_form_is_a_policy_file_and_empty_fields_are_not_in_it() -> None:
    fields = {"release": " r ", "preset": "fast", "audience": "", "holdback": "1%", "other": "x"}
    flow = {"holdback": "1%"}
    assert new_rollout.policy_of(fields) == {"release": "r", "preset": "fast", "flow": flow}
    assert new_rollout.policy_of({**fields, "draft": "1"})["draft"] is True


def test_whom_it_reaches_is_shown_and_then_it_is_made(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    for n in range(5):
        rig.device(f"d{n}", rev=1 + n % 2)
    with opened(rig) as office:
        assert "Choose a release" in asked(office)
        assert NAME in asked(office)
        page = asked(office, release=NAME, preset="careful", holdback="2%")
        assert "5 devices of 5 that match" in page
        assert "2% held back" in page
        assert "new-name, careful" in asked(office, release=NAME, name="new-name", preset="careful")
        assert rig.read(lambda conn: admin_rollouts.rollout(conn, NAME)) is None
        fields = {"release": NAME, "preset": "careful", "holdback": "2%", "draft": "1"}
        assert office.post("/rollouts", **fields, reason="try it") == 303
    made = rig.read(lambda conn: admin_rollouts.rollout(conn, NAME))
    assert made is not None
    assert made["state"] == "draft"
    assert made["policy"]["holdback_bp"] == 200
    assert {one["gate"]: one for one in made["policy"]["guards"]}["evidence"]["settings"][
        "preset"
    ] == "careful"


def test_what_cannot_be_made_is_said_on_the_form_and_nothing_is_made(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device("d0")
    with opened(rig) as office:
        assert "This cannot be made" in asked(office, release=NAME, audience="site = ")
        assert "Make the rollout" not in asked(office, release=NAME, audience="site = ")
        assert "norml" in asked(office, release=NAME, preset="norml")
        assert "This cannot be made" in asked(office, release="nope")
        assert office.post("/rollouts", release=NAME, preset="norml") == 400
        office.sign_in("eve")
        assert office.client.get("/new-rollout").status_code == 403
        assert office.post("/rollouts", release=NAME) == 403
        assert "New rollout" not in office.page("/rollouts")
    assert rig.read(lambda conn: admin_rollouts.rollout(conn, NAME)) is None


CHANGES = {
    "pilot": "revision = 2",
    "steps": "1%, 20%,100%",
    "approval": "1",
    "activate": "Sat 02:00-05:00; Sun 02:00-05:00",
    "level": "required-by",
    "deadline": "2027-12-24T02:00:00Z",
    "odds": "200",
    "failures": "2%",
}


def test_what_changes_a_preset_is_the_preset_with_that_changed() -> None:
    data = new_rollout.policy_of({"release": "r", "preset": "normal", **CHANGES})
    internal, pilot, fleet = data["ring"]
    written = presets.PRESETS["normal"]
    assert (internal["audience"], pilot["audience"]) == ("group:internal", "revision = 2")
    assert fleet["steps"] == ["1%", "20%", "100%"]
    assert [one["gates"][-1]["type"] for one in (internal, pilot)] == ["approval"] * 2
    assert fleet["gates"] == written["ring"][-1]["gates"]
    evidence, *others = data["guards"]
    assert evidence == {**written["guards"][0], "odds": 200, "failures": "2%"}
    assert others == written["guards"][1:]
    assert presets.PRESETS["normal"]["ring"][0]["gates"] != internal["gates"], "not changed itself"
    presets.policy_from_dict(data, also=("release", "windows", "delivery"))
    plain = {"release": "r", "preset": "normal"}
    assert new_rollout.policy_of({**plain, **dict.fromkeys(CHANGES, "")}) == plain


def test_a_changed_preset_is_shown_made_and_kept_as_it_was_asked_for(rig: Rig) -> None:
    rig.publish_trust()
    rig.release(1)
    for n in range(5):
        rig.device(f"d{n}", rev=1 + n % 2)
    with opened(rig) as office:
        page = asked(office, release=NAME, **CHANGES)
        assert "with changes" in page
        assert "This cannot be made" not in page
        assert 'value="Sat 02:00-05:00; Sun 02:00-05:00"' in page
        fields = {"release": NAME, "preset": "normal", "draft": "1", **CHANGES}
        assert office.post("/rollouts", **fields, reason="try it") == 303
    made = rig.read(lambda conn: admin_rollouts.rollout(conn, NAME))
    assert made is not None
    rings = made["policy"]["rings"]
    assert rings[1]["audience"] == "revision = 2"
    assert rings[2]["shares"] == [100, 2000, 10000]
    assert [any(one["gate"] == "approval" for one in ring["gates"]) for ring in rings] == [
        True,
        True,
        False,
    ]
    assert made["delivery"]["activate_window"] == ["Sat 02:00-05:00", "Sun 02:00-05:00"]
    assert made["delivery"]["deadline"] > 0
    guards = {one["gate"]: one["settings"] for one in made["policy"]["guards"]}
    assert (guards["evidence"]["odds"], guards["evidence"]["failures"]) == (200, "2%")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", "50%, 10%", "steps must rise"),
        ("pilot", "model =", "pilot, audience"),
        ("activate", "someday", "windows"),
        ("level", "required-by", "deadline"),
        ("odds", "many", "odds"),
    ],
)
def test_a_change_that_makes_no_sense_is_said_where_it_was_typed(
    rig: Rig, field: str, value: str, says: str
) -> None:
    rig.publish_trust()
    rig.release(1)
    rig.device("d0")
    with opened(rig) as office:
        page = asked(office, release=NAME, **{field: value})
        assert "This cannot be made" in page
        assert says in page
        assert f'value="{value}"' in page or field == "level"
