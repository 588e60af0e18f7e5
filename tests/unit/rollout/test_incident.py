"""The incident report: counts that add up, what the failed have in common, what is missing, and text that strangers cannot break."""

import msgspec
from tests.unit.rollout.stage import begun, known

from tidegate.rollout import incident
from tidegate.rollout.contrast import contrasts
from tidegate.rollout.incident import DeviceOutcome, Entry
from tidegate.rollout.model import Finding, IncidentReport

EVIDENCE = known(
    ("matched", "pilot", "r3", 40), ("matched", "pilot", "r7", 20),
    ("permitted", "pilot", "r3", 16), ("confirmed", "pilot", "r3", 15),
    ("permitted", "pilot", "r7", 6), ("reverted", "pilot", "r7", 4, "health.network"),
    ("lost", "pilot", "r7", 1, "lost.return"),
    ("failed_before", "pilot", "r3", 2, "download.slow"),
    ("failed_before", "pilot", "r3", 1, "install.write"),
)  # fmt: skip
BECAUSE = (Finding(gate="failure_rate", passed=False, text="6 of 23 attempts ended badly"),)
DEVICES = [
    *[
        DeviceOutcome(device=f"r3-{n:02}", variant="r3", ring="pilot", state="confirmed", at=50, attributes={"modem": "b"})
        for n in range(15)
    ],
    DeviceOutcome(device="r3-15", variant="r3", ring="pilot", state="rebooting", at=60, attributes={"modem": "a"}),
    *[
        DeviceOutcome(
            device=f"r7-{n}", variant="r7", ring="pilot", state="reverted", reason="health.network",
            at=100 + n, runs="gw1-2.4.1", attributes={"modem": "a"},
        )
        for n in range(4)
    ],
    DeviceOutcome(device="r7-4", variant="r7", ring="pilot", state="lost", reason="lost.return", at=200, attributes={"modem": "a"}),
    DeviceOutcome(device="r7-5", variant="r7", ring="pilot", state="verifying", at=210, attributes={"modem": "a"}),
]  # fmt: skip


def _report(**other: object) -> IncidentReport:
    fields: dict[str, object] = {
        "name": "INC-2026-014",
        "kind": "halt",
        "rollout": begun(state="halted"),
        "release": "gw1-2.5.1",
        "opened_at": 1_764_821_551,
        "opened_by": "planner",
        "because": BECAUSE,
        "evidence": EVIDENCE,
        "devices": DEVICES,
    }
    return incident.report(**{**fields, **other})  # type: ignore[arg-type]


def test_the_counts_of_a_report_add_up() -> None:
    counts = _report().facts["counts"]
    assert counts["attempts"] == counts["confirmed"] + counts["harmed"] + counts["open"] == 23
    assert counts["harmed"] == counts["reverted"] + counts["failed"] + counts["lost"] == 6
    assert counts["untouched"] == 60 - 23
    for key in ("variants", "rings"):
        for name, count in counts.items():
            assert count == sum(row[name] for row in _report().facts[key]), (key, name)


def test_devices_past_the_point_of_no_return_are_listed_by_name() -> None:
    facts = _report().facts
    assert [one["device"] for one in facts["past_return"]] == ["r3-15", "r7-5"]
    assert [one["device"] for one in facts["lost"]] == ["r7-4"]
    assert facts["first"]["device"] == "r7-0"
    assert facts["last"]["device"] == "r7-4"
    assert facts["first"]["runs"] == "gw1-2.4.1"


def test_what_the_failed_have_in_common_is_found_and_discounted() -> None:
    found = _report().facts["contrasts"]
    assert {("variant", "r7"), ("modem", "a")} == {
        (one["attribute"], one["value"]) for one in found
    }
    assert (found[0]["bad"], found[0]["count"]) == (5, 5)
    assert (found[0]["other_bad"], found[0]["other_count"]) == (0, 15)
    # C(20, 5) = 15,504 to 1, over the four values that were looked at.
    assert found[0]["odds"] == 15_504 / 4


def test_reasons_come_with_their_words_the_most_frequent_first() -> None:
    reasons = _report().facts["reasons"]
    assert reasons[0] == {
        "code": "health.network",
        "text": "the network did not come up",
        "count": 4,
    }


def test_an_isolation_tells_of_its_variant() -> None:
    report = _report(kind="isolation", subject="r7")
    assert report.facts["counts"]["attempts"] == 6
    assert report.summary.startswith("Isolated: 5 of 6 devices that acted on gw1-2.5.1 on r7")
    assert [one["device"] for one in report.facts["past_return"]] == ["r7-5"]


def test_what_nobody_has_said_is_missing() -> None:
    assert _report().missing == (
        "the outcome of 2 devices past the point of no return",
        "what became of 1 lost devices",
        "corrective action",
    )
    action = Entry(at=300, who="olga", text="gw1-r7 gets its own build", kind="action")
    done = _report(
        entries=[action],
        evidence=known(("permitted", "pilot", "r3", 3), ("confirmed", "pilot", "r3", 3)),
    )
    assert done.missing == ()
    assert done.actions == (
        {"at": 300, "who": "olga", "text": "gw1-r7 gets its own build", "kind": "action"},
    )
    assert "why it was stopped" in _report(because=()).missing
    assert "why it was stopped" not in _report(because=(), summary="screens black").missing


def test_the_timeline_is_in_order_and_apart_from_actions() -> None:
    entries = [
        Entry(at=30, who="planner", text="halt"),
        Entry(at=10, who="olga", text="created"),
        Entry(at=40, who="olga", text="fixed", kind="action"),
        Entry(at=35, who="pia", text="called the site", kind="note"),
    ]
    report = _report(entries=entries)
    assert [one["text"] for one in report.timeline] == ["created", "halt", "called the site"]
    assert [one["text"] for one in report.actions] == ["fixed"]


def test_a_report_survives_being_stored() -> None:
    report = _report()
    assert report == msgspec.json.decode(msgspec.json.encode(report), type=IncidentReport)


def test_markdown_tells_everything_that_the_data_has() -> None:
    entries = [
        Entry(at=10, who="olga", text="created"),
        Entry(at=20, who="olga", text="new build", kind="action"),
    ]
    text = incident.to_markdown(_report(entries=entries))
    for part in (
        "# INC-2026-014: halt of gw1-2.5.0",
        "opened: 2025-12-04 04:12:31 by planner",
        "- 22 exposed",
        "- 15 confirmed it",
        "- r3-15 (r3): rebooting",
        "| health.network | the network did not come up | 4 |",
        "| r7 | 6 | 0 | 4 | 0 | 1 | 1 |",
        "- 6 of 23 attempts ended badly",
        "variant = r7: 5 of 5; all others: 0 of 15 (3,876 : 1, already discounted)",
        "- 1970-01-01 00:00:10 olga: created",
        "- 1970-01-01 00:00:20 olga: new build",
        "## Missing from this report",
    ):
        assert part in text, part


def test_text_of_strangers_cannot_make_links_headings_tables_or_html() -> None:
    hostile = "<script>x</script> [a](javascript:b)\n# Head | `c` *d*"
    entries = [
        Entry(at=1, who=hostile, text=hostile),
        Entry(at=1, who="x", text=hostile, kind="action"),
    ]
    text = incident.to_markdown(_report(entries=entries, summary=hostile, release=hostile))
    assert "<script>" not in text
    assert "[a](" not in text
    assert "\n# Head" not in text
    assert r"\<script\>x\</script\> \[a\](javascript:b) \# Head \| \`c\` \*d\*" in text


def test_contrasts_leave_out_what_all_or_none_have() -> None:
    devices = [
        ({"site": "a", "all": "x"}, True),
        ({"site": "b", "all": "x"}, False),
        ({"all": "x"}, False),
    ]
    found = contrasts(devices, ("site", "all", "none"))
    assert [(one.attribute, one.value) for one in found] == [("site", "a"), ("site", "b")]
    assert contrasts([], ("site",)) == ()
