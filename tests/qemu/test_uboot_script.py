"""The shipped boot scripts in U-Boot's own shell, with its own `saveenv` and boot counter, against the back end that works with them."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from lab import tools
from lab.sandbox import BOARD, OFFSETS, SHIPPED, SIZE, Sandbox, script

from tidegate.agent import bootloaders
from tidegate.agent.bootloaders.uboot import UbootBootloader

SECTOR = 512
SEED = 4
#: A script as boards have them that were made for another updater: it counts with `setexpr`, asks with `-gt`, and fills both slots up.
FOREIGN = """
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3
chosen=none
for one in ${BOOT_ORDER}; do
  if test ${chosen} = none; then
    if test ${one} = A; then
      if test ${BOOT_A_LEFT} -gt 0; then setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1; chosen=A; fi
    else
      if test ${BOOT_B_LEFT} -gt 0; then setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1; chosen=B; fi
    fi
  fi
done
if test ${chosen} = none; then setenv BOOT_A_LEFT 3; setenv BOOT_B_LEFT 3; saveenv; reset; fi
saveenv
echo "started rauc.slot=${chosen}"
poweroff
"""


@pytest.fixture
def board(tmp_path: Path) -> Sandbox:
    """A board that was never switched on."""
    try:
        tools.require()
        return Sandbox(tmp_path)
    except tools.MissingError as missing:
        pytest.skip(f"tier: the boot lab: {missing}")


def _agent(board: Sandbox, running: str, style: str, **more: object) -> UbootBootloader:
    settings = {
        **more,
        "env": board.lines(),
        "lock": str(board.disk.with_name("lock")),
        "style": style,
        "slots": ["A", "B"],
        "current": running,
    }
    made = bootloaders.load("uboot", settings)
    assert isinstance(made, UbootBootloader)
    return made


def _start(board: Sandbox, style: str) -> str:
    """Switch on and return the slot that was started, by the kernel's arguments."""
    said = board.power_on(script() if style == "order" else None)
    slot = said[-1].partition("tidegate.slot=")[2][:1]
    part = BOARD[f"tidegate_part_{slot}"]
    root = BOARD[f"tidegate_root_{slot}"]
    wanted = f"started root={root} {BOARD['tidegate_args']} tidegate.slot={slot} from {part}"
    assert said[-1] == wanted
    return slot


def _fresh(board: Sandbox, style: str) -> None:
    if style == "bootcount":
        board.fill((SHIPPED / "tidegate-bootcount.env").read_text())
    assert _start(board, style) == "A"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("tries", [1, 3, 15])
@pytest.mark.parametrize("style", ["order", "bootcount"])
def test_a_trial_is_started_as_often_as_it_may_be_and_then_the_old_slot(
    board: Sandbox, style: str, tries: int
) -> None:
    _fresh(board, style)
    _agent(board, "A", style).arm_trial("B", tries)
    for left in reversed(range(tries)):
        assert _start(board, style) == "B"
        assert _agent(board, "B", style).tries_left("B") == left
    assert [_start(board, style) for _ in range(2)] == ["A", "A"]
    after = _agent(board, "A", style)
    assert (after.primary(), after.state("B"), after.tries_left("B")) == ("A", "trial", 0)
    after.mark_bad("B")
    assert [_start(board, style) for _ in range(4)] == ["A"] * 4
    assert after.state("B") == "bad"


@pytest.mark.parametrize("style", ["order", "bootcount"])
def test_a_confirmed_slot_stays(board: Sandbox, style: str) -> None:
    _fresh(board, style)
    _agent(board, "A", style).arm_trial("B", 3)
    assert _start(board, style) == "B"
    _agent(board, "B", style).commit("B")
    for _ in range(6):
        assert _start(board, style) == "B"
        agent = _agent(board, "B", style)
        assert agent.counted_down() == (style == "order")
        if agent.counted_down():
            agent.commit("B")
        assert agent.state("B") == "good"


def test_a_script_made_for_another_updater_can_stay(board: Sandbox) -> None:
    def start() -> str:
        return board.power_on(FOREIGN)[-1][-1]

    assert start() == "A"
    # Ten would be `a`, which `-gt` does not take for a number.
    agent = _agent(board, "A", "order", tries_max=9)
    agent.arm_trial("B", 15)
    assert [start() for _ in range(11)] == ["B"] * 9 + ["A"] * 2
    agent.mark_bad("B")
    assert [start() for _ in range(5)] == ["A"] * 5
    agent.arm_trial("B", 2)
    assert start() == "B"
    _agent(board, "B", "order", tries_max=9).commit("B")
    assert start() == "B"


def test_when_all_tries_are_spent_they_are_filled_up_and_a_bad_slot_stays_out(
    board: Sandbox,
) -> None:
    _fresh(board, "order")
    _agent(board, "A", "order").mark_bad("B")
    said = [board.power_on(script()) for _ in range(5)]
    assert sum("tidegate: all tries are spent, filling up" in one for one in said) == 1
    assert all("tidegate.slot=A" in one[-1] for one in said)


@pytest.mark.parametrize("style", ["order", "bootcount"])
def test_a_slot_that_cannot_be_loaded_is_left_in_one_go(board: Sandbox, style: str) -> None:
    """One power-on: the board resets by itself until something starts."""
    start = "if test ${tidegate_slot} = A; then false; else " + BOARD["tidegate_boot"] + "; fi"
    without_a = {**BOARD, "tidegate_boot": start}
    if style == "bootcount":
        board.fill((SHIPPED / "tidegate-bootcount.env").read_text(), without_a)
    said = board.power_on(script(without_a) if style == "order" else None)
    assert said.count("tidegate: slot A did not start") == (3 if style == "order" else 1)
    assert "tidegate.slot=B" in said[-1]


def test_a_bad_slot_is_not_gone_back_to(board: Sandbox) -> None:
    _fresh(board, "bootcount")
    agent = _agent(board, "A", "bootcount")
    agent.arm_trial("B", 1)
    agent.mark_bad("A")
    assert [_start(board, "bootcount") for _ in range(4)] == ["B"] * 4


def test_a_try_that_cannot_be_written_down_is_not_used(board: Sandbox) -> None:
    _fresh(board, "order")
    _agent(board, "A", "order").arm_trial("B", 3)
    worn_out = script().replace("if saveenv;", "if false;")
    assert worn_out != script()
    for _ in range(2):
        said = board.power_on(worn_out)
        assert "tidegate: the environment cannot be saved, nothing is tried" in said
        assert "tidegate.slot=A" in said[-1]


@pytest.mark.parametrize(
    ("lines", "slot"),
    [
        ("setenv BOOT_ORDER 'R X B A'", "B"),
        ("setenv BOOT_ORDER 'R X'", "A"),
        ("setenv BOOT_ORDER; setenv BOOT_A_LEFT junk", "B"),
        ("setenv BOOT_ORDER 'A B'; setenv BOOT_A_LEFT; setenv BOOT_B_LEFT", "A"),
        ("setenv BOOT_ORDER 'A B'; setenv BOOT_A_LEFT '1 2'", "B"),
        ("setenv BOOT_ORDER 'A A'; setenv BOOT_A_LEFT 0", "A"),
    ],
)
def test_whatever_stands_in_the_environment_something_is_started(
    board: Sandbox, lines: str, slot: str
) -> None:
    # Only before the first reset, which the script's own refill makes.
    once = f'if test -z "${{seen}}"; then {lines}; setenv seen 1; fi\n'
    said = board.power_on(once + script())
    assert f"tidegate.slot={slot}" in said[-1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("style", ["order", "bootcount"])
def test_every_torn_write_of_either_side_is_the_old_or_the_new_environment(
    board: Sandbox, style: str
) -> None:
    """Each side's write is torn, and the other side reads it."""
    _fresh(board, style)
    before = board.disk.read_bytes()
    _agent(board, "A", style).arm_trial("B", 3)
    starts = set()
    for torn in _torn(before, board.disk.read_bytes()):
        board.disk.write_bytes(torn)
        starts.add(_start(board, style))
    assert starts == {"A"}
    _agent(board, "A", style).arm_trial("B", 3)
    before = board.disk.read_bytes()
    assert _start(board, style) == "B"
    after = board.disk.read_bytes()
    lefts = set()
    for torn in _torn(before, after):
        board.disk.write_bytes(torn)
        lefts.add(_agent(board, "A", style).tries_left("B"))
    assert lefts == {3}
    board.disk.write_bytes(after)
    assert _agent(board, "B", style).tries_left("B") == 2


def _torn(before: bytes, after: bytes) -> Iterator[bytes]:
    """Return disks on which not all changed sectors of a write have arrived."""
    sectors = [
        at
        for offset in OFFSETS
        for at in range(offset, offset + SIZE, SECTOR)
        if before[at : at + SECTOR] != after[at : at + SECTOR]
    ]
    assert len({next(o for o in OFFSETS if o <= at < o + SIZE) for at in sectors}) == 1
    fronts = [sectors[:count] for count in range(len(sectors))]
    backs = [sectors[count:] for count in range(1, len(sectors))]
    random = Random(SEED)
    scattered = [random.sample(sectors, k=random.randrange(len(sectors))) for _ in range(8)]
    for some in (*fronts, *backs, *scattered):
        disk = bytearray(before)
        for at in some:
            disk[at : at + SECTOR] = after[at : at + SECTOR]
        yield bytes(disk)
