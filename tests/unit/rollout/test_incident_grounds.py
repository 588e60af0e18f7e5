"""What a stranger asks of an incident's report: why then and not before, what shows the cause, whom it would meet again, who decides that until when."""

import inspect

import msgspec
import pytest
from tests.unit.rollout.incidents import EVIDENCE, about, read, report
from tests.unit.rollout.stage import begun

from tidegate.rollout.incident import (
    MEANS,
    DeviceOutcome,
    Entry,
    Fleet,
    FollowUp,
    Population,
    Returned,
    Rhythm,
    Shown,
    Stood,
    Told,
    WayBack,
    Written,
    brief,
)
from tidegate.rollout.incident.model import Counts, IncidentReport, Look, Share
from tidegate.rollout.model import GateSpec, Policy, RingSpec

CAUSE = Written(at=2, by="gus", text="the antenna: 5 of 5 hang")
SHOWN = Shown(at=3, by="gus", text="bench log 7", means="bench", kept="HW-311")
DAY = 86_400


def _section(told: IncidentReport, title: str) -> str:
    return read(told).partition(f"## {title}\n")[2].partition("\n## ")[0]


# --- why it was stopped then ---


def _stopping() -> IncidentReport:
    """Two rings, a share that counts from four attempts, and the third failure of four between two looks."""
    policy = Policy(
        rings=(RingSpec(name="internal"), RingSpec(name="pilot")),
        guards=(GateSpec(gate="failure_rate", settings={"max": "30%", "sample": 4}),),
    )
    well = [
        DeviceOutcome(device=f"w{n}", variant="r3", ring="internal", state="confirmed", at=60, permitted_at=10)
        for n in range(6)
    ]  # fmt: skip
    bad = [
        DeviceOutcome(device=f"b{n}", variant="r7", ring="pilot", state="reverted", reason="boot.no_return", at=at, permitted_at=at - 5)
        for n, at in enumerate((110, 120, 160, 230))
    ]  # fmt: skip
    bad[3] = msgspec.structs.replace(bad[3], permitted_at=170)
    entries = [
        Entry(at=100, who="planner", text="advance: ring pilot opens", kind="decision"),
        Entry(at=130, who="planner", text="hold: ring pilot waits for soak"),
        Entry(at=200, who="planner", text="halt: ring pilot: 3 of 4", kind="decision"),
    ]
    return report(
        incident=about(opened_at=200),
        rollout=msgspec.structs.replace(begun(state="halted"), policy=policy),
        devices=[*bad, *well],
        entries=entries,
        bars={130: ["2 of 8 attempts ended badly (25 %), limit 30 %"]},
        rhythm=Rhythm(every_s=70, at_once=False),
    )


def test_each_look_tells_what_stood_against_which_bar_ring_by_ring() -> None:
    looks = {one.at: one for one in _stopping().looks}
    assert [(one.harmed, one.attempts) for one in looks.values()] == [(0, 6), (2, 8), (3, 10)]
    said = "; ".join(looks[130].bars)
    assert said.startswith("2 of 8 attempts ended badly (25 %), limit 30 %; ")
    assert "ring pilot: 2 of 2 attempts ended badly (100 %), limit 30 %" in said
    assert "a share counts from 4 attempts on" in said
    assert "ring internal: 0 of 6 attempts ended badly (0 %), limit 30 %" in said
    assert "ring pilot: 3 of 4 attempts ended badly (75 %)" in "; ".join(looks[200].bars)
    assert not any("ring pilot" in one for one in looks[100].bars)


def test_when_the_gate_looks_and_what_was_new_at_the_last_look_is_told() -> None:
    text = _section(_stopping(), "Why it was not stopped before")
    assert "The gate looks every 1 min 10 s, and not in between" in text
    assert "b2 at 1970-01-01 00:02:40 ended badly" in text
    assert "b1 at" not in text
    at_once = msgspec.structs.replace(_stopping(), rhythm=Rhythm(every_s=60))
    assert "every 1 min, and at once when a device reports" in read(at_once)


def test_who_could_not_be_stopped_any_more_is_named() -> None:
    told = _stopping()
    assert told.reach.out_count == 1
    text = _section(told, "Why it was stopped")
    assert "1 device was past the point of no return; what became of them: b3 (reverted)." in text


def test_no_share_is_told_of_a_time_in_which_variants_were_taken_out() -> None:
    told = _stopping()
    policy = Policy(rings=(RingSpec(name="pilot"),), guards=(GateSpec(gate="failure_rate"),))
    out = msgspec.structs.replace(begun(state="halted"), policy=policy, isolated=("r7",))
    again = report(incident=about(opened_at=200), rollout=out, entries=told.timeline)
    assert again.looks
    assert all(not one.bars for one in again.looks)


# --- the cause ---


def test_the_cause_is_proved_only_by_what_is_not_a_count() -> None:
    supposed = {"hypothesis": Written(at=1, by="olga", text="the modem")}
    assert "Why: not known." in read(report())
    assert "Why: supposed, not proved: the modem." in read(report(**supposed))
    said = report(**supposed, cause=CAUSE)
    assert brief.cause(said) == "said"
    assert "Why: said to be proved, but nothing shows it except the counts: the antenna" in read(
        said
    )
    assert "What was shown otherwise: nothing is written down." in _section(said, "Cause")
    assert any(one.startswith("what shows the cause otherwise") for one in said.missing)
    proved = report(**supposed, cause=CAUSE, evidence_of=[SHOWN])
    assert brief.cause(proved) == "proved"
    assert "Why: proved: the antenna: 5 of 5 hang. Shown by: test on a bench" in read(proved)
    assert "the modem" not in _section(proved, "Cause")
    assert not any("shows the cause" in one for one in proved.missing)


def test_counts_and_what_was_shown_otherwise_stand_apart() -> None:
    text = _section(report(cause=CAUSE, evidence_of=[SHOWN]), "Cause")
    counts, _, other = text.partition("What was shown otherwise, and not by counting:")
    assert "What the counts show: 5 of 5 with variant = r7 ended badly, 0 of 15" in counts
    assert "and not why it happened" in counts
    assert "| 1970-01-01 00:00:03 | gus | test on a bench | bench log 7 | HW-311 |" in other


def test_evidence_that_nobody_can_find_again_is_missing() -> None:
    lost = msgspec.structs.replace(SHOWN, kept="")
    told = report(cause=CAUSE, evidence_of=[SHOWN, lost])
    assert "where the evidence of the cause is kept" in told.missing
    assert "| not said |" in _section(told, "Cause")
    assert set(MEANS) == {"log", "bench", "code", "supplier", "other"}


def test_ring_and_hardware_that_go_together_are_said_beside_the_cause() -> None:
    well = Share(name="internal", counts=Counts(attempts=5, confirmed=5))
    bad = Share(name="pilot", counts=Counts(attempts=4, harmed=4))
    told = report(cause=CAUSE, evidence_of=[SHOWN])
    reach = msgspec.structs.replace(told.reach, variants=(well, bad), rings=(well, bad))
    text = _section(msgspec.structs.replace(told, reach=reach), "Cause")
    assert "These counts cannot tell the hardware from the ring." in text
    assert "These counts cannot tell" not in _section(told, "Cause")


# --- whom it would meet, and who decides ---


def _fleet() -> Fleet:
    people = (
        Population(variant="r3", devices=40, attempts=17, harmed=0),
        Population(variant="r7", devices=20, attempts=6, harmed=5, refusing=4),
        Population(variant="r8", devices=7),
        Population(variant="x1", devices=3, fits=False),
    )
    return Fleet(
        devices=70, matching=67, never=44, untried=("r8",), since=2,
        alike=16, unknown=7, well=40, refusing=4, variants=people,
    )  # fmt: skip


def _numbers(text: str, title: str) -> list[int]:
    rows = text.partition(title)[2].partition("\n\n")[0].splitlines()[2:]
    return [int(row.split("|")[1].replace(",", "")) for row in rows]


def test_variants_that_never_tried_it_are_in_the_risk_and_the_table() -> None:
    told = report(fleet=_fleet())
    text = read(told)
    assert "16 devices of variants that ended badly with it and do not refuse it" in text
    assert "and 7 devices of variants that never tried it (r8)" in text
    table = _section(told, "Variants")
    assert "| r8 (tried by none) | 7 | 0 | 0 | 0 | 0 | 0 | 0 | 7 |" in table
    assert "| x1 (not named) | 3 |" in table
    rows = [row.split("|")[1:-1] for row in table.strip().splitlines()[2:]]
    columns = list(zip(*[[int(cell) for cell in row[1:]] for row in rows], strict=True))
    assert all(sum(column[:-1]) == column[-1] for column in columns)


def test_what_is_said_of_the_fleet_adds_up() -> None:
    text = read(report(fleet=_fleet()))
    assert sum(_numbers(text, "| the product has 70 devices now |")) == 70
    again = "| if it went out again, of the 67 devices that its manifest names |"
    assert _numbers(text, again) == [4, 16, 7, 40]
    assert sum(_numbers(text, again)) == 67
    acted = "| 23 devices acted on it, 22 of them with leave to activate (exposed) |"
    assert sum(_numbers(text, acted)) == 23


def test_a_recalled_release_meets_nobody() -> None:
    text = read(report(fleet=_fleet(), recalled_at=5, recalled_by="olga", recall_reason="hangs."))
    assert "no, it was recalled at 1970-01-01 00:00:05 UTC by olga: hangs." in text
    assert "if it went out again" not in text
    assert "would meet" not in text


@pytest.mark.parametrize(
    ("followups", "said"),
    [
        ((), "Nobody is named yet who decides on the recall."),
        ((FollowUp(number=1, text="x", owner="olga", due_at=1_765_000_000, about="recall"),), "olga decides on the recall, by 2025-12-06."),
        ((FollowUp(number=1, text="x", owner="olga", due_at=1_764_800_000, about="recall"),), "olga decides on the recall, by 2025-12-03 (OVERDUE)."),
        ((FollowUp(number=1, text="x", owner="olga", done_at=1_764_800_000, done_by="gus", about="recall"),), "gus decided on 2025-12-03 to leave it."),
        ((FollowUp(number=1, text="x", owner="olga"),), "Nobody is named yet who decides on the recall."),
    ],
)  # fmt: skip
def test_who_decides_on_a_recall_until_when_is_told(
    followups: tuple[FollowUp, ...], said: str
) -> None:
    told = report(followups=followups)
    assert said in _section(told, "In short")
    missing = "who decides until when whether gw1-2.5.1 is recalled" in told.missing
    assert missing is said.startswith("Nobody")


def test_an_overdue_follow_up_is_shown_as_one() -> None:
    late = FollowUp(number=1, text="ask", owner="olga", due_at=1_764_900_000 - 3 * DAY)
    told = report(followups=[late, FollowUp(number=2, text="look", owner="gus")])
    text = _section(told, "Follow-ups")
    assert "| 1 | ask | olga | 2025-12-02 | OVERDUE by 72 h |" in text
    assert "| 2 | look | gus | no date | open |" in text
    assert "ask (olga, by 2025-12-02, OVERDUE)" in read(told)
    assert late.overdue_s(late.due_at) == 0


# --- how long, who, in which words ---


def test_the_time_from_permit_to_outcome_is_told_and_explained() -> None:
    def one(name: str, state: str, took: int) -> DeviceOutcome:
        return DeviceOutcome(
            device=name,
            variant="r3",
            ring="pilot",
            state=state,
            at=1_000 + took,
            permitted_at=1_000,
        )

    devices = [one("a", "confirmed", 620), one("b", "confirmed", 622), one("c", "confirmed", 700)]
    devices += [one("d", "reverted", 304), one("e", "reverted", 0)]
    told = report(devices=devices, warmup_s=600)
    text = _section(told, "How long it took")
    assert "| confirmed | 3 | 10 min 20 s | 10 min 22 s | 11 min 40 s |" in text
    assert "| reverted | 1 | 5 min 4 s | 5 min 4 s | 5 min 4 s |" in text
    assert "Not in it: 15 devices that confirmed or reverted; their permit and" in text
    assert "health contract for 10 min on end (the warm-up, signed with the release)" in text
    assert "way back" not in text
    way = WayBack(rollout="b", release="r1", state="active")
    again = _section(report(devices=devices, warmup_s=600, ways_back=[way]), "How long it took")
    assert "those on a way back stand in the timeline." in again


def test_who_was_cancelled_is_named_with_the_reason() -> None:
    gone = DeviceOutcome(
        device="d9", variant="r7", ring="pilot", state="cancelled", reason="operator.halted", at=300
    )
    text = _section(report(cancelled=[gone]), "Devices")
    assert (
        "| d9 | r7 | pilot | \N{EN DASH} | not known | no: the server never heard so | operator.halted: the rollout was halted | 1970-01-01 00:05:00 |"
        in text
    )


def test_a_ring_tells_which_variants_acted_in_it() -> None:
    (ring,) = [one for one in report().reach.rings if one.name == "pilot"]
    assert ring.variants == {"r3": 17, "r7": 6}
    assert sum(ring.variants.values()) == ring.counts.attempts
    assert "r3: 17, r7: 6" in _section(report(evidence=EVIDENCE), "Rings")


@pytest.mark.parametrize(
    "word",
    [
        "owner",
        "closed",
        "pair",
        "offered",
        "fallen back",
        "manifest",
        "isolation",
        "staged",
        "activate",
        "enrolled",
        "four-eyes",
        "webhook",
        "seed",
        "warm-up",
        "limit",
    ],
)
def test_a_word_that_a_reader_may_not_know_is_explained(word: str) -> None:
    assert any(word in known for known, _ in brief.GLOSSARY)


def test_soak_has_one_clock_and_one_word() -> None:
    from tidegate.rollout.gates import soak

    (said,) = [means for word, means in brief.GLOSSARY if word == "soak"]
    assert "counted from permits" in said
    assert "admission" not in said + inspect.getsource(soak)
    assert not any(word == "admission" for word, _ in brief.GLOSSARY)


def test_no_sentence_says_each_of_what_it_does_not_name() -> None:
    text = read(report(fleet=_fleet()))
    assert "each alone" not in text
    assert "each refuses" not in text
    assert "of each were tried" not in text


# --- what was said at its hour ---


def test_every_text_of_the_status_page_stands_with_its_own_times() -> None:
    first = Stood(at=100, by="olga", title="Stopped", summary="Nothing to do.", until=160)
    last = Stood(at=160, by="gus", title="Over", summary="All are back.", action="A bench")
    told = Told(at=100, title="Over", summary="All are back.", action="A bench")
    on = {"incident": about(published_at=100, published_by="gus"), "told": told}
    text = read(report(**on, pages=[first, last]))
    said = text.partition("## What the status page says")[2].partition("## Words")[0]
    begun, _, ended = said.partition("Text 2 of 2, on the page from 1970-01-01 00:02:40 UTC")
    stood = "Text 1 of 2, on the page from 1970-01-01 00:01:40 UTC (put there by olga) until"
    assert f"{stood} 1970-01-01 00:02:40 UTC" in begun
    assert "Nothing to do." in begun
    assert "A bench" not in begun
    assert "and it still stands there" in ended
    assert "What is done: A bench" in ended
    head = text.partition("## In short")[0]
    assert (
        "Published: 1970-01-01 00:01:40 UTC by olga; its text was changed once at 1970-01-01 00:02:40 UTC by gus"
        in head
    )
    old = read(report(**on))
    assert "Earlier texts are not kept here, nor since when it says just this" in old
    off = {"incident": about(), "pages": [msgspec.structs.replace(first, until=150)]}
    gone = read(report(**off))
    assert "taken off at 1970-01-01 00:02:30 UTC" in gone.partition("## In short")[0]
    assert "Nothing stands there now: it was taken off." in gone


def test_the_ground_of_a_way_back_is_that_of_its_hour() -> None:
    way = WayBack(
        rollout="b", release="r1", state="active", ordered_at=50, ground="not understood yet"
    )
    decided = Entry(
        at=50, who="olga", text="fallback: six: not understood yet", kind="decision",
        because=("not understood yet",),
    )  # fmt: skip
    proof = Written(at=90, by="gus", text="the antenna")
    told = report(ways_back=[way], entries=[decided], cause=proof, evidence_of=[SHOWN])
    later = "That was the ground of its hour: at 1970-01-01 00:01:30 UTC the proof of the cause overtook it."
    said = f"Why b was ordered, as it was said then: not understood yet. {later}"
    assert said in _section(told, "The way back")
    row = f"| olga | fallback: six | not understood yet. {later} |"
    assert row in _section(told, "Decisions")
    before = msgspec.structs.replace(proof, at=40)
    assert later[:20] not in read(
        report(ways_back=[way], entries=[decided], cause=before, evidence_of=[SHOWN])
    )


def test_the_looks_of_a_way_back_are_told_as_those_of_the_rollout() -> None:
    look = Look(at=60, attempts=6, harmed=1, text="b ended: 6", bars=("1 of 6, limit 30 %",))
    way = WayBack(rollout="b", release="r1", state="completed", looks=(look,))
    text = _section(report(ways_back=[way]), "The way back")
    assert (
        "| 1970-01-01 00:01:00 | 1 of 6 | 1 of 6, limit 30 % | \N{EN DASH} | b ended: 6 |" in text
    )


def test_whoever_was_cancelled_held_the_image_or_did_not() -> None:
    held = DeviceOutcome(
        device="d8", variant="r7", ring="pilot", state="cancelled", reason="operator.halted",
        at=300, offered_at=100, staged_at=130, from_version="2.4.1",
    )  # fmt: skip
    bare = msgspec.structs.replace(held, device="d9", staged_at=0)
    text = _section(report(cancelled=[held, bare]), "Devices")
    assert (
        "| d8 | r7 | pilot | 1970-01-01 00:01:40 | 2.4.1 | yes, since 1970-01-01 00:02:10; nothing boots it |"
        in text
    )
    assert (
        "| d9 | r7 | pilot | 1970-01-01 00:01:40 | 2.4.1 | no: the server never heard so |" in text
    )


def test_the_second_bar_says_how_many_failures_it_would_have_taken() -> None:
    def of(**settings: int) -> list[str]:
        told = _stopping()
        policy = Policy(
            rings=(RingSpec(name="internal"), RingSpec(name="pilot")),
            guards=(GateSpec(gate="failure_rate", settings={"max": "30%", **settings}),),
        )
        stood = msgspec.structs.replace(begun(state="halted"), policy=policy)
        devices = [*told.reach.affected]
        again = report(
            incident=about(opened_at=200), rollout=stood, devices=devices, entries=told.timeline
        )
        return list(again.looks[-1].rare)

    assert of(sample=20, odds=100) == [
        "whole rollout: 3 of 4; it would have taken 4 of 4, which come by luck once in 123 times",
        "ring pilot: 3 of 4; it would have taken 4 of 4, which come by luck once in 123 times",
    ]
    assert of(sample=20)[0].startswith("whole rollout: 3 of 4; out of reach: even 4 of 4 come")
    assert (
        of(sample=4)[0]
        == "whole rollout: 3 of 4; does not apply from 4 attempts on, the share does"
    )
    assert of(sample=20, odds=0)[1] == "ring pilot: 3 of 4; switched off"
    assert "The second bar is for the first few attempts" in _section(
        _stopping(), "Why it was not stopped before"
    )


def test_a_ring_tells_which_devices_it_holds() -> None:
    held = {("pilot", "r3"): 30, ("pilot", "r7"): 12, ("elsewhere", "r9"): 5}
    told = report(members=held)
    assert [one.members for one in told.reach.rings] == [{"r3": 30, "r7": 12}, {}]
    assert "| r3: 17, r7: 6 | r3: 30, r7: 12 |" in _section(told, "Rings")
    assert "holds now" not in _section(report(), "Rings")


def test_those_never_reached_the_later_ones_and_the_other_slots_are_told() -> None:
    fleet = msgspec.structs.replace(_fleet(), idle={"2.4.0": 3, "2.4.1": 41}, joined=1)
    back = Returned(device="b1", variant="r3", at=9, other="2.5.1 (confirmed)")
    way = WayBack(rollout="b", release="r1", state="active", back=1, devices=(back,))
    text = read(report(fleet=fleet, ways_back=[way]))
    assert "What those run now that it never reached, by version: 2.4.0: 3, 2.4.1: 41." in text
    assert "2 devices were enrolled after the rollout was made, and it reached 1 of these;" in text
    assert "| b1 | r3 | b | 1970-01-01 00:00:09 | 2.5.1 (confirmed) |" in text


def test_a_test_says_that_it_is_one_sided_and_an_action_that_nothing_is_attached() -> None:
    done = report(actions=[Written(at=20, by="olga", text="a new build")])
    assert "one-sided" in _section(done, "What those that ended badly have in common")
    assert "no evidence of it is attached" in _section(done, "Corrective action")
