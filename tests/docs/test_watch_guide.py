"""The dashboard, the alerts and the guide to them speak of metrics that there are, in queries that Prometheus reads."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate.server.metric_families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "packaging" / "prometheus" / "tidegate.rules.yaml"
DASHBOARD = ROOT / "packaging" / "grafana" / "tidegate.json"
GUIDE = ROOT / "docs" / "guides" / "watch-the-server.md"
#: What Prometheus and its client library bring along.
FOREIGN = {
    "up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
    "process_max_fds",
}  # fmt: skip
SERIES = {name: one for one in FAMILIES.values() for name in one.series}
_NAME = re.compile(r"(?<![\w:\"])([a-z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?")
_LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
#: Labels that a scrape adds.
_ADDED = {"job", "instance"}
_WORDS = {
    "and", "by", "histogram_quantile", "increase", "label_values", "le", "max", "min", "on", "rate",
    "or", "sum", "topk",
}  # fmt: skip


def alerts() -> list[dict[str, Any]]:
    found = yaml.safe_load(RULES.read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return (where, query), with Grafana's own words replaced by what they stand for."""
    found = [(f"alert {one['alert']}", str(one["expr"])) for one in alerts()]
    for panel in panels():
        for target in panel["targets"]:
            text = str(target["expr"]).replace("$__rate_interval", "5m")
            found.append((f"panel {panel['title']}", re.sub(r"\$\w+", ".*", text)))
    return found


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_names_metrics_and_labels_that_there_are(where: str, query: str) -> None:
    bare = re.sub(r"\b(by|on)\s*\([^)]*\)", "", query)
    used = [(name, labels) for name, labels in _NAME.findall(bare) if name not in _WORDS]
    used = [(name, labels) for name, labels in used if not re.fullmatch(r"[smhd]", name)]
    assert used
    for name, labels in used:
        assert name in SERIES or name in FOREIGN, f"{where}: {name}"
        asked = set(_LABEL.findall(labels or "")) - _ADDED
        assert name in FOREIGN or asked <= {*SERIES[name].labels}, f"{where}: {labels}"
    grouped = {
        label.strip()
        for found in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query)
        for label in found.split(",")
    }
    known = {label for name, _ in used for label in (SERIES[name].labels if name in SERIES else ())}
    assert grouped <= known | _ADDED | {"le"}, where


def test_what_every_process_shows_alike_is_never_summed_over_processes() -> None:
    for where, query in queries():
        for name, one in SERIES.items():
            if one.of == "server" and re.search(
                rf"\bsum[^(]*\((?:rate|increase)?\(?{name}\b", query
            ):
                pytest.fail(f"{where}: {name} is the same from every process")


def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("tier: promtool is not here; install the Debian package prometheus")
    rules = [{"record": f"q:q{n}", "expr": query} for n, (_, query) in enumerate(queries())]
    asked = tmp_path / "queries.yaml"
    asked.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    for file in (RULES, asked):
        done = subprocess.run(
            [promtool, "check", "rules", file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yaml"
    broken.write_text(RULES.read_text().replace("== 0", "=== 0", 1))
    asked_wrongly = [promtool, "check", "rules", str(broken)]
    assert subprocess.run(asked_wrongly, capture_output=True, check=False).returncode != 0


def test_every_alert_says_what_it_means_and_has_its_section() -> None:
    sections = set(re.findall(r"(?m)^### (\w+)$", GUIDE.read_text()))
    named = [one["alert"] for one in alerts()]
    assert set(named) == sections
    assert len(named) == len(set(named))
    for one in alerts():
        assert one["labels"]["severity"] in {"page", "ticket"}
        assert one["annotations"]["summary"]
        assert one["annotations"]["description"]
        anchor = f"docs/guides/{GUIDE.name}#{one['alert'].lower()}"
        assert one["annotations"]["runbook"] == anchor
    assert f"{_in_words(len(named))} alerts" in GUIDE.read_text()


def _in_words(number: int) -> str:
    return {14: "fourteen", 15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen"}[number]


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["uid"] == "tidegate"
    ids = [one["id"] for one in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["targets"]
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", DASHBOARD.read_text())) - {"__rate_interval", "__all"}
    assert used == variables


def test_the_dashboard_shows_every_metric_but_for_a_few() -> None:
    used = {name for _, query in queries() for name, _ in _NAME.findall(query)}
    left_out = {name for name, one in FAMILIES.items() if not used & set(one.series)}
    assert left_out == {
        "tidegate_advisories_open", "tidegate_commit_work", "tidegate_downloads",
        "tidegate_gate_epoch", "tidegate_info", "tidegate_live_watchers", "tidegate_polls_held", "tidegate_rollout_decided_seconds",
        "tidegate_rollouts", "tidegate_ticks", "tidegate_updates",
    }  # fmt: skip
