"""The Leases and nodes of regions at one moment. `survey` reads them, `verify` judges them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speil.election.record import Lease


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A region's Lease: its name and what was read; `error` where it could not be read."""

    name: str  # namespace/name, or a file's path
    lease: Lease | None = None
    error: str = ""
    asked_for: str = ""  # the region in whose name it was looked up; "" where it was found otherwise

    @property
    def holder_peer_id(self) -> str:
        """The peer id at the end of the holder's address; "" where there is none."""
        _, found, peer_id = (self.lease.record.holder_identity if self.lease else "").rpartition("/p2p/")
        return peer_id if found else ""

    @property
    def region(self) -> str:
        """The region that the Lease's annotation names; without one, the region it was looked up for."""
        said = self.lease.record.region if self.lease else None
        return self.asked_for if said is None else said


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counters since a node's start, of one registry or of all; bytes are those of bodies."""

    hits: int = 0
    misses: int = 0
    own_bytes: int = 0  # served to this node's containerd from its own store
    peer_bytes: int = 0  # served to this node's containerd from peers
    upstream_bytes: int = 0  # that came into the store without speil
    sent_bytes: int = 0  # to peers

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.hits + other.hits,
            self.misses + other.misses,
            self.own_bytes + other.own_bytes,
            self.peer_bytes + other.peer_bytes,
            self.upstream_bytes + other.upstream_bytes,
            self.sent_bytes + other.sent_bytes,
        )

    @property
    def hit_ratio(self) -> float | None:
        """The share that peers answered, of requests that the own store could not; None: no such request."""
        return self.hits / total if (total := self.hits + self.misses) else None

    @property
    def byte_ratio(self) -> float | None:
        """The share that came from peers, of all bytes that came into the nodes; None: no bytes."""
        return self.peer_bytes / total if (total := self.peer_bytes + self.upstream_bytes) else None


@dataclass(frozen=True, slots=True)
class FromPeer:
    """Bytes that a peer has sent to a node: while the node remembers the peer, and in the last minute."""

    total: int = 0
    minute: int = 0


@dataclass(frozen=True, slots=True)
class InFlight:
    """A body that is being sent or downloaded. `role`: getting, following (from `peer`), fetching (from the upstream),
    serving (to `peer`), reading (from the own store). `peer` is a peer id or an address. `total` is 0 for unknown.
    """

    key: str
    role: str
    peer: str
    offset: int
    total: int
    image: str = ""


@dataclass(frozen=True, slots=True)
class KeptOut:
    """One node that was kept out, as the node that did so recorded it; `time` is in Unix seconds."""

    layer: str
    who: str
    why: str
    what_to_do: str
    count: int
    time: float


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node's own account of itself. With an `error` only its name is known."""

    name: str
    region: str = ""
    zone: str = ""
    lease: str = ""  # the Lease in whose election it takes part
    label: str | None = None  # its topology label where that counts, "" where not; None: its version does not report it
    region_source: str = ""  # one of identity's FROM_… words
    is_guarded: bool = False  # it has the region's secret, or knows the region's networks
    lease_is_foreign: bool = False  # its Lease is another region's
    peer_id: str = ""
    ready: bool = False
    leads: bool = False
    elects: bool = True  # takes part in an election: not where it finds its peers by dns, http or static
    peers: tuple[str, ...] = ()  # peer ids of its routing table
    started_at: float = 0.0
    traffic: Mapping[str, Traffic] = field(default_factory=dict)  # by registry
    rejected: Mapping[str, int] = field(default_factory=dict)  # by layer, those that are not zero
    from_peers: Mapping[str, FromPeer] = field(default_factory=dict)  # by peer id
    in_flight: tuple[InFlight, ...] = ()
    kept_out: tuple[KeptOut, ...] = ()
    hosts: tuple[str, ...] = ()  # its addresses
    error: str = ""
    pending: str = ""  # why its pod has not started yet; then only its name and region are known

    @property
    def total(self) -> Traffic:
        """The sum over all registries."""
        return sum(self.traffic.values(), Traffic())


@dataclass(frozen=True, slots=True)
class RegionView:
    """A region with its Leases (more than one is a mistake) and its nodes."""

    region: str
    leases: tuple[LeaseView, ...]
    nodes: tuple[NodeView, ...]
    pending: tuple[NodeView, ...] = ()  # not among `nodes`

    @property
    def total(self) -> Traffic:
        """The sum over all nodes."""
        return sum((node.total for node in self.nodes), Traffic())

    @property
    def labels(self) -> list[str]:
        """The different topology labels of its nodes, sorted."""
        return sorted({node.label for node in self.nodes if node.label})

    @property
    def rejected(self) -> int:
        """How many attempts of other regions its nodes have rejected."""
        return sum(sum(node.rejected.values()) for node in self.nodes)


def group(leases: Iterable[LeaseView], nodes: Iterable[NodeView], wanted: Iterable[str] = ()) -> list[RegionView]:
    """Leases and nodes by region, sorted by name; with `wanted`, those regions in that order.

    Nodes that could not be read are in the region "?".
    """
    leases, nodes, chosen = list(leases), list(nodes), list(wanted)
    names = chosen or sorted({lease.region for lease in leases} | {_region(node) for node in nodes})
    return [
        RegionView(
            name,
            tuple(lease for lease in leases if lease.region == name),
            tuple(node for node in nodes if _region(node) == name and not node.pending),
            tuple(node for node in nodes if _region(node) == name and node.pending),
        )
        for name in names
    ]


def _region(node: NodeView) -> str:
    return "?" if node.error else node.region
