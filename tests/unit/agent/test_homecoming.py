"""Where the boot loader brought a device, and which reason that is: each by its own evidence."""

from typing import Any

import msgspec
import pytest
from tests.unit.agent.test_machine import (
    NOW,
    checked,
    idle,
    kinds,
    on_trial,
    permitted,
    run,
    started,
)

from tidegate.agent.events import Armed, Marked, Started
from tidegate.agent.homecoming import LOG_MAX
from tidegate.agent.state import Activating, Reverting, State
from tidegate.agent.state import Testing as OnTrial


def armed(tries: int = 3) -> State:
    return run(permitted(), Armed(now=NOW, tries=tries))


def back(mark: str = "trial", left: int = 0, **changes: Any) -> Started:
    marks = {"A": "good", "B": mark}
    return started("A", marks=marks, tries={"A": 0, "B": left}, **changes)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        # The loader spent every try, or says that it gave up.
        (back("trial", 0), "boot.counter_exhausted"),
        (back("bad", 0), "boot.counter_exhausted"),
        # It spent none: it never went there.
        (back("trial", 3), "boot.wrong_slot"),
        # It went there, and something else runs before the tries were used up.
        (back("trial", 1), "boot.no_return"),
        # It tried once and knows nothing of a trial any more.
        (back("good", 0), "boot.no_return"),
        # The watchdog says so.
        (back("trial", 0, watchdog=True), "boot.watchdog"),
        (back("good", 0, watchdog=True), "boot.watchdog"),
        # It was not what kept the loader from going there.
        (back("trial", 3, watchdog=True), "boot.wrong_slot"),
    ],
)
def test_each_reason_has_its_evidence(event: Started, reason: str) -> None:
    state = run(armed(), event)
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == reason


def test_tries_are_counted_from_what_the_loader_granted() -> None:
    # A loader that tries once was asked for three, and did not go there.
    state = run(armed(tries=1), back("trial", 1))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "boot.wrong_slot"


def test_a_watchdog_in_the_warm_up_takes_the_image_back_at_once() -> None:
    state = run(on_trial(), checked(10.0), started("B", "boot-3", watchdog=True))
    assert isinstance(state.phase, Reverting)
    assert (state.phase.reason, state.phase.slot) == ("boot.watchdog", "B")
    # A power cut in the warm-up only costs a try.
    again = run(on_trial(), checked(10.0), started("B", "boot-3"))
    assert isinstance(again.phase, OnTrial)
    assert (again.phase.boots, again.phase.passing_mono) == (2, None)


def test_a_word_of_the_watchdog_that_sticks_says_nothing() -> None:
    """Some hardware never takes it back: what was said before the trial is no evidence against the image."""
    assert not run(permitted(), started("A", "boot-1", watchdog=True)).watchdog_before
    assert run(idle(), started("A", "boot-1", watchdog=True)).watchdog_before
    stuck = msgspec.structs.replace(armed(), watchdog_before=True)
    state = run(stuck, back("trial", 0, watchdog=True))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "boot.counter_exhausted"


def test_the_history_of_the_boot_counter_and_the_log_come_home() -> None:
    lost = back("trial", 0, log="Kernel panic - not syncing\n", loader="BOOT_ORDER=B A")
    state = run(armed(), lost, Marked(now=NOW, slot="B"))
    assert kinds(state)[-1] == "reverted"
    log = state.outbox[-1].log
    assert "slot B was armed with 3 tries, 0 are left, it is marked trial" in log
    assert "loader: BOOT_ORDER=B A" in log
    assert log.endswith("Kernel panic - not syncing\n")


def test_what_an_image_said_of_itself_is_kept_beside_what_its_last_boot_left() -> None:
    state = run(on_trial(), checked(10.0, ok=False), checked(66.0, ok=False))
    state = run(state, Marked(now=NOW, slot="B", log="x" * LOG_MAX + "app: cannot start\n"))
    home = started("A", "boot-3", marks={"A": "good", "B": "bad"}, log="y" * LOG_MAX + "the end")
    state = run(state, home)
    log = state.outbox[-1].log
    assert len(log) <= LOG_MAX
    assert log.startswith("--- boot counter ---\nthe agent saw 1 boots of the trial")
    assert "app: cannot start" in log
    assert log.endswith("the end")


def test_a_leave_that_was_never_used_is_given_back_whatever_the_watchdog_says() -> None:
    state = run(permitted(), started("A", marks={"A": "good", "B": "bad"}, watchdog=True))
    assert not isinstance(state.phase, Activating | Reverting)
    assert kinds(state)[-1] == "permit_returned"
