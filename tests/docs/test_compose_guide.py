"""The guide to containers is carried out without an engine: the Containerfile is built by hand, the services of the compose file start by hand, the demo plays.

Every service is a room of its own on a bridge of its own (`tests.byhand`): files, secrets, addresses, ports, users, health checks and the order are those of
the compose file. In the place of images that are not ours stand Debian's programs, and moto in MinIO's place. Grafana is in no package; what it would read
is checked.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.byhand import standins
from tests.byhand.composed import Composed, StandIn
from tests.byhand.containerfile import Builder, Image, context
from tests.byhand.docker import Docker
from tests.byhand.guide import ROOT, Section
from tests.byhand.rooms import require_leave
from tests.objectstore import SERVER as MOTO
from tests.postgres import binaries

SERVER = ROOT / "packaging" / "server"
NAME = "ota.example.com"
#: What a clone has that the guide and the build want.
CLONE = ("packaging", "requirements", "src", "pyproject.toml", "README.md", "LICENSE", ".dockerignore")  # fmt: skip
REPLICAS = ("replica1", "replica2")
REPLICA_ADDRESSES = {"172.30.84.11", "172.30.84.12"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Site:
    """A shell in a clone, with the program `docker`, on the machine of the services as soon as there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / "clone"
        self.clone.mkdir()
        for name in CLONE:
            source = ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "secrets")
                shutil.copytree(source, self.clone / name, ignore=ignore)
            else:
                shutil.copy(source, self.clone)
        self.tls = folder / "etc/tidegate/tls"
        self._certificate()
        programs = folder / "bin"
        programs.mkdir()
        self._put(programs, "curl", f'exec /usr/bin/curl --cacert {self.tls}/fullchain.pem "$@"')
        self._put(programs, "tidegate", f'exec {sys.executable} -m tidegate.cli "$@"')
        self.docker = Docker(programs, folder / "docker.socket", self._make, self._build)
        self._env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin",
            "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
            "TIDEGATE_CA": f"{self.tls}/fullchain.pem",
        }
        self.builder: Builder | None = None
        self.image: Image | None = None

    def _put(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    def _certificate(self) -> None:
        self.tls.mkdir(parents=True)
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "key.pem", "-out", "fullchain.pem", "-days", "2", "-subj", f"/CN={NAME}",
            "-addext", f"subjectAltName=DNS:{NAME}",
        ]  # fmt: skip
        subprocess.run(command, cwd=self.tls, check=True, capture_output=True)

    def _build(self) -> None:
        seen = context(self.clone, self.clone / ".dockerignore", self.folder / "context")
        file = self.clone / "packaging/server/Containerfile"
        self.builder = Builder(file, seen, self.folder / "stages")
        self.image = self.builder.build()

    def _make(self, files: list[Path], env: dict[str, str]) -> Composed:
        assert self.image is not None
        made = self.folder / "images"
        made.mkdir()
        images = {
            "tidegate": StandIn(self.image, lambda words: words),
            "nginx": standins.nginx(made),
            "postgres": standins.postgres(made),
            "minio": standins.store(made),
            "prometheus": standins.prometheus(made),
        }
        return Composed(
            files[0], self.folder / "running", env, images, *files[1:], outside={NAME: "front"}
        )

    @property
    def composed(self) -> Composed:
        assert self.docker.composed is not None
        return self.docker.composed

    def begin(self, block: str) -> "subprocess.Popen[str]":
        text = re.sub(r"(?<![\w.:/])/etc/tidegate/", f"{self.folder}/etc/tidegate/", block)
        there = self.docker.composed.there() if self.docker.composed else []
        return subprocess.Popen(
            [*there, "/bin/bash", "-ec", f"cd {self.clone}; {text}"], cwd=self.clone, env=self._env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, block: str) -> str:
        """Carry out a block; returns what it said on stdout."""
        began = self.begin(block)
        out, err = began.communicate(timeout=600)
        assert began.returncode == 0, (block, out[-3000:], err[-3000:])
        return out


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_leave()
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("tier: nginx: install the Debian package nginx-light")
    if shutil.which("prometheus") is None:
        pytest.skip("tier: prometheus: install the Debian package prometheus")
    if binaries() is None:
        pytest.skip("tier: PostgreSQL: install the Debian package postgresql")
    if not MOTO.is_file():
        pytest.skip("tier: object store: tools/setup moto")
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.docker.close()


def test_the_guide_leads_from_a_clone_to_a_fleet_that_updates_and_stops_through_nginx(
    site: Site,
) -> None:
    guide = Section("production.md", "With containers")
    site.run(guide.take("secrets").text)
    # the first `curl` asks where the services are, which is known when they are
    start, _, look = guide.take("docker compose up -d", "curl").text.partition("curl")
    site.run(start)
    assert site.run(f"curl{look}") == "ok\n"
    assert site.composed.left_out == {"grafana"}
    assert site.composed.told["schema"].startswith("schema none -> ")
    _is_as_the_files_say(site)
    said = site.run(guide.take("token create", "user link", "doctor").text)
    assert f"https://{NAME}/sign-in/ticket" in said
    assert "0 failed, 1 warning" in said, said
    _a_new_version(site, guide.take("docker compose build", "replica1", "replica2").text)
    _plays_the_demo(site, guide.take("demo.yaml", "tidegate demo", "down --volumes").text)
    guide.done()


def _is_as_the_files_say(site: Site) -> None:
    """Ask each program itself whether it reads its file; ask others what they may not have."""
    composed = site.composed
    composed.exec("front", "nginx", "-t", "-q")
    checked = composed.exec("prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yaml")  # fmt: skip
    assert "rules found" in checked
    assert site.image is not None
    for name in REPLICAS:
        assert composed.exec(name, "id", "-u") == "8440\n"
        # the image's own check, and the service's
        composed.exec(name, *site.image.health)
        assert composed.healthy(name)
    assert composed.exec("database", "psql", "-U", "tidegate", "-Atc", "SHOW lc_collate") == "C\n"
    # replicas take connections of their proxies and of themselves alone
    straight = composed.run("curl", "-sS", "--max-time", "5", f"http://{composed.addresses['replica1']}:8440/healthz")  # fmt: skip
    assert straight.returncode == 0, "the machine itself is in the trusted network"
    keys = composed.exec("replica1", "sh", "-c", "stat -c %a /var/lib/tidegate-server/online; sha256sum /var/lib/tidegate-server/online/*.key")  # fmt: skip
    assert keys.startswith("700\n")
    assert composed.exec("replica2", "sh", "-c", "sha256sum /var/lib/tidegate-server/online/*.key") in keys  # fmt: skip


def _a_new_version(site: Site, block: str) -> None:
    """Replace one replica after the other while somebody asks all the time; nobody is turned away."""
    before = {name: site.composed.log(name).count("Listening on") for name in REPLICAS}
    failed, asked, over = [], 0, threading.Event()

    def ask() -> None:
        nonlocal asked
        while not over.wait(0.1):
            done = site.composed.run(
                "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10",
                "--cacert", f"{site.tls}/fullchain.pem", f"https://{NAME}/healthz",
            )  # fmt: skip
            asked += 1
            if done.stdout != "200":
                failed.append(done.stdout + done.stderr)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        site.run(block)
    finally:
        over.set()
        asking.join(30)
    assert asked > 10
    assert failed == []
    assert "as it was" in site.composed.told["schema"]
    after = {name: site.composed.log(name).count("Listening on") for name in REPLICAS}
    assert after == {name: count + 1 for name, count in before.items()}


def _plays_the_demo(site: Site, block: str) -> None:
    lines = block.splitlines()
    begin, demo, end = "\n".join(lines[:3]), "\n".join([lines[0], *lines[2:4]]), "\n".join([lines[0], lines[4]])  # fmt: skip
    site.run(begin)
    composed = site.composed
    # the guide's own line, with the verdict as data
    playing = site.begin(demo.replace("tidegate demo", "tidegate demo --json"))
    seen = _Seen(playing)
    try:
        seen.until(r"gw-1\.1\.0 active.*[1-9]\d* confirmed")
        composed.kill("replica2")
        assert not composed.lives("replica2")
        seen.until(r"1 a good release")
        # as the file's policy of restarts would
        composed.start("replica2")
        composed.until_healthy("replica2")
        out = seen.end()
    finally:
        if playing.poll() is None:
            playing.send_signal(signal.SIGTERM)
            playing.wait(30)
    verdict: dict[str, Any] = json.loads(out)
    assert playing.returncode == 0, seen.text
    assert verdict["true"]
    assert {row["step"] for row in verdict["rows"]} == {"1", "3"}
    assert [row for row in verdict["rows"] if not row["agrees"]] == []
    assert "the real agent runs" in {row["figure"] for row in verdict["rows"]}
    _bytes_came_as_the_settings_say(composed)
    _is_watched(composed)
    site.run(end)
    assert site.docker.composed is None


class _Seen:
    """What a process says on stderr, line by line, while it goes on."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.text += line

    def until(self, pattern: str) -> None:
        end = time.monotonic() + 600
        while not re.search(pattern, self.text):
            assert self._process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.2)

    def end(self) -> str:
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        self._process.wait(60)
        self._thread.join(10)
        return out


def _bytes_came_as_the_settings_say(composed: Composed) -> None:
    """No way of delivery is set, so replicas stream: every payload goes through nginx, and the store is asked by replicas alone."""
    environment = composed.services["replica1"]["environment"]
    assert "TIDEGATE_DELIVERY_ARTIFACTS" not in environment
    sent = re.findall(r'"GET /d/v1/blobs/\w+ HTTP/1\.\d" (20[06]) (\d+)', composed.said("front"))
    assert sum(int(length) for _, length in sent) > 100 * 100_000
    assert " 307 " not in composed.said("front")
    plain = re.sub(r"\x1b\[\d+m", "", composed.said("store"))
    asked = re.findall(r'^(\S+) - - \[.*?\] "GET /tidegate/(\S+)', plain, re.MULTILINE)
    assert {address for address, path in asked if "list-type" not in path} == REPLICA_ADDRESSES


def _is_watched(composed: Composed) -> None:
    """Prometheus reaches both replicas with its token and reads the rules."""
    until = time.monotonic() + 60
    while True:
        plain = composed.run("curl", "-sS", "http://prometheus:9090/api/v1/targets?state=active")
        targets = json.loads(plain.stdout)["data"]["activeTargets"]
        if {one["health"] for one in targets} == {"up"} or time.monotonic() > until:
            break
        time.sleep(1)
    assert {one["labels"]["instance"]: one["health"] for one in targets} == {
        f"{name}:8440": "up" for name in REPLICAS
    }, targets
    rules = composed.run("curl", "-sS", "http://prometheus:9090/api/v1/rules").stdout
    assert '"TidegateDown"' in rules


def test_the_container_is_built_of_what_is_named_alone(site: Site) -> None:
    """The build that the test above did: pinned packages, nothing of the clone but what `.dockerignore` names, no build tools left to look up."""
    assert site.builder is not None
    assert any("--require-hashes" in one and "--no-build-isolation" in one for one in site.builder.ran)  # fmt: skip
    seen = {one.name for one in (site.folder / "context").iterdir()}
    assert seen == {"LICENSE", "README.md", "pyproject.toml", "requirements", "src"}
    assert site.image is not None
    assert not (site.image.root / "source").exists(), "sources stay in the first stage"
    assert (site.image.root / "opt/tidegate/bin/tidegate").is_file()


def test_what_grafana_would_read_fits_together() -> None:
    """Loud, since nobody here starts Grafana. Its provisioning names folders that are mounted, and the kind of source that the dashboard asks for."""
    service = yaml.safe_load((SERVER / "compose/compose.yaml").read_text())["services"]["grafana"]
    mounted = dict(one.split(":")[1::-1] for one in service["volumes"])
    [provider] = yaml.safe_load((SERVER / "compose/grafana/dashboards/tidegate.yaml").read_text())["providers"]  # fmt: skip
    folder = SERVER / "compose" / mounted[provider["options"]["path"]]
    assert mounted["/etc/grafana/provisioning"] == "./grafana"
    board = json.loads((folder / "tidegate.json").read_text())
    [source] = yaml.safe_load((SERVER / "compose/grafana/datasources/prometheus.yaml").read_text())["datasources"]  # fmt: skip
    chosen = next(one for one in board["templating"]["list"] if one["name"] == "datasource")
    assert chosen["query"] == source["type"]
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": source["type"], "uid": "${datasource}"}
    if shutil.which("grafana-server") is None:
        pytest.skip("foreign: Grafana is in no Debian package: it was not started, what it reads was checked alone")  # fmt: skip


def test_an_unknown_word_of_the_compose_file_is_not_passed_over(tmp_path: Path) -> None:
    from tests.byhand.composed import read

    file = tmp_path / "compose.yaml"
    text = (SERVER / "compose/compose.yaml").read_text()
    file.write_text(text.replace("    restart: unless-stopped\n", "    privileged: true\n", 1))
    with pytest.raises(AssertionError, match=r"privileged|nobody here knows"):
        read(file, {"EXTERNAL_URL": "https://x.example"})
    with pytest.raises(AssertionError, match="EXTERNAL_URL"):
        read(SERVER / "compose/compose.yaml", {})
