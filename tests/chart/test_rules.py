"""The rules and the dashboard: read by promtool, tried on made-up series, and about series that nodes have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from speil.observe.metrics import Metrics
from speil.testing.declared_series import declare_all
from tests.chart.questions import DASHBOARD, RULES, questions, rules
from tests.chart.rendering import CHART, render

FOLDER = Path(__file__).parent
_SERIES = re.compile(r"\b((?:speil|spegel|http)_[a-z_]+)\b")
needs_promtool = pytest.mark.requires("promtool")


def promtool(*arguments: str | Path) -> str:
    """What it says. Fails with what it says."""
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series() -> set[str]:
    """The names that a node exposes."""
    found, metrics = set(), Metrics("1")
    declare_all(metrics)
    for family in metrics.registry.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}.get(
            family.type, [""]
        )
        found |= {family.name + ending for ending in endings}
    return found


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)


@needs_promtool
def test_the_rules_say_what_they_should() -> None:
    promtool("test", "rules", "rules.test.yaml")
    tried = (FOLDER / "rules.test.yaml").read_text()
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        # what is recorded only for another rule is tried through that
        assert name in tried or sum(name in other["expr"] for other in rules()), f"{name} is not tried"
        if "alert" in rule:
            assert f"- alertname: {name}\n" in tried, f"{name} is never seen to fire"


@needs_promtool
def test_promtool_takes_the_dashboards_queries(tmp_path: Path) -> None:
    queries = [{"record": f"query:{at}", "expr": one.asked()} for at, one in enumerate(questions())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": queries}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", file)


def test_rules_and_dashboard_ask_for_series_that_nodes_have() -> None:
    known = series()
    asked = [
        *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()),
        *((one.panel, one.expression) for one in questions()),
    ]
    for name, expression in asked:
        # names of recorded series have colons; what stands between them is no series
        plain = re.sub(r"[a-z_]+:[a-z_:0-9]+", "", expression)
        assert set(_SERIES.findall(plain)) <= known, name


def test_every_alert_has_a_region_a_severity_and_words() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("info", "warning", "critical")
            assert "$labels.region" in rule["annotations"]["summary"]
            assert rule["annotations"]["description"]


@pytest.mark.requires("helm")
def test_the_operators_get_the_same_rules_and_the_same_dashboard() -> None:
    objects = render(CHART / "examples" / "monitoring.yaml")
    assert objects.only("PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    assert json.loads(objects.only("GrafanaDashboard")["spec"]["json"]) == json.loads(DASHBOARD.read_text())
    sidecar = render({"grafanaDashboard": {"enabled": True}}).only("ConfigMap")
    assert json.loads(sidecar["data"]["speil.json"]) == json.loads(DASHBOARD.read_text())
    monitor, service = objects.only("ServiceMonitor")["spec"], objects.only("Service", "speil-metrics")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["endpoints"][0]["honorLabels"] is True
    pods = render({"podMonitor": {"enabled": True, "relabelings": [{"targetLabel": "own"}]}}).only("PodMonitor")["spec"]
    by_node = [
        {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": label} for label in ("node", "instance")
    ]
    assert monitor["endpoints"][0]["relabelings"] == by_node
    assert pods["podMetricsEndpoints"][0]["relabelings"] == [*by_node, {"targetLabel": "own"}]
