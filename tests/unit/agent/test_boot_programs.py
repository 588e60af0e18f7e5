"""Boot loaders that are driven by a program: what it prints is judged, how long it takes is bounded, and its failure is one clear line."""

import time
from pathlib import Path

import pytest
from tests.contract.loaders import barebox, custom

from tidegate.agent import bootloaders
from tidegate.agent.boot import tool as boot_tool
from tidegate.core.errors import ConfigError, DeviceError


def script(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = script(tmp_path, f"(sleep 6; touch {mark}) & sleep 60")
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer in 0\.2 s"):
        boot_tool.run([program], 0.2)
    assert time.monotonic() - began < 6
    time.sleep(max(0.0, began + 6.3 - time.monotonic()))
    assert not mark.exists()


def test_a_program_that_leaves_a_child_behind_does_not_keep_us_waiting(tmp_path: Path) -> None:
    program = script(tmp_path, "sleep 60 >/dev/null 2>&1 & echo A")
    assert boot_tool.run([program], 10) == "A\n"


def test_a_program_that_fails_is_quoted_with_its_last_line(tmp_path: Path) -> None:
    program = script(tmp_path, "echo first >&2; echo 'no such slot' >&2; exit 3")
    with pytest.raises(DeviceError, match="exit code 3: no such slot") as caught:
        boot_tool.run([program, "set-primary"], 10)
    assert caught.value.code == "activate.bootloader"


@pytest.mark.parametrize("text", ["printf '\\377'", "kill -9 $$"])
def test_what_is_no_answer_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeviceError):
        boot_tool.run([script(tmp_path, text)], 10)


def test_a_program_that_is_not_there_or_may_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        boot_tool.run([str(tmp_path / "none")], 10)
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    with pytest.raises(DeviceError, match="Permission denied"):
        boot_tool.run([str(tmp_path / "plain")], 10)


@pytest.mark.parametrize("said", ["", "C", "A B", "a", "A\nB"])
def test_custom_a_slot_that_is_none_is_an_error(tmp_path: Path, said: str) -> None:
    loader = bootloaders.load(
        "custom", {"command": [script(tmp_path, f"printf '{said}'")], "slots": ["A", "B"]}
    )
    with pytest.raises(DeviceError, match="is none of"):
        loader.primary()


@pytest.mark.parametrize("said", ["", "fine", "good bad", "GOOD"])
def test_custom_a_state_that_is_none_is_an_error(tmp_path: Path, said: str) -> None:
    text = f'[ "$1" = get-primary ] && echo A || echo "{said}"'
    record = str(tmp_path / "record")
    settings = {"command": [script(tmp_path, text)], "slots": ["A", "B"], "record": record}
    with pytest.raises(DeviceError, match="not good or bad"):
        bootloaders.load("custom", settings).state("B")


def test_custom_keeps_raucs_order_of_calls(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    board = custom.rig(tmp_path)
    inner = board.settings["command"]
    assert isinstance(inner, list)
    outer = tmp_path / "outer"
    outer.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec {inner[0]} "$@"\n')
    outer.chmod(0o755)
    settings = {**board.settings, "command": [str(outer)], "current": "A"}
    loader = bootloaders.load("custom", settings)
    loader.mark_bad("B")
    loader.arm_trial("B", 3)
    loader.commit("B")
    changes = [one for one in calls.read_text().splitlines() if one.startswith("set-")]
    assert changes == ["set-state B bad", "set-primary B", "set-state B good"]


def test_custom_asks_the_program_what_runs_only_where_nobody_else_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_SLOT", raising=False)
    board = custom.rig(tmp_path)
    (tmp_path / "current").write_text("B\n")
    cmdline = tmp_path / "cmdline"
    cmdline.write_text("quiet\n")
    loader = bootloaders.load("custom", {**board.settings, "cmdline": str(cmdline)})
    assert loader.current() == "B"
    cmdline.write_text("rauc.slot=A\n")
    assert loader.current() == "A"


def test_custom_a_record_that_names_no_slot_is_an_error(tmp_path: Path) -> None:
    board = custom.rig(tmp_path)
    (tmp_path / "committed").write_text("C\n")
    with pytest.raises(DeviceError, match="is no slot"):
        board.loader("A").primary()


def test_barebox_sets_everything_in_one_call(tmp_path: Path) -> None:
    board = barebox.Board(tmp_path)
    calls = tmp_path / "calls"
    outer = tmp_path / "outer"
    outer.write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexec {board.tool} "$@"\n')
    outer.chmod(0o755)
    loader = bootloaders.load("barebox", {"tool": str(outer), "slots": ["A", "B"], "current": "A"})
    loader.arm_trial("B", 2)
    loader.arm_trial("B", 2)
    assert [one for one in calls.read_text().splitlines() if " -s " in one] == [
        (
            "-n state -s bootstate.system1.priority=30 -s bootstate.system1.remaining_attempts=2 "
            "-s bootstate.system0.priority=20 -s bootstate.system0.remaining_attempts=15"
        )
    ]
    assert board.load()["bootstate.last_chosen"] == 0


def test_barebox_one_damaged_copy_is_no_loss(tmp_path: Path) -> None:
    board = barebox.rig(tmp_path)
    board.loader("A").arm_trial("B", 2)
    (tmp_path / "state.0").write_bytes(b"0 {}")
    assert board.loader("A").tries_left("B") == 2


@pytest.mark.parametrize("said", ["", "20 15 10", "20 15 10 x", "20 15 10 -1", "20 15 10 15 1"])
def test_barebox_what_it_does_not_say_is_an_error(tmp_path: Path, said: str) -> None:
    settings = {"tool": script(tmp_path, f"echo {said}"), "slots": ["A", "B"]}
    with pytest.raises(DeviceError, match="does not say"):
        bootloaders.load("barebox", settings).primary()


def test_settings_that_cannot_work_are_refused() -> None:
    wrong: list[tuple[str, dict[str, object]]] = [
        ("custom", {}),
        ("custom", {"command": []}),
        ("custom", {"command": "program"}),
        ("custom", {"command": [3]}),
        ("custom", {"command": ["x"], "timeout": 0}),
        ("custom", {"command": ["x"], "timeout": True}),
        ("custom", {"command": ["x"], "trys": True}),
        ("barebox", {"targets": ["system0"]}),
        ("barebox", {"targets": ["system0", "system0"]}),
        ("barebox", {"targets": ["a b", "c"]}),
        ("barebox", {"tool": ""}),
    ]
    for name, one in wrong:
        with pytest.raises(ConfigError):
            bootloaders.load(name, {"slots": ["A", "B"], **one})
