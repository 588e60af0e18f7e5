"""What every health check must hold, and each of them in turn against real files, processes and sockets."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.contract import tools

from tidegate.agent import health
from tidegate.agent.checkup import journald
from tidegate.core.reasons import REASONS
from tidegate.core.release import HealthCheck

Settings = dict[str, str | int | list[str]]


def probe(kind: str, settings: Settings) -> tuple[bool, str]:
    _, made = health.load(HealthCheck(name="x", kind=kind, settings=settings))
    return made.check(1000.0)


@pytest.mark.parametrize("kind", health.names())
def test_a_check_has_a_page_and_a_reason_of_the_closed_list(kind: str) -> None:
    module = __import__(f"tidegate.agent.health.{kind}", fromlist=["REASON"])
    assert module.__doc__
    assert module.REASON in REASONS
    assert module.REASON.startswith("health.")


@pytest.mark.parametrize("kind", health.names())
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"needs": ["nonsense"]},
        {"by": 7},
        {"run": "text"},
        {"url": "ftp://x"},
        {"run": [""]},
        {"run": ["a\0b"]},
        {"disk": ["/:101%"]},
        {"disk": ["/no/such/place:1MiB"]},
        {"address": "[::"},
        {"addresses": ["localhost:99999"]},
        {"unix": ["/no/such/socket"]},
        {"names": ["--help"]},
        {"names": [""]},
        {"units": ["--system", "a b"]},
        {"pid_files": ["/dev/zero/x"]},
        {"source": "/no/such/file", "metric": "x", "max": 1},
        {"source": "http://127.0.0.1:1/", "metric": "x{", "max": 1},
        {"file": "/proc/self/mem", "max_per_hour": 1},
        {"journal": "loud"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://[::1/"},
        {"source": "http://[::1/", "metric": "x", "max": 1},
        {"memory": "lots"},
        {"timeout_s": 1, "needs": ["dns:" + "x" * 70 + ".invalid"]},
    ],
)
def test_a_check_never_raises_whatever_the_contract_says(kind: str, settings: Settings) -> None:
    ok, detail = probe(kind, settings)
    assert isinstance(ok, bool)
    assert len(detail) <= 200


@pytest.mark.parametrize("kind", health.names())
def test_a_setting_that_nobody_reads_fails_the_check(kind: str) -> None:
    assert probe(kind, {"unit": ["x"]})[0] is False
    assert "no setting" in probe(kind, {"unit": ["x"]})[1]


def test_an_unknown_check_fails_and_says_so() -> None:
    assert probe("telepathy", {}) == (False, "no check 'telepathy' on this device")


def test_boot_waits_for_its_marker(tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    assert probe("boot", {"by": f"marker:{marker}"})[0] is False
    marker.touch()
    assert probe("boot", {"by": f"marker:{marker}"})[0] is True


def test_network_means_that_what_is_needed_answers() -> None:
    class Quiet(BaseHTTPRequestHandler):
        pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        port = server.server_port
        assert probe("network", {"needs": [f"tcp:127.0.0.1:{port}"]})[0] is True
        either = f"any_of:127.0.0.1:1,127.0.0.1:{port}"
        assert probe("network", {"needs": [either]})[0] is True
    assert probe("network", {"needs": [f"tcp:127.0.0.1:{port}"]})[0] is False
    assert probe("network", {"needs": ["dns:localhost"]})[0] is True
    assert probe("network", {"needs": ["dns:no-such-name.invalid"]})[0] is False


def test_a_service_runs_while_its_process_lives(tmp_path: Path) -> None:
    pid_file = tmp_path / "core.pid"
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid_file.write_text(str(process.pid))
    assert probe("services", {"pid_files": [str(pid_file)]})[0] is True
    process.communicate(b"\n")
    assert probe("services", {"pid_files": [str(pid_file)]})[0] is False
    assert probe("services", {"pid_files": [str(tmp_path / "missing")]})[0] is False


def test_an_error_rate_is_what_was_added_since_the_first_look(tmp_path: Path) -> None:
    counter = tmp_path / "errors"
    settings: Settings = {"file": str(counter), "max_per_hour": 3}
    _, made = health.load(HealthCheck(name="x", kind="error_rate", settings=settings))
    counter.write_text("100\n")
    assert made.check(0.0)[0] is True
    counter.write_text("103\n")
    assert made.check(60.0)[0] is True
    counter.write_text("104\n")
    assert made.check(120.0)[0] is False
    assert made.check(2 * 3600.0)[0] is True
    counter.write_text("nonsense")
    assert made.check(120.0)[0] is False


def test_a_command_passes_by_its_exit_code_and_is_bounded_in_time() -> None:
    good = [sys.executable, "-c", "print('fine')"]
    assert probe("command", {"run": good}) == (True, "fine")
    assert probe("command", {"run": [sys.executable, "-c", "raise SystemExit(3)"]}) == (
        False,
        "exit code 3",
    )
    slow = [sys.executable, "-c", "import time; time.sleep(30)"]
    assert probe("command", {"run": slow, "timeout_s": 1})[0] is False
    assert probe("command", {"run": ["/no/such/program"]})[0] is False
    assert os.environ  # the command inherits it; nothing is run through a shell


def test_http_compares_status_and_content() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"ready: yes"
            self.send_response(200 if self.path == "/health" else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert probe("http", {"url": f"{base}/health", "contains": "ready: yes"})[0] is True
        assert probe("http", {"url": f"{base}/health", "contains": "no"})[0] is False
        assert probe("http", {"url": f"{base}/else"}) == (False, "status 500")
        server.shutdown()
        thread.join()
    assert probe("http", {"url": f"{base}/health"})[0] is False


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", tools.on_path(folder)["PATH"])
    tools.program(folder, "systemctl", tools.SYSTEMCTL)
    tools.program(folder, "docker", tools.ENGINE)
    return folder


def systemd(folder: Path, state: str, failed: list[str], units: dict[str, list[str | int]]) -> None:
    told = {"state": state, "failed": failed, "units": units}
    (folder / "systemd.json").write_text(json.dumps(told))


def test_boot_is_what_the_service_manager_says(bin_folder: Path) -> None:
    for state, wanted in (("running", True), ("starting", False), ("initializing", False)):
        systemd(bin_folder, state, [], {})
        assert probe("boot", {}) == (wanted, state)
    systemd(bin_folder, "degraded", ["a.service", "ifup@eth1.service"], {})
    assert probe("boot", {}) == (False, "failed: a.service, ifup@eth1.service")
    allowed = ["a.service", "ifup@*.service"]
    assert probe("boot", {"allow_degraded": allowed}) == (True, "degraded, as allowed")


def test_without_a_service_manager_nothing_of_it_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for kind, settings in (
        ("boot", {}),
        ("failed_units", {}),
        ("services", {"units": ["a.service"]}),
        ("containers", {"names": ["a"]}),
        ("error_rate", {"journal": "err"}),
    ):
        ok, detail = probe(kind, settings)  # type: ignore[arg-type]
        assert (ok, "No such file" in detail) == (False, True)


@pytest.mark.skipif(
    shutil.which("systemctl") is None, reason="tier: install the Debian package systemd"
)
def test_a_system_that_was_not_booted_with_systemd_is_told_by_the_real_one() -> None:
    if Path("/run/systemd/system").exists():
        pytest.skip("tier: this machine was booted with systemd")
    assert probe("boot", {}) == (False, "offline")
    assert probe("failed_units", {})[0] is False
    assert probe("services", {"units": ["dbus.service"]})[0] is False


def test_failed_units_are_told_with_patterns_for_those_that_may(bin_folder: Path) -> None:
    systemd(bin_folder, "running", ["user@1000.service"], {})
    assert probe("failed_units", {})[0] is False
    assert probe("failed_units", {"allow": ["user@*.service"]})[0] is True


def test_units_must_be_there_active_and_seldom_restarted(bin_folder: Path) -> None:
    units: dict[str, list[str | int]] = {
        "app.service": ["active", 2],
        "web.service": ["activating", 0],
    }
    systemd(bin_folder, "running", [], units)
    assert probe("services", {"units": ["app.service"]}) == (True, "all run")
    assert probe("services", {"units": ["app.service", "web.service"]}) == (
        False,
        "web.service is activating",
    )
    assert probe("services", {"units": ["no.service"]}) == (False, "no.service is not there")
    assert probe("services", {"units": ["app.service"], "restarts_max": 1}) == (
        False,
        "app.service was restarted 2 times",
    )


def test_restarts_since_the_trial_began_are_counted_from_its_first_look(bin_folder: Path) -> None:
    place = health.Place()
    settings: Settings = {"units": ["app.service"], "since": "trial", "restarts_max": 1}

    def look(restarts: int) -> bool:
        systemd(bin_folder, "running", [], {"app.service": ["active", restarts]})
        # Made anew for each round, as in a real one: only `place` is kept.
        _, made = health.load(HealthCheck(name="x", kind="services", settings=settings), place)
        return made.check(0.0)[0]

    assert [look(7), look(8), look(9)] == [True, True, False]
    # Somebody reset the manager's count.
    assert [look(0), look(2)] == [True, False]


def test_containers_must_run_and_be_healthy(bin_folder: Path) -> None:
    def told(state: dict[str, object], restarts: int = 0) -> tuple[bool, str]:
        (bin_folder / "containers.json").write_text(json.dumps({"app": [state, restarts]}))
        return probe("containers", {"names": ["app"]})

    assert told({"Status": "running", "Restarting": False}) == (True, "all run")
    assert told({"Status": "running", "Health": {"Status": "healthy"}})[0] is True
    assert told({"Status": "running", "Healthcheck": {"Status": "", "Log": None}})[0] is True
    assert told({"Status": "running", "Health": {"Status": "starting"}}) == (
        False,
        "app is starting",
    )
    assert told({"Status": "exited", "ExitCode": 1}) == (False, "app is exited")
    assert told({"Status": "restarting", "Restarting": True}) == (False, "app is restarting")
    missing = probe("containers", {"names": ["other"]})
    assert (missing[0], "No such container" in missing[1]) == (False, True)


def test_restarts_of_a_container_are_counted_from_the_first_look(bin_folder: Path) -> None:
    place = health.Place()

    def look(restarts: int) -> bool:
        state = {"Status": "running"}
        (bin_folder / "containers.json").write_text(json.dumps({"app": [state, restarts]}))
        settings: Settings = {"names": ["app"], "restarts_max": 1}
        _, made = health.load(HealthCheck(name="x", kind="containers", settings=settings), place)
        return made.check(0.0)[0]

    assert [look(5), look(6), look(7)] == [True, True, False]


def test_a_process_is_found_by_name_and_by_command_line(tmp_path: Path) -> None:
    program = tmp_path / "tg-process-with-a-long-name"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    names: Settings = {"names": [program.name]}
    assert probe("process", names)[0] is False
    running = subprocess.Popen([program, "600.25"])
    try:
        assert wait_for(lambda: probe("process", names)[0])
        assert probe("process", {"command": [f"{program.name} 600.25"]})[0] is True
        assert probe("process", {"command": [f"{program.name} 601"]})[0] is False
        assert probe("process", {**names, "count": 2})[0] is False
    finally:
        running.kill()
    # Dead, and not waited for yet: a zombie is no process.
    assert wait_for(lambda: not probe("process", names)[0])
    running.wait(10)


def wait_for(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return False


def test_tcp_wants_to_be_greeted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert probe("tcp", {"address": address}) == (True, "accepts")
        greeting = b"SSH-2.0-x\r\n"

        def greet() -> None:
            for _ in range(3):
                client, _ = server.accept()
                with client:
                    client.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert probe("tcp", {"address": address, "greets": "SSH-2.0"})[0] is True
        assert probe("tcp", {"address": address, "greets": "220 "})[0] is False
        thread.join(10)
        # It accepts and says nothing: that takes its time and no more.
        began = time.monotonic()
        assert probe("tcp", {"address": address, "greets": "SSH", "timeout_s": 1})[0] is False
        assert time.monotonic() - began < 10
    assert probe("tcp", {"address": address})[0] is False


def test_tcp_knows_sockets_of_this_machine(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    assert probe("tcp", {"unix": [path]})[0] is False
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert probe("tcp", {"unix": [path]})[0] is True


def test_a_metric_keeps_its_bounds(tmp_path: Path) -> None:
    path = tmp_path / "app.prom"
    path.write_text('queue_length{queue="a"} 7\nqueue_length{queue="b"} 2\nload 0.5\n')
    source: Settings = {"source": str(path)}
    assert probe("metric", {**source, "metric": "queue_length", "max": 9})[0] is True
    assert probe("metric", {**source, "metric": "queue_length", "max": 8})[0] is False
    one = 'queue_length{queue="b"}'
    assert probe("metric", {**source, "metric": one, "min": 3}) == (False, "2 is below 3")
    scaled: Settings = {**source, "metric": "load", "scale": 1000}
    assert probe("metric", {**scaled, "max": 500})[0] is True
    assert probe("metric", {**scaled, "max": 499}) == (False, "0.5 is above 0.499")
    assert probe("metric", {**source, "metric": "missing", "max": 1})[0] is False


def test_a_metric_grows_no_faster_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "app.prom"
    place = health.Place()
    settings: Settings = {"source": str(path), "metric": "errors_total", "max_per_hour": 3}

    def look(value: int, now: float) -> bool:
        path.write_text(f"errors_total {value}\n")
        _, made = health.load(HealthCheck(name="x", kind="metric", settings=settings), place)
        return made.check(now)[0]

    assert [look(100, 0), look(103, 60), look(1, 120)] == [True, True, False]
    assert look(1, 2 * 3600) is True


def test_a_metric_is_read_over_http() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(b"up 1\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        wanted: Settings = {"metric": "up", "min": 1}
        assert probe("metric", {**wanted, "source": f"{base}/metrics"}) == (True, "1")
        assert "status 404" in probe("metric", {**wanted, "source": f"{base}/x"})[1]
        server.shutdown()
        thread.join()


def test_resources_are_measured_on_this_machine(tmp_path: Path) -> None:
    here = str(tmp_path)
    for good in (
        {"disk": [f"{here}:1B", f"{here}:0%"]},
        {"inodes": [f"{here}:1"]},
        {"memory": "1KiB"},
        {"load_max": 1_000_000},
    ):
        assert probe("resource", good) == (True, "enough")  # type: ignore[arg-type]
    for bad, word in (
        ({"disk": [f"{here}:1000TiB"]}, "are free"),
        ({"disk": [f"{here}:100%"]}, "are free"),
        ({"memory": "100%"}, "memory are available"),
        ({"disk": ["/no/such/place:1B"]}, "No such file"),
    ):
        ok, detail = probe("resource", bad)  # type: ignore[arg-type]
        assert (ok, word in detail) == (False, True), detail


def test_the_network_is_judged_by_the_kernels_own_tables() -> None:
    """In a network namespace of its own: no route, then one that refuses, then one that is used."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("tier: a network namespace; needs root, install the Debian package iproute2")
    code = (
        "import subprocess\n"
        "from tidegate.agent import health\n"
        "from tidegate.core.release import HealthCheck\n"
        "def ask(*needs):\n"
        "    return health.load(HealthCheck(name='x', kind='network', settings={'needs': list(needs)}))[1].check(0.0)[0]\n"
        "def ip(*words):\n"
        "    subprocess.run(['ip', *words], check=True)\n"
        "print(ask('route'), ask('address:lo'))\n"
        "ip('route', 'add', 'unreachable', 'default')\n"
        "print(ask('route'))\n"
        "ip('route', 'del', 'unreachable', 'default')\n"
        "ip('address', 'add', '192.0.2.1/24', 'dev', 'lo')\n"
        "print(ask('address:lo'))\n"
        "ip('link', 'set', 'lo', 'up')\n"
        "ip('route', 'add', 'default', 'via', '192.0.2.2', 'dev', 'lo')\n"
        "print(ask('route'), ask('address:lo'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
    command = ["unshare", "--net", sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    if "Operation not" in done.stderr:
        pytest.skip("tier: this kernel lets nobody make a network namespace")
    assert done.stdout.split("\n") == ["False False", "False", "False", "True True", ""], (
        done.stderr
    )


def test_the_server_is_one_need_among_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = health.Place(server=f"http://127.0.0.1:{server.getsockname()[1]}")
        needs = HealthCheck(name="x", kind="network", settings={"needs": ["server"]})
        assert health.load(needs, place)[1].check(0.0)[0] is True
    assert health.load(needs, place)[1].check(0.0)[0] is False
    assert health.load(needs)[1].check(0.0)[0] is False


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tools.Journald]:
    """A real journal of this test's own."""
    with tools.journald(tmp_path / "journald") as made:
        monkeypatch.setenv("PATH", tools.on_path(made.bin)["PATH"])
        yield made


def test_a_real_journal_is_counted_on_from_where_it_was_left(journal: tools.Journald) -> None:
    journal.log("before", count=5)
    place = health.Place()
    settings: Settings = {"journal": "err", "max_per_hour": 3}

    def look() -> tuple[bool, str]:
        _, made = health.load(HealthCheck(name="x", kind="error_rate", settings=settings), place)
        return made.check(0.0)

    assert look() == (True, "0 errors")
    journal.log("boom", count=2)
    journal.log("a warning", priority=4, count=4)
    assert look() == (True, "2 errors")
    assert look() == (True, "2 errors")
    journal.log("worse", priority=2, count=2)
    assert look() == (False, "4 errors")


def test_the_end_of_a_real_boot_is_shown(journal: tools.Journald) -> None:
    journal.log("cannot start: no such device")
    assert "app[" in journald.tail("0")
    assert "cannot start: no such device" in journald.tail("0")
    assert journald.end().problem == ""
    assert journald.count("", "err", ["app.service"]).entries == 0


def test_a_program_that_floods_its_output_is_bounded() -> None:
    ok, detail = probe("command", {"run": ["sh", "-c", "yes | head -c 50000000; echo; echo last"]})
    assert (ok, detail) == (True, "last")
