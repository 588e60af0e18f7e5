"""The incident report: counts that add up, what the failed have in common, what is missing, and text that strangers cannot break."""

from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.unit.rollout.incidents import BECAUSE
from tests.unit.rollout.incidents import about as _about
from tests.unit.rollout.incidents import read as _read
from tests.unit.rollout.incidents import report as _report
from tests.unit.rollout.stage import begun, known

from tidegate.core import codec
from tidegate.rollout import incident
from tidegate.rollout.incident import (
    DeviceLog,
    DeviceOutcome,
    Entry,
    Fleet,
    FollowUp,
    Incident,
    IncidentReport,
    Returned,
    Shown,
    Stopped,
    Told,
    WayBack,
    Written,
)
from tidegate.rollout.incident.model import Counts, Share
from tidegate.rollout.model import Finding

SHOWN = Shown(at=2, by="gus", text="bench log 7", means="bench", kept="HW-311")
HOSTILE = (
    "<script>x</script> [a](javascript:b) https://evil.example www.evil.example | `c` *d*\n# Head\n"
    "- point\n1. one\n> quote\n\u202e\u0007\x1b[31m ```\n</pre><img src=x onerror=y>&lt;b&gt; "
    + "long"
    * 3_000
)


def _hostile() -> IncidentReport:
    return _report(
        incident=_about(summary=HOSTILE, release=HOSTILE, owner=HOSTILE, opened_by=HOSTILE),
        entries=[Entry(at=1, who=HOSTILE, text=HOSTILE, kind="decision", because=(HOSTILE,))],
        devices=[
            DeviceOutcome(
                device="d1", variant=HOSTILE, ring="pilot", state="reverted", reason=HOSTILE,
                attributes={HOSTILE: HOSTILE},
            ),
            *[
                DeviceOutcome(device=f"e{n}", variant="r3", ring="pilot", state="confirmed")
                for n in range(30)
            ],
        ],
        logs=[
            DeviceLog(
                device="d1", variant=HOSTILE, at=1, reason=HOSTILE, detail=HOSTILE,
                checks=(HOSTILE,), text=HOSTILE,
            )
        ],
        hypothesis=Written(at=1, by=HOSTILE, text=HOSTILE),
        actions=[Written(at=1, by=HOSTILE, text=HOSTILE)],
        followups=[FollowUp(number=1, text=HOSTILE, owner=HOSTILE)],
    )  # fmt: skip


def test_the_counts_of_a_report_add_up() -> None:
    report = _report()
    counts = report.reach.counts
    assert counts.attempts == counts.confirmed + counts.harmed + counts.open == 23
    assert counts.harmed == counts.reverted + counts.failed + counts.lost == 6
    assert counts.untouched == 60 - 23
    for shares in (report.reach.variants, report.reach.rings):
        for name in counts.__struct_fields__:
            assert getattr(counts, name) == sum(getattr(one.counts, name) for one in shares), name


def test_devices_past_the_point_of_no_return_and_the_affected_are_listed_by_name() -> None:
    reach = _report(stopped=Stopped(held=3, cancelled=2)).reach
    assert [one.device for one in reach.past_return] == ["r3-15", "r7-5"]
    assert [one.device for one in reach.affected] == ["r7-0", "r7-1", "r7-2", "r7-3", "r7-4"]
    assert reach.first is not None
    assert reach.last is not None
    assert (reach.first.device, reach.last.device) == ("r7-0", "r7-4")
    assert (reach.stopped.held, reach.stopped.cancelled) == (3, 2)


def test_from_which_version_they_came_is_told() -> None:
    moves = {one.from_counter: one for one in _report().reach.moves}
    assert moves[118].from_version == "2.4.1"
    assert (moves[118].attempts, moves[118].harmed) == (4, 4)


def test_what_the_failed_have_in_common_is_found_the_variant_first() -> None:
    found = _report().contrast.rows[0]
    assert found.terms == (("variant", "r7"),)
    assert found.same == (("modem", "a"),)
    assert (found.bad, found.count, found.other_bad, found.other_count) == (5, 5, 0, 15)
    assert found.odds > 1_000


def test_reasons_come_with_their_words_the_most_frequent_first() -> None:
    first = _report().reach.reasons[0]
    assert (first.code, first.text, first.count) == (
        "health.network", "the network did not come up", 4,
    )  # fmt: skip


def test_an_isolation_tells_of_its_variant_and_compares_it_with_the_others() -> None:
    report = _report(incident=_about(kind="isolation", subject="r7"))
    assert report.title == "r7 isolated in gw1-2.5.1"
    assert report.reach.counts.attempts == 6
    assert report.figures.startswith("5 of 6 devices that acted on gw1-2.5.1 on r7 ended badly")
    assert [one.device for one in report.reach.past_return] == ["r7-5"]
    assert report.contrast.rows[0].label == "variant = r7"


def test_an_incident_without_a_rollout_is_told_as_well() -> None:
    about = Incident(name="INC-1", kind="manual", opened_at=1, opened_by="olga", summary="Smoke")
    report = incident.build(about)
    assert report.title == "Smoke"
    text = incident.to_markdown(incident.lay_out(report))
    assert "# INC-1: Smoke" in text
    assert "What became of whom" not in text


def test_what_nobody_has_said_is_missing() -> None:
    assert _report().missing == (
        "an owner",
        "the outcome of 2 devices past the point of no return",
        "what became of 1 lost device",
        "a hypothesis of the cause",
        "a corrective action",
        "who decides until when whether gw1-2.5.1 is recalled",
    )
    late = FollowUp(number=1, text="ask", owner="olga", due_at=1_764_800_000)
    done = _report(
        incident=_about(owner="olga", kind="held"),
        evidence=known(("permitted", "pilot", "r3", 3), ("confirmed", "pilot", "r3", 3)),
        hypothesis=Written(at=1, by="olga", text="the modem"),
        actions=[Written(at=300, by="olga", text="gw1-r7 gets its own build")],
        followups=[late],
    )
    assert done.missing == ("a proof of the supposed cause", "1 follow-up that is overdue")
    known_now = _report(
        incident=_about(owner="olga", kind="held"),
        evidence=known(("permitted", "pilot", "r3", 3), ("confirmed", "pilot", "r3", 3)),
        cause=Written(at=1, by="olga", text="the modem: 3 of 3 hang with it"),
        evidence_of=[SHOWN],
        actions=[Written(at=300, by="olga", text="gw1-r7 gets its own build")],
        followups=[FollowUp(number=1, text="ask", owner="olga")],
    )
    assert known_now.missing == ("until when 1 follow-up is done",)
    assert (
        "what happened, in a sentence" in _report(because=(), incident=_about(summary="")).missing
    )


def test_the_timeline_is_in_order_and_decisions_say_why() -> None:
    entries = [
        Entry(at=30, who="planner", text="halt", kind="decision", because=("6 of 23",)),
        Entry(at=10, who="olga", text="created"),
        Entry(at=35, who="pia", text="called the site", kind="note"),
    ]
    report = _report(entries=entries)
    assert [one.text for one in report.timeline] == ["created", "halt", "called the site"]
    assert [(one.who, one.because) for one in report.decisions] == [("planner", ("6 of 23",))]


def test_a_report_survives_being_stored() -> None:
    report = _report()
    assert report == msgspec.json.decode(msgspec.json.encode(report), type=IncidentReport)
    assert msgspec.json.decode(codec.encode(report))["schema"] == incident.SCHEMA


class _Words(HTMLParser):
    """Reads the headings and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert all(name in {"lang", "charset", "name", "content", "class"} for name, _ in attrs)
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in {"h1", "h2", "h3"}:
            self.headings.append(data)
        self._open = ""


def _headings(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [
        "".join(child.content for child in (tokens[at + 1].children or ()))
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    ]


def test_markdown_and_html_tell_the_same_in_the_same_order() -> None:
    read = incident.lay_out(
        _report(
            entries=[Entry(at=10, who="olga", text="halt: x", kind="decision")],
            logs=[
                DeviceLog(device="r7-0", variant="r7", at=9, reason="health.network", text="a\nb")
            ],
            actions=[Written(at=20, by="olga", text="new build")],
        )
    )
    words = _Words()
    words.feed(incident.to_html(read))
    headings = _headings(incident.to_markdown(read))
    assert words.headings == headings
    assert headings[1:] == [
        "In short", "What happened", "Missing from this report", "How long it took", "What became of whom", "How they ended badly",
        "Variants", "Rings", "Versions", "Why it was stopped",
        "What those that ended badly have in common", "Cause", "The way back", "What keeps it from going out again",
        "Decisions", "Timeline (UTC)",
        "Devices", "Logs", "r7-0 (r7), 1970-01-01 00:00:09 UTC: health.network",
        "Corrective action", "Follow-ups", "What the status page says", "Words",
    ]  # fmt: skip


def test_everybody_is_accounted_for_and_a_drill_says_so() -> None:
    fleet = Fleet(devices=70, matching=60, never=30, untried=("r8", "r9"), since=4, alike=12)
    report = _report(fleet=fleet)
    text = _read(report)
    assert "the product has 70, and the hardware of 60 of them is named as compatible" in text
    assert "| 30 | are of hardware that its manifest names as compatible, and it never" in text
    assert "4 devices were enrolled after the rollout was made; 56 were there then." in text
    assert "| 10 | are on hardware that its manifest does not name |" in text
    assert "| 12 | are of variants of which at least one device ended badly with it |" in text
    assert "Tried by no device of this rollout: r8, r9." in text
    assert "drill" not in text.lower()
    drill = _read(msgspec.structs.replace(report, drill=True))
    assert drill.startswith("# DRILL: INC-2026-014")
    assert "This was a drill" in drill


@pytest.mark.parametrize(("recalled_at", "said"), [(0, "is not recalled"), (5, "is recalled")])
def test_what_keeps_it_from_going_out_again_is_said_as_it_is(recalled_at: int, said: str) -> None:
    text = _read(_report(recalled_at=recalled_at))
    assert f"gw1-2.5.1 {said}" in text
    assert "4 devices went back by themselves; all 4 refuse this release" in text


def test_what_would_not_have_stopped_it_is_not_said_to_have() -> None:
    other = Finding(gate="failure_rate", passed=True, text="3 of 10, limit 30 %")
    text = _read(_report(because=(*BECAUSE, other)))
    why = text.partition("## Why it was stopped")[2].partition("## ")[0]
    assert why.index("6 of 23") < why.index("would not have stopped it") < why.index("3 of 10")


def test_ring_and_hardware_that_go_together_are_not_told_apart() -> None:
    well = Share(name="internal", counts=Counts(attempts=5, confirmed=5))
    bad = Share(name="pilot", counts=Counts(attempts=4, harmed=4))
    both = Share(name="pilot", counts=Counts(attempts=8, harmed=4, confirmed=4))
    said = "cannot say whether the hardware or the ring"

    def of(*rings: Share) -> str:
        report = _report()
        reach = msgspec.structs.replace(report.reach, variants=(well, bad), rings=rings)
        return _read(msgspec.structs.replace(report, reach=reach))

    assert said in of(well, bad)
    assert said not in of(well, both)


def test_a_device_is_away_from_its_permit_to_its_answer() -> None:
    bad = DeviceOutcome(
        device="r7-0", variant="r7", ring="pilot", state="reverted", at=10_000, permitted_at=6_277
    )
    lost = DeviceOutcome(
        device="r7-1", variant="r7", ring="pilot", state="lost", at=9_000, permitted_at=5_000
    )
    text = _read(_report(devices=[bad, lost]))
    assert "| 1 h 2 min 3 s |" in text
    assert "| not back |" in text


def test_a_reader_who_was_not_there_finds_what_he_needs() -> None:
    text = incident.to_markdown(incident.lay_out(_report(stopped=Stopped(held=3, cancelled=2))))
    for part in (
        "- Opened: 2025-12-04 04:12:31 UTC by the gate",
        "23 devices acted on it, 22 of them with leave to activate (exposed)",
        "| 3 | are held: what they staged stays inert |",
        "| health.network | the network did not come up | 4 |",
        "| r7 | 6 | 0 | 4 | 0 | 1 | 1 |",
        "| 2.4.1 | 2.5.1 | 4 | 4 |",
        "- 6 of 23 attempts ended badly",
        "| variant = r7; the same devices: modem = a | 5 of 5 | 0 of 15 |",
        "First to end badly: r7-0 (r7), 1970-01-01 00:01:40 UTC, reverted: health.network.",
        "Not written down yet.",
    ):
        assert part in text, part


def test_text_of_strangers_stays_text_in_markdown() -> None:
    text = incident.to_markdown(incident.lay_out(_hostile()))
    tokens = MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(text)
    every = [child for token in tokens for child in (token.children or ())] + tokens
    kinds = {token.type for token in every}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "em_open"}
    assert not kinds & {"blockquote_open", "ordered_list_open", "strong_open", "hr", "code_block"}
    plain = _headings(incident.to_markdown(incident.lay_out(_report())))
    assert set(plain) - set(_headings(text)) <= {"INC-2026-014: gw1-2.5.1 halted"}
    assert "\u202e" not in text
    assert all(ord(char) >= 32 or char == "\n" for char in text)
    assert "https://" not in text.replace("```", "").split("## Logs")[0]
    for table in text.split("\n\n"):
        rows = [row for row in table.split("\n") if row.startswith("|")]
        widths = {row.replace("\\|", "").count("|") for row in rows}
        assert len(widths) <= 1, table[:300]


def test_a_log_cannot_leave_its_fence() -> None:
    logs = [DeviceLog(device="d", variant="v", at=1, reason="r", text="```\n# Out\n````\n~~~")]
    text = incident.to_markdown(incident.lay_out(_report(logs=logs)))
    assert "Out" not in _headings(text)


def test_text_of_strangers_stays_text_in_html() -> None:
    page = incident.to_html(incident.lay_out(_hostile()))
    words = _Words()
    words.feed(page)
    assert words.tags <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "dl", "dt", "dd", "p",
        "ul", "li", "div", "table", "thead", "tbody", "tr", "th", "td", "pre",
    }  # fmt: skip
    assert "\u202e" not in page


@pytest.mark.parametrize(
    "lead", ["- x", "+ x", "1. x", "12) x", "= x", "# x", "> x", "~~~", "    x"]
)
def test_no_beginning_of_a_line_makes_a_block(lead: str) -> None:
    from tidegate.rollout.incident import text

    tokens = MarkdownIt("commonmark").parse(text.markdown(lead))
    assert [one.type for one in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    (inline,) = [one for one in tokens if one.type == "inline"]
    assert "".join(one.content for one in inline.children or ()) == lead.strip()


def test_a_line_that_repeats_a_decision_of_the_same_moment_is_left_out() -> None:
    decided = Entry(at=9, who="olga", text="fallback: six go back", kind="decision")
    found = _report(
        entries=[
            Entry(at=9, who="olga", text="six go back"),
            decided,
            Entry(at=10, who="olga", text="six go back"),
        ]
    )
    assert [(one.at, one.text) for one in found.timeline] == [
        (9, "fallback: six go back"),
        (10, "six go back"),
    ]


def test_who_ended_badly_last_is_told_where_a_report_looks_at_a_part_of_them() -> None:
    last = DeviceOutcome(device="r3-99", variant="r3", ring="pilot", state="lost", at=900)
    assert _report(last_bad=last, partial=True).last_bad_at == 900
    assert _report(last_bad=last, partial=False).last_bad_at == 200
    other = _report(last_bad=last, partial=True, incident=_about(kind="isolation", subject="r7"))
    assert other.last_bad_at == 200


def test_the_way_back_and_what_the_world_was_told_are_part_of_it() -> None:
    way = WayBack(
        rollout="gw1-2.5.1.back1", release="gw1-2.4.1", state="active", taken=7, back=5, harmed=1
    )
    told = Told(at=20, title="Update stopped", summary="Nothing to do.", action="A new build")
    text = incident.to_markdown(
        incident.lay_out(_report(ways_back=[way], running=2, told=told, product="gw1"))
    )
    for part in (
        "- Product: gw1",
        "2 devices run gw1-2.5.1 now.",
        "| gw1-2.5.1.back1 | gw1-2.4.1 | active | 7 | 5 | 1 |",
        "Nothing to do.",
        "What is done: A new build",
    ):
        assert part in text, part
    silent = incident.to_markdown(incident.lay_out(_report()))
    assert "Nobody was ordered back." in silent
    assert "Nothing: it was not published." in silent


def test_a_rollout_that_all_were_brought_back_from_does_not_read_as_if_it_had_succeeded() -> None:
    way = WayBack(rollout="b", release="gw1-2.4.1", state="completed", taken=15, back=15)
    text = _read(_report(rollout=begun(state="completed"), ways_back=[way]))
    assert "- Rollout: gw1-2.5.1 ended: fallen back" in text
    assert "The rollout ended: fallen back. It offers nothing any more." in text
    assert "completed" not in text
    assert "15 confirmed it then (15 of them were since brought back)" in text
    assert "| 15 | confirmed it then; 15 of them were since brought back |" in text
    served = _read(_report(rollout=begun(state="completed")))
    assert "devices that come later still get it" in served


@pytest.mark.parametrize(("recalled_at", "said"), [(0, "YES, until"), (5, "no, it was recalled")])
def test_whether_it_can_go_out_again_is_answered_at_the_top(recalled_at: int, said: str) -> None:
    text = _read(
        _report(recalled_at=recalled_at, fleet=Fleet(devices=9, matching=9, never=3, alike=2))
    )
    short = text.partition("## In short")[2].partition("## ")[0]
    assert f"Can it go out again: {said}" in short
    assert ("tidegate release recall gw1-2.5.1" in short) is (recalled_at == 0)
    assert ("It would meet 2 devices" in short) is (recalled_at == 0)


def test_a_decision_says_why_and_a_halt_repeats_its_reason() -> None:
    def row(who: str, text: str) -> str:
        entry = Entry(at=9, who=who, text=text, kind="decision")
        found = _read(_report(entries=[entry])).partition("## Decisions")[2]
        return next(line for line in found.splitlines() if "00:00:09" in line)

    assert row("planner", "halt: 6 of 23").endswith("| the gate | halt | 6 of 23 |")
    assert row("olga", "start").endswith("| start | no reason was given |")
    assert row("planner", "ended: fallen back").endswith("| ended: fallen back | \N{EN DASH} |")
    assert row("olga", "owner olga (was nobody)").endswith("| \N{EN DASH} |")
    assert row("olga", "cause, proved: x").endswith("| see Cause |")


def test_that_one_person_decided_everything_is_said() -> None:
    said = "No second person agreed to it (no four-eyes)"
    mine = Entry(at=9, who="olga", text="start", kind="decision")
    gate = Entry(at=9, who="planner", text="halt: x", kind="decision")
    other = Entry(at=9, who="gus", text="approve", kind="decision")
    assert said in _read(_report(entries=[mine, gate]))
    assert said not in _read(_report(entries=[mine, other]))
    assert said not in _read(_report(entries=[gate]))


def test_a_time_away_that_the_clock_cannot_tell_is_not_told() -> None:
    bad = DeviceOutcome(
        device="r7-0", variant="r7", ring="p", state="reverted", at=7, permitted_at=7
    )
    text = _read(_report(devices=[bad]))
    assert "| not measured |" in text
    assert "| 0 s |" not in text.partition("## Devices")[2]


def test_who_was_brought_back_is_named_up_to_a_number() -> None:
    back = tuple(Returned(device=f"b{n:02}", variant="r3", at=n + 1) for n in range(25))
    way = WayBack(rollout="b", release="r", state="active", taken=900, back=800, devices=back)
    text = _read(_report(ways_back=[way, way]))
    assert "1,600 were brought back, the first 25 of them:" in text
    assert text.count("| b00 |") == 1


ENDS = st.sampled_from(["confirmed", "reverted", "lost", "permitted"])


@given(st.lists(st.tuples(st.sampled_from(["r3", "r7"]), ENDS, st.integers(1, 9)), max_size=12))
def test_sections_of_any_incident_tell_the_same_numbers(
    outcomes: list[tuple[str, str, int]],
) -> None:
    rows: list[Any] = []
    devices: list[DeviceOutcome] = []
    for variant, state, count in outcomes:
        rows.append(("permitted", "pilot", variant, count))
        if state != "permitted":
            rows.append((state, "pilot", variant, count))
        devices += [
            DeviceOutcome(device=f"d{len(devices) + n}", variant=variant, ring="pilot", state=state, at=5, permitted_at=3)
            for n in range(count)
        ]  # fmt: skip
    report = _report(evidence=known(*rows), devices=devices)
    counts, text = report.reach.counts, _read(report)
    bad = sum(one.state in {"reverted", "lost"} for one in devices)
    assert (counts.attempts, counts.harmed) == (len(devices), bad)
    assert sum(one.attempts for one in report.reach.moves) == len(devices)
    assert sum(one.harmed for one in report.reach.moves) == bad == report.contrast.bad
    for shares in (report.reach.variants, report.reach.rings):
        assert sum(one.counts.harmed for one in shares) == bad
    if devices:
        assert text.count(f"{bad:,} of {len(devices):,} devices that acted on") == 2
    if bad:
        assert f"{bad:,} ended badly" in text.partition("## Devices")[2]
    assert "0 s |" not in text.partition("## Devices")[2]
