"""The isolation lab: two regions of three nodes with real containerds, one API server, one upstream, one router.

The test looks on from the operator's host. Nodes are configured by their flags alone; `configure` restarts those whose
flags are others than before.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speil.border.http import NODE_TOKEN_HEADER
from speil.region.naming import lease_of
from speil.region.policy import Layer
from speil.region.secret import parse
from speil.region.token import sign_node
from speil.testing.eventually import eventually
from tests.requirements import tool_path
from tests.system.kube.cluster import KubeCluster
from tests.system.lab.containerd import ContainerdVersion
from tests.system.lab.lans import REGIONS, Lans, lans
from tests.system.lab.namespaces import Namespace, get, inside
from tests.system.lab.node import Node
from tests.system.lab.registry import Registry

# one generation of containerd a region
_MAJORS = {"regiona": 1, "regionb": 2}
START_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1  # between two of the operator's requests to a node


class RegionNode(Node):
    """A node of a region; asked over the network, from the operator's host."""

    def __init__(self, region: str, namespace: Namespace, version: ContainerdVersion, directory: Path) -> None:
        super().__init__(namespace, version, directory)
        self.region, self.address = region, namespace.address
        self.flags: list[str] | None = None  # as it was started, None before
        self._said_before = 0
        self._next_look = 0.0

    def __repr__(self) -> str:
        return f"{self.region}-{self.address.rpartition('.')[2]}"

    def get(self, url: str) -> tuple[int, bytes]:
        """GET of a URL of the node, by the operator; status 0 where it does not answer."""
        # who looks from another host has a rate, and a test looks again and again
        time.sleep(max(0.0, self._next_look - time.monotonic()))
        self._next_look = time.monotonic() + LOOK_SECONDS
        return get(url.replace("127.0.0.1", self.address), seconds_max=10)

    async def lives(self) -> None:
        """Wait until its probe says so."""

        def live() -> bool:
            assert self.speil.running, self.speil.log_text()[-3000:]
            return self.get("http://127.0.0.1:5000/livez")[0] == 200

        await eventually(live, timeout_seconds=START_SECONDS_MAX, what=f"{self} lives")

    def start_with(self, flags: Sequence[str]) -> None:
        """Start speil; `lines` begins anew."""
        self.flags, self._said_before = list(flags), len(self.speil.log_text()) if self.speil.log.exists() else 0
        self.speil.argv = self.argv(*flags)
        self.speil.start()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What speil has said since it was started; a line that is being written is left out."""
        whole = self.speil.log_text()[self._said_before :].rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line[:1] == "{"]

    async def says(self, text: str, **fields: str) -> None:
        """Wait until it has said so."""
        await eventually(lambda: self.said(text, **fields), timeout_seconds=60, what=f"{self} says {text!r}: {fields}")

    def said(self, text: str, **fields: str) -> bool:
        """Whether a line with `text` in its message has fields in which these words stand."""
        return any(
            text in line["msg"] and all(words in str(line.get(field, "")) for field, words in fields.items())
            for line in self.lines
        )

    @property
    def last_words(self) -> str:
        """What it said last, as plain text: a node that can't start says why in one line."""
        return self.speil.log_text().strip().rpartition("\n")[2]

    def state(self) -> dict[str, Any]:
        """The JSON of /debug/state."""
        found: dict[str, Any] = json.loads(self.get("http://127.0.0.1:9090/debug/state")[1])
        return found

    @property
    def peer_id(self) -> str:
        """Its libp2p id."""
        return str(self.state()["peer_id"])

    @property
    def peers(self) -> set[str]:
        """The ids in its routing table."""
        return {peer["peer"] for peer in self.state()["peers"]}

    def lookups(self) -> Counter[str]:
        """What became of the requests that this node's own store could not answer: hits at peers, and misses."""
        return Counter({what: int(self.metric("spegel_mirror_requests_total", cache=what)) for what in ("hit", "miss")})

    def rejected(self, layer: Layer) -> float:
        """How often a layer has kept somebody out since the start."""
        return self.metric("speil_cross_region_rejected_total", layer=layer.value)

    async def keeps_out(self, layer: Layer, *, before: float = 0) -> None:
        """Wait until a layer has kept somebody out more often than `before`."""
        await eventually(
            lambda: self.rejected(layer) > before, timeout_seconds=60, what=f"{self} keeps somebody out by {layer}"
        )

    async def meets(self, others: set[str]) -> None:
        """Wait until it has these ids in its table and is ready."""
        await eventually(
            lambda: others <= self.peers and self.ready(),
            timeout_seconds=START_SECONDS_MAX,
            what=f"{self} has met its region",
        )

    async def knows_nobody_but(self, ids: set[str]) -> None:
        """Wait until its routing table holds none but these, in its state and in its metrics."""

        def kept() -> bool:
            peers = self.peers
            return peers <= ids and self.metric("speil_routing_table_size") == len(peers)

        await eventually(kept, timeout_seconds=60, what=f"the table of {self} holds nobody else")

    @property
    def multiaddr(self) -> str:
        """Where its libp2p listens."""
        return f"/ip4/{self.address}/tcp/5001"


class RegionLab:
    """Use `start`, `configure`, `close`."""

    def __init__(self, networks: Lans, folder: Path) -> None:
        self.lans, self._folder = networks, folder
        (folder / "kube").mkdir()
        self.cluster = KubeCluster(folder / "kube", networks.api_server)
        self.registry = Registry(networks.upstream, folder / "registry")
        self.kubeconfigs: dict[str, Path] = {}
        self.secrets: dict[str, Path] = {}
        self._tokens_shown = False
        self.regions = {
            region: [
                RegionNode(region, namespace, _version(region), folder / f"{region}-{number}")
                for number, namespace in enumerate(networks.nodes(region), 1)
            ]
            for region in REGIONS
        }
        for region in REGIONS:
            self.secrets[region] = folder / f"{region}.secret"
            self.secrets[region].write_text(f"the secret of {region} that nobody else knows\n")

    @property
    def nodes(self) -> list[RegionNode]:
        """All six."""
        return [node for region in REGIONS for node in self.regions[region]]

    async def start(self) -> None:
        """Everything but speil."""
        await eventually(lambda: self.lans.capture.started, what="the router is at work")
        await asyncio.gather(
            self._start_cluster(), self.registry.start(), *(node.containerd.start() for node in self.nodes)
        )
        for node in self.nodes:
            node.configure(self.registry.url)

    async def _start_cluster(self) -> None:
        await self.cluster.start()
        for region in REGIONS:
            lease = lease_of(region)
            await self.cluster.region(lease.namespace, lease.name)
            self.kubeconfigs[region] = self.cluster.write_kubeconfig(
                self._folder / f"{region}.kubeconfig", await self.cluster.token(lease.namespace)
            )
            for number, node in enumerate(self.regions[region]):
                await self.cluster.running_pod(lease.namespace, f"speil-{number}", str(node), node.address)

    def documented(self, region: str) -> list[str]:
        """The values of a region's release, to the letter, and how its ServiceAccount reaches the API.

        Last the node's label, as the chart hands it over from the pod.
        """
        return [
            "--bootstrap-kind=kubernetes",
            f"--leader-election-name=spegel-leader-election-{region}",
            f"--leader-election-namespace=spegel-{region}",
            f"--kubeconfig-path={self.kubeconfigs[region]}",
            f"--topology-region={region}",
        ]

    def copied(self, node: RegionNode, *, rights: bool = True, label: bool = True) -> list[str]:
        """The other region's names on a node that has its own label; with the rights to that Lease, or not."""
        (other,) = set(REGIONS) - {node.region}
        account = self.kubeconfigs[other if rights else node.region]
        told = [f"--topology-region={node.region}"] if label else []
        return [*self.documented(other)[:3], f"--kubeconfig-path={account}", *told]

    def with_secrets(self) -> dict[RegionNode, list[str]]:
        """The documented values and the region's secret; from now on containerd shows its node's token too."""
        flags = {}
        for node in self.nodes:
            secret = f"--region-secret-file={self.secrets[node.region]}"
            named = f"--node-name={node.address}"
            flags[node] = [*self.documented(node.region), secret, named]
            lease = lease_of(node.region)
            names = [f"--leader-election-name={lease.name}", f"--leader-election-namespace={lease.namespace}"]
            if not self._tokens_shown:
                node.configure(self.registry.url, *names, secret, named)
        self._tokens_shown = True
        return flags

    async def configure(
        self,
        others: Mapping[RegionNode, Sequence[str]] | None = None,
        *,
        fresh: Collection[RegionNode] = (),
        alone: Collection[RegionNode] = (),
        stopped: Collection[RegionNode] = (),
    ) -> None:
        """Nodes run with these flags, all others as documented. `fresh` ones have forgotten the peers they knew.

        Waits until all that are not `alone` have met the others of their region that are not. `stopped` do not run.
        """
        wanted = {node: list((others or {}).get(node, self.documented(node.region))) for node in self.nodes}
        changed = [
            node for node in self.nodes if node.flags != wanted[node] or not node.speil.running or node in stopped
        ]
        for node in changed:
            if node.speil.running:
                node.speil.signal(signal.SIGTERM)
        for node in changed:
            node.speil.stop()
            if node in fresh:
                shutil.rmtree(node.directory / "data", ignore_errors=True)
            if node not in stopped:
                node.start_with(wanted[node])
        running = [node for node in self.nodes if node not in stopped]
        for node in running:
            await node.lives()
        for region in REGIONS:
            together = [node for node in running if node.region == region and node not in alone]
            ids = {node.peer_id for node in together}
            for node in together:
                await node.meets(ids - {node.peer_id})

    def node_token(self, node: RegionNode) -> dict[str, str]:
        """The header with which containerd asks a node, where its region has a secret."""
        keys = parse(self.secrets[node.region].read_text(), node.region).node_keys
        return {NODE_TOKEN_HEADER: sign_node(keys[0], node.address, int(time.time()))}

    def peer_bytes(self, region: str) -> tuple[float, float]:
        """Body bytes that a region's nodes took from peers, and those they sent to peers, since their starts."""
        nodes = self.regions[region]
        taken = sum(node.metric("speil_served_bytes_total", source="peer") for node in nodes)
        return taken, sum(node.metric("speil_served_bytes_total", client="peer") for node in nodes)

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.close()
        self.registry.close()
        self.cluster.stop()


def _version(region: str) -> ContainerdVersion:
    major = _MAJORS[region]
    program = shutil.which("containerd") if major == 1 else str(tool_path("containerd"))
    assert program
    return ContainerdVersion(f"containerd {major}", program, major)


@contextmanager
def region_lab(folder: Path) -> Iterator[RegionLab]:
    """The started lab. For as long as it is there the test itself is on the operator's host."""
    with lans(folder) as networks, inside(networks.operator):
        lab = RegionLab(networks, folder)
        try:
            asyncio.run(lab.start())
            yield lab
        finally:
            lab.close()
