"""The guides for who looks after a server are carried out: back up and restore, PostgreSQL, several processes, an object store, single sign-on, watching.

Commands run as they stand, in a folder that holds what a guide calls `/etc/tidegate`, `/var/lib/tidegate-server`, `/srv/backup` and `/media/safe`. `tidegate
serve` goes to the background when it is ready, as under a service manager; ports are free ones.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.byhand.guide import Section
from tests.docs.test_production_guide import NGINX
from tests.e2e.plant import Plant
from tests.e2e.served import environment, free_port
from tests.objectstore import bucket, moto
from tests.postgres import Server, binaries

from tidegate.server.config import load

__all__ = ["bucket", "moto"]
pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(600)]
_PLACE = re.compile(r"(?<![\w.:/])/(etc/tidegate|var/lib/tidegate-server|srv/backup|media/safe)\b")
#: `serve` returns when the server is ready, and leaves its id and what it says in files; everything else is the command itself.
_TIDEGATE = """#!/bin/bash
run() { exec PYTHON -m tidegate.cli "$@"; }
[ "$1" = serve ] || run "$@"
log=$(mktemp ROOT/serve.XXXX.log)
(run "$@") > "$log" 2>&1 < /dev/null &
echo $! > "${log%.log}.pid"
while ! grep -q 'Ready after' "$log"; do kill -0 $! 2>/dev/null || { cat "$log" >&2; exit 1; }; sleep 0.1; done
"""


class Site:
    """A shell on a machine of its own, as far as a guide is concerned."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "etc/tidegate", "srv/backup", "media/safe", "var/lib", "home"):
            (root / name).mkdir(parents=True)
        self.port = free_port()
        self.names: dict[str, str] = {"127.0.0.1:8440": f"127.0.0.1:{self.port}"}
        program = root / "bin/tidegate"
        program.write_text(_TIDEGATE.replace("PYTHON", sys.executable).replace("ROOT", str(root)))
        program.chmod(0o755)
        self.data = root / "var/lib/tidegate-server"
        self.env = {
            **environment(),
            "PATH": f"{root}/bin:{binaries()}:{os.environ['PATH']}:/usr/sbin",
            "XDG_CONFIG_HOME": str(root / "home"),
            "TIDEGATE_HTTP_LISTEN": f"127.0.0.1:{self.port}",
            "TIDEGATE_SERVER": f"http://127.0.0.1:{self.port}",
            "TIDEGATE_DATA_DIR": str(self.data),
        }

    def placed(self, text: str) -> str:
        for old, new in self.names.items():
            text = text.replace(old, new)
        return _PLACE.sub(rf"{self.root}/\1", text)

    def run(self, text: str, typed: str = "") -> str:
        """Carry out commands; `typed` is what a person answers. Returns what was said, on both streams."""
        done = subprocess.run(
            ["/bin/bash", "-ec", self.placed(text)], cwd=self.root, env=self.env, input=typed,
            capture_output=True, text=True, timeout=400, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == 0, (text, done.stdout[-2000:], done.stderr[-3000:])
        return done.stdout + done.stderr

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(self.placed(text))
        return path

    def stop(self) -> None:
        """Stop every server that was started here."""
        for file in self.root.glob("serve.*.pid"):
            pid = int(file.read_text())
            file.unlink()
            with contextlib.suppress(ProcessLookupError):  # one that did not start
                os.kill(pid, signal.SIGTERM)
            subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=120, check=True)


def asked(port: int, path: str = "/healthz") -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return int(answer.status)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "machine")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    # one that the doctor has nothing to say against
    made = Server(fsync="on", full_page_writes="on", synchronous_commit="on")
    yield made
    made.close()


def on_postgres(site: Site, database: Server) -> None:
    """Let the client programs of PostgreSQL find this server, and no database of an earlier test be on it."""
    site.env |= {"PGHOST": "127.0.0.1", "PGPORT": str(database.port), "PGUSER": "postgres"}
    address = "postgresql://tidegate@db.example/tidegate"
    site.names[f"{address}?sslmode=verify-full"] = address
    site.names["db.example"] = f"127.0.0.1:{database.port}"
    with database.connect() as conn:
        conn.execute("DROP DATABASE IF EXISTS tidegate WITH (FORCE)")
        conn.execute("DROP ROLE IF EXISTS tidegate")


def made_database(site: Site, database: Server) -> None:
    """Carry out *Make the database* of the guide to PostgreSQL."""
    on_postgres(site, database)
    section = Section("postgresql.md", "Make the database")
    site.run(section.take("createuser --pwprompt", "createdb").text, "secret words\nsecret words\n")
    site.write("etc/tidegate/database.password", "secret words\n")
    site.write("tidegate.toml", section.take("[database]", "password_file").text)
    section.done()


# --- back up and restore -------------------------------------------------------------------------------------------------------


def test_a_backup_brings_a_server_back_that_holds_until_a_person_says_so(
    site: Site, tmp_path: Path
) -> None:
    guide = "back-up-and-restore.md"
    (tmp_path / "plant").mkdir()
    plant = Plant(tmp_path / "plant")
    plant.release(1)
    plant.board("b-1", plant.image(1))
    name = plant.roll_out(1, name="gw1-2.4.1")
    site.data.symlink_to(plant.served.data)
    back_up = Section(guide, "Back up")
    site.run(back_up.take("tidegate backup").text)
    back_up.done()
    with_keys = Section(guide, "Keep the online keys apart")
    site.run(with_keys.take("--with-keys").text)
    with_keys.done()
    plant.served.stop()
    site.data.unlink()
    verify = Section(guide, "See that it is whole")
    assert "2026" in site.run(verify.take("backup verify").text)
    verify.done()

    restore = Section(guide, "Restore")
    said = site.run(restore.take("tidegate restore", "tar -xf", "doctor", "serve").text)
    assert "1 rollouts are paused" in said
    assert " 0 failed" in f" {said}".replace("\n", " ")
    online = {one.name: one.read_bytes() for one in (site.data / "online").iterdir()}
    assert online == {one.name: one.read_bytes() for one in (plant.served.data / "online").iterdir()}  # fmt: skip
    said = site.run(restore.take("rollout list", "rollout resume").text)
    assert name in said
    assert '"state":"active"' in site.run(f"tidegate rollout show {name} --json").replace(": ", ":")
    site.stop()
    said = site.run(restore.take("--hold-only").text)
    assert "1 rollouts are paused" in said
    restore.done()


def test_postgresql_is_backed_up_and_restored_by_its_own_tools(
    site: Site, database: Server
) -> None:
    made_database(site, database)
    site.run("tidegate db upgrade\ntidegate serve\n")
    (site.data / "blobs").mkdir(exist_ok=True)
    shutil.copy(site.root / "tidegate.toml", site.root / "etc/tidegate/tidegate.toml")
    site.run("tidegate user create olga --role viewer\n")
    section = Section("back-up-and-restore.md", "On PostgreSQL")
    site.run(section.take("pg_dump", "blobs").text)
    assert (site.root / "srv/backup/blobs").is_dir()
    site.stop()
    with database.connect() as conn:
        conn.execute("DROP DATABASE tidegate WITH (FORCE)")
    assert "0 rollouts are paused" in site.run(section.take("pg_restore", "--hold-only").text)
    section.done()
    site.run("tidegate serve\n")
    assert "olga" in site.run("tidegate user list\n")


# --- PostgreSQL ----------------------------------------------------------------------------------------------------------------


def test_a_server_runs_on_postgresql_and_its_schema_is_asked_after(
    site: Site, database: Server
) -> None:
    made_database(site, database)
    serve = Section("postgresql.md", "Make the schema, then serve")
    site.run(serve.take("db upgrade", "serve").text)
    serve.done()
    assert asked(site.port) == 200
    standby = Section("postgresql.md", "A standby")
    named = load(site.write("standby.toml", standby.take("target_session_attrs").text), environ={})
    assert "db-b.example" in named.database_url
    standby.done()
    upgrade = Section("postgresql.md", "A new version")
    assert "as it was" in site.run(upgrade.take("db upgrade --check", "db upgrade").text)
    upgrade.done()
    with psycopg.connect(database.url("tidegate")) as conn:
        assert conn.execute("SELECT count(*) FROM account").fetchone() == (1,)


def test_a_file_moves_to_postgresql(site: Site, database: Server) -> None:
    site.env["TIDEGATE_DATA_DIR"] = "./tidegate-data"
    site.run("tidegate serve\ntidegate user create olga --role viewer\n")
    site.stop()
    made_database(site, database)
    move = Section("postgresql.md", "Move from SQLite")
    assert "copied " in site.run(move.take("db copy").text)
    move.done()
    site.run("tidegate serve\n")
    assert "olga" in site.run("tidegate user list\n")


# --- several processes, a store, people, metrics --------------------------------------------------------------------------------


def test_several_processes_share_a_folder(site: Site) -> None:
    ports = {f"127.0.0.1:{port}": free_port() for port in (8441, 8442, 8443)}
    site.names |= {old: f"127.0.0.1:{new}" for old, new in ports.items()}
    section = Section("several-processes.md", "Start them")
    site.run(section.take("--shared", "8443").text)
    section.done()
    assert [asked(port) for port in ports.values()] == [200, 200, 200]
    keys = list(site.root.rglob("director.key"))
    assert len(keys) == 1


def test_a_store_is_probed_and_every_way_of_the_bytes_is_a_setting(
    site: Site, moto: str, bucket: str
) -> None:
    guide = "object-storage.md"
    site.names |= {"s3://firmware/": f"s3://{bucket}/", "https://s3.example.com": moto}
    site.env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    store = Section(guide, "An S3-compatible store")
    text = store.take("[blobs]", "ca_file").text.replace("eu-central-1", "us-east-1")
    # moto speaks plain HTTP, so nobody is asked for a certificate
    site.write("tidegate.toml", "\n".join(line for line in text.splitlines() if "ca_file" not in line))  # fmt: skip
    site.run("tidegate serve\n")
    said = site.run(store.take("tidegate doctor").text)
    assert re.search(r"ok +object store +put, ranged get and delete work", said), said
    store.done()
    ways = Section(guide, "Who sends the bytes to devices")
    locations = ways.take("location /_tidegate_blobs/", "internal").text
    _read_by_nginx(site, locations)
    found = load(site.write("accel.toml", ways.take('artifacts = "accel"').text), environ={})
    assert f"location {found.accel_prefix}" in locations
    ways.done()
    uploads = Section(guide, "Large bundles, over lines that break")
    found = load(site.write("uploads.toml", uploads.take("[uploads]", "direct").text), environ={})
    assert found.uploads_direct
    uploads.done()


def _read_by_nginx(site: Site, locations: str) -> None:
    if NGINX is None:
        pytest.skip("tier: nginx: install the Debian package nginx-light")
    places = "".join(
        f"{one}_temp_path {site.root}/{one};"
        for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = site.write(
        "nginx.conf",
        f"pid {site.root}/nginx.pid; error_log {site.root}/nginx.log; events {{}}\n"
        f"http {{ access_log off; {places} upstream tidegate {{ server 127.0.0.1:1; }}\n"
        f"server {{ listen 127.0.0.1:{free_port()}; {locations} }} }}\n",
    )
    done = subprocess.run([NGINX, "-t", "-q", "-c", file], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_single_sign_on_is_read_as_it_is_printed_and_two_accounts_are_one_person(
    site: Site,
) -> None:
    """A sign-in by a provider itself is in the guide to production, whose test does it."""
    guide = "single-sign-on.md"
    server = Section(guide, "At the server")
    site.write("etc/tidegate/oidc-secret", "x\n")
    text = server.take("[oidc]", "[oidc.groups]").text
    found = load(site.write("oidc.toml", text), environ={})
    server.done()
    plain = tomllib.loads(text)
    assert found.oidc is not None
    assert found.oidc.issuer == plain["oidc"]["issuer"]
    assert {name: list(roles) for name, roles in found.oidc.groups.items()} == plain["oidc"][
        "groups"
    ]
    site.run("tidegate serve\ntidegate user create olga.local --role viewer\n")
    accounts = Section(guide, "Accounts")
    site.run(accounts.take("user edit").text)
    accounts.done()
    listed = json.loads(site.run("tidegate user list --json"))
    rows = listed["items"]
    assert any(one["name"] == "olga.local" and one["person"] == "olga" for one in rows)
    site.stop()
    without = Section(guide, "Without passwords")
    alone = without.take("local = false").text
    without.done()
    site.write("tidegate.toml", alone)
    with pytest.raises(AssertionError, match="nobody could sign in"):
        site.run("tidegate serve\n")
    site.write("tidegate.toml", f"{text}\n{alone}")
    site.run("tidegate serve\n")
    page = f"http://127.0.0.1:{site.port}/sign-in"
    with urllib.request.urlopen(page, timeout=20) as answer:
        assert b'type="password"' not in answer.read()
    assert "/sign-in/ticket" in site.run("tidegate user link admin\n")


def test_traces_are_a_setting(site: Site) -> None:
    section = Section("watch-the-server.md", "Traces")
    text = section.take("[otel]").text
    section.done()
    found = load(site.write("otel.toml", text), environ={})
    assert tomllib.loads(text)["otel"]["endpoint"] in repr(found)


def test_prometheus_gets_a_token_and_reads_its_file(site: Site) -> None:
    section = Section("watch-the-server.md", "Metrics")
    site.run("tidegate serve\n")
    token = re.findall(r"^tg_\S+$", site.run(section.take("token create").text), re.MULTILINE)[0]
    asking = urllib.request.Request(f"http://127.0.0.1:{site.port}/metrics")
    asking.add_header("Authorization", f"Bearer {token}")
    # as from elsewhere: the machine itself needs no token
    asking.add_header("X-Forwarded-For", "198.51.100.7")
    with urllib.request.urlopen(asking, timeout=20) as answer:
        assert b"tidegate_info" in answer.read()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("tier: promtool is not here; install the Debian package prometheus")
    file = site.write("prometheus.yaml", section.take("scrape_configs").text.replace("/etc/prometheus/", f"{site.root}/"))  # fmt: skip
    site.write("tidegate.token", token)
    section.done()
    done = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
