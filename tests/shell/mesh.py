"""DHT nodes in this process, on real libp2p hosts on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from speil.border.record import BorderRecord
from speil.libp2p import identify
from speil.libp2p.host import Host
from speil.libp2p.identity import Identity
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_info import PeerInfo
from speil.observe.metrics import Metrics
from speil.region.policy import protocols_of
from speil.routing.base import Router
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.static import StaticBootstrapper
from speil.routing.claim_network import StatusOf
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress


def new_host(host: str = "127.0.0.1", metrics: Metrics | None = None, extra_protocols: tuple[str, ...] = ()) -> Host:
    """A host with a new identity on a free port."""
    return Host(
        Identity.generate(),
        ListenAddress(host, 0),
        agent_version="speil/test",
        metrics=metrics or Metrics(),
        extra_protocols=extra_protocols,
    )


@asynccontextmanager
async def dht_node(
    *seeds: Multiaddr,
    prefix: str = "/spegel",
    metrics: Metrics | None = None,
    zone: str = "",
    status: StatusOf | None = None,
) -> AsyncIterator[DhtRouter]:
    """A running DHT node. With `status` it takes part in claims."""
    async with bootstrapped(StaticBootstrapper(seeds), prefix, metrics, zone, status) as router:
        yield router


@asynccontextmanager
async def bootstrapped(
    bootstrapper: Bootstrapper,
    prefix: str = "/spegel",
    metrics: Metrics | None = None,
    zone: str = "",
    status: StatusOf | None = None,
) -> AsyncIterator[DhtRouter]:
    """A running DHT node that has its first peers from `bootstrapper`."""
    metrics = metrics or Metrics()
    async with new_host(metrics=metrics, extra_protocols=protocols_of("", zone)) as host:
        bootstrap = Bootstrap(bootstrapper, Peerstore(None), metrics, Random(1))
        network = Libp2pNetwork(host, prefix, metrics, BorderRecord("", metrics))
        router = DhtRouter(network, bootstrap, metrics, Random(2), zone=zone)
        if status:
            router.claims.attach(status)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(router.run())
            yield router
            task.cancel()


def address(peer: PeerInfo) -> Multiaddr:
    """A multiaddr with the peer's id."""
    return peer.addresses[0].with_peer_id(peer.peer_id)


async def providers(router: Router, key: str, timeout_seconds: float = 5.0) -> set[str]:
    """Peer ids that `router` finds for `key`."""
    return {str(peer.peer_id) async for peer in router.find_providers(key, timeout_seconds=timeout_seconds)}


async def push_identify(host: Host) -> None:
    """Send an identify push on all connections, as go-libp2p does when its protocols have changed."""
    for connection in host.connections:
        async with await connection.open_stream(identify.PUSH_PROTOCOL) as stream:
            await stream.write_message(host._exchange.message(connection.peer))
            stream.close_write()
            await stream.read()
