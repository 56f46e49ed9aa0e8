"""What the chart asks Prometheus: the queries of the dashboard's panels and of the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.chart.rendering import CHART

RULES, DASHBOARD = CHART / "files" / "rules.yaml", CHART / "files" / "dashboard.json"
EVERYTHING = {
    "region": ".*", "zone": ".*", "node": ".*", "registry": ".*", "by": "region",
    "__rate_interval": "5m", "__range": "1h",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A query of a panel."""

    panel: str
    legend: str
    expression: str

    def asked(self, **variables: str) -> str:
        """The query as Grafana sends it, with EVERYTHING where `variables` has nothing."""
        text = self.expression
        for name, value in sorted((EVERYTHING | variables).items(), key=lambda item: -len(item[0])):
            text = text.replace(f"${name}", value)
        assert "$" not in text, text
        return text


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> Iterator[dict[str, Any]]:
    """All panels but the headings, also those of collapsed rows."""
    for panel in dashboard()["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def questions() -> list[Question]:
    """All queries of all panels."""
    return [
        Question(panel["title"], target["legendFormat"], target["expr"])
        for panel in panels()
        for target in panel["targets"]
    ]


def rules() -> list[Mapping[str, Any]]:
    """All rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
