"""Values that null takes away, and names of images."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chart.rendering import CHART, helm, render

pytestmark = pytest.mark.requires("helm")


@pytest.mark.parametrize(
    "repository",
    [
        "speil",
        "registry.example.org:5000/a/b_c/speil-x",
        "localhost/speil",
        "[fd00::1]:5000/speil",
        "Registry.example.org/a",
    ],
)
def test_names_of_images(repository: str) -> None:
    (node,) = render({"image": {"repository": repository}}).only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert node["image"].startswith(f"{repository}:")


DEFAULTS: dict[str, Any] = json.loads((CHART / "files" / "defaults.json").read_text())


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_value_that_is_taken_away_with_null_leaves_a_chart_that_renders(name: str) -> None:
    # helm removes a key that is null, and the templates find nothing under it
    for values in ({name: None}, {name: dict.fromkeys(DEFAULTS[name])} if isinstance(DEFAULTS[name], dict) else {}):
        if values == {"nodeSelector": {"kubernetes.io/os": None}}:
            continue
        given: dict[str, Any] = {"region": "eu", **values}
        if name == "service":  # hostPort has no default where it is taken away: there must be a way to the node
            given = {"region": "eu", "spegel": {"containerdMirrorAdd": False}, **values}
        text = helm("template", "speil", str(CHART), values=given)
        assert "<nil>" not in text
        assert "%!" not in text


def test_values_that_null_takes_away_are_the_charts_defaults() -> None:
    plain = render({"region": "eu"}).only("DaemonSet", "speil")
    emptied = {
        "keepToRegion": None,
        "affinity": None,
        "image": None,
        "serviceAccount": None,
        "regionNetworks": None,
        "service": {"registry": {"port": None}, "router": None, "metrics": None, "cleanup": None},
        "spegel": {"logLevel": None, "persistence": None, "containerdSock": None, "resolveTags": None},
    }
    assert render({"region": "eu", **emptied}).only("DaemonSet", "speil") == plain


def test_null_removes_the_limits_and_the_host_port() -> None:
    taken_away = dict.fromkeys(("resources", "initResources", "hookResources"))
    values = {**taken_away, "service": {"registry": {"hostPort": None, "nodePort": 30021}}}
    objects = render(values)
    assert not any("resources" in container for container, _ in objects.containers())
    (node,) = objects.only("DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert not any("hostPort" in port for port in node["ports"])
