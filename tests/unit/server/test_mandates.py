"""The rollout mandate on the server: nobody is offered what his own agent would make him wait for, and everybody is told so."""

from pathlib import Path

from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_releases import _accept, _bundle, _lab
from tests.unit.server.test_rollouts_admin import OLGA, Desk
from tests.unit.server.web.test_store_pages import opened

from tidegate.core.authority import Mandate, MandateStep
from tidegate.core.mandate import place
from tidegate.publisher.bundle import read
from tidegate.publisher.restage import restage
from tidegate.publisher.sign import sign_bundle
from tidegate.server import inquiry, why
from tidegate.server.web.queries import rollout as rollout_page
from tidegate.server.web.reader import Account

SALT = "5a" * 16
DAY = 86_400


def mandate(rig: Rig, *steps: tuple[int, int], counter: int = 1) -> Mandate:
    made = tuple(MandateStep(not_before=int(rig.now) + at, bucket_max=most) for at, most in steps)
    return Mandate(counter=counter, salt=SALT, steps=made)


def early_and_late(rig: Rig, share: int = 5000) -> tuple[Device, Device]:
    """Enrol a device of the first `share` buckets and one of the others."""
    found = mandate(rig, (0, 1))
    ids = [f"d{number}" for number in range(200)]
    early = next(one for one in ids if place(found, one) < share)
    late = next(one for one in ids if place(found, one) >= share)
    return rig.device(early), rig.device(late)


def test_only_those_in_the_open_step_are_offered_the_release(rig: Rig) -> None:
    rig.publish_trust()
    early, late = early_and_late(rig)
    rollout = rig.rollout(rig.release(1, mandate=mandate(rig, (-10, 5000), (DAY, 10_000))))
    assert (early.poll().work, late.poll().work) == (True, False)
    assert late.assignment().action == "none"
    assert early.assignment().action == "install"
    assert rig.tallies(rollout) == {"offered": 1}
    rig.now += DAY - 1
    assert (late.poll().work, late.assignment().action) == (False, "none")


def test_the_hint_comes_when_the_step_opens_without_any_other_news(rig: Rig) -> None:
    rig.publish_trust()
    _, late = early_and_late(rig)
    rig.rollout(rig.release(1, mandate=mandate(rig, (-10, 5000), (3600, 10_000))))
    assert late.assignment().action == "none"
    assert late.poll().work is False
    rig.now += 3600
    assert late.poll().work is True
    assert late.assignment().action == "install"


def test_a_device_whose_own_time_is_behind_is_not_offered_what_it_must_wait_for(rig: Rig) -> None:
    rig.publish_trust()
    _, late = early_and_late(rig)
    rollout = rig.rollout(rig.release(1, mandate=mandate(rig, (-DAY, 10_000))))
    assert late.assignment(offline_now=int(rig.now) - 2 * DAY).action == "none"
    assert rig.tallies(rollout) == {}
    assert late.poll().work is True, "its clock may be set at any time"
    assert late.assignment(offline_now=int(rig.now)).action == "install"


def test_a_device_that_claims_a_later_time_gains_nothing(rig: Rig) -> None:
    rig.publish_trust()
    _, late = early_and_late(rig)
    rig.rollout(rig.release(1, mandate=mandate(rig, (-10, 5000), (DAY, 10_000))))
    assert late.assignment(offline_now=int(rig.now) + 2 * DAY).action == "none"


def test_why_and_dry_run_and_pages_tell_the_signed_schedule(rig: Rig) -> None:
    rig.publish_trust()
    early, late = early_and_late(rig)
    rig.release(1, mandate=mandate(rig, (-10, 5000), (DAY, 9000)))
    desk = Desk(rig)
    data = {"preset": "lab", "release": "gw1-1.1.0", "ring": [{"name": "all"}]}
    reach = desk.operations.preview(data, OLGA, desk.now)
    assert [(one.share_bp, one.devices) for one in reach.mandate] == [(5000, 1), (9000, 2)]
    desk.create(ring=[{"name": "all"}])
    told = rig.read(lambda conn: why.tell(conn, late.id, desk.now))
    barred = next(one for one in told.checks if not one.ok)
    assert barred.code == "compat.mandate"
    assert "50 %" in barred.text
    assert "its turn is" in barred.text
    assert "compat.mandate" not in [
        one.code for one in rig.read(lambda conn: why.tell(conn, early.id, desk.now)).checks
    ]
    lines = rig.read(lambda conn: why.tell_rollout(conn, "gw1-1.1.0", "", desk.now))
    assert any("mandate" in line for line in lines)
    assert any("nobody else" in line for line in lines)
    facts = rig.read(lambda conn: inquiry.rollout(conn, "gw1-1.1.0", int(rig.now)))
    assert facts.mandate is not None
    assert [one.bucket_max for one in facts.mandate.steps] == [5000, 9000]
    page = rig.read(
        lambda conn: rollout_page.page(
            conn,
            "gw1-1.1.0",
            Account(name="olga", role="operator", may=frozenset()),
            lambda *_: {},
            desk.now,
        )
    )
    assert page is not None
    assert page.mandate[0].startswith("50 % since")


def test_the_pages_of_rollout_and_device_tell_the_signed_schedule(rig: Rig) -> None:
    rig.publish_trust()
    _, late = early_and_late(rig)
    rig.release(1, mandate=mandate(rig, (-10, 5000), (DAY, 9000)))
    Desk(rig).create(ring=[{"name": "all"}])
    with opened(rig) as office:
        page = office.page("/rollouts/gw1-1.1.0")
        assert "Signed schedule (mandate)" in page
        assert "50 % since" in page
        assert "90 % from" in page
        assert "nobody else" in page
        device = office.page(f"/devices/{late.id}")
        assert "let 50 % of the devices have it now" in device


def test_a_published_mandate_is_kept_by_the_plan_and_ended_by_a_later_role(
    rig: Rig, tmp_path: Path
) -> None:
    lab = _lab(rig, tmp_path / "lab")
    made = _bundle(rig, lab, 1, mandate="50%@+0s,100%@+3d")
    assert _accept(rig, made).releases == ("gw1-1.1.0",)
    found = rig.read(lambda conn: inquiry.release(conn, "gw1-1.1.0")).mandate
    assert found is not None
    ids = [f"d{number}" for number in range(200)]
    late = rig.device(next(one for one in ids if place(found, one) >= 5000))
    desk = Desk(rig)
    desk.create(ring=[{"name": "all"}])
    assert late.assignment().action == "none"
    body = read(made).documents["product/gw1"]
    ended = restage(body, "gw1-1.1.0", None, tmp_path, now=int(rig.now), expires_s=DAY)
    sign_bundle(ended, lab.signer("product"))
    assert _accept(rig, ended).releases == ()
    assert rig.read(lambda conn: inquiry.release(conn, "gw1-1.1.0")).mandate is None
    assert late.poll().work is True
    assert late.assignment().action == "install"
