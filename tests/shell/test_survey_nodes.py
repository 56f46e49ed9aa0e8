"""What a look at a node reads in its metrics and its state."""

from __future__ import annotations

import json
from random import Random
from typing import Any, cast

import pytest

from speil.border.series import BorderSeries
from speil.election.config import DEFAULT_CONFIG
from speil.election.ownership import Owner
from speil.kube.api import KubeAnswer, KubeApi
from speil.lease.driver import LeaderElection
from speil.lease.memory import MemoryLease
from speil.observe.metrics import Metrics
from speil.region.policy import Layer
from speil.survey.nodes import nodes_in_cluster, read_node

STATE = {"region": "b", "zone": "", "lease": "spegel-b/x", "peer_id": "12D3", "ready": False, "peers": []}


def test_a_node_that_never_saw_its_lease_can_be_read() -> None:
    """Its renewal's age is NaN: the very node that an operator looks for."""
    metrics = Metrics(region="b")
    LeaderElection(MemoryLease(), DEFAULT_CONFIG, Owner("b"), metrics, Random(1))
    metrics.of(BorderSeries).rejected(Layer.LEASE)
    view = read_node("node-1", metrics.exposition().decode(), json.dumps(STATE))
    assert not view.error
    assert view.rejected == {"lease": 1}
    assert (view.region, view.lease, view.leads) == ("b", "spegel-b/x", False)


def pod(phase: str, node: str = "", **status: Any) -> dict[str, Any]:
    metadata = {"name": "speil-x", "namespace": "speil", "labels": {"speil.dev/region": "b"}}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase, **status}}


@pytest.mark.parametrize(
    ("found", "name", "reason"),
    [
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "no free ports"}]),
            "speil-x",
            "no free ports",
        ),
        (
            pod(
                "Pending",
                "node-1",
                initContainerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
                containerStatuses=[{"state": {"waiting": {"reason": "PodInitializing"}}}],
            ),
            "node-1",
            "ImagePullBackOff",
        ),
        (pod("Pending"), "speil-x", "no reason given"),
    ],
    ids=["not scheduled", "no image", "no status"],
)
async def test_a_pod_that_has_not_started_is_seen_with_its_reason(
    found: dict[str, Any], name: str, reason: str
) -> None:
    class Api:
        async def request(self, *_: object, **__: object) -> KubeAnswer:
            return KubeAnswer({"items": [found, pod("Succeeded")]}, None)

    (view,) = await nodes_in_cluster(cast(KubeApi, Api()), 9090)
    assert (view.name, view.region) == (name, "b")
    assert view.pending == f"pod speil-x is Pending: {reason}"
