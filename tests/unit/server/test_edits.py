"""A rollout that is edited while it runs: what is open stays open, narrowing takes one person, widening two."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, PIA, Desk

from tidegate.core.errors import RequestError
from tidegate.rollout import cohort
from tidegate.server import inquiry, planning, rollouts
from tidegate.server.acts import ChangedError, Outcome
from tidegate.server.store import Connection

STEPS: dict[str, Any] = {
    **ONE_RING,
    "ring": [{"name": "all", "steps": ["1%", "10%", "100%"], "gates": ["approval"]}],
    "flow": {"in_flight": 50},
}


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    rig.release(1)
    desk = Desk(rig)
    for _ in range(3):
        rig.device()
    made = desk.create(**STEPS)
    desk.people("pia", "olga")
    assert made.state == "active"
    # One device more is beyond one person's reach.
    desk.operations.rules = msgspec.structs.replace(desk.operations.rules, above_devices=0)
    return desk


def _amend(desk: Desk, **parts: Any) -> Outcome:
    return desk.operations.amend("gw1-1.1.0", parts, OLGA, "because", desk.now)


def _share(desk: Desk) -> int:
    return cohort.share_of(planning.model_of(desk.row()), 0)


def test_steps_that_change_open_nothing_by_themselves(desk: Desk) -> None:
    desk.act("approve", actor=PIA)
    desk.tick()
    assert _share(desk) == 1_000
    done = _amend(desk, steps={"all": ["1%", "2%", "5%", "10%", "100%"]})
    assert done.request is None
    assert _share(desk) == 1_000
    assert desk.row()["rings"][0]["step"] == 3
    # The second step of these is all of the ring: by number alone it would be open now.
    asked = _amend(desk, steps={"all": ["10%", "100%"]})
    assert asked.request is not None
    assert "begins at 10" in asked.text
    desk.operations.decide(asked.request, PIA, "seen", desk.now, approve=True)
    assert _share(desk) == 1_000
    desk.tick()
    assert _share(desk) == 1_000  # and the approval of the step before is none of this one
    with pytest.raises(RequestError, match="its steps begin there or below"):
        _amend(desk, steps={"all": ["50%", "100%"]})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"flow": {"in_flight": 10}}, ""),
        ({"windows": {"activate": ["02:00-04:00"]}}, ""),
        ({"delivery": {"rate": "50KiB/s"}}, ""),
        ({"priority": -2}, ""),
        ({"gates": {"all": ["approval", {"type": "soak", "time": "2h"}]}}, ""),
        ({"gates": {"all": [{"type": "soak", "time": "2h"}]}}, "gate approval is gone"),
        ({"guards": []}, "guard: gate failure_rate is gone"),
        ({"audience": "site = lab"}, "ring all has another audience"),
        ({"audiences": {"all": "site = lab"}}, "ring all has another audience"),
        ({"flow": {"in_flight": "none"}}, "no bound, not 50"),
        ({"priority": 9}, "priority 9"),
        ({"steps": {"all": ["1%", "100%"]}}, "no step at 10"),
    ],
)
def test_narrowing_takes_one_person_and_widening_two(
    desk: Desk, parts: dict[str, Any], says: str
) -> None:
    before = desk.row()
    done = _amend(desk, **parts)
    after = desk.row()
    if not says:
        assert done.request is None
        assert (before["policy"], before["delivery"]) != (after["policy"], after["delivery"])
        return
    assert done.request is not None
    assert says in done.text
    assert (before["policy"], before["delivery"]) == (after["policy"], after["delivery"])
    desk.operations.decide(done.request, PIA, "seen", desk.now, approve=True)
    story, _ = desk.rig.read(lambda conn: inquiry.story(conn, "gw1-1.1.0", limit=50))
    assert says in [one for one in story if one.action == "edit"][-1].text


def test_what_is_not_named_stays_as_it_is(desk: Desk) -> None:
    before = desk.row()
    _amend(desk, windows={"activate": ["02:00-04:00"]}, flow={"in_flight": 5})
    after = desk.row()
    assert after["policy"] == {**before["policy"], "at_once": 5}
    assert after["delivery"] == {
        **before["delivery"],
        "activate_window": ["02:00-04:00"],
        "activate": "window",
    }


def test_an_edit_is_told_what_speaks_against_it_that_did_not_before(desk: Desk) -> None:
    told = _amend(desk, gates={"all": ["approval", {"type": "soak", "time": "3d"}]}).warnings
    assert not told
    before = desk.row()
    slip = _amend(desk, audiences={"all": "not group:nobody_made_this"})
    assert any("nobody_made_this" in one for one in slip.warnings)
    asked = _amend(desk, audiences={"all": "group:nobody_made_this"})
    assert any("no device" in one for one in asked.warnings)
    assert asked.request is not None
    # what was wrong before is not told anew
    desk.operations.decide(asked.request, PIA, "seen", desk.now, approve=True)
    assert not _amend(desk, flow={"in_flight": 3}).warnings
    assert before["policy"] != desk.row()["policy"]
    with pytest.raises(RequestError, match=r"lint\.deadline_past"):
        _amend(desk, delivery={"deadline": "2020-01-01T00:00:00Z"})


def test_an_edit_that_changes_nothing_is_none(desk: Desk) -> None:
    asked = _amend(desk, flow={"in_flight": "none"})
    before, count = desk.row(), len(desk.rig.read(_whole_story)[0])
    done = _amend(desk, flow={"in_flight": 50})
    assert (done.already, done.request) == (True, None)
    assert desk.row() == before
    assert len(desk.rig.read(_whole_story)[0]) == count
    assert [one.id for one in desk.operations.requests()] == [asked.request]


def _whole_story(conn: Connection) -> Any:
    return inquiry.story(conn, "gw1-1.1.0", limit=50)


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({}, "name what is to change"),
        ({"stepz": {}}, 'did you mean "steps"'),
        ({"steps": {"al": ["1%"]}}, 'no ring "al"'),
        ({"steps": {"all": ["10%", "1%", "100%"]}}, "rise"),
        ({"steps": ["1%"]}, "steps: a table"),
        ({"audiences": {"al": "rest"}}, 'no ring "al"'),
        ({"audiences": {"all": "site ="}}, "audience"),
        ({"audience": "site ="}, "value"),
        ({"gates": {"all": [{"type": "sok"}]}}, "soak"),
        ({"guards": "all"}, "guards"),
        ({"flow": {"holdback": "1%"}}, "flow: "),
        ({"flow": {"in_flight": -1}}, "in_flight"),
        ({"delivery": {"rate": "fast"}}, "rate"),
        ({"preset": "careful"}, "other rings"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_what_cannot_be_read_changes_nothing_and_is_named(
    desk: Desk, parts: dict[str, Any], word: str
) -> None:
    before = desk.row()
    with pytest.raises(RequestError, match=word):
        _amend(desk, **parts)
    assert desk.row() == before


def test_no_ring_reaches_beyond_the_rollouts_audience(desk: Desk) -> None:
    def change(**parts: Any) -> list[str]:
        done = _amend(desk, **parts)
        if done.request is not None:  # of nobody who is there, one person decides
            desk.operations.decide(done.request, PIA, "seen", desk.now, approve=True)
        row = desk.row()
        return [str(row["audience"]), str(row["policy"]["rings"][0]["audience"])]

    assert change(audience="site = lab") == ["site = lab", "site = lab"]
    both = change(audiences={"all": "revision = 1 or revision = 2"})
    assert both == ["site = lab", "(site = lab) and (revision = 1 or revision = 2)"]
    both = change(audience="site = north")
    assert both == ["site = north", "(site = north) and (revision = 1 or revision = 2)"]
    assert change(audience="rest") == ["", "revision = 1 or revision = 2"]


def test_an_edit_of_what_changed_meanwhile_is_refused(desk: Desk) -> None:
    seen = int(desk.row()["generation"])
    _amend(desk, priority=-1)
    with pytest.raises(ChangedError):
        desk.operations.amend(
            "gw1-1.1.0", {"priority": -2}, OLGA, "late", desk.now, generation=seen
        )
    assert desk.row()["policy"]["priority"] == -1


def test_what_is_under_way_goes_on_under_other_terms(desk: Desk) -> None:
    desk.act("halt")
    desk.rig.release(2)
    device = desk.rig.device()
    rules = desk.operations.rules
    desk.operations.rules = msgspec.structs.replace(
        rules, above_devices=10_000, above_share_bp=10_000
    )
    desk.create("gw1-1.2.0", name="open")
    body = device.assignment()
    assert body.action == "install"
    parts = {"flow": {"in_flight": 1}, "delivery": {"tries": 1}}
    desk.operations.amend("open", parts, OLGA, "slower", desk.now)
    again = device.assignment()
    assert (again.action, again.update) == ("install", body.update)
    assert again.policy.tries == 1
    device.run(again)
    device.confirm(again)
    assert desk.rig.tallies(int(desk.row("open")["id"]))["confirmed"] == 1


@pytest.mark.parametrize("how", ["edit", "amend"])
def test_what_was_put_down_for_a_time_for_few_does_not_start_then_for_all(
    rig: Rig, how: str
) -> None:
    """One person may have a rollout to nobody start tomorrow; whom it is for by then is not one person's to say."""
    rig.publish_trust()
    rig.release(1)
    desk = Desk(rig)
    devices = [rig.device(f"d{number}") for number in range(3)]
    desk.people("pia", "olga")
    soon: dict[str, Any] = {"start": desk.now + 3_600}
    made = desk.create(**ONE_RING, audience="site = nowhere", **soon)
    assert (made.state, made.request) == ("scheduled", None)
    if how == "edit":
        data = {**ONE_RING, **soon}
        done = desk.operations.edit("gw1-1.1.0", data, OLGA, "for all", desk.now)
    else:
        done = _amend(desk, audience="product = gw1")
    desk.rig.now += 3_601
    desk.tick()
    assert (done.state, desk.row()["state"]) == ("draft", "draft")
    assert not any(one.poll().work for one in devices)
    assert desk.act("start").request is not None


@pytest.mark.parametrize("begun", [True, False])
def test_an_edit_is_counted_by_whom_it_is_for_afterwards(rig: Rig, begun: bool) -> None:
    """A rollout that one person may start for one device is not edited by one person to be for all."""
    rig.publish_trust()
    rig.release(1)
    desk = Desk(rig)
    devices = [rig.device(f"d{number}") for number in range(6)]
    desk.people("pia", "olga")
    desk.operations.rules = msgspec.structs.replace(
        desk.operations.rules, above_devices=2, above_share_bp=10_000
    )
    more: dict[str, Any] = {} if begun else {"start": desk.now + 3_600}
    made = desk.create(**ONE_RING, audience=f"id = {devices[0].id}", **more)
    assert (made.state, made.request) == ("active" if begun else "scheduled", None)
    done = _amend(desk, audience="product = gw1")
    rig.now += 3_601
    desk.tick()
    assert not devices[3].poll().work
    if begun:
        assert done.request is not None
        desk.operations.decide(done.request, PIA, "seen", desk.now, approve=True)
        assert devices[3].poll().work
    else:
        assert (done.state, desk.row()["state"]) == ("draft", "draft")
        assert _amend(desk, audience=f"id = {devices[1].id}").request is None


def test_a_step_that_one_more_person_lets_pass_is_the_one_that_was_shown(desk: Desk) -> None:
    asked = desk.act("advance")
    assert asked.request is not None, "a ring that is not named is the one that is open"
    strict = desk.operations.rules
    desk.operations.rules = msgspec.structs.replace(
        strict, above_devices=10_000, above_share_bp=10_000
    )
    assert desk.act("advance").request is None  # somebody else, to whom it was not too much
    desk.operations.rules = strict
    assert _share(desk) == 1_000
    with pytest.raises(RequestError, match="another step"):
        desk.operations.decide(asked.request, PIA, "seen", desk.now, approve=True)
    assert _share(desk) == 1_000
    again = desk.act("advance")
    assert again.request is not None
    desk.operations.decide(again.request, PIA, "seen", desk.now, approve=True)
    assert _share(desk) == 10_000


def test_a_start_is_of_what_was_counted_whatever_is_edited_at_the_same_moment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.publish_trust()
    rig.release(1)
    desk = Desk(rig)
    devices = [rig.device(f"d{number}") for number in range(3)]
    desk.people("pia", "olga")
    desk.create(**ONE_RING, audience="site = nowhere", draft=True)
    count, meanwhile = rollouts.prepare, [lambda: _amend(desk, audience="product = gw1")]

    def counted(*given: Any) -> int:
        found = count(*given)
        if meanwhile:
            with ThreadPoolExecutor(1) as other:
                other.submit(meanwhile.pop()).result(60)
        return found

    monkeypatch.setattr(rollouts, "prepare", counted)
    done = desk.act("start")
    assert done.request is not None
    assert desk.row()["state"] == "awaiting_approval"
    assert not any(one.poll().work for one in devices)
