"""The gate alone: lines in, decisions out."""

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from tidegate.core.errors import RequestError
from tidegate.rollout import lines as lines_module
from tidegate.rollout.lines import Gate

START = 1_795_443_600
HOUR = 3_600


def line(what: str, at: int, **more: object) -> str:
    return json.dumps({"what": what, "at": START + at, **more})


def played(lines: Iterable[str]) -> tuple[Gate, list[dict[str, Any]]]:
    gate = Gate()
    return gate, [said for one in lines for said in gate.read(one)]


def fleet(size: int = 400) -> list[str]:
    kinds = [
        line("device", 0, device=f"d{n}", values={"variant": f"r{n % 2}"}) for n in range(size)
    ]
    return [line("begin", 0), *kinds]


def update(number: int, at: int, end: str) -> list[str]:
    name = f"d{number}"
    return [line("permit", at, device=name), line(end, at + 600, device=name)]


def in_order(lines: Iterable[str]) -> list[str]:
    return sorted(lines, key=lambda one: json.loads(one)["at"])


def test_a_bad_release_is_stopped_for_good_and_the_fleet_is_never_given_away() -> None:
    events = [
        one for n in range(12) for one in update(n, 60 * n, "failed" if n % 2 else "confirmed")
    ]
    gate, said = played([*fleet(), *in_order(events), line("tick", 6 * HOUR)])
    assert gate.halted
    halt = next(one for one in said if one["verdict"] == "halt")
    assert halt["permits"] == {}
    assert "1,000 : 1" in halt["because"]
    assert all(one["verdict"] == "halt" for one in said[said.index(halt) :])
    assert list(gate.end())[-1]["verdict"] == "halt"


def test_a_good_release_gets_more_and_more_permits() -> None:
    gate, said = played([*fleet(), line("tick", HOUR)])
    first = sum(said[0]["permits"].values())
    assert 0 < first <= 8
    events = in_order(one for n in range(8) for one in update(n, HOUR + 60 + n, "confirmed"))
    more = [answer for one in [*events, line("tick", 6 * HOUR)] for answer in gate.read(one)]
    assert not gate.halted
    assert sum(more[-1]["permits"].values()) > first


def test_silence_after_a_permit_speaks_against_the_release() -> None:
    events = [line("permit", 60 + n, device=f"d{n}") for n in range(8)]
    others = [line("seen", HOUR * h, device=f"d{n}") for h in range(1, 5) for n in range(100, 200)]
    gate, said = played([*fleet(), *events, *others, line("tick", 5 * HOUR)])
    assert gate.halted, said[-1]


def test_a_decision_is_said_once_until_something_in_it_changes() -> None:
    gate, said = played([*fleet(), line("tick", 24 * HOUR)])
    assert len(said) == 1
    events = [*update(1, 24 * HOUR + 60, "confirmed"), line("tick", 48 * HOUR)]
    more = [{**answer, "at": 0} for one in events for answer in gate.read(one)]
    assert more
    assert all(one != other for one, other in zip(more[1:], more[:-1], strict=True))


def test_what_is_not_known_or_told_twice_is_counted_and_changes_nothing() -> None:
    strange = [line("failed", 60, device=f"x{n}") for n in range(500)]
    again = [line("failed", 600 + n, device="d1") for n in range(500)]
    gate, said = played(
        [*fleet(), *strange, *update(1, 100, "failed")[:1], *again, line("tick", 3 * HOUR)]
    )
    assert not gate.halted, said[-1]
    assert list(gate.end())[-1]["ignored"] == {"unknown": 500, "twice": 499}


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_handful_of_devices_is_no_error(size: int) -> None:
    gate, said = played([*fleet(size), *update(0, 60, "confirmed"), line("tick", 200 * HOUR)])
    assert said
    assert not gate.halted


def test_the_same_lines_say_the_same() -> None:
    chance = random.Random(5)
    ends = [chance.choice(["confirmed", "confirmed", "failed"]) for _ in range(60)]
    events = in_order(one for n, end in enumerate(ends) for one in update(n, 300 * n, end))
    assert played([*fleet(), *events])[1] == played([*fleet(), *events])[1]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([line("seen", 0, device="d1")], "first line"),
        (["not json"], "malformed"),
        ([line("begin", 0, preset="norml")], 'did you mean "normal"'),
        ([line("begin", 0, attributes=["region"])], '"variant" the first'),
        ([line("begin", 0), line("begin", 0)], "begins once"),
        ([line("begin", 0), line("permit", 1)], "device"),
        ([line("begin", 0), line("permit", 1, device="d", colour="red")], "colour"),
        ([line("begin", 0), line("sneezed", 1, device="d")], "sneezed"),
        ([line("begin", 0), line("tick", 400 * 24 * HOUR)], "400 days"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(lines: list[str], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        played(lines)
    assert caught.value.code == "request.invalid"


def test_a_line_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestError) as caught:
        played(["[" * (2 << 20)])
    assert caught.value.code == "request.too_large"


def test_the_end_of_a_log_is_judged_too() -> None:
    events = in_order(one for n in range(12) for one in update(n, 10 * n, "failed"))
    gate, said = played([*fleet(), *events])
    assert not any(one["verdict"] == "halt" for one in said)
    assert [one["verdict"] for one in gate.end()] == ["halt", "halt"]


DAY = 24 * HOUR


def _events() -> list[str]:
    return in_order(
        one
        for n in range(8)
        for one in [
            *update(n, 60 * n, "confirmed"),
            line("seen", HOUR + 60 * n, device=f"d{n + 20}"),
            line("seen", 30 * HOUR + 60 * n, device=f"d{n}"),
        ]
    )


@pytest.mark.parametrize("ahead", [2 * HOUR, 50 * DAY, 900 * DAY])
@pytest.mark.parametrize("what", ["seen", "failed", "confirmed", "crashed", "permit"])
def test_one_device_that_is_ahead_of_all_others_moves_no_clock(what: str, ahead: int) -> None:
    """Red before: its one line let fifty days of silence go by for everybody, or ended the run."""
    told = [*fleet(), *_events(), line("tick", 48 * HOUR)]
    liar = line(what, ahead, device="d399")
    lied = [*told[:405], liar, *told[405:409], liar, *told[409:]]
    honest, said = played(told)
    gate, other = played(lied)
    mine = [one for one in other if one["at"] <= START + 30 * HOUR]
    if ahead > 48 * HOUR:
        assert other == said
        assert list(gate.end())[-1]["ignored"] == {"future": 2}
    assert not gate.halted
    assert not honest.halted
    assert mine[0] == said[0]


def test_a_device_that_is_always_ahead_is_heard_when_the_others_are_there() -> None:
    lines = [*fleet(), line("permit", 60, device="d1"), line("failed", 3 * HOUR, device="d1")]
    gate, said = played(lines)
    assert said == [], "nothing is due yet, by anybody else's word"
    more = list(gate.read(line("seen", 3 * HOUR + 5, device="d2")))
    assert more
    assert gate._roster is not None
    assert gate._roster.watch.book.rows[0][1] == 0, "it was silent before it failed"
    assert gate._roster.watch.book.rows[0][2] == 1


def test_two_devices_that_agree_let_the_time_go_on_without_a_tick() -> None:
    gate, _ = played([*fleet(), line("permit", 60, device="d1")])
    for hours in range(2, 30, 3):
        for name in ("d5", "d6"):
            list(gate.read(line("seen", hours * HOUR, device=name)))
    assert gate._roster is not None
    assert gate._roster.watch.desk.now == START + 29 * HOUR


def test_in_a_fleet_of_two_there_is_nobody_to_ask() -> None:
    _, said = played(
        [*fleet(2), line("permit", 60, device="d1"), line("seen", 5 * DAY, device="d1")]
    )
    assert said[-1]["at"] > START + DAY


def test_what_runs_ahead_is_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_KEPT_MAX", 50)
    liar = [line("seen", 30 * DAY + n, device="d1") for n in range(200)]
    gate, _ = played([*fleet(), *liar])
    assert len(gate._ahead) == 50
    assert list(gate.end())[-1]["ignored"] == {"future": 200}


def _batteries(drained: float, *, named: bool = True) -> Iterable[str]:
    """Eighty of four hundred devices get it on the third day; each says every four hours what its battery showed."""
    settings = {"metrics": "-battery"} if named else {}
    yield line("begin", 0, settings=settings)
    yield from fleet()[1:]
    for hours in range(4, 9 * 24, 4):
        at = hours * HOUR
        if hours == 48:
            yield from (one for n in range(80) for one in update(n, at, "confirmed"))
        for n in range(400):
            low = drained if n < 80 and hours > 48 else 0.0
            mean = 4.0 + 0.001 * (n % 7) - low
            yield line("measured", at + 900, device=f"d{n}", metric="battery", seconds=4 * HOUR, mean=mean)  # fmt: skip
        yield line("tick", at + 1800)


def test_a_metric_that_gets_worse_after_the_update_stops_it_and_one_that_does_not_does_not() -> (
    None
):
    bad, said = played(_batteries(0.5))
    assert bad.halted
    assert "metric -battery" in said[-1]["because"]
    assert not played(_batteries(0.0))[0].halted
    assert not played(_batteries(0.5, named=False))[0].halted, "nobody asked for it"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"count": None},
        {"mean": None},
        {"count": 1e300},
        {"count": -5},
        {"mean": 3.5, "metric": "unheard_of"},
    ],
)
def test_a_metric_that_is_no_number_or_not_named_is_a_sign_of_life_and_no_more(
    more: dict[str, Any],
) -> None:
    told = line("measured", 60, **{"device": "d1", "metric": "errors", "seconds": 60, **more})
    gate, _ = played([*fleet(20), told, line("tick", HOUR)])
    assert not gate.halted
    assert list(gate.end())[-1]["ignored"] == {}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (line("begin", 0, settings={"ods": 10}), 'no setting "ods"; did you mean "odds"?'),
        (line("begin", 0, settings={"preset": "fast"}), 'no setting "preset"'),
        (line("begin", 0, settings={"odds": 1}), "odds must be 2 or more"),
        (line("begin", 0, settings={"metrics": "A b"}), "is no name of a metric"),
    ],
)
def test_settings_are_those_of_the_evidence_guard(bad: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        played([bad])


def test_a_count_and_a_mean_at_once_are_refused() -> None:
    both = line("measured", 60, device="d1", metric="errors", seconds=60, count=1, mean=1)
    with pytest.raises(RequestError, match="either a count or a mean"):
        played([*fleet(3), both])


def test_the_odds_at_which_it_halts_can_be_set() -> None:
    told = [one for n in range(8) for one in update(n, 60 * n, "failed" if n % 3 else "confirmed")]
    events = [*fleet()[1:], *in_order(told), line("tick", 6 * HOUR)]
    early, said = played([line("begin", 0, settings={"odds": 10}), *events])
    late, _ = played([line("begin", 0, settings={"odds": 10**9}), *events])
    assert (early.halted, late.halted) == (True, False)
    assert any("halts at 10 : 1" in one["because"] for one in said)


def test_a_handful_that_cannot_be_proved_is_held_and_not_called_good() -> None:
    lines = [*fleet(3), line("tick", HOUR), *update(0, HOUR + 60, "failed"), line("tick", 9 * HOUR)]
    gate, said = played(lines)
    assert (gate.halted, gate.held) == (False, True)
    assert said[-1]["verdict"] == "hold"
    assert said[-1]["permits"] == {}
    assert "1 of 1 devices" in said[-1]["because"]
    assert list(gate.end())[-1]["verdict"] == "hold"
