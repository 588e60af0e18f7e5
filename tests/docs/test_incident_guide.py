"""The guide to an incident is carried out as it stands, on a real server with the guide's own settings and a receiver that checks the signatures."""

import base64
import hmac
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import Served, environment, free_port

from tidegate.sim.virtual_board import wait_for

pytestmark = pytest.mark.e2e

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "run-an-incident.md").read_text()
SECRET = "a secret of the guide that is long enough"


class Handler(BaseHTTPRequestHandler):
    """Takes calls, and checks who signed them."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = (
            f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        )
        made = "v1," + base64.b64encode(hmac.digest(SECRET.encode(), signed, "sha256")).decode()
        good = hmac.compare_digest(made, self.headers["webhook-signature"])
        self.server.told.append((json.loads(body)["type"], good))  # type: ignore[attr-defined]
        self.send_response(200)
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
