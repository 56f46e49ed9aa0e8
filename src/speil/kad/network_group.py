"""Which network a peer counts against: the one that its packets come from.

Identities cost nothing, and addresses in a message are only claims. An address that receives packets costs something,
and whoever has one has its neighbours too: a /24 of IPv4 (a node's pods, a rack), a /48 of IPv6 (a site). Within such a
subnet each address (a /64 of IPv6) has a share, and within an address each identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from speil.multiformats.network import ip_of, network_around, prefix_of
from speil.multiformats.peer_id import PeerId

SUBNET_BITS = {4: 24, 6: 48}
ADDRESS_BITS = {4: 32, 6: 64}
OWN_BITS = {4: 16, 6: 48}  # a cluster's pod network is a /16 or smaller, a node's part of it a /24


@lru_cache(maxsize=4096)  # the same address is used for each message of a peer
def subnet_of(host: str) -> str:
    """The subnet of an address as text; a name is returned as it is."""
    return prefix_of(host, SUBNET_BITS)


@lru_cache(maxsize=4096)
def address_of(host: str) -> str:
    """The address, or the /64 of an IPv6 address, as text; a name is returned as it is."""
    return prefix_of(host, ADDRESS_BITS)


class OwnNetwork:
    """The networks of this node's own addresses."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        found = [ip for host in hosts if (ip := ip_of(host))]
        self._networks = [network_around(ip, OWN_BITS) for ip in found]
        self._addresses = frozenset(address_of(str(ip)) for ip in found)

    def is_own_address(self, host: str) -> bool:
        """Whether it is an address of this node. Other nodes there run on the same machine."""
        return address_of(host) in self._addresses

    def share_of(self, host: str, peer_id: PeerId) -> str:
        """What a peer counts against: its subnet, in this node's network its address, on this machine its identity."""
        if not host or self.is_own_address(host):
            return peer_id.multihash.hex()
        return address_of(host) if self.covers(host) else subnet_of(host)

    def covers(self, host: str) -> bool:
        """Whether it is in this node's own network, as other nodes of its cluster are."""
        return (ip := ip_of(host)) is not None and any(ip in network for network in self._networks)
