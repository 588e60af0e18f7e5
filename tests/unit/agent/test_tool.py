"""Foreign programs: what they print is bounded, their time too, and nothing of them is left behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from tidegate.agent.install.tool import KEPT, Tool
from tidegate.agent.jobs import Quiet
from tidegate.core.errors import DeviceError
from tidegate.sim.virtual_board import wait_for


def python(text: str, timeout_s: float = 20) -> Tool:
    return Tool([sys.executable, "-c", text], timeout_s=timeout_s)


def lives(pid: int) -> bool:
    """Say whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_says_how_it_ended_and_what_it_printed_last() -> None:
    tool = python("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)")
    list(tool.run())
    assert tool.status == 3
    assert sorted(tool.output.split()) == ["one", "two"]
    assert tool.last() in ("one / two", "two / one")


def test_only_the_end_of_a_long_output_is_kept() -> None:
    tool = python("print('x' * 3000000); print('the end')")
    list(tool.run())
    assert (len(tool.output), tool.output.endswith("the end\n")) == (KEPT, True)


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    tool = python(
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('still here', flush=True)\n"
        "time.sleep(60)",
        timeout_s=4,
    )
    began = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        list(tool.run())
    assert caught.value.code == "install.installer"
    assert "no answer in 4 s: still here" in caught.value.detail
    assert time.monotonic() - began < 30
    pids = [int(one) for one in note.read_text().split()]
    assert wait_for(lambda: not any(lives(one) for one in pids), 10)


def test_a_job_that_is_given_up_ends_its_program(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    tool = python(
        f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    running = tool.run()
    assert isinstance(next(running), Quiet)
    pid = int(note.read_text())
    assert lives(pid)
    running.close()  # type: ignore[attr-defined]  # a generator
    assert not lives(pid)


def test_a_program_does_not_outlive_a_worker_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    inner = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    worker = python(
        "import os, signal, sys, threading, time\n"
        "from tidegate.agent.install.tool import Tool\n"
        f"tool = Tool([sys.executable, '-c', {inner!r}], timeout_s=50).run()\n"
        "next(tool)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    list(worker.run())
    assert worker.status == -9
    assert wait_for(lambda: not lives(int(note.read_text())), 10)


def test_a_program_that_is_not_there_says_what_to_do() -> None:
    tool = Tool(["no-such-installer"], timeout_s=1)
    with pytest.raises(DeviceError) as caught:
        list(tool.run())
    assert caught.value.code == "install.installer"
    assert "no-such-installer" in caught.value.detail
    assert "[installer] allow" in caught.value.hint


def test_a_program_reads_no_input_and_speaks_no_language(tmp_path: Path) -> None:
    tool = Tool(
        ["sh", "-c", 'cat; echo "$LC_ALL $EXTRA"; pwd'],
        timeout_s=20,
        cwd=str(tmp_path),
        environment={"EXTRA": "more"},
    )
    list(tool.run())
    assert tool.output.splitlines() == ["C more", os.path.realpath(tmp_path)]
