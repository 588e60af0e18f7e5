"""A real agent process while it downloads: people, its configuration and applications change what it may do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.crash import releases
from tests.crash.lab import Plane
from tests.crash.releases import BLOCK
from tests.unit.agent.test_process import VirtualBoard, board, make_plane

from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e
#: At the 4 KiB a second of the configuration the download takes three quarters of a minute.
BLOCKS = 48


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    def image(counter: int) -> bytes:
        return Random(counter).randbytes(BLOCKS * BLOCK)

    monkeypatch.setattr(releases, "make_image", image)
    return make_plane()


@pytest.fixture
def made(plane: Plane, tmp_path: Path) -> Iterator[VirtualBoard]:
    with board(plane, tmp_path) as found:
        yield found


def status(made: VirtualBoard) -> dict[str, Any]:
    done = made.agent("status", "--json")
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def downloading(made: VirtualBoard) -> bool:
    update = status(made).get("update")
    return bool(update and update["state"] == "downloading" and update.get("stored_bytes", 0) > 0)


def codes(made: VirtualBoard) -> list[str]:
    return [one["code"] for one in status(made).get("because", [])]


def tended(made: VirtualBoard, found: Callable[[], bool], limit_s: float) -> bool:
    def look() -> bool:
        made.tend()
        return found()

    return wait_for(look, limit_s)


def received(plane: Plane) -> int:
    return next(one.bytes for one in plane.events.values() if one.kind == "staged")


def test_a_throttle_is_changed_while_bytes_come(plane: Plane, made: VirtualBoard) -> None:
    assert wait_for(lambda: downloading(made), 20)
    began = time.monotonic()
    done = made.agent("throttle", "off")
    assert (done.returncode, done.stdout) == (
        0,
        "No limit of this device's own, until the agent restarts.\n",
    )
    assert tended(made, lambda: "staged" in plane.kinds(), 20)
    assert time.monotonic() - began < 20
    assert received(plane) <= plane.releases[1].target.length + 4096


def at_rest(made: VirtualBoard) -> int:
    """Return what is stored once no more comes: a download that is told to end first makes durable what it has."""
    seen: list[int] = []

    def rests() -> bool:
        seen.append(int(status(made)["update"]["stored_bytes"]))
        time.sleep(0.5)
        return len(seen) > 2 and len(set(seen[-3:])) == 1

    assert wait_for(rests, 20)
    return seen[-1]


def test_sighup_reads_the_configuration_again_and_a_window_stops_a_running_download(
    plane: Plane, made: VirtualBoard
) -> None:
    assert wait_for(lambda: downloading(made), 20)
    assert made.process is not None
    text = made.config.read_text()
    closed = (datetime.now(UTC) + timedelta(days=3)).strftime("%a")
    shut = text.replace("[download]", f'[download]\nwindow = ["{closed}"]')
    made.config.write_text(shut)
    made.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: codes(made) == ["wait.download_window"], 10)
    before = at_rest(made)
    # A mistake changes nothing. The commands read the file as well, so it is put right before they are used.
    made.config.write_text(text.replace("[download]", "[download]\nwindwo = 3"))
    made.process.send_signal(signal.SIGHUP)
    time.sleep(1.0)
    made.config.write_text(shut)
    assert codes(made) == ["wait.download_window"]
    assert status(made)["update"]["stored_bytes"] == before
    made.config.write_text(text.replace('rate = "4KiB/s"', 'rate = "off"'))
    made.process.send_signal(signal.SIGHUP)
    assert tended(made, lambda: "staged" in plane.kinds(), 20)
    assert received(plane) <= plane.releases[1].target.length + 4096


def test_an_update_waits_for_a_command_and_for_what_was_deferred(
    plane: Plane, made: VirtualBoard, tmp_path: Path
) -> None:
    assert wait_for(lambda: status(made) != {}, 20)
    go = tmp_path / "go"
    command = [sys.executable, "-m", "tidegate.agent.main", "--config", str(made.config)]
    command += ["inhibit", "--who", "pump", "--why", "a patient is connected", "--"]
    command += ["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done; exit 3", "run"]
    holder = subprocess.Popen(command, env=dict(os.environ))
    try:
        assert wait_for(lambda: status(made)["inhibitors"] != [], 10)
        made.agent("throttle", "2MB/s")
        assert wait_for(lambda: "wait.inhibitor" in codes(made), 30)
        assert status(made)["inhibitors"] == ["pump: a patient is connected"]
        done = made.agent("defer", "2h", "--json")
        assert json.loads(done.stdout)["until_at"] > time.time() + 7000
        go.touch()
        assert holder.wait(10) == 3
    finally:
        holder.kill()
        holder.wait()
    assert wait_for(lambda: codes(made) == ["wait.deferred"], 10)
    assert plane.permits == {}
    assert made.agent("defer", "off").returncode == 0
    assert tended(made, lambda: plane.outcomes() == [("confirmed", None)], 40)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("throttle", "fast"), 2, "10MiB"),
        (("throttle", "200"), 2, "unit"),
        (("defer", "2h"), 1, "error[request.conflict]"),
        (("defer", "0s"), 2, "no time at all"),
        (("hold", "x", "--for", "100d"), 1, "defer_max"),
        (("hold", "x", "--until", "2001-01-01 00:00"), 1, "in the past"),
        (("hold", "x", "--until", "2199-01-01T00:00+02:00"), 1, "defer_max"),
        (("hold", "x", "--until", "soon"), 2, "'soon' is no time"),
        (("hold", "x", "--until", "2001-01-01", "--for", "2h"), 2, "not allowed with"),
        (("metered", "maybe"), 2, "maybe"),
        (("uninhibit", "nothing"), 1, "error[request.not_found]"),
        (("inhibit", "--why", "x", "--for", "100d"), 1, "defer_max"),
        (("inhibit", "--", "true"), 2, "--why"),
        (("confirm",), 1, "error[request.conflict]"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_with_what_to_do(
    words: tuple[str, ...], code: int, said: str, quiet: VirtualBoard
) -> None:
    done = quiet.agent(*words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("throttle", "200k"), "200000 bytes/s at most, until the agent restarts."),
        (("throttle", "1.5M", "--keep", "--for", "2h"), "1500000 bytes/s at most."),
        (("throttle", "auto"), "As configured."),
        (("metered", "yes"), 'The link is metered; [download] metered = "allow".'),
        (("metered", "auto"), "The link is not metered"),
        (("inhibit", "--why", "x", "--for", "2h"), "Left behind: agent-"),
        (("hold", "test", "--for", "3d"), "On hold."),
        (("hold", "test", "--until", f"{datetime.now(UTC) + timedelta(days=1):%F %T}"), "On hold."),
        (("release",), "Hold ended."),
        (("check",), "Polling now."),
        (("check", "--wait"), "Server    accepted"),
        (("apply-now",), "Nothing is staged."),
    ],
)
def test_every_verb_says_what_it_did(
    words: tuple[str, ...], said: str, quiet: VirtualBoard
) -> None:
    done = quiet.agent(*words)
    assert (done.returncode, said in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_person_may_watch_and_wait(quiet: VirtualBoard) -> None:
    command = [sys.executable, "-m", "tidegate.agent.main", "--config", str(quiet.config)]
    # Whoever runs the tests in the background of a script has this signal ignored, in all that they start.
    watch = ["env", "--default-signal=INT", *command, "status", "--watch", "--json"]
    watching = subprocess.Popen(watch, stdout=subprocess.PIPE)
    assert watching.stdout is not None
    try:
        first = json.loads(watching.stdout.readline())
        quiet.agent("hold", "watched")
        second = json.loads(watching.stdout.readline())
        assert (first["holds"], second["holds"][0]["reason"]) == ([], "watched")
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        watching.stdout.close()
    quiet.agent("release")
    waited = quiet.agent("check", "--wait", "--json")
    assert (waited.returncode, json.loads(waited.stdout)["problem"]) == (0, "")


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    """Give an agent that has nothing to do."""
    plane = make_plane()
    plane.order = None
    folder = tmp_path_factory.mktemp("quiet")
    with board(plane, folder) as found:
        found.config.write_text(
            f'{found.config.read_text()}\n[inhibit]\ndir = "{folder}/inhibit"\n'
        )
        found.kill()
        found.start()
        assert wait_for(lambda: status(found).get("enrolled") == "accepted", 20)
        yield found
