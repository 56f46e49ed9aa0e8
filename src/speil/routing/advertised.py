"""What peers advertise with identify: zone, topology label, and whether they understand claims.

It is kept for peers that left, too: in a large region few providers are connected.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable

from speil.multiformats.peer_id import PeerId
from speil.region.policy import label_said, zone_said

PEERS_MAX = 5000  # of each kind; the one that was met longest ago is dropped


class Advertised:
    """The peers of one node."""

    def __init__(self, claims_protocol: str) -> None:
        """`claims_protocol` is listed by peers that understand claims."""
        self._claims_protocol = claims_protocol
        self._zones: OrderedDict[PeerId, str] = OrderedDict()
        self._labels: OrderedDict[PeerId, str] = OrderedDict()
        self._with_claims: OrderedDict[PeerId, str] = OrderedDict()
        self._labels_known = Counter[str]()

    def __contains__(self, peer_id: PeerId) -> bool:
        """Whether a peer of this mesh was met."""
        return peer_id in self._zones

    def learn(self, peer_id: PeerId, protocols: Collection[str]) -> None:
        """A peer of this mesh was identified."""
        _keep(self._zones, peer_id, zone_said(protocols))
        if self._claims_protocol in protocols:
            _keep(self._with_claims, peer_id, "")
        else:
            self._with_claims.pop(peer_id, None)

    def learn_label(self, peer_id: PeerId, protocols: Iterable[str]) -> str:
        """The topology label that a peer advertises, "" for none; it is remembered."""
        if before := self._labels.pop(peer_id, ""):
            self._count_label(before, -1)
        if label := label_said(protocols):
            self._count_label(label, 1)
            if dropped := _keep(self._labels, peer_id, label):
                self._count_label(dropped, -1)
        return label

    def zone_of(self, peer_id: PeerId) -> str:
        """The zone of a peer; "" where it advertised none or was never met."""
        return self._zones.get(peer_id, "")

    def label_of(self, peer_id: PeerId) -> str:
        """The topology label of a peer; "" where it advertised none or was never met."""
        return self._labels.get(peer_id, "")

    def understands_claims(self, peer_id: PeerId) -> bool:
        """Whether a peer advertised that it understands claims."""
        return peer_id in self._with_claims

    def foreign_to(self, label: str) -> Collection[PeerId]:
        """The peers that have another label than `label`; none where `label` is ""."""
        if not label or not self._labels_known.keys() - {label}:
            return ()
        return {peer_id for peer_id, other in self._labels.items() if other != label}

    def _count_label(self, label: str, step: int) -> None:
        self._labels_known[label] += step
        if not self._labels_known[label]:
            del self._labels_known[label]


def _keep(known: OrderedDict[PeerId, str], peer_id: PeerId, value: str) -> str:
    """Remember a value; returns the one that was dropped for it, or ""."""
    known[peer_id] = value
    known.move_to_end(peer_id)
    return known.popitem(last=False)[1] if len(known) > PEERS_MAX else ""
