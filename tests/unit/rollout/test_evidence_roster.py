"""Single devices: what counts of what they say, and what their silence means."""

import msgspec
import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.facts import Control, Fact, Fail, Isolated, Late, Ok, Silent
from tidegate.rollout.evidence.habits import Habits
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

TICK = 900
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})


class Story:
    """A fleet of always-connected devices that are heard every tick, unless they are away."""

    def __init__(self, size: int = 200) -> None:
        census: dict[Profile, int] = {("v1", "eu", "always"): size}
        self.roster = Roster(Watch(divide(census), PRESETS["normal"], BASE, 0))
        self.facts: list[Fact] = []
        self.now = 0
        self.away: set[str] = set()
        for one in range(size):
            values = {"variant": "v1", "region": "eu", "class": "always"}
            self.roster.meet(f"d{one}", values, 0)

    def go(self, until: int) -> Decision:
        decision = self.roster.step(self.now, self.facts.append)
        while self.now < until:
            self.now += TICK
            for name in self.roster.devices:
                if name not in self.away:
                    self.roster.seen(name, self.now)
            decision = self.roster.step(self.now, self.facts.append)
        return decision

    def of(self, kind: type) -> list[Fact]:
        return [one for one in self.facts if isinstance(one, kind)]


@pytest.fixture
def story() -> Story:
    return Story()


def test_only_the_first_attempt_counts_and_only_its_first_outcome(story: Story) -> None:
    roster = story.roster
    assert roster.permit("d1", 0)
    assert not roster.permit("d1", 0)
    roster.failed("d1", 60)
    roster.failed("d1", 61)
    roster.confirmed("d1", 62)
    assert not roster.permit("d1", 70)
    story.go(3 * HOUR_S)
    assert len(story.of(Fail)) == 1
    assert not story.of(Ok)
    assert roster.ignored == {"twice": 4}


def test_strangers_the_future_and_answers_without_a_permit_are_not_heard(story: Story) -> None:
    roster = story.roster
    roster.failed("nobody", 10)
    roster.failed("d1", 10)
    roster.permit("d2", 10**9)
    roster.meet("d-new", {"variant": "v1"}, 10**9)
    assert "d-new" not in roster.devices
    assert roster.ignored == {"unknown": 1, "unasked": 1, "future": 2}
    story.go(2 * HOUR_S)
    assert not story.of(Fail)


@pytest.mark.parametrize("times", [2, 500])
def test_one_device_can_neither_trip_nor_mask_however_often_it_speaks(
    story: Story, times: int
) -> None:
    def tell(roster: Roster, times: int) -> None:
        for _ in range(times):
            roster.failed("d1", 60)
            roster.confirmed("d2", 60)
            roster.crashed("d1", 60)
            roster.crashed("d5", 60)

    once = Story()
    for one, often in ((once, 1), (story, times)):
        for name in ("d1", "d2", "d3"):
            one.roster.permit(name, 0)
        tell(one.roster, often)
        one.go(2 * HOUR_S)
        for again in range(often):
            one.roster.crashed("d2", one.now + again)
        assert one.go(6 * HOUR_S).verdict == "go"
    assert story.roster.watch.book.digest() == once.roster.watch.book.digest()


def test_late_by_weeks_counts_as_of_now(story: Story) -> None:
    story.roster.permit("d1", 0)
    story.away.add("d1")
    story.go(5 * HOUR_S)
    assert len(story.of(Silent)) == 1
    story.roster.failed("d1", 5)
    story.go(6 * HOUR_S)
    assert [
        (one.again, one.at >= 5 * HOUR_S) for one in story.of(Fail) if isinstance(one, Fail)
    ] == [(True, True)]


def test_a_crash_in_the_warm_up_is_a_failure_and_later_a_late_event(story: Story) -> None:
    roster = story.roster
    roster.permit("d1", 0)
    roster.permit("d2", 0)
    roster.crashed("d1", 60)
    roster.confirmed("d2", 60)
    story.go(3 * HOUR_S)
    roster.crashed("d2", 3 * HOUR_S)
    roster.crashed("d3", 3 * HOUR_S)
    story.go(4 * HOUR_S)
    assert len(story.of(Fail)) == 1
    sides = sorted(one.updated for one in story.of(Late) if isinstance(one, Late))
    assert sides == [False, True]


def test_who_is_not_heard_within_its_deadline_is_dark_once_and_may_come_back(story: Story) -> None:
    roster = story.roster
    roster.permit("d1", 0)
    roster.confirmed("d1", 60)
    story.go(5 * HOUR_S)
    story.away |= {"d1", "d2"}
    story.go(16 * HOUR_S)
    dark = [(one.updated, one.kind) for one in story.of(Late) if isinstance(one, Late)]
    assert sorted(dark) == [(False, "dark"), (True, "dark")]
    assert roster.watch.desk.risks.whole_control == 198
    story.away.clear()
    story.go(17 * HOUR_S)
    assert roster.watch.desk.risks.whole_control == 199


def test_what_befalls_a_region_raises_the_silence_that_is_expected(story: Story) -> None:
    for name in ("d1", "d2", "d3"):
        story.roster.permit(name, 0)
    story.away |= {f"d{one}" for one in range(100)}
    assert story.go(2 * HOUR_S).verdict == "go"
    (silent,) = [one for one in story.of(Silent) if isinstance(one, Silent)]
    assert silent.count == 3
    assert silent.silence_ppm > 400_000


def test_an_outage_that_begins_just_before_answers_are_due_takes_those_that_are_compared_too(
    story: Story,
) -> None:
    for name in ("d1", "d2", "d3"):
        story.roster.permit(name, 0)
    story.go(HOUR_S)
    story.away |= {f"d{one}" for one in range(100)}
    assert story.go(2 * HOUR_S).verdict == "go"
    (silent,) = [one for one in story.of(Silent) if isinstance(one, Silent)]
    assert silent.count == 3
    assert silent.silence_ppm > 400_000


def test_who_got_its_permit_excuses_no_silence_of_its_own_cohort() -> None:
    story = Story(12)
    story.away |= {"d1", "d2", "d3"}
    for name in sorted(story.away):
        story.roster.permit(name, 0)
    story.go(2 * HOUR_S)
    (silent,) = [one for one in story.of(Silent) if isinstance(one, Silent)]
    assert silent.silence_ppm == BASE.silence("always"), "nobody but them fell silent"


def test_a_server_that_was_down_takes_nobody_for_dark(story: Story) -> None:
    story.roster.permit("d1", 0)
    story.roster.confirmed("d1", 10)
    story.go(5 * HOUR_S)
    story.now += 3 * DAY_S
    story.go(story.now + HOUR_S)
    assert not story.of(Late)
    assert story.of(Control)


def test_a_clock_that_steps_back_stands_still(story: Story) -> None:
    story.go(2 * HOUR_S)
    story.roster.seen("d1", 0)
    assert story.roster.watch.desk.now == 2 * HOUR_S
    assert story.roster.step(60).verdict == "go"
    assert story.roster.watch.desk.now == 2 * HOUR_S


def test_a_permit_given_back_may_be_taken_again(story: Story) -> None:
    assert story.roster.permit("d1", 0)
    story.roster.refund("d1", 30)
    assert story.roster.permit("d1", 60)
    story.roster.confirmed("d1", 90)
    story.go(2 * HOUR_S)
    assert story.roster.watch.book.rows[0][:4] == [1, 0, 0, 1]


# ---------------------------------------------------------------------- between two ticks


def test_what_counts_at_once_is_decided_on_without_waiting_for_the_tick(story: Story) -> None:
    roster = story.roster
    assert roster.step(0).permits == {"v1": 4}
    for one in range(4):
        roster.permit(f"d{one}", 10)
    assert roster.early(20, story.facts.append).permits["v1"] == 0
    for one in range(4):
        roster.failed(f"d{one}", 30)
    assert roster.early(40, story.facts.append).verdict == "halt"
    assert len(story.of(Fail)) == 4


def test_deadlines_and_late_events_wait_for_their_tick(story: Story) -> None:
    roster = story.roster
    for one in range(4):
        roster.permit(f"d{one}", 0)
    for now in range(60, 3 * HOUR_S, 60):
        for one in range(5, 200):
            roster.seen(f"d{one}", now)
        roster.early(now, story.facts.append)
    roster.crashed("d9", 3 * HOUR_S)
    roster.early(3 * HOUR_S, story.facts.append)
    assert {type(one).__name__ for one in story.facts} <= {"Permit", "Credits"}


def test_a_permit_saved_up_for_a_tick_is_there_until_the_tick_ends_however_often_it_is_asked() -> (
    None
):
    census: dict[Profile, int] = {("v1", "eu", "always"): 988, ("v2", "eu", "always"): 12}
    roster = Roster(Watch(divide(census), PRESETS["normal"], BASE, 0))
    for one in range(1000):
        values = {"variant": "v2" if one < 12 else "v1", "region": "eu", "class": "always"}
        roster.meet(f"d{one}", values, 0)
    now = 0
    while roster.step(now).permits["v2"] < 1:
        now += TICK
        assert now < 3 * HOUR_S
    assert now > HOUR_S
    for later in range(10, 600, 50):
        assert roster.early(now + later).permits["v2"] == 1
    roster = Roster.load(roster.dump(), divide(census), PRESETS["normal"], BASE)
    assert roster.early(now + 610).permits["v2"] == 1
    roster.permit("d3", now + 620)
    assert roster.early(now + 630).permits["v2"] == 0
    assert roster.step(now + TICK).permits["v2"] == 0


# ---------------------------------------------------------------------- who leaves


def test_who_left_the_audience_is_neither_dark_nor_control_nor_proof(story: Story) -> None:
    roster = story.roster
    for one in range(4):
        roster.permit(f"d{one}", 0)
        roster.confirmed(f"d{one}", 60)
    story.go(2 * HOUR_S)
    for name in ("d0", "d1", "d100", "d101", "d102"):
        roster.leave(name)
        story.away.add(name)
    story.go(4 * DAY_S + HOUR_S)
    assert not story.of(Late)
    desk = roster.watch.desk
    assert (desk.risks.whole_control, desk.risks.whole_updated("dark")) == (193, 2)
    row = roster.watch.book.rows[0]
    assert row[at.EXPOSED : at.ADMISSION] == [4, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0]
    roster.seen("d100", story.now)
    assert roster.ignored == {"unknown": 1}


def test_who_is_taken_away_with_its_answer_open_is_still_judged_by_its_silence(
    story: Story,
) -> None:
    for one in range(4):
        story.roster.permit(f"d{one}", 0)
        story.roster.leave(f"d{one}")
        story.away.add(f"d{one}")
    assert story.go(2 * HOUR_S).verdict == "halt"


def test_who_is_excluded_counts_no_more_and_what_was_bet_on_it_is_not_given_back(
    story: Story,
) -> None:
    for one in range(4):
        story.roster.permit(f"d{one}", 0)
        story.roster.exclude(f"d{one}")
        story.away.add(f"d{one}")
    assert story.go(2 * HOUR_S).verdict == "go"
    row = story.roster.watch.book.rows[0]
    assert (row[at.EXPOSED], row[at.VOID], row[at.CHARGED]) == (4, 4, 4)
    assert row[at.SILENT] == 0


def test_who_left_and_comes_back_without_a_permit_is_compared_with_again(story: Story) -> None:
    desk = story.roster.watch.desk
    story.roster.leave("d7")
    story.roster.leave("d7")
    assert desk.risks.whole_control == 199
    story.roster.meet("d7", {"variant": "v1", "region": "eu", "class": "always"}, 0)
    assert desk.risks.whole_control == 200
    assert story.roster.permit("d7", 0)


def test_a_stratum_that_a_person_isolated_counts_only_for_itself(story: Story) -> None:
    roster = story.roster
    for one in range(4):
        roster.permit(f"d{one}", 0)
    variant = roster.watch.book.scheme.variants["v1"]
    roster.isolate(variant, story.facts.append)
    for one in range(4):
        roster.failed(f"d{one}", 60)
    assert story.go(HOUR_S).permits == {}
    assert roster.watch.book.rows[0][: at.ALIVE] == [0, 0, 0, 0, 0]
    assert Isolated(at=0, stratum=variant) in story.facts


def test_a_device_that_confirmed_too_late_and_then_crashed_holds_no_room(story: Story) -> None:
    roster = story.roster
    for one in range(3):
        roster.permit(f"d{one}", 0)
    story.go(3 * HOUR_S)
    for one in range(3):
        roster.confirmed(f"d{one}", story.now)
    roster.crashed("d0", story.now)
    story.away.add("d1")
    story.go(5 * DAY_S)
    row = roster.watch.book.rows[0]
    assert row[at.SILENT] == 3
    assert row[at.ALIVE : at.ALIVE + 2] == [1, 1]
    assert row[at.DEAD : at.DEAD + 2] == [2, 2]


# ---------------------------------------------------------------------- habits


def hours(habits: Habits, *gaps_h: int) -> None:
    now = 0
    for gap in gaps_h:
        habits.contact(0, now, now + gap * HOUR_S)
        now += gap * HOUR_S


@pytest.mark.parametrize(
    ("gaps_h", "connectivity", "wait_s"),
    [
        # Little is known: the class, or longer when it was away for longer.
        ((), "always", 4 * HOUR_S),
        ((), "daily", 26 * HOUR_S),
        ((), "unheard-of", 26 * HOUR_S),
        ((1,) * 900, "other", 26 * HOUR_S),
        ((1,) * 900 + (11,), "always", 13 * HOUR_S * 11 // 10),
        # A habit is known: 999 of 1000, and a tenth more; never less than four hours.
        ((1,) * 1_000, "other", 4 * HOUR_S),
        ((1,) * 1_099 + (20,), "other", 4 * HOUR_S),
        ((1,) * 1_098 + (20,) * 2, "other", 26 * HOUR_S * 11 // 10),
        ((16, 8) * 500, "weekly", 18 * HOUR_S * 11 // 10),
        ((2_000,) * 1_000, "monthly", 724 * HOUR_S * 11 // 10),
    ],
)
def test_a_deadline_is_what_a_device_does_not_exceed_itself(
    gaps_h: tuple[int, ...], connectivity: str, wait_s: int
) -> None:
    habits = Habits()
    habits.add()
    hours(habits, *gaps_h)
    assert habits.wait_s(0, connectivity) == wait_s


def test_a_habit_is_kept_in_sixteen_numbers_however_long_it_is_watched() -> None:
    habits = Habits()
    habits.add()
    for hour in range(150_000):
        habits.contact(0, hour * HOUR_S, (hour + 1) * HOUR_S)
    assert habits.wait_s(0, "other") == 4 * HOUR_S
    assert len(habits.pack()) == 32
    habits.contact(0, 0, 59)
    habits.contact(0, 10 * HOUR_S, 5 * HOUR_S)
    again = Habits()
    again.restore(habits.pack(), 1)
    assert again.gaps(0) == habits.gaps(0)
    with pytest.raises(ValueError, match="another number"):
        again.restore(habits.pack(), 2)


def test_who_is_often_away_for_hours_is_taken_for_dark_once_and_not_again() -> None:
    story = Story(60)
    story.go(2 * HOUR_S)
    for _ in range(3):
        story.away.add("d1")
        story.go(story.now + 8 * HOUR_S)
        story.away.clear()
        story.go(story.now + 4 * HOUR_S)
    assert len(story.of(Late)) == 1


def test_what_was_learned_in_one_rollout_is_known_in_the_next() -> None:
    scheme = divide({("v1", "eu", "weekly"): 3})
    harm = msgspec.structs.replace(PRESETS["normal"], tick_s=HOUR_S)
    earlier, fresh = (Roster(Watch(scheme, harm, BASE, 0)) for _ in range(2))
    for roster, names in ((earlier, ("d0", "d1")), (fresh, ("d9", "d1", "d2"))):
        for name in names:
            roster.meet(name, {"variant": "v1", "region": "eu", "class": "weekly"}, 0)
    for hour in range(1, 1_100):
        earlier.seen("d1", hour * HOUR_S)
        earlier.step(hour * HOUR_S)
    fresh.inherit(Roster.load(earlier.dump(), scheme, harm, BASE))
    waits = [fresh.habits.wait_s(one, "weekly") // HOUR_S for one in range(3)]
    assert waits == [172, 4, 172]
