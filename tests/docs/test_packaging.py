"""What is shipped to run the server: units, containers, chart, as far as it can be checked by reading. `test_compose_guide` starts the services."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate.server.config import load

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "packaging" / "server"
UNITS = ("tidegate-server.service", "tidegate-server@.service")
#: Of `systemd-analyze security`, 0 to 10.
EXPOSURE_MAX = 1.5
COMPOSE = SERVER / "compose" / "compose.yaml"
CHART = SERVER / "helm" / "tidegate"


@pytest.mark.parametrize("name", UNITS)
def test_the_units_are_narrow_and_read_by_systemd(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("tier: systemd-analyze is not here; install the Debian package systemd")
    place = tmp_path / name.replace("@", "@8441")
    text = (SERVER / name).read_text()
    place.write_text(text.replace("/opt/tidegate/bin/tidegate", "/bin/true"))
    shutil.copy(SERVER / "tidegate-server.target", tmp_path)
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"}
    checked = subprocess.run(
        ["systemd-analyze", "verify", place],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    wrong = [line for line in checked.stderr.splitlines() if "tidegate-server" in line]
    assert [line for line in wrong if "not-found" not in line] == []
    bound = f"--threshold={int(EXPOSURE_MAX * 10)}"
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", bound, place],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-300:]


def test_one_unit_and_the_template_differ_in_what_several_processes_need_alone() -> None:
    one, many = ((SERVER / name).read_text().splitlines() for name in UNITS)
    keys = {line.partition("=")[0] for line in set(one) ^ set(many)}
    assert keys == {"Description", "ExecStart", "PartOf", "WantedBy"}


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bTIDEGATE_[A-Z_]+", text))


@pytest.mark.parametrize(
    "path",
    [one for one in sorted(SERVER.rglob("*")) if one.is_file()],
    ids=lambda one: one.name,
)
def test_every_variable_is_a_setting_of_the_server(path: Path) -> None:
    from tidegate.server.config import KEYS

    known = {f"TIDEGATE_{table}_{key}".upper() for table, key in KEYS}
    assert variables(path.read_text()) <= known


def compose() -> dict[str, Any]:
    found = yaml.safe_load(COMPOSE.read_text())
    assert isinstance(found, dict)
    return found


def test_the_compose_file_names_what_there_is() -> None:
    whole = compose()
    assert set(whole["services"]) == {
        "schema", "bucket", "replica1", "replica2", "front", "database", "store", "prometheus", "grafana",
    }  # fmt: skip
    for name, one in whole["services"].items():
        assert set(one.get("secrets", ())) <= set(whole["secrets"]), name
        assert set(one.get("networks", ())) <= set(whole["networks"]), name
        assert set(one.get("depends_on", ())) <= set(whole["services"]), name
        for volume in one.get("volumes", ()):
            source = volume.partition(":")[0]
            here = (COMPOSE.parent / source).exists() if source.startswith(".") else False
            assert here or source in whole["volumes"], f"{name}: {source}"
    shown = {name for name, one in whole["services"].items() if "ports" in one}
    assert shown == {"front", "grafana"}
    assert all(one.startswith("127.0.0.1:") for one in whole["services"]["grafana"]["ports"])


def test_settings_of_the_replicas_are_read_by_the_server() -> None:
    given = dict(compose()["services"]["replica1"]["environment"])
    given["TIDEGATE_HTTP_EXTERNAL_URL"] = "https://ota.example.com"
    found = load(environ=given)
    assert found.database_url
    assert found.blobs_url == "s3://tidegate"
    subnet = compose()["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert found.trusted_proxies == (subnet,)


def test_nginx_of_the_compose_file_is_the_shipped_one_with_other_names() -> None:
    shipped = (SERVER / "nginx.conf").read_text().splitlines()[2:]
    front = (SERVER / "compose" / "front.conf").read_text().splitlines()[2:]
    differ = [(a, b) for a, b in zip(shipped, front, strict=True) if a != b]
    assert all("server 127.0.0.1" in a or "/etc/tidegate/tls/" in a for a, _ in differ)
    assert len(differ) == 4


# --- the chart: its templates use plain substitution alone, which is done here as Helm does it ---------------------------------


def rendered(values: dict[str, Any], name: str = "ota") -> list[dict[str, Any]]:
    def put(found: re.Match[str]) -> str:
        value: Any = {"Values": values, "Release": {"Name": name}}
        for part in found[1].split("."):
            value = value[part]
        text = str(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if found[2] else text

    made = []
    for template in sorted((CHART / "templates").glob("*.yaml")):
        text = re.sub(r"\{\{ \.([A-Za-z.]+)( \| quote)? \}\}", put, template.read_text())
        assert not re.search(r"\{\{[^}]*[.|]", text), f"{template.name}: more than substitution"
        made.append(yaml.safe_load(text))
    return made


def values() -> dict[str, Any]:
    found = yaml.safe_load((CHART / "values.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_the_chart_renders_to_what_kubernetes_reads() -> None:
    by_kind = {one["kind"]: one for one in rendered(values())}
    assert set(by_kind) == {"Deployment", "Service", "PodDisruptionBudget"}
    deployment = by_kind["Deployment"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert by_kind["Service"]["spec"]["selector"] == labels
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (container,) = pod["spec"]["containers"]
    assert deployment["spec"]["replicas"] == values()["replicas"]
    named = {one["name"] for one in pod["spec"]["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == named
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    probes = {one: container[one]["exec"]["command"][2] for one in
              ("startupProbe", "livenessProbe", "readinessProbe")}  # fmt: skip
    assert "/readyz" in probes.pop("readinessProbe")
    assert all("/healthz" in one for one in probes.values())


def test_settings_of_the_chart_are_read_by_the_server_whatever_they_hold() -> None:
    given = values()
    given["externalUrl"] = 'https://x.example.com/"a" \\ {b}: #c'
    deployment = next(one for one in rendered(given) if one["kind"] == "Deployment")
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    found = load(environ={one["name"]: one["value"] for one in env})
    assert found.external_url == given["externalUrl"]
    assert found.trusted_proxies == ("10.0.0.0/8",)


def test_the_container_installs_what_postgresql_and_s3_need() -> None:
    text = (SERVER / "Containerfile").read_text()
    wanted = re.search(r"-r (requirements/\S+)", text)
    assert wanted is not None
    pins = (ROOT / wanted[1]).read_text()
    for one in ("litestar", "uvicorn", "psycopg", "boto3"):
        assert re.search(rf"(?m)^{one}\b", pins), one
    assert "USER 8440" in text
