"""What every health check must hold, and each of them in turn against real files, processes and sockets."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tidegate.agent import health
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
    "settings", [{}, {"needs": ["nonsense"]}, {"by": 7}, {"run": "text"}, {"url": "ftp://x"}]
)
def test_a_check_never_raises_whatever_the_contract_says(kind: str, settings: Settings) -> None:
    ok, detail = probe(kind, settings)
    assert isinstance(ok, bool)
    assert len(detail) <= 200


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
