"""`kubectl speil` on a cluster with kubelets: doctor runs in the pod of a node, a trace asks every node."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import BASE_NODES
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.images import make_image
from tests.cluster.lab.waiting import wait_for
from tests.cluster.lab.workloads import nodes_of, start_deployment

pytestmark = pytest.mark.system


def test_status_doctor_and_trace_as_a_plugin(regions: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    table = regions.kubectl("speil", "status", "-o", "wide")
    assert {"regiona", "regionb"} <= {line.split()[0] for line in table.splitlines() if line}
    assert set(BASE_NODES) <= {line.split()[0] for line in table.splitlines() if line}

    reference = regions.push(make_image("plugin", 4, 2), "plugin")
    doctor = json.loads(regions.kubectl("speil", "doctor", "a1", "-q", "-o", "json", f"--image={reference}"))
    assert (doctor["node"], doctor["ok"]) == ("a1", True), doctor
    findings = {one["check"]: one for one in doctor["findings"]}
    assert "requests arrived at speil" in findings["self-test"]["message"]
    said = regions.kubectl("speil", "doctor", "a9", "-q", fails=True)
    assert said == "kubectl speil doctor: there is no node 'a9': there are a1, a2, b1, b2\n"

    start_deployment(regions, "plugin", reference, "regiona", "IfNotPresent", 1)
    nodes_of(regions, "plugin", 1)

    def from_peers() -> bool:
        trace = json.loads(regions.kubectl("speil", "trace", reference, "-q", "-o", "json"))
        found = {one["node"]: one["trace"] for one in trace["nodes"]}
        assert set(found) == set(BASE_NODES)
        assert not found["b1"]["parts"], "the other region does not know the image"
        layers = [part for part in found["a2"]["parts"] if part["kind"] == "layer"]
        return bool(layers) and all(part["source"] in ("here", "peer") for part in layers)

    wait_for(from_peers, what="a2 would get the layers from a peer, or has them")
