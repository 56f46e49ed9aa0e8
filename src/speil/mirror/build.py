"""Builds the registry port and the metrics port from their settings and the other parts of a node."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from speil.border.http import HttpDoor
from speil.fetch.settings import FetchSettings
from speil.http1.guard import Guard
from speil.http1.own_addresses import OwnAddresses
from speil.http1.server import Handler, Shares
from speil.inflight.build import Inflight, build_inflight
from speil.inflight.series import InflightSeries
from speil.inflight.settings import SharingSettings
from speil.mirror.asked import Parser
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.metrics_port import CONNECTIONS as METRICS_CONNECTIONS
from speil.mirror.metrics_port import MetricsServer, State
from speil.mirror.open_requests import OpenRequests
from speil.mirror.recent import RecentRequests
from speil.mirror.record import Recorder
from speil.mirror.registry import Registry
from speil.mirror.resolve import Resolver
from speil.mirror.send import Sender
from speil.mirror.series import MirrorSeries
from speil.mirror.server import CONNECTIONS as REGISTRY_CONNECTIONS
from speil.mirror.server import RegistryServer
from speil.mirror.settings import MirrorSettings
from speil.mirror.uploads import Uploads
from speil.mirror.upstream_bytes import UpstreamBytes
from speil.multiformats.peer_info import PeerInfo
from speil.observe.line_limit import LineLimit
from speil.observe.metrics import Metrics
from speil.routing.base import Router
from speil.routing.claim_network import ClaimNetwork
from speil.sources.build import Sources, open_sources
from speil.sources.peer_access import PeerConfig
from speil.sources.peer_client import PeerClient
from speil.store.base import ContentStore
from speil.store.ingests import Ingests
from speil.store.sharing import Sharing
from speil.version import __version__
from speil.wire.connection_pool import Endpoint
from speil.wire.turns import Wire

# of the descriptors that the system gives, where they are few
REGISTRY_PART, METRICS_PART = 4, 16
HOSTS_PER_PEER_MAX = 4  # addresses of one peer that a request tries


@dataclass(frozen=True, slots=True)
class PortGuards:
    """What both ports are guarded with: `descriptors` is the process's limit, `own` are this node's addresses."""

    descriptors: int
    own: OwnAddresses
    neighbourhood: Shares | None = None


@dataclass(frozen=True, slots=True)
class RegistryPort:
    """The registry port and its parts.

    `sources.settling` and `inflight` are to be run; `sources.settling`, `upstream_bytes` and `inflight.downloads` read
    the store's news. `recent` is for the debug page. `inflight` is None where nothing is shared in flight.
    Close it after the server.
    """

    server: RegistryServer
    parser: Parser
    sources: Sources
    upstream_bytes: UpstreamBytes
    recent: RecentRequests
    recorder: Recorder
    wire: Wire
    client: PeerClient
    inflight: Inflight | None = None

    def close(self) -> None:
        """Close idle connections and pipes."""
        self.client.close()
        self.wire.close()


def registry_port(
    settings: MirrorSettings,
    fetch: FetchSettings,
    store: ContentStore,
    sharing: Sharing,
    router: Router,
    auth: BasicAuth,
    door: HttpDoor,
    metrics: Metrics,
    guards: PortGuards,
    *,
    zone: str = "",
    ready: Callable[[], bool] | None = None,
    endpoints: Callable[[PeerInfo], list[Endpoint]] | None = None,
    share: SharingSettings = SharingSettings(),  # noqa: B008
    claims: ClaimNetwork | None = None,
    ingests: Ingests | None = None,
) -> RegistryPort:
    """`zone` is this node's. `ready` answers the readiness probe, by default for the router.

    Without `endpoints` a peer's registry has its addresses and this node's registry port. Without `claims` or `ingests`
    nothing is shared in flight.
    """
    series, lines, recent = metrics.of(MirrorSeries), LineLimit(), RecentRequests()
    wire = Wire(zero_copy=settings.zero_copy)
    client = PeerClient(f"speil/{__version__}", door, wire)
    config = PeerConfig(
        settings.mirror_resolve_timeout,
        settings.mirror_resolve_retries,
        endpoints or (lambda peer: _endpoints(peer, settings.registry_addr.port)),
        fetch,
        zone,
    )
    sources = open_sources(
        store,
        sharing,
        router,
        client,
        config,
        metrics,
        node_platforms=settings.node_platforms,
        peers_prove_themselves=lambda: door.proves,
    )
    upstream_bytes = UpstreamBytes(store, series)
    inflight = build_inflight(share, claims, ingests, store, sharing, sources, metrics)
    recorder = Recorder(series, recent, upstream_bytes, lines, metrics.of(InflightSeries))
    sender = Sender(wire, recorder, series)
    parser = Parser(settings)
    registry = Registry(
        parser,
        auth,
        OpenRequests(series, settings.uploads_per_peer_max),
        Resolver(sources, inflight),
        Uploads(settings, series),
        sender,
        door.response_headers,
        inflight.followers if inflight else None,
    )
    server = RegistryServer(
        registry, door, sender, recorder, wire.starts, ready or (lambda: router.ready), series,
        bounds=REGISTRY_CONNECTIONS.within(guards.descriptors // REGISTRY_PART),
        own=guards.own, neighbourhood=guards.neighbourhood, lines=lines,
    )  # fmt: skip
    return RegistryPort(server, parser, sources, upstream_bytes, recent, recorder, wire, client, inflight)


def metrics_port(
    metrics: Metrics, state: State, guards: PortGuards, guard: Guard, *, web: Handler | None = None
) -> MetricsServer:
    """`web` answers the node's pages; `guard` is that of browsers."""
    return MetricsServer(
        metrics, state, web=web, guard=guard,
        bounds=METRICS_CONNECTIONS.within(guards.descriptors // METRICS_PART),
        own=guards.own, neighbourhood=guards.neighbourhood,
    )  # fmt: skip


def browser_guard(settings: MirrorSettings, node_name: str) -> Guard:
    """By which names browsers reach the metrics port."""
    return Guard(
        (socket.gethostname(), node_name, *settings.debug_web_hosts),
        hint="use the IP address, kubectl port-forward, or name it in --debug-web-hosts",
    )


def _endpoints(peer: PeerInfo, port: int) -> list[Endpoint]:
    """A peer's addresses with this node's own registry port, as in Spegel."""
    return [Endpoint(host, port) for host in peer.hosts[:HOSTS_PER_PEER_MAX]]
