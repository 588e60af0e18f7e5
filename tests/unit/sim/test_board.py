"""The simulated board boots what the bytes in its slots are, and counts down like a real boot loader."""

import contextlib
import hashlib
from random import Random

from tidegate.agent.ports import PowerCut
from tidegate.sim.board import Catalogue, Image, SimBoard, poisson
from tidegate.sim.clock import DeviceClock, VirtualTimeline
from tidegate.sim.disk import PAGE
from tidegate.sim.faults import Behaviour, Cut, Truth

OLD = b"\x01" * (4 * PAGE)
NEW = b"\x02" * (4 * PAGE)


def _image(counter: int, content: bytes) -> Image:
    return Image(counter, f"1.{counter}", hashlib.sha256(content).hexdigest(), len(content))


def _board(truth: Truth | None = None) -> SimBoard:
    catalogue = Catalogue()
    catalogue.add(_image(1, OLD))
    catalogue.add(_image(2, NEW))
    board = SimBoard(
        variant="gw1-r3",
        clock=DeviceClock(VirtualTimeline(), Random(2)),
        random=Random(1),
        catalogue=catalogue,
        truth=truth or Truth(),
        slot_size=8 * PAGE,
    )
    board.load(OLD)
    board.start()
    return board


def _stage(board: SimBoard, content: bytes) -> None:
    slot = board.open_slot("B")
    slot.write_at(0, content)
    slot.flush()


def _counter(board: SimBoard) -> int:
    assert board.image is not None
    return board.image.counter


def test_a_trial_boots_the_other_slot_and_goes_back_when_its_tries_are_spent() -> None:
    board = _board()
    _stage(board, NEW)
    board.bootloader.arm_trial("B", 2)
    boots = []
    for _ in range(3):
        board.start()
        boots.append(board.bootloader.current())
    assert boots == ["B", "B", "A"]
    assert board.bootloader.state("B") == "bad"


def test_a_committed_slot_boots_for_good() -> None:
    board = _board()
    _stage(board, NEW)
    board.bootloader.arm_trial("B", 1)
    board.start()
    board.bootloader.commit("B")
    board.start()
    board.start()
    assert (board.bootloader.primary(), _counter(board)) == ("B", 2)


def test_an_image_that_never_boots_costs_its_tries_and_the_old_one_comes_back() -> None:
    board = _board(Truth({(2, "gw1-r3"): Behaviour(boots=False)}))
    _stage(board, NEW)
    board.bootloader.arm_trial("B", 3)
    board.start()
    assert (board.bootloader.current(), _counter(board)) == ("A", 1)
    assert board.history.failed_boots == 3
    assert "watchdog" in board.boot_log("")


def test_a_torn_image_does_not_run_whatever_the_boot_flag_says() -> None:
    board = _board()
    _stage(board, NEW[:-1] + b"\xff")
    board.bootloader.arm_trial("B", 1)
    board.start()
    assert (_counter(board), board.history.torn_boots) == (1, 1)


def test_a_cut_while_arming_leaves_the_old_or_the_new_flag() -> None:
    flags = set()
    for seed in range(20):
        board = _board()
        board.loader._random = Random(seed)
        _stage(board, NEW)
        board.power.arm(Cut(1, "torn"))
        with contextlib.suppress(PowerCut):
            board.bootloader.arm_trial("B", 3)
        board.start()
        flags.add(board.bootloader.current())
    assert flags == {"A", "B"}


def test_a_cut_in_the_boot_loader_only_means_another_try() -> None:
    board = _board()
    _stage(board, NEW)
    board.bootloader.arm_trial("B", 3)
    board.power.arm(Cut(1, "after"))
    board.start()
    assert (board.bootloader.current(), board.bootloader.tries_left("B")) == ("B", 1)


def test_a_board_without_any_image_is_dead() -> None:
    board = _board()
    board.media["A"].load(b"\xee" * PAGE)
    board.start()
    assert board.dead


def test_errors_follow_the_rate_of_the_image_that_runs() -> None:
    truth = Truth({(1, "*"): Behaviour(errors_per_hour=6.0, calm_s=3600.0)}, errors_per_hour=0.0)
    board = _board(truth)
    board.clock.sleep(3600)
    assert board.errors_total() == 0
    board.clock.sleep(100 * 3600)
    assert 500 < board.errors_total() < 700


def test_the_errors_of_a_boot_never_go_down() -> None:
    board = _board(Truth(errors_per_hour=3.0))
    seen = []
    for _ in range(50):
        board.clock.sleep(600)
        seen.append(board.errors_total())
    assert seen == sorted(seen)
    assert seen[-1] > 0


def test_poisson_has_its_mean() -> None:
    random = Random(4)
    for mean in (0.1, 2.0, 80.0):
        total = sum(poisson(random, mean) for _ in range(2000))
        assert abs(total / 2000 - mean) < 4 * (mean / 2000) ** 0.5 + 0.05


def test_the_board_keeps_its_own_record_of_what_became_of_a_trial() -> None:
    board = _board(Truth({(2, "*"): Behaviour(boots=False)}))
    _stage(board, NEW)
    board.bootloader.arm_trial("B", 1)
    board.start()
    board.truth.behaviours.clear()
    board.bootloader.arm_trial("B", 1)
    board.start()
    board.bootloader.commit("B")
    board.bootloader.arm_trial("A", 1)
    board.start()
    board.bootloader.commit("A")
    found = [(one.counter, one.outcome, one.is_fallback) for one in board.history.trials]
    assert found == [(2, "reverted", False), (2, "confirmed", False), (1, "confirmed", True)]


def test_the_board_knows_whether_a_cut_came_before_or_after_the_boot_flag() -> None:
    phases = []
    for operation in (1, 2, 3):
        board = _board()
        _stage(board, NEW)
        board.power.arm(Cut(operation, "after"))
        with contextlib.suppress(PowerCut):
            board.storage.write("journal.0", b"x")
            board.bootloader.arm_trial("B", 3)
            board.storage.write("journal.1", b"y")
        phases += board.history.cuts
    assert phases == ["install", "flag", "after"]
