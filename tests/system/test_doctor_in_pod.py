"""doctor in the chart's pod: it sees the mounts and the environment that are rendered, and nothing else of the node.

The image is the machine's own Python; a real containerd and a real speil run in the node's network.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speil.testing.images import random_image
from tests.chart.rendering import Manifest, arguments, environment, render
from tests.requirements import ROOT
from tests.system.conftest import Lab
from tests.system.lab.node import Node
from tests.system.test_pulls import LAYERS

pytestmark = [pytest.mark.system, pytest.mark.requires("helm")]
IMAGE = [Path(path) for path in ("/usr", "/bin", "/lib", "/lib64", "/dev", sys.prefix, sys.base_prefix)] + [
    ROOT / "src"
]
SECONDS_MAX = 60


def pod_of(node: Node, values: dict[str, Any]) -> Manifest:
    """The pod that the chart renders for a node, with the node's paths."""
    run = node.directory / "run"
    run.mkdir(exist_ok=True)
    if not (run / "c.sock").exists():
        os.link(node.containerd.socket, run / "c.sock")
    spegel = {
        "containerdSock": str(run / "c.sock"),
        "containerdRegistryConfigPath": str(node.containerd.certs),
        "containerdContentPath": str(node.containerd.directory / "root" / "io.containerd.content.v1.content"),
        "persistence": {"enabled": False},
        **values.pop("spegel", {}),
    }
    objects = render(
        {"bootstrapKind": "static", "staticBootstrapPeers": ["/ip4/10.0.0.1/tcp/5001"], "spegel": spegel, **values}
    )
    return dict(objects.only("DaemonSet")["spec"]["template"]["spec"])


async def doctor(node: Node, pod: Manifest, *flags: str) -> tuple[int, dict[str, Any]]:
    """`kubectl exec … -- speil doctor`; exit code and findings by check."""
    (container,) = pod["containers"]
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    lines = ["set -e", "root=$(mktemp -d)", "mount -t tmpfs tmpfs $root"]
    for path in IMAGE:
        lines += [f"mkdir -p $root{path}", f"mount --rbind {path} $root{path}"]
    for mount in sorted(container["volumeMounts"], key=lambda one: str(one["mountPath"]).count("/")):
        inside = "$root" + shlex.quote(mount["mountPath"])
        lines += [f"mkdir -p {inside}", f"mount --bind {shlex.quote(paths[mount['name']])} {inside}"]
        if mount.get("readOnly"):
            lines.append(f"mount -o remount,bind,ro {inside}")
    environ = environment(container, host_ip=node.namespace.address)
    variables = [f"{name}={value}" for name, value in environ.items()]
    argv = ["env", "-i", *variables, sys.executable, "-m", "speil", "doctor", "--output=json", *flags]
    lines.append(f"exec chroot $root {shlex.join(argv)}")

    def run() -> tuple[int, bytes, bytes]:
        process = node.namespace.popen(
            ["unshare", "--mount", "bash", "-c", "\n".join(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate(timeout=SECONDS_MAX)
        return process.returncode, out, err

    code, out, err = await asyncio.to_thread(run)
    assert not err, err.decode()
    return code, {finding["check"]: finding for finding in json.loads(out)["findings"]}


def configure(node: Node, pod: Manifest) -> None:
    """What the pod's init container does."""
    (init,) = pod["initContainers"]
    argv = arguments(init, environment(init, host_ip=node.namespace.address))
    subprocess.run([sys.executable, "-m", "speil", *argv], check=True, capture_output=True, timeout=SECONDS_MAX)


async def test_a_healthy_node_is_healthy_from_its_pod(lab: Lab) -> None:
    node = lab.nodes[0]
    # the lab has no host ports: the way that containerd takes is the registry port itself
    pod = pod_of(node, {"service": {"registry": {"hostPort": 5000, "nodePort": 0}}})
    configure(node, pod)
    code, found = await doctor(node, pod)
    assert {name for name, finding in found.items() if finding["level"] != "ok"} == {"answers"}, found
    assert "a stranger" in found["answers"]["message"], "the lab's nodes have no secret"
    assert code == 0
    assert str(node.containerd.certs) in found["config_path"]["message"]
    assert f"speil is asked first, at http://{node.namespace.address}:5000" in str(found)


async def test_what_is_wrong_on_the_node_is_seen_from_its_pod(lab: Lab) -> None:
    node = lab.nodes[0]
    pod = pod_of(node, {"service": {"registry": {"hostPort": 5000, "nodePort": 0}}})
    configure(node, pod)
    (node.containerd.certs / "_default" / "hosts.toml").write_text("[host")
    code, found = await doctor(node, pod)
    assert code == 1
    assert found["hosts.toml of all other registries"]["level"] == "fail"
    node.speil.stop()
    code, found = await doctor(node, pod)
    assert found["mirror"]["level"] == "fail"


async def test_a_host_port_that_is_not_reached_from_the_pod_is_no_failure(lab: Lab) -> None:
    node = lab.nodes[0]
    pod = pod_of(node, {})
    configure(node, pod)
    code, found = await doctor(node, pod)
    assert code == 0, found
    assert found["mirror"]["level"] == "warn"
    assert "speil answers in this pod" in found["mirror"]["message"]


async def test_what_is_not_mounted_is_told_by_the_requests_that_arrive(lab: Lab) -> None:
    node = lab.nodes[0]
    values = {"spegel": {"containerdMirrorAdd": False}, "service": {"registry": {"hostPort": 5000, "nodePort": 0}}}
    pod = pod_of(node, values)
    assert "initContainers" not in pod
    code, found = await doctor(node, pod)
    assert code == 0, found
    assert found["hosts.toml"]["level"] == "warn"
    lab.registry.push(random_image(52, LAYERS), "lab/pod", "1")
    await node.pull("lab/pod:1")
    code, found = await doctor(node, pod)
    assert {name for name, finding in found.items() if finding["level"] != "ok"} == {"answers"}, found
    assert "a stranger" in found["answers"]["message"], "the lab's nodes have no secret"
    assert "containerd's requests arrive here" in found["hosts.toml"]["message"]
