"""The guide to production is carried out, command by command: a real PostgreSQL, a real nginx, an object store, an OpenID provider, and the shipped units.

Its section on containers is `test_compose_guide`'s.

Names and places are those of this test. What would change this machine stands in: `useradd`, `chown` and `sudo` do nothing of their own, `systemctl` starts
what the unit files say, `install` leaves owners alone, and `nginx` reads a main file that includes the guide's.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import boto3
import oidc_provider_mock  # type: ignore[import-untyped]
import pytest
import urllib3
from tests.byhand.guide import Section
from tests.docs.test_packaging import rendered, values
from tests.e2e.served import free_port
from tests.objectstore import running_moto
from tests.postgres import Server

from tidegate import __version__

ROOT = Path(__file__).resolve().parents[2]
GUIDE = "production.md"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
NAME = "ota.example.com"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(NGINX is None, reason="tier: nginx: install the Debian package nginx-light"),
]

#: Starts and stops what unit files say, as far as they are used here: one process a unit, its id in a file.
SYSTEMCTL = r"""
import os, pathlib, re, signal, subprocess, sys, time
root = pathlib.Path(os.environ["GUIDE_ROOT"])
units = root / "etc/systemd/system"
def parts(unit):
    name, at, instance = unit.partition("@")
    files = [units / f"{name}{at}.service", *sorted((units / f"{name}{at}.service.d").glob("*.conf"))]
    places = re.compile(r"(?<![\w.:/])/(etc|opt|var/lib)/")
    text = "\n".join(places.sub(rf"{root}/\1/", file.read_text()) for file in files)
    lines = text.replace("%i", instance).splitlines()
    given = dict(one.removeprefix("Environment=").split("=", 1) for one in lines if one.startswith("Environment="))
    [command] = [one.removeprefix("ExecStart=") for one in lines if one.startswith("ExecStart=")]
    return command.split(), given
def stop(unit):
    file = root / f"{unit}.pid"
    if file.exists():
        pid = int(file.read_text())
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 30
        while time.monotonic() < until and pathlib.Path(f"/proc/{pid}/stat").exists() and pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.05)
        file.unlink()
def start(unit):
    command, given = parts(unit)
    log = root / f"{unit}.log"
    log.write_text("")
    with log.open("ab") as out:
        made = subprocess.Popen(command, env={**os.environ, **given}, stdout=out, stderr=out, start_new_session=True)
    (root / f"{unit}.pid").write_text(str(made.pid))
    until = time.monotonic() + 60
    while "Ready after" not in log.read_text():
        if made.poll() is not None or time.monotonic() > until:
            sys.exit(log.read_text())
        time.sleep(0.1)
words = [one for one in sys.argv[1:] if one != "--now"]
verb, names = words[0], words[1:]
if names == ["nginx"]:
    stop("nginx")
    quiet = subprocess.DEVNULL
    made = subprocess.Popen(["nginx"], start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
    (root / "nginx.pid").write_text(str(made.pid))
elif verb in ("enable", "restart"):
    for unit in names:
        stop(unit)
        start(unit)
elif verb == "stop":
    for unit in names:
        stop(unit)
elif verb != "daemon-reload":
    sys.exit(f"no {verb} here")
"""


#: Writes down what a cluster is asked.
ASKED = r"""
import json, os, pathlib, sys
for word in sys.argv[1:]:
    if word.startswith("--from-file="):
        assert pathlib.Path(word.partition("=")[2]).is_file(), word
with open(os.path.join(os.environ["GUIDE_ROOT"], "asked"), "a") as out:
    print(json.dumps(sys.argv[1:]), file=out)
"""


class Machine:
    """A shell on a machine whose `/etc`, `/opt` and `/var/lib` are folders of this test."""

    def __init__(self, root: Path, names: dict[str, str], env: dict[str, str]) -> None:
        self.root = root
        self._names = names
        self._bin = root / "bin"
        self._bin.mkdir()
        for folder in ("etc/systemd/system", "etc/nginx/conf.d", "opt", "var/lib"):
            (root / folder).mkdir(parents=True)
        self._env = {**os.environ, **env, "GUIDE_ROOT": str(root)}
        self._env["PATH"] = f"{self._bin}:{os.environ['PATH']}:/usr/sbin"
        for name in ("useradd", "chown"):
            self._put(name, "exit 0\n")
        self._put("sudo", 'shift 2\nexec "$@"\n')
        self._put("tidegate", f'exec {root}/opt/tidegate/bin/tidegate "$@"\n')
        # what is asked of the cluster is written down, and files that are named have to be there
        for name in ("kubectl", "helm"):
            self._put(name, f"exec python3 - {name} \"$@\" <<'END'\n{ASKED}\nEND\n")
        self._put("systemctl", f"exec python3 - \"$@\" <<'END'\n{SYSTEMCTL}\nEND\n")
        # no group of that name is made here; the shipped file of nginx has the usual ports and places
        drop = 'set -e\n/usr/bin/install $(echo "$*" | sed "s/-g tidegate//")\n'
        self._put("install", f"{drop}exec python3 {self._bin}/placed\n")
        authority = root / "etc/tidegate/tls/fullchain.pem"
        self._put(
            "curl", f'exec /usr/bin/curl --retry 5 --retry-connrefused --cacert {authority} "$@"\n'
        )
        # the shipped file has the usual ports and places; every start reads it with those of this test
        self._put(
            "nginx",
            f'python3 {self._bin}/placed\nexec {NGINX} -p {root} -c {root}/nginx.conf "$@"\n',
        )

    def _put(self, name: str, text: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)

    def placed(self, text: str) -> str:
        """Return a text of the guide with this test's names and places."""
        for old, new in self._names.items():
            text = text.replace(old, new)
        return re.sub(r"(?<![\w.:/])/(etc|opt|var/lib)/", rf"{self.root}/\1/", text)

    def run(self, block: str, folder: Path = ROOT) -> str:
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", self.placed(block)],
            cwd=folder, env=self._env, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (block, done.stdout[-2000:], done.stderr[-3000:])
        return done.stdout + done.stderr

    def stop(self) -> None:
        for file in self.root.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def carry_out(site: Machine, section: Section) -> list[str]:
    """Carry out all blocks of a section: what is typed, and the server's file; return what was said."""
    shown = []
    while section.left:
        block = section.take()
        if block.language == "toml":
            (site.root / "etc/tidegate/tidegate.toml").write_text(site.placed(block.text))
        else:
            shown.append(site.run(block.text))
    section.done()
    return shown


def _certificate(folder: Path) -> None:
    folder.mkdir(parents=True)
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", "key.pem", "-out", "fullchain.pem", "-days", "2", "-subj", f"/CN={NAME}",
        "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost",
    ]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _front(machine: Machine, port: int, names: dict[str, str]) -> None:
    """Write the main file of nginx; the guide's is included, with its ports and places those of this test."""
    root = machine.root
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        **{old: new for old, new in names.items() if old.isdigit()},
        "/etc/tidegate/": f"{root}/etc/tidegate/",
        "/var/lib/": f"{root}/var/lib/",
    }
    (machine.root / "bin/placed").write_text(
        f"import pathlib\nchanges = {changes!r}\n"
        f"for file in pathlib.Path({str(root / 'etc/nginx/conf.d')!r}).glob('*.conf'):\n"
        "    text = file.read_text()\n"
        "    if 'listen 443' in text:\n"
        "        for old, new in changes.items():\n"
        "            text = text.replace(old, new)\n"
        "        file.write_text(text)\n"
    )
    places = "".join(
        f"{one}_temp_path {root}/{one}_temp;"
        for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (root / "nginx.conf").write_text(
        f"daemon off; pid {root}/nginx.own; error_log {root}/error.log warn;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {places} include {root}/etc/nginx/conf.d/*.conf; }}\n"
    )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, int]]:
    """Return a machine on which the section *Install it* was carried out, and the port of nginx; around it are a database server, a store and a provider."""
    tmp_path = tmp_path_factory.mktemp("guide")
    with contextlib.ExitStack() as stack:
        # one that the doctor has nothing to say against
        database = Server(fsync="on", full_page_writes="on", synchronous_commit="on")
        stack.callback(database.close)
        store = stack.enter_context(running_moto(tmp_path / "moto.log"))
        users = [
            oidc_provider_mock.User(
                sub="24400320", claims={"preferred_username": "olga", "groups": ["fleet-owners"]}
            )
        ]
        provider = stack.enter_context(oidc_provider_mock.run_server_in_thread(user_claims=users))
        issuer = f"http://localhost:{provider.server_port}"
        ports, front = [free_port() for _ in range(3)], free_port()
        root = tmp_path / "machine"
        root.mkdir()
        names = {
            "postgresql://tidegate@db.example.com/tidegate?sslmode=verify-full":
                f"postgresql://tidegate@127.0.0.1:{database.port}/tidegate",
            "https://s3.example.com": store,
            "https://login.example.com/realms/devices": issuer,
            f"https://{NAME}": f"https://localhost:{front}",
            **{str(8441 + number): str(port) for number, port in enumerate(ports)},
            "8449": str(free_port()),
        }  # fmt: skip
        # what is never imported need not be compiled
        env = {
            "PIP_NO_COMPILE": "1",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(database.port),
            "PGUSER": "postgres",
        }
        made = Machine(root, names, env)
        _certificate(root / "etc/tidegate/tls")
        _front(made, front, names)
        boto3.client(
            "s3", endpoint_url=store, region_name="eu-central-1",
            aws_access_key_id="x", aws_secret_access_key="y",
        ).create_bucket(
            Bucket="firmware", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )  # fmt: skip
        stack.callback(made.stop)
        install = Section(GUIDE, "Install it")
        made.run(install.take(f"/opt/tidegate-{__version__} ").text)
        install.done()
        yield made, front


@pytest.fixture(scope="module")
def replicas(machine: tuple[Machine, int]) -> tuple[Machine, int, list[str]]:
    """Return the machine after *Three replicas* was carried out, and what was said."""
    site, front = machine
    return site, front, carry_out(site, Section(GUIDE, "Three replicas, with single sign-on"))


def test_one_machine_serves_behind_nginx(machine: tuple[Machine, int]) -> None:
    site, front = machine
    shown = carry_out(site, Section(GUIDE, "On one machine"))
    assert "ok\n" in shown[0]
    assert "0 failed" in shown[0]
    assert f"https://localhost:{front}/sign-in/ticket" in shown[1]
    data = site.root / "var/lib/tidegate-server"
    assert (data / "tidegate.db").is_file()
    site.run("systemctl stop tidegate-server nginx\n")
    shutil.rmtree(data)
    (site.root / "etc/nginx/conf.d/tidegate.conf").unlink()


def test_the_guide_leads_from_nothing_to_three_replicas_and_a_sign_in(
    replicas: tuple[Machine, int, list[str]],
) -> None:
    site, front, shown = replicas
    (asked,) = [one for one in shown if "no root of trust yet" in one]
    # the root of trust is another guide's
    assert "0 failed, 1 warning" in asked, asked
    assert sum(one.count("ok\n") for one in shown) >= 5
    assert any("/sign-in/ticket" in one for one in shown)
    _signs_in(site, front)
    keys = site.root / "var/lib/tidegate-server/online"
    assert keys.stat().st_mode & 0o777 == 0o700


def test_a_new_version_takes_over_process_by_process_while_requests_go_on(
    replicas: tuple[Machine, int, list[str]],
) -> None:
    site, front, _ = replicas
    ports = list(site.root.glob("tidegate-server@*.pid"))
    before = {file.name: file.read_text() for file in ports}
    with _asking(site, front) as answers:
        shown = carry_out(site, Section(GUIDE, "Update it"))
    assert "as it was" in "".join(shown)
    assert len(answers) > 30
    assert set(answers) == {"200"}, [one for one in answers if one != "200"]
    after = {file.name: file.read_text() for file in ports}
    assert len(before) == 3
    assert not set(before.items()) & set(after.items()), "a process was not replaced"
    for pid in after.values():
        running = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        assert Path(running).parent.parent.resolve().name == "tidegate-0.2.0"


def test_it_is_asked_every_week_whether_all_is_well(
    replicas: tuple[Machine, int, list[str]],
) -> None:
    (said,) = carry_out(replicas[0], Section(GUIDE, "Then"))
    assert "0 failed" in said


def test_what_the_pods_mount_is_what_the_guide_gives_the_cluster(
    machine: tuple[Machine, int], tmp_path: Path
) -> None:
    """The chart with the guide's values, against the guide's secrets: names, and the keys in them."""
    site, _ = machine
    (tmp_path / "packaging").symlink_to(ROOT / "packaging")
    section = Section(GUIDE, "On Kubernetes")
    site.run(section.take("tidegate serve").text, tmp_path)
    site.run(section.take("kubectl", "helm install").text, tmp_path)
    section.done()
    asked = [json.loads(line) for line in (site.root / "asked").read_text().splitlines()]
    secrets = {words[4]: _keys(words[5:]) for words in asked if words[:4] == ["kubectl", "create", "secret", "generic"]}  # fmt: skip
    assert secrets["tidegate-online-keys"] == {
        one.name for one in (tmp_path / "first/online").iterdir()
    }
    assert "director.key" in secrets["tidegate-online-keys"]
    (install,) = [words for words in asked if words[0] == "helm"]
    given = values()
    for word in install[install.index("--set") :]:
        if word != "--set":
            path, _, value = word.partition("=")
            *way, last = path.split(".")
            place = given
            for one in way:
                place = place[one]
            assert last in place, f"{path} is no value of the chart"
            place[last] = value
    pod = next(one for one in rendered(given) if one["kind"] == "Deployment")["spec"]["template"]["spec"]  # fmt: skip
    mounted = {one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    main, schema = pod["containers"][0], pod["initContainers"][0]
    assert mounted | {main["envFrom"][0]["secretRef"]["name"]} == set(secrets)
    assert secrets["tidegate-database"] == {"password"}
    assert secrets["tidegate-store"] == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert schema["args"] == ["db", "upgrade"]
    shared = {one["name"]: one for one in main["env"]}
    assert all(shared[one["name"]] == one for one in schema["env"])
    volumes = {one["name"] for one in pod["volumes"]}
    assert {one["name"] for one in schema["volumeMounts"]} <= volumes


def _keys(options: list[str]) -> set[str]:
    """Return the keys of a secret: the names of files, or of literals."""
    found = (one.partition("=") for one in options)
    return {
        Path(rest).name if option == "--from-file" else rest.partition("=")[0]
        for option, _, rest in found
    }


@contextlib.contextmanager
def _asking(site: Machine, front: int) -> Iterator[list[str]]:
    """Ask through nginx all the time, a fresh connection each; gives the answers' codes, or what went wrong."""
    answers: list[str] = []
    over = threading.Event()
    context = ssl.create_default_context(cafile=str(site.root / "etc/tidegate/tls/fullchain.pem"))

    def ask() -> None:
        while not over.wait(0.1):
            connection = http.client.HTTPSConnection("localhost", front, timeout=20, context=context)  # fmt: skip
            try:
                connection.request("GET", "/sign-in")
                answer = connection.getresponse()
                answer.read()
                answers.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                answers.append(repr(error))
            finally:
                connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join(30)


def _signs_in(site: Machine, front: int) -> None:
    """Go to the sign-in page, press the button, say who one is at the provider, and be an owner here."""
    here = f"https://localhost:{front}"
    authority = str(site.root / "etc/tidegate/tls/fullchain.pem")
    http = urllib3.PoolManager(ca_certs=authority)
    page = http.request("GET", f"{here}/sign-in")
    assert page.status == 200
    assert b"/sign-in/single" in page.data
    begun = http.request("GET", f"{here}/sign-in/single", redirect=False)
    cookies = _cookies(begun)
    there = begun.headers["location"]
    assert http.request("GET", there).status == 200
    sent = http.request(
        "POST", there, fields={"sub": "24400320"}, redirect=False, encode_multipart=False
    )
    back = sent.headers["location"]
    assert back.startswith(f"{here}/")
    ended = http.request("GET", back, headers={"cookie": cookies}, redirect=False)
    assert ended.status in {200, 302, 303}, ended.data[:500]
    session = _cookies(ended)
    account = http.request("GET", urljoin(here, "/account"), headers={"cookie": session})
    assert account.status == 200, urlsplit(ended.headers.get("location", "")).path
    assert b"olga" in account.data
    assert b"owner" in account.data


def _cookies(answer: urllib3.BaseHTTPResponse) -> str:
    found = answer.headers.getlist("set-cookie")
    return "; ".join(one.partition(";")[0] for one in found)
