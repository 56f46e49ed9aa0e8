"""libp2p's door: who may be dialled, who may come in, and who may stay when it has said where it belongs."""

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
        """An address outside the region's networks is never dialled."""
        return self._outside(address, "an address to dial is")

    def intercept_accept(self, remote: Multiaddr) -> str | None:
        """Nor is anybody there let in."""
        return self._outside(remote, "it came from")

    def intercept_secured(self, peer_id: PeerId, *, inbound: bool) -> str | None:
        """An id alone says nothing about a region."""
        return None

    def intercept_identified(self, peer_id: PeerId, protocols: frozenset[str], agent_version: str) -> str | None:
        """A peer that says another region or topology label, or no region where all say one, has to go."""
        region, label = region_said(protocols), label_said(protocols)
        if not self._policy.admits(region):
            says = f"it says region {region}" if region else "it says no region"
            self._record.rejected(Layer.IDENTIFY, str(peer_id), f"{says} ({agent_version or 'no agent version'})")
        elif not self._policy.shares(label):
            self._record.other_label(Layer.IDENTIFY, str(peer_id), label, self._policy.label)
        else:
            return None
        return Layer.IDENTIFY.value

    def handshake_failed(self, remote: Multiaddr, reason: str) -> None:
        """A handshake that failed for want of the secret."""
        why = "its region secret is another" if reason == "wrong_secret" else "it has no region secret"
        self._record.rejected(Layer.SECRET, remote.components[0][1], why)

    def _outside(self, address: Multiaddr, what: str) -> str | None:
        host = address.components[0][1]
        if self._policy.covers(host):
            return None
        self._record.rejected(Layer.NETWORK, host, f"{what} outside --region-networks")
        return Layer.NETWORK.value
