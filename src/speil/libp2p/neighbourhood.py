"""Which addresses are near this node, and which share an address counts against.

Where prefixes are assigned (a /24 of IPv4, a /64 of IPv6), one owner has the whole prefix. So strangers
are counted by prefix. In this node's own subnet (pods of one cluster) each address is one node, and counts alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from speil.multiformats.network import Network, ip_of, network_around, prefix_of

OWN_BITS = {4: 16, 6: 64}  # the pod networks of a cluster are /16 or smaller, the part of a node a /24
MEMBERS_MAX = 4096  # addresses of proven members that are remembered


class Neighbourhood:
    """Distinguishes this node's subnet and proven members from strangers."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        """`networks` of the region; empty where the operator has not set them."""
        self._networks = tuple(networks)
        self._own = self._networks
        self._members: OrderedDict[str, None] = OrderedDict()
        self.has_loopback = False

    def set_own(self, hosts: Iterable[str]) -> None:
        """Set the addresses where this node listens."""
        found = [ip for host in hosts if (ip := ip_of(host))]
        around = (network_around(ip, OWN_BITS) for ip in found)
        self._own = (*self._networks, *around)
        self.has_loopback = any(ip.is_loopback for ip in found)

    def add_member(self, host: str) -> None:
        """Remember `host` as a member: it proved the region's secret, or the bootstrap named it."""
        self._members[host] = None
        self._members.move_to_end(host)
        if len(self._members) > MEMBERS_MAX:
            self._members.popitem(last=False)

    def is_near(self, host: str) -> bool:
        """Whether `host` is in this node's subnet or a member, for which places are reserved."""
        if host in self._members:
            return True
        ip = ip_of(host)
        return ip is not None and (
            (self.has_loopback and ip.is_loopback) or any(ip in network for network in self._own)
        )

    def share_of(self, host: str) -> str:
        """The share that `host` counts against: the address itself where it is near, else its prefix."""
        return host if self.is_near(host) else prefix_of(host)
