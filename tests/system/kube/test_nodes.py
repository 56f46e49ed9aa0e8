"""Whole nodes, elected through the real API server: an outage, a refusal, and the commands that people run."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from speil.region.naming import lease_of
from speil.testing.eventually import eventually
from speil.testing.images import random_image
from tests.shell.nodes import RunningNode, running_node, write_layout
from tests.shell.test_cli import speil
from tests.system.kube.cluster import KubeCluster

pytestmark = [pytest.mark.system, pytest.mark.requires("kubernetes")]
IMAGE = random_image(8)
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
PROBE_SECONDS_MAX = 2.0  # answers come in milliseconds; the original's hang


class Region:
    """A region of the cluster, and how its nodes are started."""

    def __init__(self, cluster: KubeCluster, name: str, folder: Path) -> None:
        self.lease, self._cluster, self._folder = lease_of(name), cluster, folder
        self._kubeconfig = folder / f"{name}.kubeconfig"

    async def create(self) -> None:
        """Namespace, ServiceAccount, Role."""
        await self._cluster.region(self.lease.namespace, self.lease.name)
        await self.log_in(self.lease.namespace)

    async def log_in(self, namespace: str) -> None:
        """Use a ServiceAccount's token."""
        self._cluster.write_kubeconfig(self._kubeconfig, await self._cluster.token(namespace))

    def node(self, layout: str, data: str, *flags: str, ready: bool = True) -> AbstractAsyncContextManager[RunningNode]:
        """A node that keeps its key and peers in `data`."""
        return running_node(
            self._folder, self._folder / layout, "--bootstrap-kind=kubernetes",
            f"--kubeconfig-path={self._kubeconfig}", f"--leader-election-name={self.lease.name}",
            f"--leader-election-namespace={self.lease.namespace}", f"--data-dir={self._folder / data}", *flags,
            ports=(5000, 5001, 9090), ready=ready,
        )  # fmt: skip


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def state(session: aiohttp.ClientSession, node: RunningNode) -> dict[str, Any]:
    async with session.get(f"http://{node.host}:{node.metrics_port}/debug/state") as response:
        found: dict[str, Any] = await response.json()
    return found


async def gets(session: aiohttp.ClientSession, node: RunningNode) -> bool:
    """Whether a node finds the layer at a peer."""
    async with session.get(f"{node.url}/v2/app/blobs/{LAYER}?ns=reg.test") as response:
        return response.status == 200 and await response.read() == IMAGE.blobs[LAYER]


async def test_an_api_outage_stops_nobody_and_a_restart_during_it_rejoins(
    cluster: KubeCluster, namespace: str, tmp_path: Path
) -> None:
    name = namespace.removeprefix("spegel-")
    region = Region(cluster, name, tmp_path)
    await region.create()
    await write_layout(tmp_path / "full", IMAGE, "reg.test/app:1")
    async with region.node("full", "d1") as first, region.node("empty", "d2") as second, client() as session:
        assert (await state(session, first))["lease"] == str(region.lease)
        line = next(line for line in first.log.read_text().splitlines() if "region" in line)
        assert f"region={name}" in line
        assert 'region_from="lease names"' in line
        async with region.node("empty", "d3") as third:
            await eventually(lambda: gets(session, second), timeout_seconds=30, what="the second finds the layer")
            await eventually(lambda: gets(session, third), timeout_seconds=30, what="the third finds the layer")
        cluster.kill_server()
        try:
            assert await gets(session, second), "the mesh lives on"
            async with region.node("empty", "d3") as third:  # ready: it has reached the peers that it knew
                assert (await state(session, third))["peers"]
                await eventually(lambda: gets(session, third), timeout_seconds=30, what="it rejoined")
                async with session.get(f"{first.url}/readyz") as response:
                    assert response.status == 200, "an outage makes nobody unready"
        finally:
            await cluster.start_server()


async def test_a_refused_node_says_one_line_and_its_probes_answer_at_once(
    cluster: KubeCluster, namespace: str, tmp_path: Path
) -> None:
    region, other = Region(cluster, namespace.removeprefix("spegel-"), tmp_path), f"{namespace}-other"
    await region.create()
    await cluster.region(other, "theirs")
    await region.log_in(other)
    (tmp_path / "empty").mkdir()
    async with region.node("empty", "d1", ready=False) as node, client() as session:
        refusal = f"not allowed to get the Lease {region.lease.name} in namespace {region.lease.namespace}"
        await eventually(lambda: refusal in node.log.read_text(), timeout_seconds=20, what="the refusal is logged")
        for path, status in (("livez", 200), ("readyz", 500)):
            asked = time.monotonic()
            async with session.get(f"{node.url}/{path}") as response:
                assert response.status == status
            assert time.monotonic() - asked < PROBE_SECONDS_MAX
        lines = [line for line in node.log.read_text().splitlines() if refusal in line and " DEBUG " not in line]
        assert len(lines) == 1, "once: not with each try, and not by each part"


async def test_a_plan_from_the_nodes_labels_and_a_status_from_the_leases(
    cluster: KubeCluster, namespace: str, tmp_path: Path
) -> None:
    name = namespace.removeprefix("spegel-")
    for number, labels in enumerate(({"topology.kubernetes.io/region": name},) * 2 + ({},)):
        node = {"metadata": {"name": f"{name}-{number}", "labels": labels}}
        await cluster.admin("POST", "/api/v1/nodes", node)
    kubeconfig = f"--kubeconfig-path={cluster.kubeconfig}"
    try:
        code, out, err = await speil("region", "plan", "--from-nodes", "--output=json", kubeconfig)
    finally:
        for number in range(3):
            await cluster.admin("DELETE", f"/api/v1/nodes/{name}-{number}")
    assert code == 0, err
    assert {"region": name, "nodes": 2}.items() <= json.loads(out)[0].items()
    assert "1 nodes have no label topology.kubernetes.io/region" in err

    region = Region(cluster, name, tmp_path)
    await region.create()
    (tmp_path / "empty").mkdir()
    async with region.node("empty", "d1"):
        code, out, _ = await speil("region", "status", "--output=json", f"--regions={name}", kubeconfig)
        (told,) = json.loads(out)
        assert told["leases"][0]["name"] == str(region.lease)
        assert told["leases"][0]["holder"].startswith("/ip4/127.33.")
        code, out, _ = await speil("region", "verify", "--observe=100ms", f"--regions={name},nowhere", kubeconfig)
        assert code == 1
        assert "fail  leases: region nowhere has no Lease" in out


async def test_zone_and_region_come_from_the_nodes_object_where_it_may_be_read(
    cluster: KubeCluster, namespace: str, tmp_path: Path
) -> None:
    name = namespace.removeprefix("spegel-")
    labels = {"topology.kubernetes.io/region": name, "topology.kubernetes.io/zone": "z1"}
    await cluster.admin("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
    region = Region(cluster, name, tmp_path)
    await region.create()
    (tmp_path / "empty").mkdir()
    flags = ("--topology-from-node", f"--node-name={name}")
    try:
        async with region.node("empty", "d1", *flags) as node:
            assert "node labels can't be read" in node.log.read_text()
            assert "cannot get resource" in node.log.read_text()
        rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subject = {"kind": "ServiceAccount", "name": "speil", "namespace": region.lease.namespace}
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        await cluster.admin("POST", f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
        binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
        await cluster.admin("POST", f"{rbac}/clusterrolebindings", binding)
        async with region.node("empty", "d2", *flags) as node, client() as session:
            told = await state(session, node)
            assert (told["region"], told["zone"]) == (name, "z1")
    finally:
        await cluster.admin("DELETE", f"/api/v1/nodes/{name}")
