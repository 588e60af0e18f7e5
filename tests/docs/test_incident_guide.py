"""The guide to an incident is carried out as it stands, on a real server with the guide's own settings and a receiver that checks the signatures."""

import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import Served, environment, free_port

from tidegate.server.messages import Message
from tidegate.server.notify.webhook import Hook
from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "run-an-incident.md").read_text()
SECRET = "a secret of the guide that is long enough"


def printed() -> dict[str, Any]:
    """Run the guide's receiver, and return what it defines."""
    names: dict[str, Any] = {}
    (text,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(text, "run-an-incident.md", "exec"), names)
    return names


accept = printed()["accept"]


class Handler(BaseHTTPRequestHandler):
    """Takes calls, and checks who signed them."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = accept(SECRET.encode(), headers, body)
        self.server.told.append((json.loads(body)["type"], status == 204))  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Handler)
    server.told = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def section(title: str) -> list[str]:
    """Return the commands of a section of the guide."""
    text = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()


def settings(folder: Path, port: int) -> Path:
    """Write the guide's settings to a file, with addresses and secrets of this machine."""
    text = "\n".join(re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL))
    for name, value in (("webhook.secret", SECRET), ("mail.password", "nobody's")):
        (folder / name).write_text(f"{value}\n")
    real = {
        "https://hooks.example.com": f"http://127.0.0.1:{port}",
        "/etc/tidegate": str(folder),
        'host = "mail.example.com"': f'host = "localhost"\nport = {free_port()}',
    }
    for printed, here in real.items():
        assert printed in text
        text = text.replace(printed, here)
    (folder / "tidegate.toml").write_text(text)
    return folder / "tidegate.toml"


def test_the_printed_receiver_rings_once_and_only_for_us(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask, now, secret = printed()["accept"], int(time.time()), SECRET.encode()
    called: list[dict[str, str]] = []

    def post(url: str, sent: bytes, headers: dict[str, str]) -> int:
        called.append({name.lower(): value for name, value in headers.items()})
        body_sent.append(sent)
        return 204

    body_sent: list[bytes] = []
    hook = Hook(
        "ops", "https://hooks.example.com/", (b"another secret, the old one", secret), post=post
    )
    message = Message("msg_1", "incident.opened", now, {"incident": "INC-2026-014"})
    hook.deliver(message, now)
    hook.deliver(message, now - 301)
    hook.deliver(message, now + 600)
    (fresh, late, early), (body, *_) = called, body_sent
    moved = {**late, "webhook-timestamp": fresh["webhook-timestamp"]}
    renamed = {**fresh, "webhook-id": "msg_2"}
    for bad in (late, early, moved, renamed, {}, {**fresh, "webhook-signature": "v1,é"}):
        assert ask(secret, bad, body) == 401
    assert ask(secret, fresh, body + b" ") == 401
    assert ask(b"somebody else's, and long enough", fresh, body) == 401
    assert capsys.readouterr().out == ""
    assert [ask(secret, fresh, body) for _ in range(2)] == [204, 204]
    assert capsys.readouterr().out == f"{body.decode()}\n"


@pytest.mark.timeout(170)
def test_every_command_of_the_guide_does_what_it_says(tmp_path: Path, receiver: Any) -> None:
    served = Served(tmp_path / "data", "--config", str(settings(tmp_path, receiver.server_port)))
    env = {
        **environment(),
        "TIDEGATE_SERVER": f"http://127.0.0.1:{served.port}",
        "TIDEGATE_TOKEN": (served.data / "bootstrap.token").read_text().strip(),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    names: dict[str, str] = {}

    def typed(line: str) -> str:
        for printed, real in names.items():
            line = line.replace(printed, real)
        command = [sys.executable, "-m", "tidegate.cli", *shlex.split(line)[1:]]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def carried_out(title: str) -> dict[str, str]:
        return {line: typed(line) for line in section(title)}

    try:
        first, *rest = section("Be told")
        typed(first)
        assert wait_for(lambda: receiver.told == [("notify.test", True)], 30)
        for line in rest:
            typed(line)
        assert wait_for(lambda: len(receiver.told) == 2, 30)
        opening, *leading = section("Open, and say who leads")
        names["INC-2026-014"] = typed(opening).strip()
        shown = [typed(line) for line in leading][-1]
        assert "- Owner: olga" in shown
        assert wait_for(lambda: ("incident.opened", True) in receiver.told, 30)
        assert all(good for _, good in receiver.told)
        carried_out("Find out")
        carried_out("Mitigated, and what is done about it")
        carried_out("Tell everybody")
        status, body = served.ask("GET", "/status.json")
        assert status == 200
        (public,) = json.loads(body)["incidents"]
        assert public["summary"] == "After the update some screens stayed black."
        assert [one["text"] for one in public["updates"]] == ["All screens are on again."]
        assert b"Example firmware" in served.ask("GET", "/status")[1]
        assert b"panel driver" not in body
        carried_out("Close, and hand in the report")
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["incident"]["state"], report["missing"]) == ("closed", [])
        assert "stricter" in (tmp_path / "report.md").read_text()
        assert "<h1>" in (tmp_path / "report.html").read_text()
    finally:
        if served.process.poll() is None:
            served.kill()
