"""The chart's papers agree with each other: values, schema, README, version. Needs no helm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from scripts.generate_chart_readme import CHART, README, VALUES, described, readme

from speil.version import __version__

OLD_NAMES = {
    "spegel.registries", "spegel.additionalMirrorRegistries", "spegel.appendMirrors", "spegel.resolveLatestTag",
    "spegel.blobSpeed", "spegel.mirrorRegistries", "spegel.extraMirrorRegistries", "spegel.imageFilter",
    "spegel.containerdMirrorRemove", "service.registry.internalTrafficLocal", "grafanaDashboard.sidecarLabel",
    "grafanaDashboard.sidecarLabelValue",
}  # fmt: skip
ROOT = CHART.parent.parent


def schema() -> dict[str, Any]:
    """values.schema.json."""
    document: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return document


def leaves(document: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of a schema's properties that have none of their own."""
    for name, inner in document["properties"].items():
        inner = schema()["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if "properties" in inner:
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_the_readme_has_the_values() -> None:
    assert README.read_text() == readme(), "run `make docs`"


def test_every_value_is_described_and_in_the_schema_and_the_other_way_round() -> None:
    described_paths = [value.path for value in described()]
    assert len(described_paths) == VALUES.read_text().count("# -- ")
    assert set(leaves(schema())) - OLD_NAMES - {"global"} == set(described_paths)


def test_what_a_region_may_say_itself_is_in_the_readme() -> None:
    table = README.read_text().partition("An entry knows:")[2].partition("\n\nA region that")[0]
    names = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([A-Za-z]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert names == set(schema()["$defs"]["regionItem"]["properties"])


def test_old_names_are_in_the_readme() -> None:
    migration = README.read_text().partition("## From Spegel")[2]
    for name in OLD_NAMES:
        assert f"`{name}" in migration


def test_the_schema_lets_nothing_unknown_through() -> None:
    free = set()

    def look(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                free.add(path.rsplit("/", 1)[-1])
            for key, inner in node.items():
                look(inner, f"{path}/{key}")

    look(schema(), "")
    # Kubernetes' own types, which its API server checks, and Helm's
    assert free == {
        "global", "items", "dnsConfig", "valueFrom", "podSecurityContext",
        "securityContext", "resources", "initResources", "hookResources", "updateStrategy", "affinity",
        "maxAllowed", "minAllowed",
    }  # fmt: skip


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README.read_text()):
        assert (CHART / target).exists(), target


def test_paths_of_the_readme_are_there() -> None:
    for path in re.findall(r"charts/speil/[a-zA-Z0-9./-]+\.yaml", README.read_text()):
        assert Path(ROOT / path).exists(), path
