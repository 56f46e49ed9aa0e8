"""The whole dashboard: variables, time range, panels."""

from __future__ import annotations

from pathlib import Path

from scripts.dashboard.mesh import ANNOUNCING, BORDER, ELECTION, PEERS
from scripts.dashboard.nodes import KUBELET, LOAD, PROCESS
from scripts.dashboard.panel import DATA_SOURCE, Json, laid_out
from scripts.dashboard.pulls import OVERVIEW, PULLS
from scripts.dashboard.rollouts import ROLLOUTS

FILE = Path(__file__).parent.parent.parent / "charts" / "speil" / "files" / "dashboard.json"
SCHEMA_VERSION = 39  # of Grafana 11; older ones read it, newer ones migrate it
ROWS = (OVERVIEW, PULLS, ROLLOUTS, PEERS, ANNOUNCING, ELECTION, BORDER, LOAD, PROCESS, KUBELET)
_EVERY = ".*"  # an empty label matches too: a mesh without regions, nodes without zones
_ON_TIME_RANGE_CHANGE = 2
_GROUPS = {"region": "region", "zone": "region, zone", "node": "region, zone, instance"}


def dashboard() -> Json:
    """The dashboard as Grafana reads it."""
    return {
        "title": "speil regions",
        "uid": "speil-regions",
        "description": "Where images came from, by region, zone, node and registry; and whether the regions are well.",
        "tags": ["speil"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": laid_out(ROWS),
    }


def _variables() -> list[Json]:
    """Each list offers what the choices before it left."""
    series = "speil_store_available"
    return [
        {
            "name": "datasource",
            "type": "datasource",
            "query": "prometheus",
            "label": "Data source",
            "current": {},
            "hide": 0,
        },
        _chosen("region", "Region", f"label_values({series}, region)"),
        _chosen("zone", "Zone", f'label_values({series}{{region=~"$region"}}, zone)'),
        _chosen("node", "Node", f'label_values({series}{{region=~"$region",zone=~"$zone"}}, instance)'),
        _chosen(
            "registry",
            "Registry",
            'label_values(spegel_mirror_requests_total{region=~"$region",zone=~"$zone",instance=~"$node"}, registry)',
        ),
        {
            "name": "by",
            "type": "custom",
            "label": "Group by",
            # a comma separates values unless a backslash is before it
            "query": ",".join(f"{text} : {value.replace(',', chr(92) + ',')}" for text, value in _GROUPS.items()),
            "options": [
                {"text": text, "value": value, "selected": text == "region"} for text, value in _GROUPS.items()
            ],
            "current": {"text": "region", "value": _GROUPS["region"], "selected": True},
            "multi": False,
            "includeAll": False,
            "hide": 0,
        },
    ]


def _chosen(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": DATA_SOURCE,
        "query": query,
        "refresh": _ON_TIME_RANGE_CHANGE,
        "multi": True,
        "includeAll": True,
        "allValue": _EVERY,
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
        "sort": 1,
    }
