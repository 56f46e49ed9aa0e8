"""Where an address is, as seen from this node: whose share it counts against.

Whoever has one address has its whole prefix where prefixes are handed out (a /24 of IPv4, a /64 of IPv6), so strangers
are counted by prefix. In the subnet of this node itself (pods of one cluster) each address is one node's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from speil.multiformats.network import IPAddress, Network, ip_of, network_around, prefix_of

__all__ = ["IPAddress", "Neighbourhood", "Network", "ip_of"]

OWN_BITS = {4: 16, 6: 64}  # a cluster's pod networks are /16 or smaller, a node's share of one a /24
MEMBERS_MAX = 4096  # addresses of proven members that are remembered


class Neighbourhood:
    """Tells one's own subnet and proven members from strangers."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        """`networks`: of the region, where the operator has told them."""
        self._networks = tuple(networks)
        self._own = self._networks
        self._members: OrderedDict[str, None] = OrderedDict()
        self.has_loopback = False

    def set_own(self, hosts: Iterable[str]) -> None:
        """The addresses where this node listens."""
        found = [ip for host in hosts if (ip := ip_of(host))]
        around = (network_around(ip, OWN_BITS) for ip in found)
        self._own = (*self._networks, *around)
        self.has_loopback = any(ip.is_loopback for ip in found)

    def add_member(self, host: str) -> None:
        """A node at `host` proved to be a member: by the region's secret, or since the bootstrap names it."""
        self._members[host] = None
        self._members.move_to_end(host)
        if len(self._members) > MEMBERS_MAX:
            self._members.popitem(last=False)

    def is_near(self, host: str) -> bool:
        """Whether places are reserved for it: it is in one's own subnet or a member's."""
        if host in self._members:
            return True
        ip = ip_of(host)
        return ip is not None and (
            (self.has_loopback and ip.is_loopback) or any(ip in network for network in self._own)
        )

    def share_of(self, host: str) -> str:
        """Whose share a connection from `host` counts against: the address where it is near, else its prefix."""
        return host if self.is_near(host) else prefix_of(host)
