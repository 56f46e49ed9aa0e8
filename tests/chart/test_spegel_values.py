"""The values of Spegel's chart as its users have them: spegel_values.json holds its defaults in eight versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.generate_chart_readme import DEFAULTS, VALUES, defaults, described

from speil.cli.app import COMMANDS
from tests.chart.rendering import CHART, Objects, RefusedError, helm, notes, render
from tests.chart.test_node import node_of, read

pytestmark = pytest.mark.requires("helm")
SPEGEL: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "spegel_values.json").read_text())
THREE_LINES = {
    "bootstrapKind": "kubernetes",
    "leaderElectionName": "spegel-leader-election-regiona",
    "leaderElectionNamespace": "spegel-regiona",
}
IMAGE = {"repository": "registry.example.org/speil"}
# a generated secret differs from run to run
KNOWN_SECRET = {"regionSecret": {"existingSecret": "there-already"}}
# values that Spegel's chart has and the table of ours has not: one that is set, and what then is rendered or said
TRANSLATED: dict[str, tuple[Any, str]] = {
    "spegel.registries": (["https://docker.io"], "--mirrored-registries=https://docker.io"),
    "spegel.additionalMirrorRegistries": (["https://m.example.org"], "--mirror-targets=https://m.example.org"),
    "spegel.appendMirrors": (True, "--prepend-existing=true"),
    "spegel.resolveLatestTag": (False, "--registry-filters=:latest$"),
    "spegel.blobSpeed": ("10MBps", "--upload-limit=10MBps"),
    "service.registry.internalTrafficLocal": (True, "internalTrafficPolicy: Local"),
    "grafanaDashboard.sidecarLabel": ("a_label", "a_label: "),
    "grafanaDashboard.sidecarLabelValue": ("a value", "other_label: a value"),
}
# of the first versions, before those in the file
OLDEST = {
    "spegel.mirrorRegistries": (["https://docker.io"], "--mirrored-registries=https://docker.io"),
    "spegel.extraMirrorRegistries": (["https://m.example.org"], "--mirror-targets=https://m.example.org"),
    "spegel.imageFilter": ("^docker.io", "spegel.imageFilter: "),
    "spegel.containerdMirrorRemove": (True, "spegel.containerdMirrorRemove: "),
}
IGNORED_AS_THE_OTHERS_STAND = {
    "service.registry.nodePort": (30020, "service.registry.nodePort: 30020 is service.registry.hostPort too"),
    "service.registry.annotations": ({"a": "b"}, "service.registry.annotations: there is no node port"),
    "service.registry.topologyAwareHintsEnabled": (True, "topologyAwareHintsEnabled: there is no node port"),
    "service.registry.usePreferSameNodeTrafficDistribution": (True, "Distribution: there is no node port"),
    "service.registry.internalTrafficLocal": (True, "internalTrafficLocal: there is no node port"),
    "service.bootstrap.annotations": ({"a": "b"}, "service.bootstrap.annotations: its Service is for bootstrapKind"),
    "grafanaDashboard.sidecarLabelValue": ("1", "grafanaDashboard.sidecarLabelValue: there is no sidecarLabel"),
}


def of_spegel(version: str, **more: Any) -> dict[str, Any]:
    """The values of a version with an image that is speil's, and more at the top."""
    values = deepcopy(SPEGEL[version])
    values["image"] |= IMAGE
    return {**values, **more}


def leaves(values: Any, path: str = "") -> Iterator[str]:
    """The paths of values."""
    if isinstance(values, dict) and values:
        for name, inner in values.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def at(path: str, value: Any) -> dict[str, Any]:
    """Values with one set."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


@pytest.mark.parametrize("more", [{}, THREE_LINES], ids=["alone", "in a region"])
@pytest.mark.parametrize("version", SPEGEL)
def test_the_defaults_of_a_version_are_linted_and_rendered(version: str, more: dict[str, Any]) -> None:
    values = of_spegel(version, **more)
    helm("lint", str(CHART), "--strict", values=values)
    objects = render(values)
    assert len(objects.names()) == len(objects.all), "no two objects of one kind and name"
    assert {read(container)[0] for container, _ in objects.containers()} == {one.name for one in COMMANDS} & {
        "configuration", "registry", "cleanup", "cleanup-wait",
    }  # fmt: skip
    configuration, registry = node_of(objects)
    assert registry.region.identity().region == ("regiona" if more else "from-the-label")
    spegel = SPEGEL[version]["spegel"]
    assert list(configuration.mirrored_registries) == spegel.get("registries", spegel.get("mirroredRegistries"))
    assert configuration.mirror_targets[0] == "http://10.0.0.9:30020"
    assert len(set(configuration.mirror_targets)) == len(configuration.mirror_targets)


@pytest.mark.parametrize("version", SPEGEL)
def test_what_a_version_knows_has_an_effect_or_is_said_to_have_none(version: str) -> None:
    ours = {one.path for one in described()}
    for path in leaves(SPEGEL[version]):
        assert path in TRANSLATED or any(path == one or path.startswith(f"{one}.") for one in ours), path


@pytest.mark.parametrize("path", [*TRANSLATED, *OLDEST])
def test_a_value_that_only_spegel_has_is_translated_or_said_to_be_ignored(path: str) -> None:
    value, expected = (TRANSLATED | OLDEST)[path]
    base: dict[str, Any] = {"grafanaDashboard": {"enabled": True, "sidecarLabel": "other_label"}}
    without = helm("install", "speil", str(CHART), "--dry-run=client", values=base)
    values = deepcopy(base)
    section, name = path.rsplit(".", 1)
    target = values
    for step in section.split("."):
        target = target.setdefault(step, {})
    target[name] = value
    said = helm("install", "speil", str(CHART), "--dry-run=client", values=values)
    assert expected in said
    assert expected not in without


@pytest.mark.parametrize("path", IGNORED_AS_THE_OTHERS_STAND)
def test_a_value_without_an_effect_is_named(path: str) -> None:
    value, expected = IGNORED_AS_THE_OTHERS_STAND[path]
    assert expected in notes({**THREE_LINES, **at(path, value)})
    assert "Values that have no effect" not in notes(THREE_LINES)


def test_the_defaults_of_spegel_main_have_one_port_for_two_ways() -> None:
    said = notes(of_spegel("main-2026-08-21", **THREE_LINES))
    assert "service.registry.nodePort: 30020" in said
    assert "networkPolicy.enabled is false" in said
    assert not [one for one in render(of_spegel("main-2026-08-21")).of("Service") if one["spec"].get("type")]


@pytest.mark.parametrize("version", SPEGEL)
def test_the_image_of_spegel_is_refused_with_the_remedy(version: str) -> None:
    for more in ({}, THREE_LINES):
        with pytest.raises(RefusedError, match=r"is Spegel's image.*image.repository.*migrating-from-spegel"):
            render({**SPEGEL[version], **more})


@pytest.mark.parametrize(
    ("repository", "is_refused"),
    [
        ("ghcr.io/spegel-org/spegel", True),
        ("spegel-org/spegel", True),
        ("ghcr.io/xenitab/spegel", True),
        ("registry.example.org:5000/ghcr.io/spegel-org/spegel", True),
        ("mirror.example.org/proxy/spegel-org/spegel/", True),
        ("ghcr.io/spegel-org/spegel:v0.7.4", True),
        (f"ghcr.io/spegel-org/spegel@sha256:{'a' * 64}", True),
        ("registry.example.org/speil", False),
        ("registry.example.org/spegel-org/speil", False),
        ("registry.example.org/spegel-org/spegel-to-speil", False),
        ("registry.example.org/not-spegel-org/spegel", False),
    ],
)
def test_images_of_spegel_by_any_road(repository: str, is_refused: bool) -> None:
    values = {"image": {"repository": repository}}
    if is_refused:
        with pytest.raises(RefusedError, match="is Spegel's image"):
            render(values)
    else:
        assert render(values).of("DaemonSet")


# --- helm upgrade --reuse-values: the chart's own defaults are not there ---------------------------------------------


def chart_with(values: Any, folder: Path) -> Path:
    """The chart as helm takes it with the values of another release in place of its own."""
    chart = folder / "speil"
    shutil.copytree(CHART, chart)
    (chart / "values.yaml").write_text(json.dumps(values))
    return chart


def rendered(chart: Path, values: Any, *arguments: str) -> Objects:
    """What `helm template` makes of a chart."""
    return Objects(helm("template", "speil", str(chart), "--namespace", "mirror", *arguments, values=values))


def test_the_defaults_for_the_templates_are_those_of_the_values() -> None:
    assert DEFAULTS.read_text() == defaults(), "run `make docs`"
    assert json.loads(DEFAULTS.read_text()) == yaml.safe_load(VALUES.read_text())


@pytest.mark.parametrize("more", [{}, THREE_LINES], ids=["alone", "in a region"])
@pytest.mark.parametrize("version", SPEGEL)
def test_with_spegels_values_alone_everything_is_as_with_the_defaults_below(
    version: str, more: dict[str, Any], tmp_path: Path
) -> None:
    values = of_spegel(version)
    switched_on: dict[str, Any] = {
        "serviceMonitor": {"enabled": True},
        "grafanaDashboard": {"enabled": True},
        "service": {"registry": {"nodePort": 31000}},
        **more,
        **(KNOWN_SECRET if more else {}),
    }
    alone = rendered(chart_with(values, tmp_path), switched_on)
    expected = deepcopy(values)
    for section in ("serviceMonitor", "grafanaDashboard"):
        expected[section]["enabled"] = True
    expected["service"]["registry"]["nodePort"] = 31000
    expected |= {**more, **(KNOWN_SECRET if more else {})}
    assert alone.all == rendered(CHART, expected).all


@pytest.mark.parametrize("version", SPEGEL)
def test_an_upgrade_with_spegels_values_alone_is_refused_with_the_way(version: str, tmp_path: Path) -> None:
    chart = chart_with(SPEGEL[version], tmp_path)
    for given in ({}, {"speil": {"uploadsMax": 7}, "regionSecret": {"generate": True}}, THREE_LINES):
        with pytest.raises(RefusedError) as raised:
            rendered(chart, given, "--is-upgrade")
        check_the_way(str(raised.value))


def check_the_way(said: str) -> None:
    """The message names the way."""
    for part in (
        "was not made by the chart speil", "helm get values speil -n mirror",
        "helm uninstall speil -n mirror --no-hooks", "helm install speil", "docs/migrating-from-spegel.md",
        "Nothing was changed",
    ):  # fmt: skip
        assert part in said
    assert "nil pointer" not in said


def test_an_upgrade_of_an_older_speil_gets_what_is_new(tmp_path: Path) -> None:
    older = yaml.safe_load(VALUES.read_text())
    for section, name in (
        ("speil", "zeroCopy"), ("regionSecret", "key"), ("networkPolicy", "metricsFrom"), ("cleanup", "timeoutSeconds"),
    ):  # fmt: skip
        del older[section][name]
    assert rendered(chart_with(older, tmp_path), {}, "--is-upgrade").all == render({}, "--is-upgrade").all


def test_what_the_operator_took_away_stays_away() -> None:
    values = {"resources": {"limits": None}, "tolerations": None, "securityContext": {"seccompProfile": None}}
    pod = render(values).only("DaemonSet")["spec"]["template"]["spec"]
    assert "tolerations" not in pod
    assert set(pod["containers"][0]["resources"]) == {"requests"}
    assert "seccompProfile" not in pod["containers"][0]["securityContext"]
