"""Where an address is, as seen from this node: whose share it counts against.

Whoever has one address has its whole prefix where prefixes are handed out (a /24 of IPv4, a /64 of IPv6), so strangers
are counted by prefix. In the subnet of this node itself (pods of one cluster) each address is one node's.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PREFIX_BITS = {4: 24, 6: 64}
OWN_BITS = {4: 16, 6: 64}  # a cluster's pod networks are /16 or smaller, a node's share of one a /24
MEMBERS_MAX = 4096  # addresses of proven members that are remembered


@lru_cache(maxsize=2048)  # an address comes again with each of its connections
def ip_of(host: str) -> IPAddress | None:
    """The address that a packet to `host` reaches; None for a name. An IPv4 address inside IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return _embedded(found) or found
    return found


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


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
        around = (ipaddress.ip_network((ip, OWN_BITS[ip.version]), strict=False) for ip in found)
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
        ip = ip_of(host)
        if ip is None or self.is_near(host):
            return host
        return str(ipaddress.ip_network((ip, PREFIX_BITS[ip.version]), strict=False))
