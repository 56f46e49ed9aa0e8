"""The state of a node as the metrics port shows it at `/debug/state`; `speil region` and `speil doctor` read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speil.border.build import Border
from speil.border.http import HttpDoor
from speil.mirror.build import RegistryPort
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.dht import DhtRouter
from speil.store.base import ContentStore
from speil.version import __version__


@dataclass(frozen=True, slots=True)
class NodeState:
    """The parts that it is read from."""

    border: Border
    door: HttpDoor
    bootstrapper: Bootstrapper
    router: DhtRouter
    store: ContentStore
    registry: RegistryPort
    resolve_tags: bool

    def document(self) -> dict[str, Any]:
        """The state now, as JSON takes it. Tables are lists of objects with the same keys."""
        region, router = self.border.identity, self.router
        leased = self.bootstrapper if isinstance(self.bootstrapper, LeaseBootstrapper) else None
        return {
            "version": __version__,
            "region": region.region,
            "zone": region.zone,
            "region_from": region.region_source,
            "topology_region": region.label,
            "has_secret": self.border.secret is not None,
            "has_networks": bool(self.border.policy.networks),
            "notes": list(region.notes),
            "lease": str(leased.lock) if leased else "",
            "lease_is_foreign": leased.election.foreign if leased else False,
            "ready": router.ready,
            "peer_id": str(router.local.peer_id),
            "addresses": ", ".join(map(str, router.local.addresses)),
            "store_available": self.store.available,
            "requests_total": self.registry.recent.total,
            "peers": [{"peer": str(peer.peer_id), "hosts": ", ".join(peer.hosts)} for peer in router.peers()],
            "transfers": self.registry.inflight.transfers() if self.registry.inflight else [],
            "recent_requests": self.registry.recent.snapshot(),
            "peers_prove_themselves": self.door.proves,
            "resolve_tags": self.resolve_tags,
            "node_name": self.border.node_name,
            **router.claims.state(),
        }
