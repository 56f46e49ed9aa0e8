"""libp2p's connection gate: only peers of this region's networks, region and topology label are connected."""

from __future__ import annotations

from speil.border.record import BorderRecord
from speil.multiformats.multiaddr import Multiaddr
from speil.multiformats.peer_id import PeerId
from speil.region.policy import Layer, Policy, label_said, region_said


class RegionGate:
    """See `libp2p.transport.ConnectionGate`."""

    def __init__(self, policy: Policy, record: BorderRecord) -> None:
        self._policy, self._record = policy, record

    def intercept_dial(self, address: Multiaddr) -> str | None:
        """Refuse addresses outside the region's networks."""
        return self._outside(address, "an address to dial is")

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """Refuse connections from outside the region's networks."""
        return self._outside(remote, "it came from")

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """Refuse nobody: a peer id says nothing about a region."""
        return None

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """Refuse peers that advertise another region or topology label, or no region where this one requires it."""
        region, label = region_said(protocols), label_said(protocols)
        if not self._policy.admits(region):
            what = f"it advertises region {region}" if region else "it advertises no region"
            self._record.rejected(Layer.IDENTIFY, str(peer_id), f"{what} ({agent_version or 'no agent version'})")
        elif not self._policy.shares(label):
            self._record.other_label(Layer.IDENTIFY, str(peer_id), label, self._policy.label)
        else:
            return None
        return Layer.IDENTIFY.value

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """Count a handshake that failed because the secrets differ."""
        why = "it has another region secret" if reason == "wrong_secret" else "it has no region secret"
        self._record.rejected(Layer.SECRET, remote.host, why)

    def _outside(self, address: Multiaddr, what: str) -> str | None:
        host = address.host
        if self._policy.covers(host):
            return None
        self._record.rejected(Layer.NETWORK, host, f"{what} outside --region-networks")
        return Layer.NETWORK.value
