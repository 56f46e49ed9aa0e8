"""Mirrors in this process: real HTTP on loopback, memory stores, memory routers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from speil.border.http import HttpDoor
from speil.border.node_token_file import NodeTokenFile
from speil.border.record import BorderRecord
from speil.border.secret_file import SecretFile
from speil.fetch.settings import FetchSettings
from speil.http1.own_addresses import OwnAddresses
from speil.inflight.build import Inflight
from speil.inflight.settings import SharingSettings
from speil.libp2p.identity import Identity
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.build import PortGuards, RegistryPort, registry_port
from speil.mirror.recent import RecentRequests
from speil.mirror.settings import MirrorSettings
from speil.mirror.upstream_bytes import UpstreamBytes
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.oci.image_builder import BuiltImage
from speil.region.policy import Policy
from speil.routing.memory import MemoryMesh, MemoryRouter
from speil.routing.memory_claims import ClaimMesh, MemoryClaims
from speil.setting import ListenAddress
from speil.sources.peer_knowledge import PeerKnowledge
from speil.store.memory import MemoryStore
from speil.store.memory_ingests import MemoryIngests
from speil.store.news import NewsReader, StoreNews
from speil.store.series import StoreSeries
from speil.store.sharing import Sharing
from speil.testing.samples import sample
from speil.wire.connection_pool import Endpoint
from speil.wire.turns import Wire
from tests.shell.nodes import free_ports

OPEN = Policy()
ZERO_COPY = True  # the fixture each_way changes it
RESOLVE_SECONDS_MAX = 10.0  # on a machine that does more; the search of a memory mesh ends by itself


@dataclass(slots=True)
class Mirror:
    """A running mirror; here each peer has a port of its own."""

    store: MemoryStore
    router: MemoryRouter
    metrics: Metrics
    host: str
    port: int
    built: RegistryPort
    ingests: MemoryIngests

    @property
    def inflight(self) -> Inflight:
        """What it shares in flight, in a mesh with claims."""
        assert self.built.inflight is not None
        return self.built.inflight

    @property
    def recent(self) -> RecentRequests:
        return self.built.recent

    @property
    def upstream_bytes(self) -> UpstreamBytes:
        return self.built.upstream_bytes

    @property
    def known(self) -> PeerKnowledge:
        """What this node has learned about its peers."""
        return self.built.sources.knowledge

    @property
    def wire(self) -> Wire:
        return self.built.wire

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    async def hold(self, image: BuiltImage, name: str = "") -> None:
        """Take an image in and announce it."""
        for data in image.blobs.values():
            self.store.put(data)
        if name:
            self.store.tag(name, image.index.digest)
        await self.router.provide([*map(str, image.blobs), *([name] if name else [])])

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a series over the label sets that match."""
        return sample(self.metrics, name, **labels)


def peer_at(host: str, port: int) -> PeerInfo:
    """A peer whose registry is at an address."""
    return PeerInfo(Identity.generate().peer_id, (Multiaddr.of_tcp(host, port),))


def endpoints_of(peer: PeerInfo) -> list[Endpoint]:
    """Here the address a peer announces is its registry's."""
    return [Endpoint(*tcp) for address in peer.addresses if (tcp := address.tcp)]


@asynccontextmanager
async def mirror(
    mesh: MemoryMesh,
    *,
    host: str = "127.0.0.1",
    ready: bool = True,
    policy: Policy = OPEN,
    secret: SecretFile | None = None,
    zone: str = "",
    node_name: str = "",
    data_dir: Path | None = None,
    fetch: FetchSettings = FetchSettings(),  # noqa: B008
    claims: ClaimMesh | None = None,
    share_wait: float = 3.0,
    **changes: object,
) -> AsyncIterator[Mirror]:
    """A mirror in a mesh, which shares in flight where there are `claims`; `changes` are settings."""
    settings = replace(
        MirrorSettings(
            mirror_resolve_timeout=RESOLVE_SECONDS_MAX, basic_auth_dir=Path("/nonexistent"), zero_copy=ZERO_COPY
        ),
        **changes,  # type: ignore[arg-type]  # tests name real settings
    )
    (port,) = free_ports(host, 1)
    store, metrics = MemoryStore(), Metrics()
    ingests = MemoryIngests(store)
    router = MemoryRouter(mesh, peer_at(host, port))
    mesh.zones[router.local.peer_id] = zone
    auth = BasicAuth(settings.basic_auth_dir)
    door = HttpDoor(
        policy,
        router.local.peer_id,
        secret,
        BorderRecord(policy.region, metrics),
        zone,
        credentials=lambda: auth.peer_keys(policy.region),
        node_tokens=NodeTokenFile(node_name, data_dir),
        data_dir=data_dir,
    )
    port_of = registry_port(
        settings, fetch, store, Sharing(store, settings.selection), router, auth, door, metrics,
        PortGuards(1 << 20, OwnAddresses()), zone=zone, ready=lambda: ready, endpoints=endpoints_of,
        share=SharingSettings(share_wait), ingests=ingests,
        claims=MemoryClaims(claims, replace(router.local, zone=zone), Random(port)) if claims else None,
    )  # fmt: skip
    try:
        async with asyncio.TaskGroup() as group, port_of.server.serve(ListenAddress(host, port)):
            settling, inflight = port_of.sources.settling, port_of.inflight
            readers: list[NewsReader] = [settling, *([inflight.downloads] if inflight else [])]
            parts = [router.run(), settling.run(), StoreNews(store, metrics.of(StoreSeries), readers).run()]
            tasks = [group.create_task(part) for part in [*parts, *([inflight.run()] if inflight else [])]]
            yield Mirror(store, router, metrics, host, port, port_of, ingests)
            for task in tasks:
                task.cancel()
    finally:
        port_of.close()
        ingests.close()
        store.close()
