"""The dashboard: written from its declaration, of a form that Grafana reads, and told for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from scripts.dashboard import dashboard as declaration
from scripts.dashboard.panel import GRID_COLUMNS

from speil.observe.metrics import Metrics
from speil.testing.declared_series import declare_all
from tests.chart.questions import DASHBOARD, dashboard, panels

# What the queries and variables of Spegel's dashboard ask for (0.0.23, 0.0.30, 0.7.4): its series, with their labels.
# Other series there are of the kubelet and of cAdvisor. `pod`, `job` and `instance` are labels of the target.
SPEGELS_SERIES = {
    "spegel_advertised_keys": {"job", "instance"},
    "spegel_advertised_images": {"job", "instance", "pod"},
    "spegel_advertised_image_digests": {"pod", "registry"},
    "spegel_advertised_content_digests": {"instance", "pod", "registry"},
    "spegel_mirror_requests_total": {"pod", "cache"},
    "http_request_duration_seconds_bucket": {"job", "pod"},
}
OF_THE_TARGET = {"job", "instance", "pod"}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


def test_the_file_is_what_the_declaration_says() -> None:
    assert json.loads(DASHBOARD.read_text()) == declaration.dashboard(), "run `make docs`"


def test_grafanas_own_types_read_every_field() -> None:
    """A field that Grafana does not know, or one of another type, would be missing or different when written again."""
    register_default_plugins()
    written = json.loads(json.dumps(Dashboard.from_json(dashboard()), cls=JSONEncoder))
    assert _missing(dashboard(), written) == []


def _missing(ours: Any, theirs: Any, path: str = "") -> list[str]:
    match ours, theirs:
        case dict(), dict():
            return [one for key in ours for one in _missing(ours[key], theirs.get(key), f"{path}.{key}")]
        case list(), list() if len(ours) == len(theirs):
            pairs = enumerate(zip(ours, theirs, strict=True))
            return [one for at, (our, their) in pairs for one in _missing(our, their, f"{path}[{at}]")]
    return [] if ours == theirs or (ours in ({}, "") and not theirs) else [f"{path}: {ours!r} became {theirs!r}"]


def test_every_panel_has_an_id_a_description_and_a_unit_of_grafana() -> None:
    everything = [*panels(), *(one for one in dashboard()["panels"] if one["type"] == "row")]
    ids = [one["id"] for one in everything]
    assert len(ids) == len(set(ids)) > 40
    titles = [one["title"] for one in everything]
    assert len(titles) == len(set(titles))
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert [one["refId"] for one in panel["targets"]] == sorted({one["refId"] for one in panel["targets"]})


def test_panels_do_not_overlap() -> None:
    taken = set[tuple[int, int]]()
    for panel in [*panels(), *(one for one in dashboard()["panels"] if one["type"] == "row")]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= GRID_COLUMNS
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_data_source_is_a_choice_and_nowhere_a_fixed_one() -> None:
    found = list(_data_sources(dashboard()))
    assert len(found) > 100
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in found)
    assert "${datasource}" not in json.dumps([one for one in dashboard()["templating"]["list"] if "query" not in one])


def _data_sources(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "datasource":
                yield inner
            else:
                yield from _data_sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _data_sources(inner)


def test_each_variable_offers_what_those_before_it_leave() -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "region", "zone", "node", "registry", "by"]
    chain = ["region", "zone", "node", "registry"]
    for at, name in enumerate(chain):
        assert re.findall(r"\$(\w+)", variables[name]["query"]) == chain[:at]
        # an empty label must match: a mesh without regions, nodes without zones
        assert re.fullmatch(variables[name]["allValue"], "")
    groups = re.findall(r"(\w+) : ((?:[^,\\]|\\.)+)", variables["by"]["query"])
    shown = [(one["text"], one["value"]) for one in variables["by"]["options"]]
    assert [(text, value.replace("\\,", ",")) for text, value in groups] == shown


def test_every_query_heeds_the_choice_of_the_region() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert 'region=~"$region"' in target["expr"], panel["title"]


@pytest.mark.parametrize("name", SPEGELS_SERIES)
def test_spegels_dashboard_finds_its_series(name: str) -> None:
    metrics = Metrics("1", region="a", zone="z")
    declare_all(metrics)
    labels = {
        family_name: set(series._labelnames) | {"region", "zone", "le"}
        for series, names in metrics.registry._collector_to_names.items()
        if hasattr(series, "_labelnames")
        for family_name in names
    }
    sums = {"spegel_advertised_keys": set[str](), "spegel_advertised_images": set[str]()}
    assert SPEGELS_SERIES[name] - OF_THE_TARGET <= (labels | sums)[name]
