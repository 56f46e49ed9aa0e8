"""`speil registry`: puts the parts of a node together and runs them.

Each package builds its part from its settings. Here is the order: which region this is, libp2p and the router, the
metrics port, the registry port, and then the tasks that follow the store and announce what it holds. One task group
owns every task. SIGTERM and SIGINT end it, and the parts stop in reverse order. A part that can't start is the
operator's to correct: StartError or SettingError, one line. A part that fails later ends the node (NodeFailedError),
and the DaemonSet starts it again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import grpclib.client  # noqa: F401 - first: modules that load later reuse the memory that its import needs for a moment

from speil import heap
from speil.border.build import Border, build_border
from speil.config import NodeSettings
from speil.http_server.own_addresses import OwnAddresses
from speil.kube.kubeconfig import access_of_node
from speil.kube.node_region import identify_node
from speil.libp2p.host import Host
from speil.libp2p.identity import IdentityError, load_or_create
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.debug import CONNECTIONS as debug_connections
from speil.mirror.debug import DebugServer
from speil.mirror.descriptors import raise_limit
from speil.mirror.filters import warn_about_commas
from speil.mirror.handlers import Handlers
from speil.mirror.node_state import NodeState
from speil.mirror.peer_client import Endpoint, PeerClient
from speil.mirror.recent import RecentRequests
from speil.mirror.relay import Relay, RelayConfig
from speil.mirror.server import CONNECTIONS as registry_connections
from speil.mirror.server import RegistryServer
from speil.mirror.settle import Settling
from speil.mirror.turn_away import TurnAway
from speil.mirror.upstream_bytes import UpstreamBytes
from speil.mirror.wire import Wire
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.build import build_bootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress, SettingError
from speil.store.base import ContentStore, StoreError
from speil.store.containerd.client import ContainerdClient
from speil.store.containerd.inspect import inspect
from speil.store.containerd.store import ContainerdStore
from speil.store.news import StoreNews
from speil.store.oci_layout import OciLayoutStore
from speil.store.sharing import Sharing
from speil.version import __version__

# each port takes at most this part of the descriptors that the system gives, where they are few
REGISTRY_PART, METRICS_PART = 4, 16
HOSTS_PER_PEER_MAX = 4  # addresses of a peer that are tried for one request

log = get_log("daemon")


class StartError(Exception):
    """The node can't start on this machine. The message names the setting and says what to do."""


class NodeFailedError(Exception):
    """A part failed while the node ran: a bug in speil, or a fault of the machine."""


async def run(settings: NodeSettings) -> None:
    """Run a node until SIGTERM or SIGINT. Raises StartError, SettingError, NodeFailedError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    turn_away = TurnAway()
    loop.set_exception_handler(turn_away.handle)
    try:
        async with node(settings, turn_away):
            heap.freeze_and_trim()
            await stop.wait()
            log.info("node stopping")
    except ExceptionGroup as group:
        expected, bugs = group.split((StartError, SettingError, BootstrapError))
        if bugs is None and expected is not None:
            raise StartError(str(_first(expected))) from None
        log.exception("a part of the node failed", group)
        raise NodeFailedError(f"a part of the node failed: {_first(group)!r}; the log says where") from group


@asynccontextmanager
async def node(settings: NodeSettings, turn_away: TurnAway | None = None) -> AsyncIterator[None]:
    """A running node; it ends with the block. Raises StartError and SettingError where it can't start."""
    settings.fetch.check()
    data_dir, election = settings.router.data_dir, settings.election
    access = access_of_node(election.kubeconfig_path, election.kubeconfig_context)
    region = await identify_node(settings.region, access, data_dir)
    metrics = Metrics(__version__, region=region.region, zone=region.zone)
    recent, rng = RecentRequests(), SystemRandom()
    # a prefix that was set by hand is shared with nodes that know no regions: a migration from Spegel
    shared = bool(settings.router.dht_protocol_prefix)
    border = build_border(settings.region, region, metrics, shares_its_mesh=shared)
    store = _make_store(settings, metrics)
    networks = border.policy.networks
    bootstrapper = build_bootstrapper(settings.router, election, region, networks, metrics, rng)
    border.log_identity()
    descriptors = raise_limit()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as parts:
        host = await _start_host(settings, border, metrics, stack)
        border.check_own_addresses(host.local.hosts)
        prefix = settings.router.protocol_prefix(region.region)
        network = Libp2pNetwork(host, prefix, metrics, border.record, border.policy)
        router = DhtRouter(
            network, Bootstrap(bootstrapper, Peerstore(data_dir), metrics, rng), metrics, rng, zone=region.zone
        )
        if isinstance(bootstrapper, LeaseBootstrapper):
            bootstrapper.attach(router.peers)
        auth = BasicAuth(settings.mirror.basic_auth_dir)
        door = border.door(host.local.peer_id, data_dir, credentials=lambda: auth.peer_keys(region.region))
        border.log_what_is_open(door, resolve_tags=settings.mirror.resolve_tags)
        wire = Wire(zero_copy=settings.mirror.zero_copy)
        stack.callback(wire.close)
        client = PeerClient(f"speil/{__version__}", door, wire)
        stack.callback(client.close)
        relay = Relay(
            router,
            client,
            metrics,
            RelayConfig(
                settings.mirror.mirror_resolve_timeout,
                settings.mirror.mirror_resolve_retries,
                lambda peer: _endpoints(peer, settings.mirror.registry_addr.port),
                settings.fetch,
                region.zone,
            ),
        )
        upstream_bytes = UpstreamBytes(store, metrics)
        sharing = Sharing(store, settings.mirror.selection)
        handlers = Handlers(
            store, relay, auth, door, wire, settings.mirror, metrics, recent, upstream_bytes, sharing=sharing
        )
        filters = settings.mirror.registry_filters
        warn_about_commas(filters)
        announced = AnnounceSettings(settings.mirror.resolve_tags, filters, settings.mirror.mirrors)
        announcer = Announcer(store, router, announced, metrics, sharing=sharing)
        settling = Settling(store, relay.trust, metrics)
        own = OwnAddresses(os.environ.get("NODE_IP", ""))
        state = NodeState(border, door, bootstrapper, router, store, recent, settings.mirror.resolve_tags)
        debug = DebugServer(
            metrics,
            state.document,
            web_enabled=settings.mirror.debug_web_enabled,
            bounds=debug_connections.within(descriptors // METRICS_PART),
            own=own,
            neighbourhood=host.neighbourhood,
        )
        await _listen(stack, debug.serve(settings.mirror.metrics_addr), "--metrics-addr", settings.mirror.metrics_addr)
        registry = RegistryServer(
            handlers, door, lambda: router.ready, metrics,
            bounds=registry_connections.within(descriptors // REGISTRY_PART), own=own, neighbourhood=host.neighbourhood,
        )  # fmt: skip
        if turn_away is not None:
            turn_away.relieve += [debug.port.relieve, registry.port.relieve]
        await _listen(
            stack, registry.serve(settings.mirror.registry_addr), "--registry-addr", settings.mirror.registry_addr
        )
        tasks = [
            parts.create_task(store.run()),
            parts.create_task(router.run()),
            parts.create_task(StoreNews(store, metrics, [announcer, settling, upstream_bytes]).run()),
            parts.create_task(announcer.follow_up()),
            parts.create_task(settling.run()),
            parts.create_task(_warn_about_containerd(settings, store)),
            parts.create_task(heap.trim_when_grown()),
        ]
        log.info(
            "node started",
            version=__version__,
            region=region.region or None,
            peer_id=host.local.peer_id,
            addresses=[str(address) for address in host.local.addresses],
            registry=settings.mirror.registry_addr,
            bootstrap=settings.router.bootstrap_kind,
            store=settings.store.store_kind,
        )
        yield
        for task in tasks:
            task.cancel()


def _make_store(settings: NodeSettings, metrics: Metrics) -> ContentStore:
    chosen = settings.store
    if chosen.store_kind == "oci-layout":
        if not chosen.oci_layout_path:
            raise StartError("--store-kind oci-layout needs --oci-layout-path")
        path = Path(chosen.oci_layout_path)
        if path.exists() and not path.is_dir():
            raise StartError(f"--oci-layout-path: {path} is not a directory")
        return OciLayoutStore(path, metrics.store_available.set)
    socket = Path(chosen.containerd_sock)
    if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
        raise StartError(f"--containerd-sock: this user may not use {socket}; run as root or as a member of its group")
    if socket.exists() and not socket.is_socket():
        raise StartError(f"--containerd-sock: {socket} is not a socket")
    if chosen.containerd_content_path and not Path(chosen.containerd_content_path).is_dir():
        raise StartError(f"--containerd-content-path: {chosen.containerd_content_path} is not a directory")
    return ContainerdStore(chosen.containerd_sock, chosen.containerd_namespace, chosen.containerd_content_path, metrics)


async def _start_host(settings: NodeSettings, border: Border, metrics: Metrics, stack: AsyncExitStack) -> Host:
    try:
        identity = load_or_create(settings.router.data_dir)
    except IdentityError as error:
        raise StartError(f"--data-dir: {error}") from error
    address = settings.router.router_addr
    host = Host(
        identity,
        address,
        agent_version=f"speil/{__version__}",
        metrics=metrics,
        gate=border.gate(),
        told=border.protocols,
        psks=border.noise_keys,
        dial_ports=settings.router.router_dial_ports,
        never_dialled=_api_server(),
        networks=settings.region.region_networks,
    )
    try:
        return await stack.enter_async_context(host)
    except OSError as error:
        raise _cannot_listen("--router-addr", address, error) from error


def _api_server() -> frozenset[tuple[str, int]]:
    """The API server's address in a pod, which must not be dialled because a peer names it."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return frozenset({(host, int(port))}) if host and port.isdecimal() else frozenset()


async def _listen(stack: AsyncExitStack, server: Any, flag: str, address: ListenAddress) -> None:
    try:
        await stack.enter_async_context(server)
    except OSError as error:
        raise _cannot_listen(flag, address, error) from error


def _cannot_listen(flag: str, address: ListenAddress, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(f"{flag}: {address} is in use by another process; stop it or choose another port")
    return StartError(f"{flag}: can't listen on {address}: {os.strerror(error.errno) if error.errno else error}")


async def _warn_about_containerd(settings: NodeSettings, store: ContentStore) -> None:
    """Say once what in containerd's configuration keeps this node from being of use."""
    if not isinstance(store, ContainerdStore):
        return
    await store.wait_available()
    client = ContainerdClient(settings.store.containerd_sock, settings.store.containerd_namespace)
    try:
        facts = await inspect(client, settings.store.containerd_config)
    except StoreError as error:
        log.debug("containerd's configuration can't be read", error=error)
        return
    finally:
        client.close()
    if facts.discard_unpacked_layers:
        log.warning(
            "containerd discards unpacked layers: this node can share manifests only; "
            "set discard_unpacked_layers = false",
            source=facts.source,
        )


def _endpoints(peer: PeerInfo, port: int) -> list[Endpoint]:
    """The registry of a peer: its addresses, and this node's own registry port, as in Spegel."""
    return [Endpoint(host, port) for host in peer.hosts[:HOSTS_PER_PEER_MAX]]


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
