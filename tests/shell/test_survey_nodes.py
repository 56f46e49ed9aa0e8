"""What a look at a node reads in its metrics and its state."""

from __future__ import annotations

import json
from random import Random

from speil.border.series import BorderSeries
from speil.election.config import DEFAULT_CONFIG
from speil.election.ownership import Owner
from speil.lease.driver import LeaderElection
from speil.lease.memory import MemoryLease
from speil.observe.metrics import Metrics
from speil.region.policy import Layer
from speil.survey.nodes import read_node

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
