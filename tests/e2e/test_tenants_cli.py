"""Several tenants as a person runs them: real commands, a real server, one tenant at another host name of this machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.served import Served, environment

pytestmark = [pytest.mark.e2e]


class Person:
    """Runs commands against the default tenant (127.0.0.1), or against the other one (localhost)."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.port, self.token = data, port, ""

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**environment(), "TIDEGATE_SERVER": f"http://127.0.0.1:{self.port}", **environ}
        env["TIDEGATE_DATA_DIR"] = str(self.data)
        command = [sys.executable, "-m", "tidegate.cli", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=env, timeout=120, check=False
        )

    def json(self, *arguments: str, **environ: str) -> Any:
        done = self.run(*arguments, "--json", **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def there(self, *arguments: str) -> Any:
        """Ask the other tenant, as its owner."""
        server = f"http://localhost:{self.port}"
        return self.json(*arguments, TIDEGATE_SERVER=server, TIDEGATE_TOKEN=self.token)


def test_a_tenant_from_its_making_to_its_way_back_from_a_backup(tmp_path: Path) -> None:
    data = tmp_path / "data"
    served = Served(data)
    person = Person(data, served.port)
    try:
        made = person.json("tenant", "add", "acme", "--host", "localhost", "--devices", "5")
        person.token = made["token"]
        assert made["account"] == "admin"
        assert made["password"]
        person.there("group", "create", "acme-pilot", "--query", "tag:beta")
        assert "acme-pilot" in json.dumps(person.there("group", "list"))
        assert "acme-pilot" not in json.dumps(person.json("group", "list"))
        shown = person.run("tenant", "show", "acme").stdout
        assert "acme   open" in shown
        assert "0, of 5" in shown

        wrong = person.run("tenant", "list", TIDEGATE_SERVER=f"http://localhost:{served.port}", TIDEGATE_TOKEN=person.token)  # fmt: skip
        assert "request.not_found" in wrong.stderr

        person.json("tenant", "suspend", "acme")
        status, body = served_at(served, "localhost")
        assert (status, json.loads(body)["code"]) == (503, "tenant.suspended")
        assert served_at(served, "127.0.0.1")[0] == 401
        person.json("tenant", "resume", "acme")

        backup = tmp_path / "acme.backup"
        person.json(
            "backup",
            "--to",
            str(backup),
            "--with-keys",
            "--data",
            str(data),
            TIDEGATE_TENANT="acme",
        )
    finally:
        assert served.stop() == 0

    looked = person.run("doctor", "--data", str(data), TIDEGATE_TENANT="acme")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "tenants/acme" in looked.stdout

    folder = data / "tenants" / "acme"
    folder.rename(tmp_path / "lost")
    told = person.run("restore", "--from", str(backup), "--to", str(folder))
    assert "data.other_tenant" in told.stderr
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    person.json("restore", "--from", str(backup), "--to", str(folder), TIDEGATE_TENANT="acme")

    served.start()
    try:
        assert "acme-pilot" in json.dumps(person.there("group", "list"))
    finally:
        assert served.stop() == 0


def served_at(served: Served, host: str) -> tuple[int, bytes]:
    return served.ask("GET", "/api/v1/me", headers={"host": f"{host}:{served.port}"})
