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
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

from speil.config import NodeSettings
from speil.libp2p.host import Host
from speil.libp2p.identity import IdentityError, load_or_create
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.debug import DebugServer
from speil.mirror.handlers import Handlers
from speil.mirror.peer_client import Endpoint, PeerClient
from speil.mirror.recent import RecentRequests
from speil.mirror.relay import Relay, RelayConfig
from speil.mirror.server import RegistryServer
from speil.multiformats.peer_info import PeerInfo
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.peerstore import Peerstore
from speil.setting import ListenAddress, SettingError
from speil.store.base import ContentStore, StoreError
from speil.store.containerd.client import ContainerdClient
from speil.store.containerd.inspect import inspect
from speil.store.containerd.store import ContainerdStore
from speil.store.oci_layout import OciLayoutStore
from speil.version import __version__

HOSTS_PER_PEER_MAX = 4  # addresses of one peer that a request tries

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
    try:
        async with node(settings):
            await stop.wait()
            log.info("stopping")
    except ExceptionGroup as group:
        expected, bugs = group.split((StartError, SettingError, BootstrapError))
        if bugs is None and expected is not None:
            raise StartError(str(_first(expected))) from None
        log.exception("a part of the node failed", group)
        raise NodeFailedError(f"a part of the node failed: {_first(group)!r}; the log says where") from group


@asynccontextmanager
async def node(settings: NodeSettings) -> AsyncIterator[None]:
    """A running node. Raises StartError and SettingError on the way in."""
    metrics, recent, rng = Metrics(__version__), RecentRequests(), SystemRandom()
    store = _make_store(settings, metrics)
    bootstrapper = settings.router.bootstrapper()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as parts:
        host = await _start_host(settings, metrics, stack)
        network = Libp2pNetwork(host, settings.router.dht_protocol_prefix, metrics)
        bootstrap = Bootstrap(bootstrapper, Peerstore(settings.router.data_dir), metrics, rng)
        router = DhtRouter(network, bootstrap, metrics, rng)
        auth = BasicAuth(settings.mirror.basic_auth_dir)
        client = PeerClient(f"speil/{__version__}")
        stack.callback(client.close)
        relay = Relay(
            router,
            client,
            metrics,
            RelayConfig(
                settings.mirror.mirror_resolve_timeout,
                settings.mirror.mirror_resolve_retries,
                lambda: auth.header,
                lambda peer: _endpoints(peer, settings.mirror.registry_addr.port),
            ),
        )
        handlers = Handlers(store, relay, auth, settings.mirror, metrics, recent)
        debug = DebugServer(
            metrics, lambda: _state(router, store, recent), web_enabled=settings.mirror.debug_web_enabled
        )
        await _listen(stack, debug.serve(settings.mirror.metrics_addr), "--metrics-addr", settings.mirror.metrics_addr)
        registry = RegistryServer(handlers, lambda: router.ready, metrics)
        await _listen(
            stack, registry.serve(settings.mirror.registry_addr), "--registry-addr", settings.mirror.registry_addr
        )
        tasks = [
            parts.create_task(store.run()),
            parts.create_task(router.run()),
            parts.create_task(_announcer(settings, store, router, metrics).run()),
            parts.create_task(_warn_about_containerd(settings, store)),
        ]
        log.info(
            "started",
            version=__version__,
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
        return OciLayoutStore(path)
    socket = Path(chosen.containerd_sock)
    if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
        raise StartError(f"--containerd-sock: this user may not use {socket}; run as root or as a member of its group")
    if socket.exists() and not socket.is_socket():
        raise StartError(f"--containerd-sock: {socket} is not a socket")
    if chosen.containerd_content_path and not Path(chosen.containerd_content_path).is_dir():
        raise StartError(f"--containerd-content-path: {chosen.containerd_content_path} is not a directory")
    return ContainerdStore(chosen.containerd_sock, chosen.containerd_namespace, chosen.containerd_content_path, metrics)


async def _start_host(settings: NodeSettings, metrics: Metrics, stack: AsyncExitStack) -> Host:
    try:
        identity = load_or_create(settings.router.data_dir)
    except IdentityError as error:
        raise StartError(f"--data-dir: {error}") from error
    address = settings.router.router_addr
    host = Host(identity, address, agent_version=f"speil/{__version__}", metrics=metrics)
    try:
        return await stack.enter_async_context(host)
    except OSError as error:
        raise _cannot_listen("--router-addr", address, error) from error


async def _listen(stack: AsyncExitStack, server: Any, flag: str, address: ListenAddress) -> None:
    try:
        await stack.enter_async_context(server)
    except OSError as error:
        raise _cannot_listen(flag, address, error) from error


def _cannot_listen(flag: str, address: ListenAddress, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(f"{flag}: {address} is in use by another process; stop it or choose another port")
    return StartError(f"{flag}: can't listen on {address}: {os.strerror(error.errno) if error.errno else error}")


def _announcer(settings: NodeSettings, store: ContentStore, router: DhtRouter, metrics: Metrics) -> Announcer:
    chosen = AnnounceSettings(settings.mirror.resolve_tags, settings.mirror.registry_filters, settings.mirror.mirrors)
    return Announcer(store, router, chosen, metrics)


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
    """Where a peer's registry is: its addresses, our own port (as Spegel has it)."""
    return [Endpoint(host, port) for host in peer.hosts[:HOSTS_PER_PEER_MAX]]


def _state(router: DhtRouter, store: ContentStore, recent: RecentRequests) -> dict[str, Any]:
    return {
        "version": __version__,
        "ready": router.ready,
        "peer_id": str(router.local.peer_id),
        "addresses": ", ".join(map(str, router.local.addresses)),
        "store_available": store.available,
        "requests_total": recent.total,
        "peers": [{"peer": str(peer.peer_id), "hosts": ", ".join(peer.hosts)} for peer in router.peers()],
        "recent_requests": recent.snapshot(),
    }


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
