"""The state of a node as the metrics port shows it: `/debug/state`, which `speil region` and `speil doctor` read, and
the node's page.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from speil.border.build import Border
from speil.border.http import HttpDoor
from speil.border.series import BorderSeries
from speil.mirror.build import RegistryPort
from speil.mirror.record import Record
from speil.mirror.series import MirrorSeries
from speil.multiformats.error import FormatError
from speil.multiformats.multiaddr import Multiaddr
from speil.observe.metrics import Metrics, values
from speil.oci import byte_range
from speil.routing.bootstrap.base import Bootstrapper
from speil.routing.bootstrap.lease import LeaseBootstrapper
from speil.routing.dht import DhtRouter
from speil.sources.base import Origin
from speil.store.base import ContentStore
from speil.version import __version__

IN_FLIGHT_MAX = 100  # requests shown while they are answered; a node answers tens at a time


@dataclass(frozen=True, slots=True)
class NodeState:
    """The parts that it is read from. `started_at` is in Unix seconds."""

    border: Border
    door: HttpDoor
    bootstrapper: Bootstrapper
    router: DhtRouter
    store: ContentStore
    registry: RegistryPort
    metrics: Metrics
    resolve_tags: bool
    started_at: float = field(default_factory=time.time)

    def document(self) -> dict[str, Any]:
        """The state now, as JSON takes it. Tables are lists of objects with the same keys."""
        return {
            **self.brief(),
            **self.router.claims.state(),
            "recent_requests": self.registry.recent.snapshot(),
        }

    def brief(self) -> dict[str, Any]:
        """What `speil region` reads of many nodes."""
        now = asyncio.get_running_loop().time()
        return {
            **self.identity(),
            "started_at": self.started_at,
            "ready": self.router.ready,
            "store_available": self.store.available,
            "requests_total": self.registry.recent.total,
            "leads": self._leased.election.leading if self._leased else False,
            "leader": self.leader(),
            "peers": self.peers(),
            "traffic": self.traffic(),
            "from_peers": self.registry.recorder.peer_bytes.document(now),
            "transfers": self.transfers(),
            "requests_in_flight": self.in_flight(),
            "rejected": self.metrics.of(BorderSeries).counts(),
            "kept_out": self.kept_out(),
        }

    def traffic(self) -> dict[str, dict[str, int]]:
        """The counters since the start, by registry; see `overview.view.Traffic`."""
        series = self.metrics.of(MirrorSeries)
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for labels, value in values(series.mirror_requests):
            found[labels["registry"]]["hits" if labels["cache"] == "hit" else "misses"] += int(value)
        for labels, value in values(series.served_bytes):
            if labels["client"] == "peer":
                name = "sent_bytes"
            else:
                name = "own_bytes" if labels["source"] == Origin.STORE else "peer_bytes"
            found[labels["registry"]][name] += int(value)
        for labels, value in values(series.upstream_bytes):
            found[labels["registry"]]["upstream_bytes"] += int(value)
        return {registry: dict(counts) for registry, counts in found.items()}

    def identity(self) -> dict[str, Any]:
        """Who this node is, and what its settings are."""
        region, router = self.border.identity, self.router
        leased = self._leased
        return {
            "version": __version__,
            "region": region.region,
            "zone": region.zone,
            "region_from": region.region_source,
            "zone_from": region.zone_source,
            "topology_region": region.label,
            "has_secret": self.border.secret is not None,
            "has_networks": bool(self.border.policy.networks),
            "notes": list(region.notes),
            "lease": str(leased.lock) if leased else "",
            "lease_is_foreign": leased.election.foreign if leased else False,
            "peer_id": str(router.local.peer_id),
            "addresses": ", ".join(map(str, router.local.addresses)),
            "bootstrap_kind": self.bootstrapper.kind,
            "peers_prove_themselves": self.door.proves,
            "resolve_tags": self.resolve_tags,
            "node_name": self.border.node_name,
        }

    def leader(self) -> dict[str, Any]:
        """Who leads the region, and how this node knows it. `renewed_at` is in Unix seconds, None for unknown."""
        found: dict[str, Any] = {"peer": "", "host": "", "is_self": False, "renewed_at": None, "known_from": ""}
        if (leased := self._leased) is None:
            return found | {"known_from": f"bootstrap kind {self.bootstrapper.kind}: no leader is elected"}
        election, lock = leased.election, leased.lock
        if election.foreign:
            return found | {"known_from": f"the Lease {lock} is another region's: it is not believed"}
        if (lease := election.lease) is None:
            return found | {"known_from": election.failure or f"the Lease {lock} was not read yet"}
        record, known_from = lease.record, f"the Lease {lock}"
        if election.failure:
            known_from = f"the Lease {lock} as last read: {election.failure}"
        found |= {"known_from": known_from, "transitions": record.leader_transitions}
        found["renewed_at"] = record.renew_time.timestamp() if record.renew_time else None
        if not record.holder_identity:
            return found | {"known_from": f"{known_from}: nobody holds it now"}
        try:
            address = Multiaddr.parse(record.holder_identity)
        except FormatError:
            return found | {"host": record.holder_identity[:200]}
        tcp, peer_id = address.tcp, address.peer_id
        is_self = peer_id == self.router.local.peer_id
        return found | {"peer": str(peer_id or ""), "host": tcp[0] if tcp else "", "is_self": is_self}

    def peers(self) -> list[dict[str, Any]]:
        """The peers of the routing table."""
        router = self.router
        return [
            {
                "peer": str(peer.peer_id),
                "hosts": ", ".join(peer.hosts),
                "zone": router.zone_of(peer.peer_id) or peer.zone,
            }
            for peer in router.peers()
        ]

    def kept_out(self) -> list[dict[str, Any]]:
        """Who was kept out of the region, the last one first."""
        return [asdict(kept) for kept in reversed(self.border.record.kept_out.values())]

    def transfers(self) -> list[dict[str, Any]]:
        """The downloads that this node shares while they grow: those of its runtime, and those that it follows.

        `image` is that of a request for the same content, "" where none is remembered.
        """
        found = self.registry.inflight.transfers() if self.registry.inflight else []
        if not found:
            return found
        images = {one.key: one.image for one in reversed(self.registry.recent.since(0))}
        images |= {one["key"]: one["image"] for one in self.in_flight()}
        return [{**one, "image": images.get(one["key"], "")} for one in found]

    def in_flight(self) -> list[dict[str, Any]]:
        """The bodies that are being sent now: to this node's containerd (`getting` from a peer, `reading` from the
        store), and to peers (`serving`). `offset` and `total` are bytes of the content.
        """
        now = asyncio.get_running_loop().time()
        shown = (_in_flight(record, now) for record in list(self.registry.recorder.open_records.values()))
        return list(islice((one for one in shown if one is not None), IN_FLIGHT_MAX))

    @property
    def _leased(self) -> LeaseBootstrapper | None:
        return self.bootstrapper if isinstance(self.bootstrapper, LeaseBootstrapper) else None


def _in_flight(record: Record, now: float) -> dict[str, Any] | None:
    asked = record.asked
    if asked is None or record.method != "GET" or record.source is None or record.length is None:
        return None
    if asked.from_peer:
        role, peer = "serving", record.place.host
    else:
        role = "reading" if record.source is Origin.STORE else "getting"
        peer = str(record.notes.peer or "")
    start = byte_range.first_byte(asked.range_header)
    return {
        "key": asked.content.key,
        "image": asked.content.image,
        "role": role,
        "peer": peer,
        "offset": start + record.sent,
        "total": start + record.length,
        "seconds": round(now - record.started, 3),
    }
