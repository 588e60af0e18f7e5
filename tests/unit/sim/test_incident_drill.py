"""The incident drill: every step happens in a whole simulated world and is timed; one that does not happen is said."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tidegate.cli.drill import command
from tidegate.sim.drill import incident
from tidegate.sim.drill.incident import IncidentDrill, rehearse_incident

STEPS = [
    "first bad boot", "evidence", "halt effective", "world told", "un-started cancelled",
    "cohort known", "fallback ordered", "cause shown", "release recalled", "last device back", "report published",
]  # fmt: skip


def test_every_step_from_the_first_bad_boot_to_the_published_report_is_timed(
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.md"
    done = CliRunner().invoke(command, ["incident", "--json", "--out", str(report)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["schema"], told["failed"]) == ("tidegate.incident-drill/1", False)
    found = msgspec.convert(told, type=IncidentDrill)
    assert [one.what for one in found.steps] == STEPS
    times = [one.at_s for one in found.steps]
    assert times == sorted(times)
    assert times[0] == 0
    assert 0 < times[-1] <= found.simulated_s
    text = report.read_text()
    for part in (
        "# DRILL: INC-", "- Status: closed", "- Owner: operator", "What happened", "What became of whom", "1.0.0",
        "| boot.counter_exhausted |", "had been offered it and had not begun to activate", "went back",
        "## Decisions", "## Logs", "How long it took", "it was stopped | 1 h 55 min", "0 devices run gw-1.1.0 now",
        "| gw-1.1.0.back1 | gw-1.0.0 | ended: complete | 6 | 6 | 0 |", "What the status page says",
        "There is nothing that you have to do", "take a device of every revision into ring internal",
        "from now on a release is booted on a board of every revision", "name in the manifest only hardware that was tried",
    ):  # fmt: skip
        assert part in text, part
    for part in (
        "told drill (webhook) of incident.opened: delivered", "one simulated board of every revision", "DRILL: Update stopped", "This is a drill",
        "ended: fallen back", "6 were brought back:", "Can it go out again: no, it was recalled", "no four-eyes",
        "| gw1-r7 (tried by none) |", "test on a bench", "gw1-r7: 1.1.0 does not come up, 1.0.0 comes up", "log of a device",
        "The gate looks every 5 min, and not in between", "ring pilot: 2 of 2 attempts ended badly (100 %), limit 30 %; most often",
        "soak 1 h since its last permit: done", "| confirmed | 6 | 10 min 20 s |", "sim-00012 (reverted)",
        "cancelled before they began to activate: sim-00016, sim-00009", "follow-up 1, operator, by 2026-01-19",
        "the numbers below are theirs", "follows from the halt by the gate", "| 2026-01-05 05:55:00 | operator | mitigated: ",
    ):  # fmt: skip
        assert part in text, part
    assert (found.devices, found.enrolled) == (48, 45)
    assert "the product has 45 devices now" in text
    back = text.partition("## The way back")[2].partition("## ")[0]
    assert "Ordered 2 h after the stop. Between the two: " in back
    assert "the drill waits 2 h now" in back
    # Whoever is told of the halt is told at once, by the drill's table and by the report alike.
    assert "02:55:00 | the server | told drill (webhook) of incident.opened: delivered" in text
    assert "Missing from this report" not in text
    timeline = text.partition("## Timeline")[2].partition("## ")[0]
    ended, closed = timeline.index("ended: fallen back"), timeline.index("| closed: the cause")
    assert ended < closed < timeline.index("of incident.closed: delivered")
    assert text.count("| permit for 1: ") == 10 == timeline.count("| permit for 1: ")
    for act in ("offered to", "permit for", "confirmed by"):
        assert timeline.count(f"| gw-1.1.0.back1 {act} 1: ") == 6, act
    assert timeline.count("| staged by 1: ") == 12
    assert " 0 s " not in text
    order = [
        timeline.index(one)
        for one in (
            "seen: 0 permits", "fallback: 6 devices are ordered back", "hypothesis: ", "test on a bench", "cause, proved: ", "recalled gw-1.1.0",
        )
    ]  # fmt: skip
    assert order == sorted(order)
    decisions = text.partition("## Decisions")[2].partition("## ")[0]
    assert (
        "| the gate | halt | ring pilot: 3 of 4 attempts ended badly (75 %), limit 30 %"
        in decisions
    )
    assert "3 of 10" not in decisions
    assert "the proof of the cause overtook it" in decisions
    assert "hypothesis: it does not boot on gw1-r4, gw1-r5, gw1-r6" in decisions
    page = text.partition("## What the status page says")[2].partition("## ")[0]
    first, _, last = page.partition("Text 2 of 2")
    assert "What is done" not in first
    assert "What is done: from now on a release is booted on a board of every revision" in last
    assert "incident.published (the text was changed): delivered" in timeline
    assert "its text was changed once at" in text.partition("## In short")[0]
    assert text.count("| 1.0.0 | yes, since 2026-01-05 02:4") == 2
    rings = text.partition("## Rings")[2].partition("## ")[0]
    assert "| gw1-r3: 6 | gw1-r3: 6 |" in rings
    assert "| gw1-r4: 3, gw1-r5: 3, gw1-r6: 2, gw1-r7: 2 |" in rings
    looks = text.partition("## Why it was not stopped before")[2].partition("## ")[0]
    assert "ring pilot: 2 of 2; out of reach: even 2 of 2 come by luck once in 11 times" in looks
    assert "ring pilot: 3 of 4; does not apply from 4 attempts on" in looks
    assert "What those run now that it never reached, by version: 1.0.0: 33." in text
    assert "after the rollout was made, and it reached none of these" in text
    assert back.count("| 1.1.0 (confirmed) |") == 6
    assert "is measured for 1 of the 4 devices named that ended badly (sim-00012)" in text
    assert "What a bench showed stands under Cause." in text
    assert "done, by his or her word; no evidence of it is attached" in text


def test_a_step_that_does_not_happen_fails_the_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incident, "_REVISIONS", ())
    monkeypatch.setattr(incident, "_PATIENCE_S", 3600.0)
    found = rehearse_incident(tmp_path, devices=24)
    assert found.failed
    assert [(one.what, one.ok) for one in found.steps] == [("first bad boot", False)]
