"""From Spegel's release to speil's, on a real API server: an upgrade is refused whole, and the commands of
docs/migrating-from-spegel.md are run as they stand there.

Spegel's release is made by a chart of the test with its names, labels and selectors. No controller runs here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART
from tests.chart.test_spegel_values import SPEGEL
from tests.requirements import ROOT, kube_tool_path
from tests.system.kube.cluster import KubeCluster
from tests.system.kube.test_chart_cluster import Helm, lease_values, names_in

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes", "helm", "kubectl")]
SPEGELS_CHART = Path(__file__).parent / "spegel_chart"
PAGE = (ROOT / "docs" / "migrating-from-spegel.md").read_text()
COMMAND_SECONDS_MAX = 120
# the tests of a folder share the cluster, and another has regiona
REGION = "migrated"
OF_THE_REGION = PAGE.replace("regiona", REGION)


@pytest.fixture
def helm(cluster: KubeCluster, tmp_path: Path) -> Helm:
    """helm, pointed at the cluster."""
    return Helm(cluster, tmp_path)


async def spegel(helm: Helm, release: str, namespace: str, node_port: int, *more: str) -> None:
    """A release of Spegel v0.7.4. A node port exists once in a cluster, so each test has its own."""
    values = {**SPEGEL["v0.7.4"]}
    where = ("--namespace", namespace, "--create-namespace", "--set", f"service.registry.nodePort={node_port}")
    await helm.run("install", release, str(SPEGELS_CHART), *where, *more, values=values)


def commands(title: str) -> list[str]:
    """The commands of a section of the page, in order."""
    section = re.split(r"^## ", OF_THE_REGION, flags=re.MULTILINE)
    (text,) = (one for one in section if one.startswith(title))
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for language, block in blocks if not language for line in block.splitlines()]


class Shell:
    """Runs the page's commands, in a folder where the charts are, with tools that reach the cluster."""

    def __init__(self, cluster: KubeCluster, folder: Path) -> None:
        self.folder = folder / "shell"
        self.folder.mkdir()
        (self.folder / "charts").symlink_to(ROOT / "charts")
        tools = [str(kube_tool_path(tool).parent) for tool in ("helm", "kubectl")]
        path = os.pathsep.join([*tools, str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environ = {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}

    def run(self, command: str) -> str:
        """One command; it must succeed."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False,
            timeout=COMMAND_SECONDS_MAX,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def edit_values(self) -> None:
        """As the page says: without Spegel's image, with speil's."""
        file = self.folder / "values.yaml"
        values = yaml.safe_load(file.read_text())
        assert values["image"]["repository"] == "ghcr.io/spegel-org/spegel"
        values["image"] = {"repository": "registry.example.org/speil"}
        file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("release", "more"),
    [
        ("spegel", ()),
        ("mirror", ()),
        ("renamed", ("--set", "nameOverride=cache")),
        ("full", ("--set", "fullnameOverride=f")),
    ],
)
async def test_an_upgrade_is_refused_with_the_way_and_changes_nothing(
    cluster: KubeCluster, helm: Helm, release: str, more: tuple[str, ...]
) -> None:
    namespace = f"upgraded-{release}"
    await spegel(helm, release, namespace, 30901, *more)
    before = await names_in(cluster, namespace)
    own = {"image": {"repository": "registry.example.org/speil"}}
    tries: list[tuple[tuple[str, ...], Any]] = [
        ((), {}),
        ((), own),
        ((), {**SPEGEL["v0.7.4"], **own}),
        ((), {**own, "region": "regiona", "createNamespace": True}),
        (("--reuse-values",), {}),
        (("--reuse-values",), own),
        (("--reuse-values", "--set", "speil.uploadsMax=7"), own),
        (("--reset-then-reuse-values",), own),
        (("--install",), own),
    ]
    for flags, values in tries:
        said = await helm.run(
            "upgrade", release, str(CHART), "--namespace", namespace, *flags, values=values, fails=True
        )
        assert f"release {release} in namespace {namespace} was not made by the chart speil" in said
        assert f"helm uninstall {release} -n {namespace} --no-hooks" in said
        assert "docs/migrating-from-spegel.md" in said
        for word in ("nil pointer", "immutable", "Spegel's image"):
            assert word not in said
    # helm's own record of what failed is all there is
    assert {one for one in await names_in(cluster, namespace) - before if "sh.helm.release" not in one} == set()
    assert before <= await names_in(cluster, namespace)
    await helm.uninstall(release, namespace)


AGENT = """apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app.kubernetes.io/name: agent}}
  template:
    metadata: {labels: {app.kubernetes.io/name: agent}}
    spec: {containers: [{name: agent, image: agent}]}
"""


def umbrella(folder: Path, *parts: Path) -> Path:
    """A chart with a DaemonSet of its own that has others as parts."""
    folder.mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: platform\nversion: 1.0.0\n")
    (folder / "templates").mkdir()
    (folder / "templates" / "agent.yaml").write_text(AGENT)
    for part in parts:
        shutil.copytree(part, folder / "charts" / part.name)
    return folder


async def test_as_a_part_of_another_chart_it_takes_spegels_place_in_two_upgrades(
    cluster: KubeCluster, helm: Helm, tmp_path: Path
) -> None:
    port = {"service": {"registry": {"port": 5000, "hostPort": 30020, "nodePort": 30902}}}
    values = {"spegel": {**SPEGEL["v0.7.4"], **port}, "speil": port}
    where = ("--namespace", "platform", "--create-namespace")
    with_spegel = umbrella(tmp_path / "a", SPEGELS_CHART)
    without, with_speil = umbrella(tmp_path / "b"), umbrella(tmp_path / "c", CHART)
    await helm.run("install", "platform", str(with_spegel), *where, values=values)
    said = await helm.run("upgrade", "platform", str(with_speil), *where, values=values, fails=True)
    assert "Upgrade the release without Spegel first, then with speil" in said
    assert "helm uninstall" not in said, "that would take all of it away"
    for chart in (without, with_speil, with_speil):
        await helm.run("upgrade", "platform", str(chart), *where, values=values)
    assert {"daemonsets/agent", "daemonsets/platform"} <= await names_in(cluster, "platform")
    await helm.uninstall("platform", "platform")


async def test_the_api_server_takes_the_defaults_of_each_version_in_a_region(cluster: KubeCluster, helm: Helm) -> None:
    for number, (version, values) in enumerate(SPEGEL.items()):
        region = f"generation-{number}"
        image = values["image"] | {"repository": "registry.example.org/speil"}
        lines = lease_values(f"spegel-leader-election-{region}", f"spegel-{region}")
        more = {**lines, "createNamespace": True, "image": image}
        said = await helm.install("speil", region, {**values, **more})
        assert f"region {region}\n" in said, version
        assert "arning" not in said, "neither of the API server nor of helm"
        await helm.uninstall("speil", region)


async def test_the_page_goes_from_one_release_to_the_other(cluster: KubeCluster, helm: Helm, tmp_path: Path) -> None:
    await spegel(helm, "spegel", "spegel", 30021)
    shell = Shell(cluster, tmp_path)
    get_values, template = commands("1. Values")
    shell.run(get_values)
    shell.edit_values()
    assert "kind: DaemonSet" in shell.run(template)
    uninstall, install = commands("2. All nodes")
    shell.run(uninstall)
    left = {one for one in await names_in(cluster, "spegel") if "sh.helm.release" not in one}
    assert left == set(), "nothing of the hook"
    assert "Lease      spegel/spegel-leader-election" in shell.run(install)
    found = await names_in(cluster, "spegel")
    assert {"daemonsets/speil", "services/speil-registry"} <= found
    assert not [one for one in found if one.endswith("/spegel")]
    # and from now on it is upgraded as it should be
    await helm.run(
        "upgrade", "speil", str(CHART), "--namespace", "spegel", "--reuse-values", "--set", "speil.uploadsMax=7"
    )
    # no controller runs here, so a hook that pulls another image first would wait for ever
    defaults = {"createNamespace": True, "prepull": {"enabled": False}}
    await helm.run("upgrade", "speil", str(CHART), "--namespace", "spegel", values=defaults)
    await helm.uninstall("speil", "spegel")


async def test_the_page_goes_region_by_region(cluster: KubeCluster, helm: Helm, tmp_path: Path) -> None:
    await spegel(helm, "spegel", "spegel", 30021)
    shell = Shell(cluster, tmp_path)
    shell.run(commands("1. Values")[0])
    shell.edit_values()
    values = yaml.safe_load((shell.folder / "values.yaml").read_text())
    lines = lease_values(f"spegel-leader-election-{REGION}", f"spegel-{REGION}")
    (shell.folder / "values.yaml").write_text(json.dumps({**values, **lines}))
    (elsewhere,) = re.findall(r"```yaml\n(.*?)```", OF_THE_REGION, flags=re.DOTALL)
    (shell.folder / "elsewhere.yaml").write_text(elsewhere)

    upgrade, create, install, uninstall = commands("3. Region by region")
    # there is no registry of charts here
    shell.run(re.sub(r"oci://\S+ --version \S+", str(SPEGELS_CHART), upgrade))
    moved = await cluster.admin("GET", "/apis/apps/v1/namespaces/spegel/daemonsets/spegel")
    required = moved["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = required["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["operator"] == "NotIn"
    shell.run(create)
    shell.run(install)
    both = await names_in(cluster, "spegel") | await names_in(cluster, "speil")
    assert {"daemonsets/spegel", "daemonsets/speil-migrated"} <= both
    shell.run(uninstall)
    assert {one for one in await names_in(cluster, "spegel") if "sh.helm.release" not in one} == set()
    assert "daemonsets/speil-migrated" in await names_in(cluster, "speil")
    await helm.uninstall("speil-migrated", "speil")
