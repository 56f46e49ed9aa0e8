"""`kubectl speil` as people run it: the real kubectl finds it, and asks real nodes through a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.requirements import kube_tool_path
from tests.shell.terminals import check_interrupt
from tests.system.isolation.checks import Pushed, finds
from tests.system.lab.lans import REGIONS
from tests.system.lab.namespaces import inside
from tests.system.lab.node import REGISTRY
from tests.system.lab.regions import RegionLab, RegionNode

pytestmark = [pytest.mark.system, pytest.mark.requires("kubectl")]
SECONDS_MAX = 120
PROGRAMS = Path(sys.executable).parent
KUBELET_PORT = 10250


@pytest.fixture
async def regions(lab: RegionLab) -> RegionLab:
    """Both regions as documented."""
    await lab.configure()
    return lab


def environment(kubeconfig: Path | None) -> dict[str, str]:
    """kubectl finds its plugins on PATH; the kubeconfig is that of a person at a keyboard."""
    path = f"{PROGRAMS}:{kube_tool_path('kubectl').parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}


def kubectl(lab: RegionLab, *argv: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; as the administrator, or with another kubeconfig."""
    done = subprocess.run(
        [kube_tool_path("kubectl"), *argv], env=environment(kubeconfig or lab.cluster.kubeconfig),
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


async def allow(lab: RegionLab, folder: Path, name: str, *rules: dict[str, Any]) -> Path:
    """The kubeconfig of a ServiceAccount that may do this in the whole cluster, and nothing else."""
    await lab.cluster.admin("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await lab.cluster.admin("POST", f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    }
    await lab.cluster.admin("POST", f"{rbac}/clusterrolebindings", binding)
    return lab.cluster.write_kubeconfig(folder / f"{name}.kubeconfig", await lab.cluster.token("default", name))


def rule(resource: str, *verbs: str, group: str = "") -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


LEASES = rule("leases", "list", group="coordination.k8s.io")


def test_kubectl_finds_the_plugin(regions: RegionLab) -> None:
    code, out, _ = kubectl(regions, "plugin", "list")
    assert code == 0
    assert str(PROGRAMS / "kubectl-speil") in out
    code, out, err = kubectl(regions, "speil", "--help")
    assert (code, err) == (0, "")
    assert "usage: kubectl speil COMMAND" in out
    assert kubectl(regions, "speil", "version")[1].startswith("speil ")


def test_status_in_all_outputs(regions: RegionLab) -> None:
    code, out, err = kubectl(regions, "speil", "status")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["region", *REGIONS]
    code, out, _ = kubectl(regions, "speil", "status", "-o", "wide")
    for node in regions.nodes:
        assert f"\n{node} " in out
    code, out, _ = kubectl(regions, "speil", "status", "-ojson", "--region=regionb")
    (view,) = json.loads(out)
    assert (view["region"], {node["error"] for node in view["nodes"]}) == ("regionb", {""})
    assert len(view["nodes"]) == 3
    code, out, _ = kubectl(regions, "speil", "status", "-o=json", "-n", "spegel-regiona")
    assert {node["name"] for view in json.loads(out) for node in view["nodes"]} == set(
        map(str, regions.regions[REGIONS[0]])
    )


def test_verify_shows_how_long_it_watches(regions: RegionLab) -> None:
    code, out, err = kubectl(regions, "speil", "verify", "--observe=3s")
    assert code == 0, out
    assert "fail" not in out
    assert err.splitlines() == ["reading nodes", "watching elections and traffic", "reading nodes"]
    code, out, err = kubectl(regions, "speil", "verify", "--observe=3s", "-q", "-ojson")
    assert (code, err, json.loads(out)["ok"]) == (0, "", True)


async def test_trace_shows_where_each_node_gets_the_layers(regions: RegionLab) -> None:
    here, there = REGIONS
    pushed = Pushed(regions, here)
    first, *others = regions.regions[here]
    image = f"{REGISTRY}/{pushed.name}:1"
    await first.pull(f"{pushed.name}:1")
    for node in others:
        await finds(regions, node, pushed)
    code, out, err = kubectl(regions, "speil", "trace", image, "-ojson", "-q")
    assert (code, err) == (0, "")
    found = {one["node"]: one for one in json.loads(out)["nodes"]}
    assert set(found) == set(map(str, regions.nodes))
    for node in regions.nodes:
        one = found[str(node)]
        assert (one["region"], one["error"]) == (node.region, "")
        layers = [part for part in one["trace"]["parts"] if part["kind"] == "layer"]
        if node.region == there:
            assert layers == [], "nobody there knows the image"
            continue
        assert len(layers) == 3
        assert {part["source"] for part in layers} == {"here" if node is first else "peer"}
        if node is not first:
            assert {part["peer"]["host"] for part in layers} == {first.address}
    code, out, err = kubectl(regions, "speil", "trace", image, "--region", here)
    assert code == 0
    assert f"tracing {image} on the nodes" in err
    rows = [line.split() for line in out.splitlines()]
    assert next(row for row in rows if row[:1] == [str(others[0])])[-1] == first.address
    assert sum(row[1:2] == ["layer"] and row[-1] == "-" for row in rows) == 3, "none from the upstream"
    code, out, _ = kubectl(regions, "speil", "trace", image, "--region", here, "-o", "wide", "--measure")
    assert code == 0
    assert "/s" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["status", "--region=regoina"], "there is no region 'regoina', did you mean regiona"),
        (["trace", "reg.test/no/such:1", "-q"], "no node knows the parts of reg.test/no/such:1, of 6 that were asked."),
        (["trace", "reg.test/no/such:1", "-q", "--region=regoina"], "there is no region 'regoina'"),
        (["doctor", "regiona-1", "-q"], "there is no node 'regiona-1', did you mean regiona-1"),
        (["status", "--context=tset"], "the kubeconfig has no context 'tset': there are"),
        (["status", "--kubeconfig=/nonexistent"], "/nonexistent"),
        (["status", "-n", "nowhere", "--region=regionx"], "there is no region 'regionx'"),
        (["doctor", "regiona-1", "-q", "-n", "nowhere"], "namespace nowhere has no pods of speil"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(regions: RegionLab, argv: list[str], words: str) -> None:
    code, out, err = kubectl(regions, "speil", *argv)
    assert (code, out) == (1, ""), out
    assert err.startswith("kubectl speil ")
    assert words in err
    assert err.count("\n") == 1, err


async def test_a_right_that_is_missing_is_named(regions: RegionLab, tmp_path: Path) -> None:
    region = regions.kubeconfigs["regiona"]
    node = str(regions.nodes[0])
    lists = await allow(regions, tmp_path, "may-list", LEASES, rule("pods", "list"))
    reads = await allow(regions, tmp_path, "may-read", LEASES, rule("pods", "list", "get"), rule("pods/proxy", "get"))
    cases: list[tuple[list[str], Path, str]] = [
        (["status"], region, "not allowed to list leases.coordination.k8s.io in all namespaces: user system:service"),
        (["status", "--region=regiona"], region, "not allowed to list pods in all namespaces"),
        (["trace", "a/b"], region, "not allowed to list pods in all namespaces"),
        (["status"], lists, "not allowed to get pods/proxy in namespace spegel-region"),
        (["trace", "a/b"], reads, "not allowed to create pods/proxy in namespace spegel-region"),
        (["doctor", node], lists, "not allowed to get pods in namespace spegel-regiona"),
        (["doctor", node], reads, "not allowed to create pods/exec in namespace spegel-regiona"),
    ]
    for argv, kubeconfig, words in cases:
        code, out, err = kubectl(regions, "speil", *argv, kubeconfig=kubeconfig)
        last = err.splitlines()[-1]
        assert (code, out) == (1, ""), argv
        assert words in last, argv
        assert "docs/commands.md" in last
    assert kubectl(regions, "speil", "status", kubeconfig=reads)[0] == 0


def test_an_api_server_that_is_away(regions: RegionLab, tmp_path: Path) -> None:
    away = json.loads(regions.cluster.kubeconfig.read_text())
    away["clusters"][0]["cluster"]["server"] = f"https://{regions.cluster.host}:1"
    file = tmp_path / "away"
    file.write_text(json.dumps(away))
    for argv in (["status"], ["verify", "-q"], ["trace", "a/b", "-q"], ["doctor", "n", "-q"]):
        code, out, err = kubectl(regions, "speil", *argv, f"--kubeconfig={file}")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert "can't be reached" in err
        assert "is the cluster up, and is --context the right one?" in err


def test_kubectl_completes_the_plugin(regions: RegionLab) -> None:
    def candidates(*typed: str) -> set[str]:
        code, out, _ = kubectl(regions, "__complete", "speil", *typed)
        assert code == 0
        return {line.partition("\t")[0] for line in out.splitlines() if not line.startswith(":")}

    assert {"status", "verify", "web", "plan", "doctor", "trace"} <= candidates("")
    assert candidates("doctor", "") == set(map(str, regions.nodes))
    assert candidates("doctor", "regionb") == set(map(str, regions.regions["regionb"]))
    assert candidates("status", "-o", "") == {"table", "wide", "json"}
    assert candidates("status", "--namespace", "") == {"spegel-regiona", "spegel-regionb"}
    assert "--context" in candidates("status", "--")


# --- doctor: what no kubelet answers; tests/cluster has the rest ---------------------------------------------------


@contextmanager
def silent_kubelet(lab: RegionLab, node: RegionNode) -> Iterator[None]:
    """The node takes connections at the kubelet's port and never answers."""
    program = (
        "import socket, time; server = socket.create_server(('', 10250)); print('ready', flush=True); time.sleep(600)"
    )
    with inside(lab.lans.operator):
        process = node.namespace.popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


async def test_doctor_in_a_pod_that_does_not_answer(regions: RegionLab, tmp_path: Path) -> None:
    node = regions.nodes[0]
    code, out, err = kubectl(regions, "speil", "doctor", str(node), "-q")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "printed no result (kubectl ended with code 1)" in err
    code, out, err = kubectl(regions, "speil", "doctor", str(node), "-q", "--kubectl=/no/kubectl")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "/no/kubectl can't be run: No such file or directory. It runs the command in the pod" in err

    await regions.cluster.admin("POST", "/api/v1/nodes", {"metadata": {"name": str(node)}})
    status = {
        "addresses": [{"type": "InternalIP", "address": node.address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
    }
    merge = "application/merge-patch+json"
    await regions.cluster.admin("PATCH", f"/api/v1/nodes/{node}/status", {"status": status}, content_type=merge)
    try:
        with silent_kubelet(regions, node):
            argv = [str(kube_tool_path("kubectl")), "speil", "doctor", str(node)]
            when = "running doctor in pod spegel-regiona/speil-0"
            check_interrupt(argv, when, tmp_path, environment(regions.cluster.kubeconfig))
    finally:
        await regions.cluster.admin("DELETE", f"/api/v1/nodes/{node}")
