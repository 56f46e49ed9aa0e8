"""A node's election as a process of its own, so that a test can kill it, freeze it and stop it.

    python -m tests.system.kube.elector SERVICE_ACCOUNT HOST PORT NAMESPACE LEASE REGION IDENTITY

Logs go to stderr as JSON; SIGTERM releases and ends it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from random import Random

from speil.election.config import DEFAULT_CONFIG
from speil.election.ownership import Owner
from speil.kube.api import KubeApi
from speil.kube.in_cluster import InClusterAccess
from speil.lease.driver import LeaderElection, MeshView
from speil.lease.kubernetes import KubernetesLease
from speil.observe import logs
from speil.observe.metrics import Metrics


async def main(folder: str, host: str, port: str, namespace: str, lease: str, region: str, identity: str) -> None:
    """See the module."""
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    api = KubeApi(InClusterAccess(Path(folder), environ), "speil-test")
    lock = KubernetesLease(api, lease, namespace)
    election = LeaderElection(lock, DEFAULT_CONFIG, Owner(region), Metrics(), Random(identity))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(election.run(identity, lambda: MeshView(3)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


if __name__ == "__main__":
    logs.configure("DEBUG", "json")
    asyncio.run(main(*sys.argv[1:]))
