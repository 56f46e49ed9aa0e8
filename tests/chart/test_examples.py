"""Every documented example is linted and rendered; and what `speil region plan` prints goes through unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from speil.cli import main
from tests.chart.rendering import CHART, EXAMPLES, helm, render

pytestmark = pytest.mark.requires("helm")
LETTER = """bootstrapKind: "kubernetes"                              # region A
leaderElectionName: "spegel-leader-election-regiona"
leaderElectionNamespace: "spegel-regiona"
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_linted_and_rendered(example: Path) -> None:
    helm("lint", str(CHART), "--strict", values=example)
    objects = render(example)
    assert objects.of("DaemonSet")
    assert len(objects.names()) == len(objects.all), "no two objects of one kind and name"


def test_the_defaults_are_linted_and_rendered() -> None:
    helm("lint", str(CHART), "--strict")
    objects = render({})
    role = objects.only("Role")
    assert role["metadata"]["namespace"] == "mirror"
    assert role["rules"][0]["resourceNames"] == ["spegel-leader-election"]
    assert not objects.of("Secret")
    assert not objects.of("NetworkPolicy")


def test_the_two_regions_to_the_letter() -> None:
    assert LETTER in (CHART / "examples" / "region-a.yaml").read_text()
    assert LETTER in (CHART / "README.md").read_text()
    for region in ("regiona", "regionb"):
        objects = render(CHART / "examples" / f"region-{region[-1]}.yaml", release=f"speil-{region}")
        role, binding = objects.only("Role"), objects.only("RoleBinding")
        assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == f"spegel-{region}"
        assert role["rules"] == [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [f"spegel-leader-election-{region}"],
                "verbs": ["get", "create", "update"],
            }
        ]
        account = objects.only("ServiceAccount")["metadata"]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        ]
        assert {one["kind"] for one in objects.all if "helm.sh/hook" not in one["metadata"].get("annotations", {})} == {
            "ServiceAccount", "Role", "RoleBinding", "DaemonSet", "Service", "NetworkPolicy",
        }  # fmt: skip


def test_a_plan_for_one_release_goes_through_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["region", "plan", "--regions", "regiona,eu-west-1", "--output", "values"]) == 0
    values = tmp_path / "values.yaml"
    values.write_text(capsys.readouterr().out)
    objects = render(values)
    assert {one["metadata"]["namespace"] for one in objects.of("Role")} == {"spegel-regiona", "spegel-eu-west-1"}
    assert {one["metadata"]["name"] for one in objects.of("DaemonSet")} == {"speil-regiona", "speil-eu-west-1"}


def test_a_plan_for_a_release_a_region_goes_through_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["region", "plan", "--regions", "regiona,regionb", "--output", "releases"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert len(documents) == 2
    for region, document in zip(("regiona", "regionb"), documents, strict=True):
        objects = render(document, release=f"speil-{region}")
        pod = objects.only("DaemonSet")["spec"]["template"]["spec"]
        assert pod["nodeSelector"]["topology.kubernetes.io/region"] == region
        assert "affinity" not in pod
        assert objects.only("Role")["metadata"]["namespace"] == f"spegel-{region}"
