from tidegate.core.reasons import REASONS
from tidegate.server.web import words

NOW = 1_795_443_600  # Mon 23 Nov 2026 14:20 UTC


def test_something_is_never_rounded_to_nothing_and_not_all_never_to_all() -> None:
    assert words.percent(9, 126_848).startswith("< 0.1")
    assert words.percent(126_847, 126_848).startswith("99.9")
    assert words.percent(0, 5).startswith("0.0")
    assert words.percent(5, 5).startswith("100.0")
    assert words.percent(1, 0) == "\N{EN DASH}"


def test_times_are_said_the_way_people_say_them() -> None:
    day = 86_400
    assert words.when(NOW, NOW) == "today 14:20"
    assert words.when(NOW - day, NOW) == "Sun 14:20"
    assert words.when(NOW - 6 * day, NOW) == "Tue 14:20"
    assert words.when(NOW - 7 * day, NOW) == "16 Nov 14:20"
    assert words.when(NOW - 400 * day, NOW) == "19 Oct 2025"
    assert words.rfc3339(NOW) == "2026-11-23T14:20:00Z"


def test_spans_are_said_in_their_two_largest_units() -> None:
    assert [words.duration(s) for s in (-5, 38, 3_600, 22_080, 86_400, 180_000)] == [
        "0 s",
        "38 s",
        "1 h",
        "6 h 08 min",
        "1 d",
        "2 d 2 h",
    ]


def test_a_minus_is_a_minus() -> None:
    assert words.signed(-1_204) == "\N{MINUS SIGN}1,204"
    assert words.signed(3) == "+3"
    assert words.signed(0) == "0"


def test_text_from_a_device_shows_what_it_hides_and_is_cut() -> None:
    assert words.plain("abc\u202edef\x07") == "abc[U+202E]def[U+0007]"
    assert words.plain("line\nnext\ttab") == "line\nnext\ttab"
    assert len(words.plain("x" * 5_000)) == 300


def test_every_state_of_the_design_has_a_word_and_a_shape() -> None:
    rollouts = "draft awaiting_approval scheduled active paused halted falling_back completed"
    rings = "waiting open soaking passed failed skipped"
    updates = "offered downloading staged permitted rebooting verifying confirmed declined"
    ends = "failed reverted lost cancelled superseded"
    missing = set(f"{rollouts} {rings} {updates} {ends}".split()) - set(words.STATES)
    assert missing == set()


def test_the_only_states_drawn_as_good_are_good() -> None:
    good = {code for code, state in words.STATES.items() if state.tone == "ok"}
    assert not good & {"failed", "reverted", "lost", "halted", "declined", "staged", "rebooting"}


def test_a_reason_is_said_in_the_words_of_the_closed_list() -> None:
    assert words.reason("health.network") == REASONS["health.network"]
    assert words.reason("made\u202eup") == "made[U+202E]up"


def test_sizes_are_decimal() -> None:
    assert [words.size(n) for n in (999, 84_200_000, 64_000_000_000)] == [
        "999 B",
        "84.2 MB",
        "64.0 GB",
    ]


def test_odds_are_written_to_one_and_never_below_it() -> None:
    said = [
        words.odds(one).replace(words.NBSP, " ") for one in (0.2, 1, 1.04, 2.14, 63.2, 1240, 1e9)
    ]
    assert said[:3] == ["below 1 : 1", "below 1 : 1", "1.0 : 1"]
    assert said[3:] == ["2.1 : 1", "63 : 1", "1,240 : 1", "over 1,000,000 : 1"]


def test_a_difference_of_shares_is_told_in_points_and_never_rounded_to_nothing() -> None:
    said = [
        words.points(one).replace(words.THIN, " ") for one in (0.0, 0.00001, 0.0021, 0.015, 1.0)
    ]
    assert said == ["0 pp", "< 0.01 pp", "0.21 pp", "1.5 pp", "100 pp"]
