"""Builds the parts of routing, and the libp2p host below them, from their settings.

bootstrapper = build_bootstrapper(settings.router, settings.election, region, networks, metrics, rng)
host = build_host(settings.router, region, networks, gate, psks, metrics)
async with host:
    router = build_router(settings.router, bootstrapper, host, policy, record, region.zone, metrics, rng)
    await router.run()
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

from speil.border.record import BorderRecord
from speil.libp2p.host import Host
from speil.libp2p.identity import IdentityError, load_or_create
from speil.libp2p.transport import ConnectionGate
from speil.observe.metrics import Metrics
from speil.region.policy import Network, Policy
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.driver import Bootstrap
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.dht import DhtRouter
from speil.routing.libp2p_network import Libp2pNetwork
from speil.routing.peerstore import Peerstore
from speil.routing.settings import RouterSettings
from speil.setting import SettingError
from speil.version import __version__


def build_host(
    settings: RouterSettings,
    protocols: tuple[str, ...],
    networks: tuple[Network, ...],
    gate: ConnectionGate,
    psks: Callable[[], tuple[bytes, ...]],
    metrics: Metrics,
) -> Host:
    """The libp2p host with the key in the data directory, not entered yet.

    protocols: the ids that name region, zone and topology label (`region.policy.protocols_of`).
    networks: of the region, empty where they are not set.
    psks: gives the pre-shared keys in force, empty where the region has no secret.
    Raises SettingError where the key can't be used. Entering the host raises OSError where `router_addr` can't be
    bound.
    """
    try:
        identity = load_or_create(settings.data_dir)
    except IdentityError as error:
        raise SettingError(f"--data-dir: {error}") from error
    return Host(
        identity,
        settings.router_addr,
        agent_version=f"speil/{__version__}",
        metrics=metrics,
        gate=gate,
        extra_protocols=protocols,
        psks=psks,
        dial_ports=settings.router_dial_ports,
        never_dialled=_api_server(),
        networks=networks,
    )


def build_router(
    settings: RouterSettings,
    bootstrapper: Bootstrapper,
    host: Host,
    policy: Policy,
    record: BorderRecord,
    zone: str,
    metrics: Metrics,
    rng: Random,
) -> DhtRouter:
    """The router on an entered host. `zone` is this node's own, "" without one."""
    network = Libp2pNetwork(host, settings.protocol_prefix(policy.region), metrics, record, policy)
    bootstrap = Bootstrap(bootstrapper, Peerstore(settings.data_dir), metrics, rng)
    router = DhtRouter(network, bootstrap, metrics, rng, zone=zone)
    if isinstance(bootstrapper, LeaseBootstrapper):
        bootstrapper.attach(router.peers)
    return router


def _api_server() -> frozenset[tuple[str, int]]:
    """Where a pod reaches the API server. An address that a peer names must not lead there."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return frozenset({(host, int(port))}) if host and port.isdecimal() else frozenset()
