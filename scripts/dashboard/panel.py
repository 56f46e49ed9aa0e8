"""Parts of a Grafana dashboard, and their JSON. Ids and places follow from the order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GRID_COLUMNS = 24  # Grafana's
ROW_HEIGHT, STAT_HEIGHT, GRAPH_HEIGHT = 1, 4, 8
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What the variables select. `%node` stands in a query for the first, `%registry` for both.
NODE = 'region=~"$region",zone=~"$zone",instance=~"$node"'
REGISTRY = NODE + ',registry=~"$registry"'
REGION = 'region=~"$region"'

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL with `%region`, `%node` and `%registry` in its selectors; `legend` is a template of Grafana."""

    expression: str
    legend: str

    @property
    def full(self) -> str:
        """The expression as Grafana gets it."""
        selected = self.expression.replace("%registry", REGISTRY).replace("%node", NODE)
        return selected.replace("%region", REGION)


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is an id of Grafana's units, `width` counts columns of the grid."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    is_stacked: bool = False
    thresholds: tuple[tuple[float | None, str], ...] = ()

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return STAT_HEIGHT if self.kind == "stat" else GRAPH_HEIGHT


@dataclass(frozen=True, slots=True)
class Row:
    """A heading with its panels. A collapsed row asks nothing until it is opened."""

    title: str
    panels: tuple[Panel, ...]
    is_collapsed: bool = False


def laid_out(rows: Sequence[Row]) -> list[Json]:
    """The panels of the dashboard, from left to right and from top to bottom."""
    found: list[Json] = []
    y, ids = 0, iter(range(1, 10_000))
    for row in rows:
        heading: Json = {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": row.is_collapsed,
            "gridPos": {"x": 0, "y": y, "w": GRID_COLUMNS, "h": ROW_HEIGHT},
            "panels": [],
        }
        y += ROW_HEIGHT
        panels, y = _placed(row.panels, y, ids)
        found.append(heading)
        (heading["panels"] if row.is_collapsed else found).extend(panels)
    return found


def _placed(panels: Sequence[Panel], y: int, ids: Iterator[int]) -> tuple[list[Json], int]:
    """The panels in lines that begin at `y`, and where the next line begins."""
    found: list[Json] = []
    x = line_height = 0
    for panel in panels:
        if x + panel.width > GRID_COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        found.append(_json(panel, next(ids), x, y))
        x, line_height = x + panel.width, max(line_height, panel.height)
    return found, y + line_height


def _json(panel: Panel, panel_id: int, x: int, y: int) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.unit == "percentunit":
        defaults["max"] = 1
    if panel.thresholds:
        steps = [{"value": value, "color": color} for value, color in panel.thresholds]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    options: Json
    if panel.kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "values": False, "fields": ""},
            "textMode": "value_and_name",
            "colorMode": "value" if panel.thresholds else "none",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
        }
    else:
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        defaults["custom"] = {
            "fillOpacity": 20 if panel.is_stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
    return {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATA_SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATA_SOURCE,
                "expr": query.full,
                "legendFormat": query.legend,
                # a stat shows the newest value alone: one evaluation in place of one for each pixel
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
    }
