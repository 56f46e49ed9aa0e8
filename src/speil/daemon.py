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
from random import SystemRandom
from typing import Any

import grpclib.client  # noqa: F401 - first: modules that load later reuse the memory that its import needs for a moment

from speil import heap
from speil.border.build import Border, build_border
from speil.config import NodeSettings
from speil.http1.own_addresses import OwnAddresses
from speil.kube.kubeconfig import access_of_node
from speil.kube.node_region import identify_node
from speil.libp2p.host import Host
from speil.mirror.basic_auth import BasicAuth
from speil.mirror.build import PortGuards, browser_guard, metrics_port, registry_port
from speil.mirror.descriptors import raise_limit
from speil.mirror.filters import warn_about_commas
from speil.mirror.node_state import NodeState
from speil.mirror.turn_away import TurnAway
from speil.observe.logs import get_log
from speil.observe.metrics import Metrics
from speil.routing.announce import Announcer, AnnounceSettings
from speil.routing.bootstrap.base import BootstrapError
from speil.routing.bootstrap.build import build_bootstrapper
from speil.routing.build import build_host, build_router
from speil.setting import ListenAddress, SettingError
from speil.store.build import build_ingests, build_store, warn_about_containerd
from speil.store.news import NewsReader, StoreNews
from speil.store.series import StoreSeries
from speil.store.sharing import Sharing
from speil.version import __version__
from speil.web.build import NodeParts, NodeWeb

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
    rng = SystemRandom()
    # a prefix that was set by hand is shared with nodes that know no regions: a migration from Spegel
    shared = bool(settings.router.dht_protocol_prefix)
    border = build_border(settings.region, region, metrics, shares_its_mesh=shared)
    store = build_store(settings.store, metrics)
    networks = border.policy.networks
    bootstrapper = build_bootstrapper(settings.router, election, region, networks, metrics, rng)
    border.log_identity()
    descriptors = raise_limit()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as parts:
        host = await _start_host(settings, border, metrics, stack)
        border.check_own_addresses(host.local.hosts)
        router = build_router(
            settings.router, bootstrapper, host, border.policy, border.record, region.zone, metrics, rng
        )
        auth = BasicAuth(settings.mirror.basic_auth_dir)
        door = border.door(host.local.peer_id, data_dir, credentials=lambda: auth.peer_keys(region.region))
        border.log_what_is_open(door, resolve_tags=settings.mirror.resolve_tags)
        sharing = Sharing(store, settings.mirror.selection)
        filters = settings.mirror.registry_filters
        warn_about_commas(filters)
        announced = AnnounceSettings(settings.mirror.resolve_tags, filters, settings.mirror.mirrors)
        announcer = Announcer(store, router, announced, metrics, sharing=sharing)
        guards = PortGuards(descriptors, OwnAddresses(os.environ.get("NODE_IP", "")), host.neighbourhood)
        registry = registry_port(
            settings.mirror, settings.fetch, store, sharing, router, auth, door, metrics, guards, zone=region.zone,
            share=settings.share, claims=router.claims, ingests=build_ingests(store),
        )  # fmt: skip
        stack.callback(registry.close)
        settling, inflight = registry.sources.settling, registry.inflight
        state = NodeState(border, door, bootstrapper, router, store, registry, metrics, settings.mirror.resolve_tags)
        guard = browser_guard(settings.mirror, border.node_name)
        web = NodeWeb(NodeParts(settings.mirror, state, registry, settings.store.store_kind, guard))
        pages = web.answer if settings.mirror.debug_web_enabled else None
        debug = metrics_port(metrics, state, guards, guard, web=pages)
        await _listen(stack, debug.serve(settings.mirror.metrics_addr), "--metrics-addr", settings.mirror.metrics_addr)
        if turn_away is not None:
            turn_away.relieve += [debug.port.relieve, registry.server.port.relieve]
        address = settings.mirror.registry_addr
        await _listen(stack, registry.server.serve(address), "--registry-addr", address)
        readers: list[NewsReader] = [announcer, settling, registry.upstream_bytes]
        if inflight is not None:
            readers.append(inflight.downloads)
        tasks = [
            parts.create_task(store.run()),
            parts.create_task(router.run()),
            parts.create_task(StoreNews(store, metrics.of(StoreSeries), readers).run()),
            parts.create_task(announcer.follow_up()),
            parts.create_task(settling.run()),
            parts.create_task(warn_about_containerd(settings.store, store)),
            parts.create_task(heap.trim_when_grown()),
            *([parts.create_task(inflight.run())] if inflight else []),
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


async def _start_host(settings: NodeSettings, border: Border, metrics: Metrics, stack: AsyncExitStack) -> Host:
    host = build_host(
        settings.router, border.protocols, border.policy.networks, border.gate(), border.noise_keys, metrics
    )
    try:
        return await stack.enter_async_context(host)
    except OSError as error:
        raise _cannot_listen("--router-addr", settings.router.router_addr, error) from error


async def _listen(stack: AsyncExitStack, server: Any, flag: str, address: ListenAddress) -> None:
    try:
        await stack.enter_async_context(server)
    except OSError as error:
        raise _cannot_listen(flag, address, error) from error


def _cannot_listen(flag: str, address: ListenAddress, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(f"{flag}: {address} is in use by another process; stop it or choose another port")
    return StartError(f"{flag}: can't listen on {address}: {os.strerror(error.errno) if error.errno else error}")


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    error: Any = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
