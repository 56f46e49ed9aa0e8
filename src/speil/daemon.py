"""`speil registry`: the parts of a node, put together and run.

Started in order, each resting on the one before: the metrics port (so that a start that hangs can be seen), the store,
libp2p and the router, the registry port, and last the announcing of what the store holds. One task group holds
everything; SIGTERM and SIGINT end it and the parts stop in reverse. What can't start is the operator's to mend and
ends as one line (StartError); a part that fails later takes the node down, and the DaemonSet starts it again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import grpclib.client  # noqa: F401 - first: the room it needs while it loads is then used by what loads after it

from speil import memory
from speil.border.gate import RegionGate
from speil.border.http import HttpDoor
from speil.border.node_token_file import NodeTokenFile
from speil.border.record import BorderRecord
from speil.border.secret_file import SecretFile
from speil.config import NodeSettings
from speil.http1.own_addresses import OwnAddresses
from speil.kube.api import KubeApi
from speil.kube.error import KubeError
from speil.kube.kubeconfig import access_of_node
from speil.kube.node_labels import LabelMemory, node_labels
from speil.libp2p.host import Host
from speil.libp2p.identity import IdentityError, load_or_create
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.build import PortGuards, metrics_port, registry_port
from speil.mirror.descriptors import raise_limit
from speil.mirror.filters import split_filters
from speil.mirror.recent import RecentRequests
from speil.mirror.turn_away import TurnAway
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.region.identity import RegionIdentity
from speil.region.policy import Policy, protocols_of
from speil.region.secret import SecretError
from speil.region.token import is_node_name
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.bootstrap.base import BootstrapError, Bootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.lease import LeaseBootstrapper, lease_bootstrapper
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

log = get_log("daemon")


class StartError(Exception):
    """The node can't start with this configuration on this machine; the operator has to act."""


class NodeFailedError(Exception):
    """A running part failed: a bug of ours, or of the machine."""


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
            memory.settle()
            await stop.wait()
            log.info("stopping")
    except ExceptionGroup as group:
        expected, bugs = group.split((StartError, SettingError, BootstrapError))
        if bugs is None and expected is not None:
            raise StartError(str(_first(expected))) from None
        log.exception("a part of the node failed", group)
        raise NodeFailedError(f"a part of the node failed: {_first(group)!r}; the log says where") from group


@asynccontextmanager
async def node(settings: NodeSettings, turn_away: TurnAway | None = None) -> AsyncIterator[None]:
    """A running node. Raises StartError and SettingError on the way in."""
    settings.fetch.check()
    region = await _identify(settings)
    metrics = Metrics(__version__, region=region.region, zone=region.zone)
    rng = SystemRandom()
    secret = _read_secret(settings, region)
    policy = _policy(settings, region)
    record = BorderRecord(region.region, metrics)
    store = _make_store(settings, metrics)
    bootstrapper = _bootstrapper(settings, region, metrics, rng)
    _tell_region(region, secret)
    descriptors = raise_limit()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as parts:
        host = await _start_host(settings, region, RegionGate(policy, record), secret, metrics, stack)
        _check_own_networks(policy, host)
        network = Libp2pNetwork(host, settings.router.protocol_prefix(region.region), metrics, record, policy)
        bootstrap = Bootstrap(bootstrapper, Peerstore(settings.router.data_dir), metrics, rng)
        router = DhtRouter(network, bootstrap, metrics, rng, zone=region.zone)
        if isinstance(bootstrapper, LeaseBootstrapper):
            bootstrapper.attach(router.peers)
        auth = BasicAuth(settings.mirror.basic_auth_dir)
        door = HttpDoor(
            policy,
            host.local.peer_id,
            secret,
            record,
            region.zone,
            credentials=lambda: auth.peer_keys(region.region),
            node_tokens=NodeTokenFile(_node_name(settings), settings.router.data_dir),
            data_dir=settings.router.data_dir,
        )
        _tell_what_is_open(settings, secret, door)
        sharing = Sharing(store, settings.mirror.selection)
        guards = PortGuards(descriptors, OwnAddresses(os.environ.get("NODE_IP", "")), host.neighbourhood)
        port = registry_port(
            settings.mirror, settings.fetch, store, sharing, router, auth, door, metrics, guards, zone=region.zone
        )
        stack.callback(port.close)
        announcer = _announcer(settings, store, router, metrics, sharing)
        settling = port.sources.settling
        debug = metrics_port(
            settings.mirror,
            metrics,
            lambda: _state(settings, region, bootstrapper, router, store, port.recent) | _border(settings, door),
            guards,
        )
        await _listen(stack, debug.serve(settings.mirror.metrics_addr), "--metrics-addr", settings.mirror.metrics_addr)
        if turn_away is not None:
            turn_away.relieve += [debug.port.relieve, port.server.port.relieve]
        await _listen(
            stack, port.server.serve(settings.mirror.registry_addr), "--registry-addr", settings.mirror.registry_addr
        )
        tasks = [
            parts.create_task(store.run()),
            parts.create_task(router.run()),
            parts.create_task(StoreNews(store, metrics, [announcer, settling, port.upstream_bytes]).run()),
            parts.create_task(announcer.follow_up()),
            parts.create_task(settling.run()),
            parts.create_task(_warn_about_containerd(settings, store)),
            parts.create_task(memory.stay_small()),
        ]
        log.info(
            "started",
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


async def _identify(settings: NodeSettings) -> RegionIdentity:
    """Where this node is. Raises StartError where only its labels would tell, and they can't be read."""
    if not settings.region.topology_from_node:
        return settings.region.identity()
    name = settings.region.node_name or socket.gethostname()
    memory_of_labels = LabelMemory(settings.router.data_dir)
    api = KubeApi(
        access_of_node(settings.election.kubeconfig_path, settings.election.kubeconfig_context), f"speil/{__version__}"
    )
    try:
        labels = await node_labels(api, name)
        memory_of_labels.save(name, labels)
        return settings.region.identity(labels)
    except KubeError as error:
        if labels := memory_of_labels.load(name):
            log.warning(
                "the node's labels can't be read: going on with those of the last start", node=name, error=error
            )
            return settings.region.identity(labels)
        region = settings.region.identity()
        if not region.region:
            # in which region it is nobody knows now: to join one without would cross a border
            raise StartError(f"--topology-from-node: the labels of node {name} can't be read: {error}") from error
        log.warning(
            "the node's labels can't be read: going without its zone, and with anyone who says this region",
            node=name,
            error=error,
        )
        return region
    finally:
        await api.close()


def _tell_region(region: RegionIdentity, secret: SecretFile | None) -> None:
    """The first line of the log: where this node thinks it is, and why."""
    log.info(
        "this node's region",
        region=region.region or "(none)",
        region_from=region.region_source,
        zone=region.zone or "(none)",
        zone_from=region.zone_source,
        topology_region=region.label or "(none)",
        lease=region.lease,
    )
    for note in region.notes:
        log.warning(note)
    if region.region and secret is None:
        log.info("the region has no secret: any node that names the region may join (--region-secret-file)")


def _tell_what_is_open(settings: NodeSettings, secret: SecretFile | None, door: HttpDoor) -> None:
    """What a stranger could do, in one line each, with what closes it."""
    if settings.mirror.resolve_tags and not door.proves:
        log.warning(
            "tags are taken from peers that prove nothing: a stranger who reaches this region's ports can answer a "
            "tag that nobody else holds with an image of its choice",
            what_to_do="set --region-secret-file (or basic auth), fence the ports by a NetworkPolicy, or set "
            "--resolve-tags=false",
        )
    if secret is not None and not _node_name(settings):
        log.warning(
            "this node's name is not known: the node token of any node of the region is taken",
            what_to_do="set --node-name (NODE_NAME), here and for speil configuration",
        )


def _node_name(settings: NodeSettings) -> str:
    """What a node token has to name; "" where nothing sure tells it: a container's host name is not the node's."""
    name = settings.region.node_name
    return name if is_node_name(name) else ""


def _read_secret(settings: NodeSettings, region: RegionIdentity) -> SecretFile | None:
    if not settings.region.region_secret_file:
        return None
    try:
        return SecretFile(Path(settings.region.region_secret_file), region.region)
    except SecretError as error:
        raise StartError(f"--region-secret-file: {error}") from error


def _policy(settings: NodeSettings, region: RegionIdentity) -> Policy:
    # a mesh whose prefix was set by hand is shared with nodes that know no regions: a migration from Spegel
    shared = bool(settings.router.dht_protocol_prefix)
    return Policy(region.region, shared or not region.region, settings.region.region_networks, region.label)


def _check_own_networks(policy: Policy, host: Host) -> None:
    """A node outside its region's networks has got the wrong region's configuration. Raises StartError."""
    hosts = host.local.hosts
    if hosts and not any(map(policy.covers, hosts)):
        raise StartError(
            f"--region-networks: none of this node's addresses ({', '.join(hosts)}) is in the networks of region "
            f"{policy.region or '(none)'}: its region is set wrong, or a network is missing"
        )


def _bootstrapper(settings: NodeSettings, region: RegionIdentity, metrics: Metrics, rng: Random) -> Bootstrapper:
    router = settings.router
    if router.is_leased:
        return lease_bootstrapper(
            router.bootstrap_kind, settings.election, region, metrics, rng, settings.region.region_networks
        )
    return router.bootstrapper()


async def _start_host(
    settings: NodeSettings,
    region: RegionIdentity,
    gate: RegionGate,
    secret: SecretFile | None,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Host:
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
        gate=gate,
        told=protocols_of(region.region, region.zone, region.label),
        psks=lambda: secret.secret.noise_keys if secret else (),
        dial_ports=settings.router.router_dial_ports,
        never_dialled=_api_server(),
        networks=settings.region.region_networks,
    )
    try:
        return await stack.enter_async_context(host)
    except OSError as error:
        raise _cannot_listen("--router-addr", address, error) from error


def _api_server() -> frozenset[tuple[str, int]]:
    """Where a pod finds the API server: no peer's word leads a connection there."""
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


def _announcer(
    settings: NodeSettings, store: ContentStore, router: DhtRouter, metrics: Metrics, sharing: Sharing
) -> Announcer:
    for pattern in settings.mirror.registry_filters:
        if len(split_filters(pattern.pattern)) > 1:
            log.warning(
                "a registry filter holds a comma, which no name does: give --registry-filters once for each pattern",
                filter=pattern.pattern,
            )
    chosen = AnnounceSettings(settings.mirror.resolve_tags, settings.mirror.registry_filters, settings.mirror.mirrors)
    return Announcer(store, router, chosen, metrics, sharing=sharing)


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


def _state(
    settings: NodeSettings,
    region: RegionIdentity,
    bootstrapper: Bootstrapper,
    router: DhtRouter,
    store: ContentStore,
    recent: RecentRequests,
) -> dict[str, Any]:
    leased = bootstrapper if isinstance(bootstrapper, LeaseBootstrapper) else None
    return {
        "version": __version__,
        "region": region.region,
        "zone": region.zone,
        "region_from": region.region_source,
        "topology_region": region.label,
        "has_secret": bool(settings.region.region_secret_file),
        "has_networks": bool(settings.region.region_networks),
        "notes": list(region.notes),
        "lease": str(leased.lock) if leased else "",
        "lease_is_foreign": leased.election.foreign if leased else False,
        "ready": router.ready,
        "peer_id": str(router.local.peer_id),
        "addresses": ", ".join(map(str, router.local.addresses)),
        "store_available": store.available,
        "requests_total": recent.total,
        "peers": [{"peer": str(peer.peer_id), "hosts": ", ".join(peer.hosts)} for peer in router.peers()],
        "recent_requests": recent.snapshot(),
    }


def _border(settings: NodeSettings, door: HttpDoor) -> dict[str, Any]:
    return {
        "peers_prove_themselves": door.proves,
        "resolve_tags": settings.mirror.resolve_tags,
        "node_name": _node_name(settings),
    }


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
